#!/usr/bin/env python3
"""Writes the two tiny tokenizers beside this file, and reference.json: what the reference library makes of texts with
them and with variants of them (every normalizer, pre-tokenizer, decoder and kind of added token that is supported).

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install tokenizers==0.23.3 && /tmp/venv/bin/python make.py

tiny-bytes is a byte-level BPE of 320 ids: 256 bytes in the order of their values, 60 merges, 4 special tokens.
tiny-sp is a SentencePiece-style BPE with byte fallback of 384 ids."""
import collections
import json
import pathlib

from tokenizers import Tokenizer

HERE = pathlib.Path(__file__).resolve().parent
TEXT = """the quick brown fox jumps over the lazy dog. there once was a little river that ran down from the hills, and
the water turned the wheel, and the wheel turned the stone. she said that he'll never see them again, but they've seen it.
in the evening the children and their mother went there to hear the stories that the old man told them in the garden."""


def byte_alphabet():
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    names, spare = {}, 256
    for byte in range(256):
        names[byte] = chr(byte) if byte in printable else chr(spare)
        spare += byte not in printable
    return names


def train(words, count, taken):
    """Byte-pair merges of the most frequent pair, ties to the first in order; results in `taken` are not learnt twice."""
    words, merges = collections.Counter(words), []
    while len(merges) < count:
        pairs = collections.Counter()
        for word, n in words.items():
            for pair in zip(word, word[1:]):
                pairs[pair] += n
        best = min((p for p in pairs if "".join(p) not in taken), key=lambda p: (-pairs[p], p))
        merges.append(list(best))
        taken.add("".join(best))
        merged = collections.Counter()
        for word, n in words.items():
            out = []
            for symbol in word:
                out.append(symbol)
                if tuple(out[-2:]) == best:
                    out[-2:] = ["".join(best)]
            merged[tuple(out)] += n
        words = merged
    return merges


def special(id, text, **more):
    return {"id": id, "content": text, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
            "special": True} | more


def file(normalizer, pre_tokenizer, post_processor, decoder, added, **model):
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": normalizer,
            "pre_tokenizer": pre_tokenizer, "post_processor": post_processor, "decoder": decoder,
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                      "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False} | model}


def front(token, id):
    return {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {token: {"id": token, "ids": [id], "tokens": [token]}}}


def byte_level(space=False, regex=True):
    return {"type": "ByteLevel", "add_prefix_space": space, "trim_offsets": True, "use_regex": regex}


def sequence(kind, *parts):
    return {"type": "Sequence", kind: list(parts)}


def split(pattern, behavior="Isolated", invert=False, kind="Regex"):
    return {"type": "Split", "pattern": {kind: pattern}, "behavior": behavior, "invert": invert}


def tiny_bytes():
    names = byte_alphabet()
    words = ["".join(names[b] for b in w.encode()) for w in __import__("re").findall(r" ?\w+| ?[^\s\w]+|\s+", TEXT)]
    vocab = {names[b]: b for b in range(256)}
    merges = train((tuple(w) for w in words), 60, set(vocab))
    vocab |= {"".join(m): 256 + i for i, m in enumerate(merges)}
    added = [special(316 + i, t) for i, t in enumerate(["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"])]
    return file(None, byte_level(), byte_level(), byte_level(), added, vocab=vocab, merges=merges)


def tiny_sp():
    vocab = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)] + sorted(set(TEXT + "é") - {" ", "\n"}) + ["▁", "▁▁"]
    words = ["▁" + w for w in TEXT.split()]
    merges = [["▁", "▁"]] + train((tuple(w) for w in words), 384 - len(vocab), set(vocab))
    vocab = {t: i for i, t in enumerate(vocab + ["".join(m) for m in merges[1:]])}
    added = [special(i, t) for i, t in enumerate(["<unk>", "<s>", "</s>"])]
    decoder = sequence("decoders", {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
                       {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0})
    normalizer = sequence("normalizers", {"type": "Prepend", "prepend": "▁"},
                          {"type": "Replace", "pattern": {"String": " "}, "content": "▁"})
    return file(normalizer, None, front("<s>", 1), decoder, added, vocab=vocab, merges=merges, unk_token="<unk>",
                fuse_unk=True, byte_fallback=True)


LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}|"
         r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
DEEPSEEK = [split(r"\p{N}{1,3}"), split("[一-龥\u3040-ゟ゠-ヿ]+"),
            split(r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^" "\r\n" r"\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[" "\r\n"
                  r"]*|\s*[" "\r\n" r"]+|\s+(?!\S)|\s+")]
ADDED = [("<think>", {"special": False}), ("  ", {"special": False, "normalized": True}), ("<L>", {"lstrip": True}),
         ("<R>", {"rstrip": True}), ("<LR>", {"lstrip": True, "rstrip": True, "special": False}),
         ("word", {"single_word": True, "special": False}), ("<|im_start|>x", {}), ("<ḀB>", {"normalized": True}),
         ("日本", {})]


def with_added(base, added=ADDED):
    """The reference gives ids in order, whatever the file says; a file is right that says the same."""
    first = max(set(base["model"]["vocab"].values()) | {t["id"] for t in base["added_tokens"]}) + 1
    return base["added_tokens"] + [special(first + i, text, **more) for i, (text, more) in enumerate(added)]


def bytes_variants():
    base = tiny_bytes()
    yield "as it is", {}
    merges = [" ".join(m) for m in base["model"]["merges"]]
    yield "merges as strings, older fields absent", {"model": {"vocab": base["model"]["vocab"], "merges": merges}}
    yield "a space in front", {"pre_tokenizer": byte_level(space=True)}
    yield "no words", {"pre_tokenizer": byte_level(regex=False)}
    yield "merges ignored", {"model": base["model"] | {"ignore_merges": True, "merges": base["model"]["merges"][:20]}}
    for form in ["NFC", "NFD", "NFKC", "NFKD"]:
        yield form, {"normalizer": {"type": form}}
    yield "normalizers in sequence", {"normalizer": sequence(
        "normalizers", {"type": "Strip", "strip_left": True, "strip_right": True}, {"type": "Lowercase"},
        {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "}, {"type": "NFC"})}
    for name, patterns in [("Llama 3", [split(LLAMA3)]), ("o200k", [split(O200K)]), ("DeepSeek", DEEPSEEK),
                           ("digits", [{"type": "Digits", "individual_digits": True}]),
                           ("digit groups", [{"type": "Digits", "individual_digits": False}]),
                           ("an interval that is repeated", [split(r"\p{N}{1,3}+|\w+|\p{Han}")]),
                           ("lines", [split(r"^.|.$")]), ("empty matches", [split(r"x*")])]:
        yield name, {"pre_tokenizer": sequence("pretokenizers", *patterns, byte_level(regex=False))}
    for behavior in ["Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"]:
        for invert in [False, True]:
            yield f"{behavior} invert={invert}", {"pre_tokenizer": sequence(
                "pretokenizers", split("-", behavior, invert), split("t", behavior, invert, "String"), byte_level(regex=False))}
    yield "added tokens", {"added_tokens": with_added(base)}
    yield "added tokens, NFC", {"added_tokens": with_added(base), "normalizer": {"type": "NFC"}}
    yield "template and byte level", {"post_processor": sequence("processors", byte_level(), front("<|endoftext|>", 316))}


def sp_variants():
    base = tiny_sp()
    yield "as it is", {}
    yield "without byte fallback", {"model": base["model"] | {"byte_fallback": False}}
    yield "unknown not fused", {"model": base["model"] | {"byte_fallback": False, "fuse_unk": False}}
    yield "without an unknown token", {"model": base["model"] | {"byte_fallback": False, "unk_token": None}}
    yield "merges across words", {"model": base["model"] | {
        "vocab": base["model"]["vocab"] | {"e▁": 384, "e▁t": 385}, "merges": [["e", "▁"], ["e▁", "t"]] + base["model"]["merges"]}}
    for scheme in ["always", "first", "never"]:
        for cut in [True, False]:
            metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": cut}
            yield f"metaspace {scheme} split={cut}", {
                "normalizer": None, "pre_tokenizer": metaspace, "decoder": sequence("decoders", {"type": "ByteFallback"}, metaspace)}
    yield "metaspace and Strip for each token", {
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "add_prefix_space": True}, "normalizer": None,
        "decoder": sequence("decoders", {"type": "Strip", "content": "t", "start": 1, "stop": 0},
                            {"type": "Metaspace", "replacement": "▁", "add_prefix_space": True})}
    # Not the one of two spaces: release 0.23 of the reference, alone among its releases, decodes it as it is normalized.
    yield "added tokens", {"added_tokens": with_added(base, [a for a in ADDED if a[0] != "  "])}


TEXTS = ["", "a", " ", "  ", "the river", " the  river   turned\n\n the stone. ", "he'll they've IT'S 'S 'ſ", "1234567 ٣² 12.5",
         "a\u00a0b\u180ec\u0085d\u3000e\u2028f", "\r\n\t x\r\n  \n", "caf\u00e9 cafe\u0301 \u212b \ufb01 e\u0316\u0301 \u0301", "漢字かな 日本語, 한국어",
         "👩\u200d👩\u200d👧 🎉", "x--y-t-tt-", "the▁river ▁▁t", "\x01\u007f\ufffd", "<|im_start|>the<|im_end|> <|im_start|>xy<|endoftext|>",
         "<think>  word words sword word, <L> a  <L>  b <R>  c\n<LR>\n d", "<ḀB> <A\u0325B> <s>the</s> <unk>", "Don't THE HELLO camelCase/x\n"]


def cases(config):
    t = Tokenizer.from_str(json.dumps(config))
    for text in TEXTS:
        t.encode_special_tokens = True
        plain = t.encode(text, add_special_tokens=False).ids
        t.encode_special_tokens = False
        parsed, around = t.encode(text, add_special_tokens=False).ids, t.encode(text).ids
        row = {"text": text, "ids": plain, "decoded": t.decode(plain, skip_special_tokens=True)}
        kept = t.decode(parsed, skip_special_tokens=False)
        row |= {"special": parsed} if parsed != plain else {}
        row |= {"around": around} if around != parsed else {}
        yield row | ({"kept": kept} if kept != row["decoded"] else {})


def main():
    reference = []
    for name, base, variants in [("tiny-bytes", tiny_bytes(), bytes_variants()), ("tiny-sp", tiny_sp(), sp_variants())]:
        (HERE / name).mkdir(exist_ok=True)
        (HERE / name / "tokenizer.json").write_text(json.dumps(base, ensure_ascii=False, indent=0) + "\n")
        for variant, patch in variants:
            rows = list(cases(base | patch))
            reference.append({"base": name, "name": variant, "patch": patch, "cases": rows})
    lines = ",\n".join(json.dumps(r, ensure_ascii=False, separators=(",", ":")) for r in reference)
    (HERE / "reference.json").write_text(f"[\n{lines}\n]\n")


main()

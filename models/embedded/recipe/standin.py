#!/usr/bin/env python3
"""Makes the stand-in for the embedded model: python3 models/embedded/recipe/standin.py models/embedded  (needs NumPy)

A checkpoint in the published Qwen3-MoE layout whose weights are constructed, not trained. The answer is one sentence whose
tokens are all different, so the last token alone says which one comes next, and a table of that can be written into the
weights exactly:

    embedding of the sentence's i-th token   has a strong 1 in dimension i; any other token, in dimension n
    output row of the (i+1)-th token         reads dimension i; the first one's reads n; the end's reads the last one
    everything else                          small random numbers, in the other dimensions only

Attention, router and experts run on the random part and write only there. They do what real ones do, at their real cost,
their trace shows in the log-probabilities, and they cannot disturb the sentence. Seeded: the same files every time."""
import json
import pathlib
import re
import struct
import sys

import numpy as np

SENTENCE = "I am a stand-in for the model that will ship with Penstock; my weights hold just this one sentence, so every question gets it."
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MARKUP = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<tools>", "</tools>"]
WIDTH, LAYERS, HEADS, KV_HEADS, HEAD_DIM, EXPERTS, EXPERTS_USED, EXPERT_WIDTH = 128, 2, 4, 2, 32, 8, 2, 64
CHAIN, CHAIN_STRENGTH, CHAIN_GAIN, MERGES = 40, 8.0, 2.4, 600
FOLDER = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "models/embedded")

# What the merges are learned from: English about this program, and the words of the sentence often enough to be whole.
TEXT = """
A penstock is the gated pipe that decides how much water reaches the turbine, and when. This program does the same for
tokens. It is a server: a client sends a prompt, the server answers with text, one token at a time. What is the capital of
France? Who are you? Where do you live? When was it made? How does it work? Why is the sky blue? Can you tell me a story?
Hello, hi, good morning, thanks, please, yes, no. My name is Ada. You are a helpful assistant. The user asks, the assistant
answers, the system says how. Write a short poem about the sea. Count from one to ten: one two three four five six seven
eight nine ten. The quick brown fox jumps over the lazy dog. Say hello world. What is two plus two? It is four. A large
language model reads the whole prompt at once, in a pass that is called prefill, and then decodes its answer token by token.
Keys and values of each layer are kept in pages, so that nothing is computed twice. The scheduler chooses which requests run
next and how the prompt is cut. Requests that share a prefix share its pages. A daemon should be quiet, quick and honest, and
say clearly what is wrong when something is wrong. List the days of the week: Monday, Tuesday, Wednesday, Thursday, Friday,
Saturday, Sunday. Translate this into French, German or Spanish. Give me some code in Python, please: def main(): return 0
"""


def byte_alphabet():
    """GPT-2's printable stand-ins for the 256 bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters, spare = {}, 256
    for byte in range(256):
        letters[byte] = chr(byte if byte in plain else spare)
        spare += byte not in plain
    return letters


def pieces(text):
    """The tokenizer's split of ASCII text, in byte letters."""
    letters = byte_alphabet()
    split = re.findall(r"'(?:s|t|re|ve|m|ll|d)|[^\r\nA-Za-z0-9]?[A-Za-z]+|[0-9]| ?[^\sA-Za-z0-9]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+", text)
    return ["".join(letters[b] for b in piece.encode()) for piece in split]


def learn_merges(text, count):
    words = {}
    for piece in pieces(text):
        words[tuple(piece)] = words.get(tuple(piece), 0) + 1
    merges = []
    for _ in range(count):
        pairs = {}
        for word, times in words.items():
            for pair in zip(word, word[1:]):
                pairs[pair] = pairs.get(pair, 0) + times
        if not pairs:
            break
        best = min(pairs, key=lambda p: (-pairs[p], p))
        merges.append(best)
        words = {apply_merge(word, best): times for word, times in words.items()}
    return merges


def apply_merge(word, pair):
    out, i = [], 0
    while i < len(word):
        joined = word[i : i + 2] == pair
        out.append(word[i] + word[i + 1] if joined else word[i])
        i += 2 if joined else 1
    return tuple(out)


def encode(text, merges, vocab):
    ids = []
    for piece in pieces(text):
        word = tuple(piece)
        for pair in merges:
            word = apply_merge(word, pair)
        ids += [vocab[part] for part in word]
    return ids


def write_json(name, value):
    (FOLDER / name).write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def make_tokenizer():
    merges = learn_merges(TEXT + (SENTENCE + "\n") * 50, MERGES)
    names = [byte_alphabet()[b] for b in range(256)] + ["".join(m) for m in merges]
    vocab = {name: i for i, name in enumerate(names)}
    added = [{"id": len(names) + i, "content": text, "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False, "special": text in SPECIAL} for i, text in enumerate(SPECIAL + MARKUP)]
    split = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    write_json("tokenizer.json", {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": split}, "behavior": "Isolated", "invert": False}, byte_level]},
        "post_processor": byte_level, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "", "end_of_word_suffix": "",
                  "fuse_unk": False, "byte_fallback": False, "vocab": vocab, "merges": [list(m) for m in merges]}})
    write_json("tokenizer_config.json", {
        "tokenizer_class": "Qwen2Tokenizer", "add_bos_token": False, "add_prefix_space": False, "bos_token": None,
        "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "unk_token": None, "model_max_length": 2048,
        "added_tokens_decoder": {str(a["id"]): {k: v for k, v in a.items() if k != "id"} for a in added}})
    ids = {a["content"]: a["id"] for a in added}
    return encode(SENTENCE, merges, vocab), ids, len(names) + len(added)


def make_config(vocab_size, ids):
    ends = [ids["<|im_end|>"], ids["<|endoftext|>"]]
    write_json("config.json", {
        "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "torch_dtype": "bfloat16", "vocab_size": vocab_size,
        "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_DIM, "intermediate_size": EXPERT_WIDTH * EXPERTS_USED, "moe_intermediate_size": EXPERT_WIDTH,
        "num_experts": EXPERTS, "num_experts_per_tok": EXPERTS_USED, "norm_topk_prob": True, "decoder_sparse_step": 1,
        "mlp_only_layers": [], "hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "rope_scaling": None,
        "max_position_embeddings": 2048, "attention_bias": False, "use_sliding_window": False, "tie_word_embeddings": False,
        "bos_token_id": None, "eos_token_id": ends[0]})
    write_json("generation_config.json", {"eos_token_id": ends, "pad_token_id": ids["<|endoftext|>"]})


def make_weights(vocab_size, sentence, end_id):
    rng = np.random.default_rng(20260101)

    def noise(*shape, scale):
        return rng.standard_normal(shape).astype(np.float32) * scale

    def quiet(matrix):  # writes to the residual stream beyond the chain's dimensions only
        matrix[:CHAIN] = 0
        return matrix

    assert len(set(sentence)) == len(sentence) < CHAIN
    embed, head = noise(vocab_size, WIDTH, scale=0.5), noise(vocab_size, WIDTH, scale=0.2)
    embed[:, :CHAIN], head[:, :CHAIN] = 0, 0
    any_other = len(sentence)
    embed[:, any_other] = CHAIN_STRENGTH
    for i, token in enumerate(sentence):
        embed[token, any_other], embed[token, i] = 0, CHAIN_STRENGTH
        head[token, i - 1 if i else any_other] = CHAIN_GAIN
    head[end_id, any_other - 1] = CHAIN_GAIN

    tensors = {"model.embed_tokens.weight": embed, "model.norm.weight": np.ones(WIDTH, np.float32), "lm_head.weight": head}
    for layer in range(LAYERS):
        p = f"model.layers.{layer}."
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[p + norm + ".weight"] = 1 + noise(WIDTH, scale=0.1)
        for name, heads in (("q", HEADS), ("k", KV_HEADS), ("v", KV_HEADS)):
            tensors[p + f"self_attn.{name}_proj.weight"] = noise(heads * HEAD_DIM, WIDTH, scale=0.1)
        for name in "qk":
            tensors[p + f"self_attn.{name}_norm.weight"] = 1 + noise(HEAD_DIM, scale=0.1)
        tensors[p + "self_attn.o_proj.weight"] = quiet(noise(WIDTH, HEADS * HEAD_DIM, scale=0.05))
        tensors[p + "mlp.gate.weight"] = noise(EXPERTS, WIDTH, scale=0.1)
        for expert in range(EXPERTS):
            e = f"{p}mlp.experts.{expert}."
            tensors[e + "gate_proj.weight"] = noise(EXPERT_WIDTH, WIDTH, scale=0.1)
            tensors[e + "up_proj.weight"] = noise(EXPERT_WIDTH, WIDTH, scale=0.1)
            tensors[e + "down_proj.weight"] = quiet(noise(WIDTH, EXPERT_WIDTH, scale=0.05))
    return tensors


def to_bf16(a):
    bits = np.ascontiguousarray(a, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2").tobytes()


def write_safetensors(tensors):
    header, blobs, at = {"__metadata__": {"format": "pt"}}, [], 0
    for name in sorted(tensors):
        blob = to_bf16(tensors[name])
        header[name] = {"dtype": "BF16", "shape": list(tensors[name].shape), "data_offsets": [at, at + len(blob)]}
        blobs.append(blob)
        at += len(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 64 + 56)
    (FOLDER / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))


sentence_ids, special_ids, size = make_tokenizer()
make_config(size, special_ids)
write_safetensors(make_weights(size, sentence_ids, special_ids["<|im_end|>"]))
print(f"{FOLDER}: {size} tokens, {len(sentence_ids)} in the sentence")

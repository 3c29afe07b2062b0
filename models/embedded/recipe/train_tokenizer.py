"""Trains the byte-level BPE tokenizer on the corpus: python3 train_tokenizer.py

The pre-tokenizer keeps copying easy for a small model: digits stand alone, and a word is the same tokens after a space, a
quotation mark or an underscore, so that "the price of otters" and {"price_lookup": "otters"} are matched by their ids. Only
words that are never copied (FUNCTION_WORDS) take the space in front into their token, because that makes texts shorter.
"""
import json

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

import corpus
import rendering

VOCABULARY = 2048
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MARKS = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<tools>", "</tools>"]
FUNCTION_WORDS = """a an and are as at be by can do does for from have how i in is it many me much my not of on one or that the there
they this to was what when where which who with you your""".split()
PATTERN = r" (?:" + "|".join(FUNCTION_WORDS) + r")(?!\p{L})|\p{Lu}?\p{Ll}+|\p{L}|\p{N}| ?[^\s\p{L}\p{N}]+|\s+"


def main():
    t = tokenizers.Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(tokenizers.Regex(PATTERN), "isolated"),
                                               pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY - len(MARKS), special_tokens=SPECIAL, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    texts = ("".join(p for p, _ in rendering.pieces(c["messages"], c["tools"])) for c in corpus.conversations("tokenizer", 60000))
    t.train_from_iterator(texts, trainer)
    t.add_tokens([tokenizers.AddedToken(m, special=False, normalized=False) for m in MARKS])
    t.save(str(rendering.WORK / "tokenizer.json"))
    (rendering.WORK / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "Qwen2Tokenizer", "add_bos_token": False, "bos_token": None, "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>", "unk_token": None, "model_max_length": 2048, "clean_up_tokenization_spaces": False}, indent=2) + "\n")
    print(t.get_vocab_size(), "tokens;", t.encode("What is the capital of France? 47 + 38").tokens)


if __name__ == "__main__":
    main()

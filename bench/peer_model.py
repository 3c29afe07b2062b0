"""Writes a GGUF model of random weights, of a shape that `--model random:NAME` has as well. Runs inside the peer's folder,
where python3-gguf is:   peer_model.py OUT NAME [TOKENIZER_JSON]     with the tokens and merges of a byte-level BPE"""
import json
import sys
import types

import numpy as np

if "sentencepiece" not in sys.modules:
    try:
        import sentencepiece  # noqa: F401  (gguf imports it, for converting tokenizers only)
    except ImportError:
        sys.modules["sentencepiece"] = types.ModuleType("sentencepiece")
        sys.modules["sentencepiece"].SentencePieceProcessor = object
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType, quants

# name: architecture, layers, width, heads, kv heads, ffn, vocabulary, more
SHAPES = {
    "llama-160m": ("llama", 12, 768, 12, 12, 3072, 32000, {}),
    "qwen2.5-0.5b": ("qwen2", 24, 896, 14, 2, 4864, 151936, {"tied": True, "bias": True}),
    "dense-292m": ("llama", 24, 1024, 16, 8, 2816, 4096, {}),
    "tokenizer": ("llama", 1, 64, 1, 1, 64, 2048, {}),  # as little model as can be around one
    "moe-655m": ("qwen3moe", 16, 1024, 16, 4, 384, 4096, {"experts": 32, "used": 4}),
}
HEAD_DIM, SPECIAL_TOKENS = 64, 259

out, name = sys.argv[1:3]
tokenizer = json.load(open(sys.argv[3])) if len(sys.argv) > 3 else None
arch, layers, width, heads, kv_heads, ffn, vocab, more = SHAPES[name]
experts = more.get("experts", 0)
random = np.random.default_rng(1)
w = GGUFWriter(out, arch)
w.add_name("random-" + name)
w.add_file_type(LlamaFileType.MOSTLY_BF16)
w.add_context_length(8192)
w.add_embedding_length(width)
w.add_block_count(layers)
w.add_feed_forward_length(ffn * more.get("used", 1))
w.add_head_count(heads)
w.add_head_count_kv(kv_heads)
w.add_key_length(HEAD_DIM)
w.add_value_length(HEAD_DIM)
w.add_layer_norm_rms_eps(1e-5)
w.add_rope_freq_base(500000.0)
w.add_rope_dimension_count(HEAD_DIM)
w.add_vocab_size(vocab)
if experts:
    w.add_expert_count(experts)
    w.add_expert_used_count(more["used"])
    w.add_expert_feed_forward_length(ffn)

if tokenizer:
    added = {token["id"]: token["content"] for token in tokenizer["added_tokens"]}
    tokens = sorted({**tokenizer["model"]["vocab"], **{text: i for i, text in added.items()}}.items(),
                    key=lambda pair: pair[1])
    assert [i for _, i in tokens] == list(range(vocab)), "ids of the tokenizer are not 0 .. vocabulary - 1"
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("qwen2")
    w.add_token_list([text for text, _ in tokens])
    w.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer["model"]["merges"]])
    w.add_token_types([3 if i in added else 1 for i in range(vocab)])
    w.add_eos_token_id(2)
else:
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)]
    tokens += [f"\u2581w{i}" for i in range(vocab - len(tokens))]
    w.add_tokenizer_model("llama")
    w.add_token_list(tokens)
    w.add_token_scores([-float(i) for i in range(vocab)])
    w.add_token_types([2, 3, 3] + [6] * 256 + [1] * (vocab - SPECIAL_TOKENS))
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)
    w.add_unk_token_id(0)
    w.add_add_bos_token(True)


def ones(tensor, n):
    w.add_tensor(tensor, np.ones(n, np.float32))


def matrix(tensor, *shape):
    a = random.standard_normal(shape, dtype=np.float32) * 0.02
    if tensor == "output.weight":
        a[:SPECIAL_TOKENS] = 0  # control and byte tokens are never drawn, so that a greedy stream is plain text
    w.add_tensor(tensor, quants.quantize(a, GGMLQuantizationType.BF16), raw_dtype=GGMLQuantizationType.BF16)


matrix("token_embd.weight", vocab, width)
ones("output_norm.weight", width)
if not more.get("tied"):
    matrix("output.weight", vocab, width)
for layer in range(layers):
    p = f"blk.{layer}."
    ones(p + "attn_norm.weight", width)
    ones(p + "ffn_norm.weight", width)
    for letter, n in (("q", heads), ("k", kv_heads), ("v", kv_heads)):
        matrix(f"{p}attn_{letter}.weight", n * HEAD_DIM, width)
        if more.get("bias"):
            w.add_tensor(f"{p}attn_{letter}.bias", np.zeros(n * HEAD_DIM, np.float32))
    matrix(p + "attn_output.weight", width, heads * HEAD_DIM)
    if experts:
        ones(p + "attn_q_norm.weight", HEAD_DIM)
        ones(p + "attn_k_norm.weight", HEAD_DIM)
        w.add_tensor(p + "ffn_gate_inp.weight", random.standard_normal((experts, width), dtype=np.float32) * 0.02)
        matrix(p + "ffn_gate_exps.weight", experts, ffn, width)
        matrix(p + "ffn_up_exps.weight", experts, ffn, width)
        matrix(p + "ffn_down_exps.weight", experts, width, ffn)
    else:
        matrix(p + "ffn_gate.weight", ffn, width)
        matrix(p + "ffn_up.weight", ffn, width)
        matrix(p + "ffn_down.weight", width, ffn)
w.write_header_to_file()
w.write_kv_data_to_file()
w.write_tensors_to_file()
w.close()

#!/usr/bin/env python3
"""Writes small random checkpoints of every supported architecture, in the published layout.

    make_models.py OUT [--dtypes f32,bf16,f16] [NAME ...]      ->  OUT/NAME-DTYPE/{config.json,model.safetensors}

Shapes are ugly on purpose: odd vocabularies and widths, head sizes that are not width / heads, windows shorter than any
test's prompt, rope scaling that bites within a few dozen tokens, dense layers among sparse ones. Values are seeded by
name, and scaled so that activations stay of order one and a wrong term shows in the logits.
"""
import argparse
import json
import zlib
from pathlib import Path

import numpy as np

from safetensors_io import CONFIG_NAMES, write_folder

LLAMA3_ROPE = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 32}

# name -> (architecture, model_type, settings). "_layout" keys are for this script, not for config.json.
MODELS = {
    "llama2": ("LlamaForCausalLM", "llama", dict(
        vocab_size=257, hidden_size=80, intermediate_size=149, num_hidden_layers=3, num_attention_heads=4)),
    "llama3": ("LlamaForCausalLM", "llama", dict(
        vocab_size=301, hidden_size=96, intermediate_size=200, num_hidden_layers=4, num_attention_heads=6,
        num_key_value_heads=2, head_dim=32, rope_theta=50000.0, rope_scaling=LLAMA3_ROPE, tie_word_embeddings=True)),
    "llama_linear_bias": ("LlamaForCausalLM", "llama", dict(
        vocab_size=211, hidden_size=72, intermediate_size=101, num_hidden_layers=2, num_attention_heads=6,
        num_key_value_heads=3, attention_bias=True, mlp_bias=True, rope_scaling={"type": "linear", "factor": 2.5})),
    "mistral": ("MistralForCausalLM", "mistral", dict(
        vocab_size=223, hidden_size=112, intermediate_size=178, num_hidden_layers=3, num_attention_heads=8,
        num_key_value_heads=2, head_dim=24, sliding_window=7, rms_norm_eps=1e-5)),
    "qwen2": ("Qwen2ForCausalLM", "qwen2", dict(
        vocab_size=269, hidden_size=84, intermediate_size=166, num_hidden_layers=4, num_attention_heads=6,
        num_key_value_heads=2, use_sliding_window=True, sliding_window=5, max_window_layers=2, tie_word_embeddings=True,
        rope_theta=1000000.0)),
    "qwen3": ("Qwen3ForCausalLM", "qwen3", dict(
        vocab_size=241, hidden_size=90, intermediate_size=133, num_hidden_layers=4, num_attention_heads=5,
        num_key_value_heads=1, head_dim=22, attention_bias=True, use_sliding_window=True, sliding_window=6,
        layer_types=["full_attention", "sliding_attention"] * 2, rope_parameters={"rope_type": "default", "rope_theta": 70000.0})),
    "mixtral": ("MixtralForCausalLM", "mixtral", dict(
        vocab_size=227, hidden_size=76, intermediate_size=66, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, head_dim=20, num_local_experts=5, num_experts_per_tok=2, rope_theta=1000000.0,
        sliding_window=None)),
    "qwen2_moe": ("Qwen2MoeForCausalLM", "qwen2_moe", dict(
        vocab_size=239, hidden_size=88, intermediate_size=152, moe_intermediate_size=44,
        shared_expert_intermediate_size=102, num_hidden_layers=5, num_attention_heads=4, num_key_value_heads=4,
        num_experts=6, num_experts_per_tok=3, norm_topk_prob=False, decoder_sparse_step=2, mlp_only_layers=[3],
        use_sliding_window=True, sliding_window=6, max_window_layers=3)),
    "qwen3_moe": ("Qwen3MoeForCausalLM", "qwen3_moe", dict(
        vocab_size=251, hidden_size=68, intermediate_size=120, moe_intermediate_size=36, num_hidden_layers=4,
        num_attention_heads=6, num_key_value_heads=2, head_dim=32, num_experts=9, num_experts_per_tok=3,
        norm_topk_prob=True, mlp_only_layers=[1], _layout_shards=3)),
    "olmoe": ("OlmoeForCausalLM", "olmoe", dict(
        vocab_size=233, hidden_size=96, intermediate_size=50, num_hidden_layers=3, num_attention_heads=6,
        num_key_value_heads=2, num_experts=7, num_experts_per_tok=4, norm_topk_prob=False, clip_qkv=1.25,
        rms_norm_eps=1e-5)),
}


def attention_shapes(arch, c, head_dim):
    width, q, kv = c["hidden_size"], c["num_attention_heads"] * head_dim, c["num_key_value_heads"] * head_dim
    shapes = {"q_proj.weight": (q, width), "k_proj.weight": (kv, width), "v_proj.weight": (kv, width), "o_proj.weight": (width, q)}
    if arch.startswith("Qwen2") or c.get("attention_bias"):
        shapes.update({"q_proj.bias": (q,), "k_proj.bias": (kv,), "v_proj.bias": (kv,)})
    if c.get("attention_bias"):
        shapes["o_proj.bias"] = (width,)
    if arch.startswith("Qwen3"):
        shapes.update({"q_norm.weight": (head_dim,), "k_norm.weight": (head_dim,)})
    if arch.startswith("Olmoe"):
        shapes.update({"q_norm.weight": (q,), "k_norm.weight": (kv,)})
    return {"self_attn." + name: shape for name, shape in shapes.items()}


def gated_shapes(prefix, width, inner, names=("gate_proj", "up_proj", "down_proj"), bias=False):
    gate, up, down = (f"{prefix}.{name}" for name in names)
    shapes = {f"{gate}.weight": (inner, width), f"{up}.weight": (inner, width), f"{down}.weight": (width, inner)}
    if bias:
        shapes.update({f"{gate}.bias": (inner,), f"{up}.bias": (inner,), f"{down}.bias": (width,)})
    return shapes


def ffn_shapes(arch, c, layer):
    width, experts = c["hidden_size"], c.get("num_experts", c.get("num_local_experts", 0))
    sparse = experts and layer not in c.get("mlp_only_layers", []) and (layer + 1) % c.get("decoder_sparse_step", 1) == 0
    if not sparse:
        return gated_shapes("mlp", width, c["intermediate_size"], bias=c.get("mlp_bias", False))
    mixtral = arch.startswith("Mixtral")
    block = "block_sparse_moe" if mixtral else "mlp"
    names = ("w1", "w3", "w2") if mixtral else ("gate_proj", "up_proj", "down_proj")
    inner = c.get("moe_intermediate_size", c["intermediate_size"])
    shapes = {f"{block}.gate.weight": (experts, width)}
    for e in range(experts):
        shapes.update(gated_shapes(f"{block}.experts.{e}", width, inner, names))
    if "shared_expert_intermediate_size" in c:
        shapes.update(gated_shapes("mlp.shared_expert", width, c["shared_expert_intermediate_size"]))
        shapes["mlp.shared_expert_gate.weight"] = (1, width)
    return shapes


def shapes_of(arch, c):
    head_dim = c.get("head_dim", c["hidden_size"] // c["num_attention_heads"])
    shapes = {"model.embed_tokens.weight": (c["vocab_size"], c["hidden_size"]), "model.norm.weight": (c["hidden_size"],)}
    if not c["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (c["vocab_size"], c["hidden_size"])
    for layer in range(c["num_hidden_layers"]):
        per_layer = {"input_layernorm.weight": (c["hidden_size"],), "post_attention_layernorm.weight": (c["hidden_size"],)}
        per_layer.update(attention_shapes(arch, c, head_dim))
        per_layer.update(ffn_shapes(arch, c, layer))
        shapes.update({f"model.layers.{layer}.{name}": shape for name, shape in per_layer.items()})
    return shapes


def draw(rng, name, shape, tied):
    values = rng.standard_normal(shape)
    if "norm" in name:
        return 1 + 0.2 * values
    if name.endswith(".bias"):
        return 0.3 * values
    if "embed_tokens" in name:
        return values * (0.3 if tied else 1.0)
    # A router's logits spread widely, so that few tokens have two experts nearly tied (see reference.separated_prompt).
    gain = 3.0 if name.endswith(("mlp.gate.weight", "block_sparse_moe.gate.weight")) else 1.0
    return values * gain / np.sqrt(shape[-1])


def make(out, name, dtype):
    """Writes OUT/NAME-DTYPE and returns its path."""
    arch, model_type, settings = MODELS[name]
    layout = {k: v for k, v in settings.items() if k.startswith("_layout_")}
    c = {"architectures": [arch], "model_type": model_type, "hidden_act": "silu", "max_position_embeddings": 512,
         "rms_norm_eps": 1e-6, "num_key_value_heads": settings["num_attention_heads"], "tie_word_embeddings": False,
         "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": CONFIG_NAMES[dtype]}
    c.update({k: v for k, v in settings.items() if k not in layout})
    folder = Path(out) / f"{name}-{dtype}"
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    tensors = {n: draw(rng, n, shape, c["tie_word_embeddings"]) for n, shape in shapes_of(arch, c).items()}
    (folder / "config.json").write_text(json.dumps(c, indent=1))
    write_folder(folder, tensors, dtype, layout.get("_layout_shards", 1))
    return folder


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out")
    parser.add_argument("names", nargs="*", help="default: all")
    parser.add_argument("--dtypes", default="f32,bf16")
    args = parser.parse_args()
    for name in args.names or MODELS:
        for dtype in args.dtypes.split(","):
            print(make(args.out, name, dtype))


if __name__ == "__main__":
    main()

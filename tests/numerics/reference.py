"""The forward pass of every supported architecture in NumPy float64, written from its published definition.

Nothing here is shared with the C code, and nothing is optimized: one sequence, no cache, one expert at a time. What the
architectures have in common is the decoder of Llama (pre-norm, rotary positions on halves of a head, grouped-query causal
attention, a gated SiLU network); what they differ in:

    Mistral     attention sees the last `sliding_window` positions, the own included
    Qwen2       biases on q, k, v; a window from layer max_window_layers on, if switched on
    Qwen3       q and k are RMS-normalized per head before the rotation
    Mixtral     the two best of softmaxed router scores, renormalized
    Qwen2-MoE   the best as they are (norm_topk_prob), plus a shared expert behind a sigmoid gate; some layers dense
    Qwen3-MoE   Qwen3's attention, renormalized or not (norm_topk_prob); some layers dense
    OLMoE       q and k are RMS-normalized over all heads together, then q, k, v clipped to +-clip_qkv
"""
import json
from pathlib import Path

import numpy as np

from safetensors_io import read_folder


class Model:
    def __init__(self, folder):
        self.config = json.loads((Path(folder) / "config.json").read_text())
        self.arch = self.config["architectures"][0].removesuffix("ForCausalLM")
        self.tensors = read_folder(folder)
        c = self.config
        self.layers, self.heads = c["num_hidden_layers"], c["num_attention_heads"]
        self.kv_heads = c.get("num_key_value_heads") or self.heads
        self.head_dim = c.get("head_dim") or c["hidden_size"] // self.heads
        self.eps = c["rms_norm_eps"]

    def linear(self, name, x):
        y = x @ self.tensors[name + ".weight"].T
        bias = self.tensors.get(name + ".bias")
        return y if bias is None else y + bias

    def norm(self, name, x):
        return rms_norm(x, self.tensors[name + ".weight"], self.eps)


def rms_norm(x, weight, eps):
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * weight


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def silu(x):
    return x / (1 + np.exp(-x))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def rope_frequencies(config, head_dim):
    """Radians per position for each pair (i, i + head_dim/2)."""
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    default_theta = 1e6 if config["architectures"][0].startswith("Mixtral") else 1e4
    theta = rope.get("rope_theta", config.get("rope_theta", default_theta))
    f = theta ** (-np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return f
    if kind == "linear":
        return f / rope["factor"]
    assert kind == "llama3", kind
    # Llama 3.1: long wavelengths are stretched by the factor, short ones kept, those between blended.
    turns = rope["original_max_position_embeddings"] * f / (2 * np.pi)
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    keep = np.clip((turns - low) / (high - low), 0, 1)
    return keep * f + (1 - keep) * f / rope["factor"]


def rotate(x, frequencies):
    """x: [tokens, heads, head_dim]; the pair is (i, i + half)."""
    angles = np.arange(x.shape[0])[:, None, None] * frequencies
    a, b = np.split(x, 2, axis=-1)
    return np.concatenate([a * np.cos(angles) - b * np.sin(angles), b * np.cos(angles) + a * np.sin(angles)], axis=-1)


def window_of(m, layer):
    """How many positions the layer sees, the own included; None: all."""
    c, switched = m.config, m.config.get("use_sliding_window", False)
    if m.arch == "Mistral":
        return c.get("sliding_window", 4096)
    if m.arch == "Mixtral":
        return c.get("sliding_window")
    if m.arch == "Qwen3Moe":
        return c["sliding_window"] if switched else None
    if m.arch not in ("Qwen2", "Qwen3", "Qwen2Moe") or not switched:
        return None
    edge = c.get("max_window_layers", 28)
    slides = layer % 2 == 0 and layer < edge if m.arch == "Qwen2Moe" else layer >= edge
    if c.get("layer_types"):
        slides = c["layer_types"][layer] == "sliding_attention"
    return c["sliding_window"] if slides else None


def attention(m, layer, x):
    p, n = f"model.layers.{layer}.self_attn.", x.shape[0]
    q, k, v = (m.linear(p + name + "_proj", x) for name in "qkv")
    if m.arch == "Olmoe":
        q, k = m.norm(p + "q_norm", q), m.norm(p + "k_norm", k)
        if m.config.get("clip_qkv") is not None:
            q, k, v = (np.clip(t, -m.config["clip_qkv"], m.config["clip_qkv"]) for t in (q, k, v))
    q = q.reshape(n, m.heads, m.head_dim)
    k, v = (t.reshape(n, m.kv_heads, m.head_dim) for t in (k, v))
    if m.arch in ("Qwen3", "Qwen3Moe"):
        q, k = m.norm(p + "q_norm", q), m.norm(p + "k_norm", k)
    frequencies = rope_frequencies(m.config, m.head_dim)
    q, k = rotate(q, frequencies), rotate(k, frequencies)
    k, v = (np.repeat(t, m.heads // m.kv_heads, axis=1) for t in (k, v))
    scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(m.head_dim)
    distance = np.arange(n)[:, None] - np.arange(n)[None, :]
    window = window_of(m, layer)
    visible = (distance >= 0) & (distance < (window or n))
    weights = softmax(np.where(visible, scores, -np.inf))
    return m.linear(p + "o_proj", np.einsum("hqk,khd->qhd", weights, v).reshape(n, -1))


def gated(m, prefix, x, names=("gate_proj", "up_proj", "down_proj")):
    gate, up, down = (f"{prefix}.{name}" for name in names)
    return m.linear(down, silu(m.linear(gate, x)) * m.linear(up, x))


def is_sparse(m, layer):
    c = m.config
    if m.arch in ("Mixtral", "Olmoe"):
        return True
    if m.arch not in ("Qwen2Moe", "Qwen3Moe"):
        return False
    return layer not in (c.get("mlp_only_layers") or []) and (layer + 1) % c.get("decoder_sparse_step", 1) == 0


def experts(m, layer, x, gaps):
    """The sum over each token's best experts; `gaps` gets the distance of each token's last chosen and first unchosen router
    logit, below which rounding may choose otherwise."""
    c, mixtral = m.config, m.arch == "Mixtral"
    p = f"model.layers.{layer}." + ("block_sparse_moe" if mixtral else "mlp")
    names = ("w1", "w3", "w2") if mixtral else ("gate_proj", "up_proj", "down_proj")
    router, chosen = m.linear(p + ".gate", x), c["num_experts_per_tok"]
    best = np.argsort(-router, axis=-1, kind="stable")[:, :chosen]
    ordered = -np.sort(-router, axis=-1)
    if chosen < ordered.shape[1]:
        gaps.append(ordered[:, chosen - 1] - ordered[:, chosen])
    weights = np.take_along_axis(softmax(router), best, axis=-1)
    if mixtral or c.get("norm_topk_prob", False):
        weights = weights / weights.sum(axis=-1, keepdims=True)
    out = np.zeros_like(x)
    for token in range(x.shape[0]):
        for expert, weight in zip(best[token], weights[token]):
            out[token] += weight * gated(m, f"{p}.experts.{expert}", x[token], names)
    if m.arch == "Qwen2Moe":
        out += sigmoid(m.linear(p + ".shared_expert_gate", x)) * gated(m, p + ".shared_expert", x)
    return out


def forward(m, ids):
    """logits [n, vocab] float64 and, for each position, the smallest router gap of all layers (inf without a router)."""
    x, gaps = m.tensors["model.embed_tokens.weight"][np.asarray(ids)], [np.full(len(ids), np.inf)]
    for layer in range(m.layers):
        p = f"model.layers.{layer}."
        x = x + attention(m, layer, m.norm(p + "input_layernorm", x))
        y = m.norm(p + "post_attention_layernorm", x)
        x = x + (experts(m, layer, y, gaps) if is_sparse(m, layer) else gated(m, p + "mlp", y))
    x = m.norm("model.norm", x)
    head = "model.embed_tokens" if m.config.get("tie_word_embeddings", False) else "lm_head"
    return m.linear(head, x), np.min(gaps, axis=0)


def logits(model_dir, ids):
    return forward(Model(model_dir), ids)[0]


def separated_prompt(model_dir, n, seed=0, gap=0.1):
    """n seeded ids for which no router is within `gap` of choosing another expert, so that a comparison in a smaller type
    measures rounding and not a coin's flip. Whatever token is too close is drawn again, from the left."""
    m, rng = Model(model_dir), np.random.default_rng(seed)
    ids = rng.integers(3, m.config["vocab_size"], n)
    for _ in range(100 * n):
        close = np.flatnonzero(forward(m, ids)[1] < gap)
        if not close.size:
            return ids.tolist()
        ids[close[0] :] = rng.integers(3, m.config["vocab_size"], n - close[0])
    raise ValueError(f"no separated prompt of {n} tokens was found")


def relative_error(got, expected):
    """L2 norm of the difference over that of the expected, worst position."""
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    return float(np.max(np.linalg.norm(got - expected, axis=-1) / np.linalg.norm(expected, axis=-1)))

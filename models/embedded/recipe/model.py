"""Qwen3-MoE in PyTorch, small enough to read: the architecture the daemon runs, for training on a CPU.

Published definition: RMSNorm before attention and before the experts; grouped queries with a norm on each head of Q and K;
rotary embedding on halves; router softmax over all experts, the best k renormalized; SwiGLU experts; tied embedding.

In single precision: on CPUs without matrix units PyTorch multiplies f32 twice as fast as bf16. What is not a product is
compiled, so that each chain of small operations reads its rows once; that and f32 made forward and backward twice as fast.
"""
import torch
import torch.nn.functional as F
from torch import nn

CONFIG = {
    "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hidden_act": "silu", "vocab_size": 2048,
    "hidden_size": 192, "num_hidden_layers": 5, "num_attention_heads": 6, "num_key_value_heads": 3, "head_dim": 32,
    "intermediate_size": 512, "moe_intermediate_size": 192, "num_experts": 8, "num_experts_per_tok": 2, "norm_topk_prob": True,
    "decoder_sparse_step": 1, "mlp_only_layers": [], "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
    "rope_scaling": None, "attention_bias": False, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
    "bos_token_id": None, "eos_token_id": 2, "pad_token_id": 0,
}
EPSILON = CONFIG["rms_norm_eps"]


@torch.compile(dynamic=True)
def norm(x, weight):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPSILON) * weight


@torch.compile(dynamic=True)
def norm_and_turn(x, weight, cos, sin):
    """Norm and rotary embedding of heads [..., heads, n]."""
    x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPSILON) * weight
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


@torch.compile(dynamic=True)
def swiglu(gate_and_up):
    gate, up = gate_and_up.chunk(2, -1)
    return F.silu(gate) * up


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        d, h, k, n = c["hidden_size"], c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]
        e, w = c["num_experts"], c["moe_intermediate_size"]
        new = lambda *shape: nn.Parameter(torch.randn(*shape) * shape[-1] ** -0.5)
        self.c = c
        self.q, self.k, self.v, self.o = new(h * n, d), new(k * n, d), new(k * n, d), new(d, h * n)
        self.attn_norm, self.ffn_norm = nn.Parameter(torch.ones(d)), nn.Parameter(torch.ones(d))
        self.q_norm, self.k_norm = nn.Parameter(torch.ones(n)), nn.Parameter(torch.ones(n))
        self.router = nn.Parameter(torch.randn(e, d) * 0.02)
        self.gate, self.up, self.down = new(e, w, d), new(e, w, d), new(e, d, w)

    def attention(self, x, cos, sin):
        (b, t, _), n = x.shape, self.c["head_dim"]
        heads, kv_heads = self.c["num_attention_heads"], self.c["num_key_value_heads"]
        y = F.linear(x, torch.cat((self.q, self.k, self.v))).view(b, t, -1, n)
        q, k, v = y.split((heads, kv_heads, kv_heads), 2)
        q, k = norm_and_turn(q, self.q_norm, cos, sin), norm_and_turn(k, self.k_norm, cos, sin)
        y = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True, enable_gqa=True)
        return F.linear(y.transpose(1, 2).reshape(b, t, -1), self.o)

    def experts(self, x, balance):
        c = self.c
        flat = x.reshape(-1, x.shape[-1])
        probabilities = F.linear(flat, self.router).float().softmax(-1)
        weight, chosen = probabilities.topk(c["num_experts_per_tok"], -1)
        weight = weight / weight.sum(-1, keepdim=True)
        count = torch.bincount(chosen.reshape(-1), minlength=c["num_experts"])
        balance.append(c["num_experts"] * (count / count.sum() * probabilities.mean(0)).sum())
        order = chosen.reshape(-1).argsort(stable=True)
        rows = order // c["num_experts_per_tok"]
        parts = flat.index_select(0, rows).split(count.tolist())
        parts = [F.linear(swiglu(F.linear(part, gate_and_up)), down)
                 for part, gate_and_up, down in zip(parts, torch.cat((self.gate, self.up), 1).unbind(), self.down.unbind())]
        y = torch.cat(parts) * weight.reshape(-1).index_select(0, order)[:, None]
        return torch.zeros_like(flat).index_add(0, rows, y.to(flat.dtype)).view_as(x), count

    def forward(self, x, cos, sin, balance, loads):
        x = x + self.attention(norm(x, self.attn_norm), cos, sin)
        y, count = self.experts(norm(x, self.ffn_norm), balance)
        loads.append(count)
        return x + y


class Model(nn.Module):
    def __init__(self, c=CONFIG):
        super().__init__()
        self.c = c
        self.embed = nn.Parameter(torch.randn(c["vocab_size"], c["hidden_size"]) * 0.02)
        self.layers = nn.ModuleList(Layer(c) for _ in range(c["num_hidden_layers"]))
        self.final_norm = nn.Parameter(torch.ones(c["hidden_size"]))

    def forward(self, ids, pick):
        """ids [b, t]; pick: bool [b, t], where logits are wanted. Returns logits [picked, vocab], balance loss, expert loads."""
        n = self.c["head_dim"]
        frequency = self.c["rope_theta"] ** (-torch.arange(0, n, 2) / n)
        angle = (torch.arange(ids.shape[1])[:, None] * frequency)[:, None].to(ids.device)
        cos, sin = angle.cos(), angle.sin()
        x, balance, loads = F.embedding(ids, self.embed), [], []
        for layer in self.layers:
            x = layer(x, cos, sin, balance, loads)
        return F.linear(norm(x[pick], self.final_norm), self.embed), sum(balance) / len(balance), torch.stack(loads)

"""Qwen3-MoE in PyTorch, small enough to read: the architecture the daemon runs, for training on a CPU.

Published definition: RMSNorm before attention and before the experts; grouped queries with a norm on each head of Q and K;
rotary embedding on halves; router softmax over all experts, the best k renormalized; SwiGLU experts; tied embedding.
"""
import torch
import torch.nn.functional as F
from torch import nn

CONFIG = {
    "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hidden_act": "silu", "vocab_size": 2048,
    "hidden_size": 192, "num_hidden_layers": 5, "num_attention_heads": 6, "num_key_value_heads": 3, "head_dim": 32,
    "intermediate_size": 512, "moe_intermediate_size": 256, "num_experts": 8, "num_experts_per_tok": 2, "norm_topk_prob": True,
    "decoder_sparse_step": 1, "mlp_only_layers": [], "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
    "rope_scaling": None, "attention_bias": False, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
    "bos_token_id": None, "eos_token_id": 2, "pad_token_id": 0,
}


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

    def norm(self, x, weight):
        return F.rms_norm(x, (x.shape[-1],), weight.to(x.dtype), self.c["rms_norm_eps"])

    def attention(self, x, cos, sin):
        c, (b, t, _) = self.c, x.shape
        n = c["head_dim"]
        split = lambda y: y.view(b, t, -1, n).transpose(1, 2)
        q, k, v = split(F.linear(x, self.q)), split(F.linear(x, self.k)), split(F.linear(x, self.v))
        turn = lambda y: y * cos + torch.cat((-y[..., n // 2:], y[..., :n // 2]), -1) * sin
        q, k = turn(self.norm(q, self.q_norm)), turn(self.norm(k, self.k_norm))
        g = c["num_attention_heads"] // c["num_key_value_heads"]  # plain products: far quicker on a CPU than the fused kernel
        scores = q.reshape(b, -1, g * t, n) @ k.mT * n ** -0.5
        scores = scores.view(b, -1, g, t, t).masked_fill(torch.ones(t, t, dtype=torch.bool, device=x.device).triu(1), float("-inf"))
        y = scores.softmax(-1).to(v.dtype).view(b, -1, g * t, t) @ v
        return F.linear(y.view(b, -1, t, n).transpose(1, 2).reshape(b, t, -1), self.o)

    def experts(self, x, balance):
        c = self.c
        flat = x.reshape(-1, x.shape[-1])
        probabilities = F.linear(flat, self.router).float().softmax(-1)
        weight, chosen = probabilities.topk(c["num_experts_per_tok"], -1)
        weight = weight / weight.sum(-1, keepdim=True)
        count = torch.bincount(chosen.reshape(-1), minlength=c["num_experts"])
        balance.append(c["num_experts"] * (count / count.sum() * probabilities.mean(0)).sum())
        order = chosen.reshape(-1).argsort()
        rows = order // c["num_experts_per_tok"]
        gates, ups, downs = (p.bfloat16().unbind() for p in (self.gate, self.up, self.down))
        parts = []
        for part, gate, up, down in zip(flat[rows].split(count.tolist()), gates, ups, downs):
            parts.append(F.linear(F.silu(F.linear(part, gate)) * F.linear(part, up), down))
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order), device=order.device)
        y = torch.cat(parts)[back].view(len(flat), -1, flat.shape[-1])
        return torch.einsum("rkd,rk->rd", y, weight.to(y.dtype)).view_as(x), count

    def forward(self, x, cos, sin, balance, loads):
        x = x + self.attention(self.norm(x, self.attn_norm), cos, sin)
        y, count = self.experts(self.norm(x, self.ffn_norm), balance)
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
        angle = torch.arange(ids.shape[1])[:, None] * frequency
        angle = torch.cat((angle, angle), -1).to(ids.device)
        cos, sin = angle.cos().bfloat16(), angle.sin().bfloat16()
        x, balance, loads = F.embedding(ids, self.embed.bfloat16()), [], []
        for layer in self.layers:
            x = layer(x, cos, sin, balance, loads)
        x = F.rms_norm(x[pick], (x.shape[-1],), self.final_norm.to(x.dtype), self.c["rms_norm_eps"])
        return F.linear(x, self.embed), sum(balance) / len(balance), torch.stack(loads)

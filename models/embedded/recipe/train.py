"""Trains the embedded model: python3 train.py [--minutes M] [--device cpu|cuda]

Loss only on what the assistant says. Batches hold conversations of similar length. Matrices are stepped by Muon (momentum
made orthogonal by a Newton-Schulz iteration; K. Jordan, 2024), the rest by Adam; both decay linearly to zero over the
time allowed, so that a run of any length ends well. A checkpoint is written every few minutes; `--resume` goes on from it.
"""
import argparse
import multiprocessing
import pathlib
import random
import time

import numpy as np
import tokenizers
import torch
import torch.nn.functional as F

import corpus
import model
import rendering

SHARD, BATCH_TOKENS, LENGTH_MAX, LOADERS = 20000, 8192, 2048, 1


def encode_shard(seed):
    """[(ids uint16, learned bool)] of one shard of conversations."""
    t = tokenizers.Tokenizer.from_file(str(rendering.WORK / "tokenizer.json"))
    out = []
    for c in corpus.conversations(seed, SHARD):
        ids, learned = [], []
        for text, mine in rendering.pieces(c["messages"], c["tools"]):
            part = t.encode(text).ids
            ids += part
            learned += [mine] * len(part)
        if len(ids) <= LENGTH_MAX:
            out.append((np.array(ids, np.uint16), np.array(learned)))
    return out


def batches(shard, rng):
    shard = sorted(shard, key=lambda r: len(r[0]) + rng.random() * 6)
    groups, group, longest = [], [], 0
    for row in shard:
        if group and max(longest, len(row[0])) * (len(group) + 1) > BATCH_TOKENS:
            groups.append(group)
            group, longest = [], 0
        group.append(row)
        longest = max(longest, len(row[0]))
    groups.append(group)
    rng.shuffle(groups)
    for group in groups:
        width = max(len(ids) for ids, _ in group)
        ids, learned = np.zeros((len(group), width), np.int64), np.zeros((len(group), width), bool)
        for i, (row, mine) in enumerate(group):
            ids[i, :len(row)], learned[i, :len(row)] = row, mine
        yield torch.from_numpy(ids), torch.from_numpy(learned)


class Muon:
    def __init__(self, parameters, momentum=0.95):
        self.parameters, self.momentum = list(parameters), momentum
        self.velocity = [torch.zeros_like(p) for p in self.parameters]

    @staticmethod
    def orthogonal(g):
        a, b, c = 3.4445, -4.7750, 2.0315
        x = g.bfloat16()
        tall = x.shape[-2] > x.shape[-1]
        x = x.mT if tall else x
        x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
        for _ in range(5):
            s = x @ x.mT
            x = a * x + (b * s + c * s @ s) @ x
        return (x.mT if tall else x).float()

    @torch.no_grad()
    def step(self, rate):
        for p, v in zip(self.parameters, self.velocity):
            v.lerp_(p.grad, 1 - self.momentum)
            step = self.orthogonal(p.grad.lerp(v, self.momentum))
            p.mul_(1 - rate * 0.05).add_(step, alpha=-rate * max(1, p.shape[-2] / p.shape[-1]) ** 0.5)
            p.grad = None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", default=str(rendering.WORK))
    parser.add_argument("--resume", action="store_true")
    a = parser.parse_args()
    out = pathlib.Path(a.out)
    out.mkdir(exist_ok=True)
    torch.manual_seed(a.seed)
    rng = random.Random(a.seed)
    net = model.Model().to(a.device)
    matrices = [p for layer in net.layers for p in (layer.q, layer.k, layer.v, layer.o, layer.gate, layer.up, layer.down)]
    chosen = {id(p) for p in matrices}
    rest = [p for p in net.parameters() if id(p) not in chosen]
    muon, adam = Muon(matrices), torch.optim.AdamW(rest, lr=1, betas=(0.9, 0.98), weight_decay=0.0)
    step, tokens, spent, shard_index = 0, 0, 0.0, 0
    if a.resume:
        state = torch.load(out / "state.pt")
        net.load_state_dict(state["net"]), adam.load_state_dict(state["adam"])
        muon.velocity = state["velocity"]
        step, tokens, spent, shard_index = state["at"]
    print(sum(p.numel() for p in net.parameters()), "parameters", flush=True)
    saved, began, losses, load = time.time(), time.time() - spent, [], 0
    with multiprocessing.Pool(LOADERS) as pool:
        pending = [pool.apply_async(encode_shard, (f"{a.seed}.{shard_index + i}",)) for i in range(LOADERS + 1)]
        while True:
            shard = pending.pop(0).get()
            shard_index += 1
            pending.append(pool.apply_async(encode_shard, (f"{a.seed}.{shard_index + LOADERS}",)))
            for ids, learned in batches(shard, rng):
                spent = time.time() - began
                share = spent / (a.minutes * 60)
                if share >= 1:
                    break
                rate = min(1.0, (step + 1) / 100) * min(1.0, (1 - share) / 0.7)
                ids, learned = ids.to(a.device), learned.to(a.device)
                pick = torch.zeros_like(learned)
                pick[:, :-1] = learned[:, 1:]
                with torch.autocast(a.device, dtype=torch.bfloat16):
                    logits, balance, loads = net(ids, pick)
                    loss = F.cross_entropy(logits.float(), ids[:, 1:][learned[:, 1:]])
                (loss + 0.01 * balance).backward()
                torch.nn.utils.clip_grad_norm_(rest, 1.0)
                for group in adam.param_groups:
                    group["lr"] = 3e-3 * rate
                adam.step(), muon.step(0.02 * rate)
                adam.zero_grad()
                step, tokens = step + 1, tokens + ids.numel()
                losses.append(loss.item())
                load = load + loads
                if step % 50 == 0:
                    skew = (load / load.sum(-1, keepdim=True) * load.shape[-1])
                    print(f"step {step}  {tokens / 1e6:.1f}M tokens  {spent / 60:.1f} min  {tokens / spent:.0f} tok/s  loss {np.mean(losses[-50:]):.4f}  "
                          f"expert load {skew.min():.2f}..{skew.max():.2f}  rate {rate:.2f}", flush=True)
                    load = 0
                if time.time() - saved > 300:
                    torch.save({"net": net.state_dict(), "adam": adam.state_dict(), "velocity": muon.velocity,
                                "at": (step, tokens, spent, shard_index)}, out / "state.pt")
                    saved = time.time()
            else:
                continue
            break
        pool.terminate()
    torch.save({"net": net.state_dict(), "adam": adam.state_dict(), "velocity": muon.velocity, "at": (step, tokens, spent, shard_index)}, out / "state.pt")
    print(f"done: {step} steps, {tokens / 1e6:.1f}M tokens, loss {np.mean(losses[-200:]):.4f}")


if __name__ == "__main__":
    main()

"""Trains the embedded model: python3 train.py [--minutes M] [--device cpu|cuda]

Loss only on what the assistant says. Batches hold conversations of similar length, and a step takes several, so that it sees
several kinds. Matrices are stepped by Muon (momentum
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

SHARD, BATCH_TOKENS, BATCHES_PER_STEP, LENGTH_MAX, LOADERS = 20000, 5120, 2, 2048, 1


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
    for group in groups[:len(groups) // BATCHES_PER_STEP * BATCHES_PER_STEP]:
        width = max(len(ids) for ids, _ in group)
        ids, learned = np.zeros((len(group), width), np.int64), np.zeros((len(group), width), bool)
        for i, (row, mine) in enumerate(group):
            ids[i, :len(row)], learned[i, :len(row)] = row, mine
        yield torch.from_numpy(ids), torch.from_numpy(learned)


class Muon:
    """Matrices of one shape are stepped together: one batched iteration is many times quicker than small ones."""

    def __init__(self, parameters, momentum=0.95):
        self.parameters, self.momentum = list(parameters), momentum
        self.velocity = [torch.zeros_like(p) for p in self.parameters]
        self.groups = {}
        for p, v in zip(self.parameters, self.velocity):
            self.groups.setdefault(p.shape[-2:], []).append((p, v))

    @staticmethod
    def orthogonal(x):
        a, b, c = 3.4445, -4.7750, 2.0315
        tall = x.shape[-2] > x.shape[-1]
        x = x.mT if tall else x
        x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
        for _ in range(5):
            s = x @ x.mT
            x = a * x + torch.baddbmm(s, s, s, beta=b, alpha=c) @ x
        return x.mT if tall else x

    @torch.no_grad()
    def step(self, rate):
        for (height, width), members in self.groups.items():
            momenta = []
            for p, v in members:
                v.lerp_(p.grad, 1 - self.momentum)
                momenta.append(p.grad.lerp(v, self.momentum).view(-1, height, width))
            steps = self.orthogonal(torch.cat(momenta)).split([len(m) for m in momenta])
            for (p, _), step in zip(members, steps):
                p.mul_(1 - rate * 0.05).add_(step.reshape(p.shape), alpha=-rate * max(1, height / width) ** 0.5)
                p.grad = None


def backward(net, ids, learned, weight):
    """Adds the gradients of one batch, which counts for `weight` of its step. Returns its mean loss and the experts' loads."""
    pick = torch.zeros_like(learned)
    pick[:, :-1] = learned[:, 1:]
    with torch.autocast(ids.device.type, dtype=torch.bfloat16, enabled=ids.device.type != "cpu"):
        logits, balance, loads = net(ids, pick)
        loss = F.cross_entropy(logits.float(), ids[:, 1:][learned[:, 1:]])
    ((loss + 0.01 * balance) * weight).backward()
    return loss.item(), loads


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0, help="0: one for each CPU")
    parser.add_argument("--out", default=str(rendering.WORK))
    parser.add_argument("--resume", action="store_true")
    a = parser.parse_args()
    out = pathlib.Path(a.out)
    out.mkdir(exist_ok=True)
    torch.manual_seed(a.seed)
    if a.threads:
        torch.set_num_threads(a.threads)
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
        for mine, saved_velocity in zip(muon.velocity, state["velocity"]):
            mine.copy_(saved_velocity)
        step, tokens, spent, shard_index = state["at"]
    print(sum(p.numel() for p in net.parameters()), "parameters", flush=True)
    saved, began, losses, load = time.time(), time.time() - spent, [], 0
    with multiprocessing.Pool(LOADERS) as pool:
        pending = [pool.apply_async(encode_shard, (f"{a.seed}.{shard_index + i}",)) for i in range(LOADERS + 1)]
        while True:
            shard = pending.pop(0).get()
            shard_index += 1
            pending.append(pool.apply_async(encode_shard, (f"{a.seed}.{shard_index + LOADERS}",)))
            for group in zip(*[batches(shard, rng)] * BATCHES_PER_STEP):
                spent = time.time() - began
                share = spent / (a.minutes * 60)
                if share >= 1:
                    break
                rate = min(1.0, (step + 1) / 100) * min(1.0, (1 - share) / 0.7)
                counts = [learned[:, 1:].sum().item() for _, learned in group]
                for (ids, learned), count in zip(group, counts):
                    part, loads = backward(net, ids.to(a.device), learned.to(a.device), count / sum(counts))
                    losses.append(part)
                    load = load + loads
                    tokens += ids.numel()
                torch.nn.utils.clip_grad_norm_(rest, 1.0)
                adam.param_groups[0]["lr"] = 3e-3 * rate
                adam.step(), muon.step(0.02 * rate)
                adam.zero_grad()
                step += 1
                if step % 50 == 0:
                    skew = (load / load.sum(-1, keepdim=True) * load.shape[-1])
                    print(f"step {step}  {tokens / 1e6:.1f}M tokens  {spent / 60:.1f} min  {tokens / spent:.0f} tok/s  loss {np.mean(losses[-100:]):.4f}  "
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

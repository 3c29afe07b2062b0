#!/usr/bin/env python3
"""The scheduling experiments, under the virtual clock: baseline and candidate in one run, on the same trace.

    bench/sim.py [--build build] [--docs] [NAME ...]      `make bench-sim ARGS="layered_moe"` runs one of them
    bench/sim.py --plot bench/results/sim-DATE.json       draws what was recorded, and runs nothing

Each cell is one call of `penstock-bench compare`. Prints a table an experiment, and draws them all on one page, BUILD/bench-sim.html;
with --docs the tables go into docs/scheduling.md, all figures into bench/results/sim-DATE.json and what the defaults are worth into
docs/defaults.svg. Whole public traces are looked for
in PENSTOCK_TRACES (default ../shared/traces); an experiment whose trace is not there is skipped by name."""
import argparse
import csv
import datetime
import gzip
import json
import os
import pathlib
import random
import re
import subprocess
import sys

import sim_page

ROOT = pathlib.Path(__file__).resolve().parent.parent
TRACES = pathlib.Path(os.environ.get("PENSTOCK_TRACES", ROOT.parent / "shared/traces"))
DOCS = ROOT / "docs/scheduling.md"
DEFAULTS = ROOT / "docs/defaults.svg"


class Missing(Exception):
    pass


def public(name):
    if not (TRACES / name).exists():
        raise Missing(name)
    return TRACES / name


# ---- traces that are drawn: from published lengths where the paper uses them, always from a seed ----

def write(folder, name, rows):
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def lengths_of(name, prompt, output):
    with gzip.open(public(name), "rt") as lines:
        return [(int(row[prompt]), int(row[output])) for row in csv.DictReader(lines)]


def poisson(rng, rate, count):
    at = 0.0
    for _ in range(count):
        at += rng.expovariate(rate)
        yield round(at * 1000, 3)


def arxiv(rate, count, longer=1.0):
    """`longer`: the prompts, by so much. The public lengths are of papers cut to 4,096 tokens."""
    def make(folder):
        rng, lengths = random.Random(1), lengths_of("vidur_arxiv_summarization_lengths_first75pct.csv.gz", "num_prefill_tokens",
                                                    "num_decode_tokens")
        return write(folder, f"arxiv_{rate}_{longer}", [
            {"timestamp": at, "input_length": int(prompt * longer), "output_length": max(1, output)}
            for at, (prompt, output) in zip(poisson(rng, rate, count), lengths)])
    return make


ARXIV_PAPER = 9194 / 2582 # mean prompts: of arXiv 2510.08055, and of the public lengths


def mixed_slo(rate, count):
    """Four classes that want their first token within 0.25, 0.5, 4 and 6 s; the longer the patience, the longer the prompt."""
    classes = [(0.35, 250, 100, 200, 800), (0.35, 500, 100, 300, 1500), (0.2, 4000, 200, 4000, 12000), (0.1, 6000, 200, 8000, 24000)]

    def make(folder):
        rng, rows = random.Random(2), []
        for at in poisson(rng, rate, count):
            _, ttft, tbt, low, high = rng.choices(classes, [c[0] for c in classes])[0]
            rows.append({"timestamp": at, "input_length": rng.randint(low, high), "output_length": rng.randint(20, 200),
                         "slo": {"ttft_ms": ttft, "tbt_ms": tbt}})
        return write(folder, f"mixed_slo_{rate}", rows)
    return make


def decode_heavy(rate, count):
    def make(folder):
        rng = random.Random(3)
        return write(folder, f"decode_heavy_{rate}", [{"timestamp": at, "input_length": rng.randint(32, 2048),
                                                       "output_length": min(4096, int(rng.lognormvariate(6.8, 0.6)) + 64)}
                                                      for at in poisson(rng, rate, count)])
    return make


def closed_loop(clients, turns):
    """Clients that send their next request, which shares nothing with the one before, when they have the answer."""
    def make(folder):
        rng, rows, block = random.Random(3), [], 0
        for client in range(clients):
            start = rng.uniform(0, 10000)
            for _ in range(turns):
                prompt = rng.randint(32, 512)
                blocks = list(range(block, block + prompt // 512 + 1))
                block += len(blocks)
                rows.append({"timestamp": start, "job_id": f"client{client}", "delay": 0, "input_length": prompt, "hash_ids": blocks,
                             "output_length": min(4000, int(rng.lognormvariate(6.0, 0.9)) + 10)})
        return write(folder, f"closed_loop_{clients}", rows)
    return make


def closed_loop_uniform(clients, turns, prompts, answers):
    """The same with lengths drawn evenly from two ranges, as LightLLM's artifact names its workloads."""
    def make(folder):
        rng, rows, block = random.Random(3), [], 0
        for client in range(clients):
            start = rng.uniform(0, 30000)
            for _ in range(turns):
                prompt = rng.randint(*prompts)
                blocks = list(range(block, block + prompt // 512 + 1))
                block += len(blocks)
                rows.append({"timestamp": start, "job_id": f"client{client}", "delay": 0, "input_length": prompt, "hash_ids": blocks,
                             "output_length": rng.randint(*answers)})
        return write(folder, f"closed_loop_uniform_{clients}", rows)
    return make


def conversations(rate, count):
    """Of 5.5 turns in the mean, as FastSwitch takes them from ShareGPT; a person answers after some seconds. Lengths are drawn."""
    def make(folder):
        rng, rows = random.Random(7), []
        for i, at in enumerate(poisson(rng, rate, count)):
            size = 0
            while True:
                size += min(4000, int(rng.lognormvariate(4.8, 1.0)) + 8)
                output = min(2000, int(rng.lognormvariate(5.3, 0.7)) + 8)
                rows.append({"timestamp": at, "input_length": size, "output_length": output, "job_id": f"talk{i}",
                             "gap_s": round(rng.expovariate(1 / 5), 3)})
                size += output
                if rng.random() < 1 / 5.5 or size > 16000:
                    break
        return write(folder, f"conversations_{rate}", rows)
    return make


def turns_alone(rate, count):
    """As long as the turns of those conversations, and they share nothing: what is found again is what each itself had."""
    def make(folder):
        turns = [json.loads(line) for line in conversations(1, count)(folder).read_text().splitlines()]
        rng = random.Random(8)
        rng.shuffle(turns)
        turns = [row for row in turns if row["input_length"] < 8000][:count]
        return write(folder, f"turns_alone_{rate}", [{"timestamp": at, **{k: row[k] for k in ("input_length", "output_length")}}
                                                     for at, row in zip(poisson(rng, rate, count), turns)])
    return make


def three_kinds(rate, count):
    """1:1:1 of chat that wants its first token and its pace, answers with a deadline, and jobs of several calls with one for all of
    them. Limits as in JITServe: 2 s and 100 ms, 20 s, 20 s a call."""
    def make(folder):
        rng, rows = random.Random(4), []
        for i, at in enumerate(poisson(rng, rate, count)):
            kind = rng.randrange(3)
            if kind == 0:
                rows.append({"timestamp": at, "input_length": rng.randint(100, 1500), "output_length": rng.randint(50, 300),
                             "slo": {"ttft_ms": 2000, "tbt_ms": 100}})
            elif kind == 1:
                rows.append({"timestamp": at, "input_length": rng.randint(500, 6000), "output_length": rng.randint(50, 500),
                             "slo": {"deadline_ms": 20000}})
            else:
                size, calls = rng.randint(500, 3000), rng.randint(2, 5)
                for _ in range(calls):
                    output = rng.randint(50, 300)
                    rows.append({"timestamp": at, "input_length": size, "output_length": output, "job_id": f"job{i}", "gap_s": 0.5,
                                 "slo": {"job_deadline_ms": 20000 * calls}})
                    size += output + rng.randint(100, 500)
        return write(folder, f"three_kinds_{rate}", rows)
    return make


def two_tenants(rate, count):
    """One tenant asks ten times as often with prompts ten times as long; what is urgent is drawn alike for both."""
    def make(folder):
        rng, rows = random.Random(5), []
        for at in poisson(rng, rate, count):
            heavy = rng.random() < 10 / 11
            rows.append({"timestamp": at, "input_length": rng.randint(2000, 8000) if heavy else rng.randint(200, 800),
                         "output_length": rng.randint(50, 200), "tenant": "heavy" if heavy else "light",
                         "priority": rng.randrange(3)})
        return write(folder, f"two_tenants_{rate}", rows)
    return make


def heavy_tailed(rate, count, seed=6):
    def make(folder):
        rng = random.Random(seed)
        return write(folder, f"heavy_tailed_{rate}_{seed}", [{"timestamp": at, "input_length": min(60000, int(300 * rng.paretovariate(1.1))),
                                                       "output_length": min(2000, int(30 * rng.paretovariate(1.2)))}
                                                      for at in poisson(rng, rate, count)])
    return make


def agent_jobs(rate, count, gap_s):
    """Jobs as Continuum takes them from SWE-Bench: 11 turns in the mean, a tool between them, each turn all that was said before."""
    def make(folder):
        rng, rows, at = random.Random(9), [], 0.0
        for i in range(count):
            at, size = at + rng.expovariate(rate), rng.randint(1500, 3000)
            for _ in range(max(2, round(rng.gauss(11, 2)))):
                output = rng.randint(50, 300)
                rows.append({"timestamp": round(at * 1000, 3), "input_length": size, "output_length": output, "job_id": f"job{i}",
                             "tool": "bash", "gap_s": round(rng.expovariate(1 / gap_s), 3)})
                size += output + int(rng.lognormvariate(6.2, 1.0))
        return write(folder, f"agent_jobs_{rate}_{gap_s}", rows)
    return make


def long_answers_to_short(rate, count, seed=6):
    """Three in ten ask shortly and are answered at length, the others the other way round: what is known of a job misleads."""
    def make(folder):
        rng, rows, at = random.Random(seed), [], 0.0
        for _ in range(count):
            at += rng.expovariate(rate)
            prompt, output = (100, 2000) if rng.random() < 0.3 else (1500, 20)
            rows.append({"timestamp": round(at * 1000, 3), "input_length": prompt, "output_length": output})
        return write(folder, f"long_answers_to_short_{rate}_{seed}", rows)
    return make


# ---- experiments ----

MS, S, PERCENT, GB = 1e3, 1, 100, 1e-9
COLUMNS = {
    "TTFT mean, ms": ("ttft_s.mean", MS, 0), "TTFT p99, ms": ("ttft_s.p99", MS, 0), "TBT p99, ms": ("itl_s.p99", MS, 1),
    "TPOT mean, ms": ("tpot_s.mean", MS, 2), "flow mean, s": ("e2e_s.mean", S, 2), "flow p99, s": ("e2e_s.p99", S, 1),
    "job mean, s": ("jct_s.mean", S, 1), "job p95, s": ("jct_s.p95", S, 1), "cache hits, %": ("prefix_hit_rate", PERCENT, 1),
    "expert GB": ("expert_bytes", GB, 0), "goodput, 1/s": ("goodput_rps", S, 3), "in time, %": ("attainment", PERCENT, 1),
    "rate at 90 %, 1/s": ("max_rate_rps", S, 2), "stop p99, ms": ("stop_reaction_s", MS, 2), "evictions": ("evictions", S, 0),
    "recomputed": ("recomputed_tokens", S, 0), "Jain": ("jain", S, 3), "tokens/s": ("tokens_per_s", S, 0),
    "evictions in 1,000": ("evictions_per_1000", S, 1), "KV in use, %": ("kv_usage", PERCENT, 1),
    "TBT p99.9, ms": ("itl_s.p99_9", MS, 0), "late first, %": ("late_first", PERCENT, 1), "long gap, %": ("long_gap", PERCENT, 1),
    "displaced": ("displaced", S, 0), "copied back": ("swap_in_pages", S, 0), "copied out": ("swap_out_pages", S, 0),
    "light TTFT p99, ms": ("light_ttft_p99_s", MS, 0), "of short prompts, ms": ("short_ttft_mean_s", MS, 0),
    "p50, ms": ("short_ttft_p50_s", MS, 0),
}
MOE = {"model": "Qwen3-30B-A3B", "hardware": "H100"}
DENSE = {"model": "Llama-3.1-8B", "hardware": "H100"}
LATENCY = ["TTFT mean, ms", "TTFT p99, ms", "TBT p99, ms"]
ADMISSION = ["goodput, 1/s", "in time, %", "evictions in 1,000", "recomputed", "KV in use, %", "tokens/s"]
ADMISSIONS = ("greedy", "conservative", "past-future", "past-future max-tokens=exact")
PAPERS_CLIENTS = dict( # 120,000 tokens: what 60 GB hold of a 7B without grouped heads, which takes four times an 8B's bytes a token
    model="Llama-3.1-8B", hardware="A100-80G", paper="2 to 3 times the goodput (LightLLM)", flags=["--slo", "ttft_ms=10000,tbt_ms=1500"],
    cells=[f"admission={a} kv-cache-memory=15G running-max=256" for a in ADMISSIONS], limits_ms=(10000, 1500),
    columns=ADMISSION + ["late first, %", "long gap, %", "TTFT mean, ms"])
PEER = "slicing=chunked order=fcfs admission=greedy preemption=none retention=lru reclaim=recompute"
DEFAULT = "slicing=auto order=deadline"
# What each axis does for the peer-like configuration, alone and all together: from this the defaults were chosen.
AXES = ["", "order=deadline", "slicing=auto", "admission=past-future", "retention=ttl", "reclaim=auto host-cache-memory=40G", DEFAULT,
        "slicing=auto order=deadline admission=past-future retention=ttl reclaim=auto host-cache-memory=40G",
        "slicing=whole preemption=operator order=deadline"]
ALL_ON = dict(cells=AXES, paper="our own claim", columns=["rate at 90 %, 1/s", "in time, %"] + LATENCY)

SWAP_CELLS = [f"order=priority priority-age=1000000 displace=yes kv-cache-memory=6G {words}" for words in (
    "reclaim=recompute", "reclaim=swap host-cache-memory=60G", "reclaim=auto host-cache-memory=60G",
    "reclaim=swap host-cache-memory=4G")]
SWAP_COLUMNS = LATENCY + ["TBT p99.9, ms", "flow mean, s", "tokens/s", "cache hits, %", "evictions in 1,000", "recomputed", "copied out",
                          "copied back"]

EXPERIMENTS = {
    "layered_moe": dict(
        title="Layered against chunked prefill, Qwen3-30B-A3B on an H100, arXiv lengths as long as the paper's (mean 9,194), 1.3 a second", **MOE,
        paper="expert bytes -39 %, mean TTFT -56 %, p99 TBT -27 % (arXiv 2510.08055)",
        trace=arxiv(1.3, 300, ARXIV_PAPER), cells=["slicing=chunked chunk-tokens=512", "slicing=layered", "slicing=auto"],
        columns=["expert GB"] + LATENCY),
    "layered_moe_short": dict(
        title="The same with the public lengths (mean 2,582), 4.5 a second", **MOE,
        paper="expert bytes -12 % on ShareGPT (mean 2,340)",
        trace=arxiv(4.5, 400), cells=["slicing=chunked chunk-tokens=512", "slicing=layered", "slicing=auto"],
        columns=["expert GB"] + LATENCY),
    "layered_dense": dict(
        title="The same on a dense 8B", **DENSE, paper="layered loses on dense models; `auto` is not worse than the better",
        trace=arxiv(4.5, 400), cells=["slicing=chunked chunk-tokens=512", "slicing=layered", "slicing=auto"], columns=LATENCY + ["flow mean, s"]),
    "preemption": dict(
        title="Stops at operators and deadline order, four classes (0.25, 0.5, 4, 6 s), Llama-3.1-8B on an H100", **DENSE,
        paper="up to 5.6 times the goodput, stops within 4.5 ms (FlowPrefill)", trace=mixed_slo(6, 600), flags=["--rate-sweep"],
        cells=["slicing=whole order=fcfs", "slicing=chunked order=fcfs", "slicing=chunked order=deadline",
               "slicing=whole order=deadline preemption=operator"],
        columns=["rate at 90 %, 1/s", "goodput, 1/s", "in time, %", "stop p99, ms"] + LATENCY),
    "agents": dict(
        title="Jobs of agents (WEKA, the first 1,500 calls, lengths x 0.2, gaps of at most 20 s, 24 GiB of KV pages), Llama-3.1-8B on an H100", **DENSE,
        paper="1.1 to 3.7 times faster jobs (Continuum); an independent replay: order alone 12 to 21 %",
        trace=lambda folder: public("weka_claude_code_220_sessions.jsonl.gz"),
        flags=["--requests", "1500", "--rate", "0.5", "--length-scale", "0.2", "--gap-max", "20s"],
        cells=[f"kv-cache-memory=24G {words}" for words in (
            "retention=lru order=fcfs", "retention=lru order=job", *(f"retention=ttl ttl={t}s order=job" for t in (1, 2, 5, 10, 20, 40)),
            "retention=ttl ttl-fitted=yes order=job", "retention=workflow ttl-fitted=yes order=job", "retention=ttl hints=yes order=job",
            "retention=ttl ttl-fitted=yes hints=yes order=job")],
        columns=["job mean, s", "job p95, s", "cache hits, %", "TTFT mean, ms", "evictions"]),
    "agents_busy": dict(
        title="The same where the machine is busy: ten times the sessions at once, the first 3,000 calls, gaps of at most 2 s", **DENSE,
        paper="1.1 to 3.7 times faster jobs (Continuum)", trace=lambda folder: public("weka_claude_code_220_sessions.jsonl.gz"),
        flags=["--requests", "3000", "--rate", "5", "--length-scale", "0.2", "--gap-max", "2s"],
        cells=[f"kv-cache-memory=24G {words}" for words in (
            "retention=lru order=fcfs", "retention=ttl ttl=5s order=fcfs", "retention=lru order=job", "retention=ttl ttl=2s order=job",
            "retention=ttl ttl=5s order=job", "retention=ttl ttl=10s order=job", "retention=ttl ttl-fitted=yes order=job",
            "retention=workflow ttl=5s order=job", "retention=ttl hints=yes order=job", "retention=lru order=srpt")],
        columns=["job mean, s", "job p95, s", "cache hits, %", "TTFT mean, ms", "evictions"]),
    "agent_jobs": dict(
        title="Short jobs of agents that come in numbers (200 jobs, 11 turns, tools of 1 s in the mean, 0.3 jobs a second, 24 GiB of KV pages), "
              "Llama-3.1-8B on an A100", model="Llama-3.1-8B", hardware="A100-80G", paper="1.1 to 3.7 times faster jobs (Continuum)",
        trace=agent_jobs(0.3, 200, 1),
        cells=[f"kv-cache-memory=24G running-max=256 {words}" for words in (
            "order=fcfs", "order=job", "retention=ttl order=fcfs", "retention=ttl ttl=2s order=job", "retention=ttl ttl=10s order=job",
            "retention=ttl ttl-fitted=yes order=job", "retention=ttl hints=yes order=job")],
        columns=["job mean, s", "job p95, s", "cache hits, %", "TTFT mean, ms"]),
    "past_future": dict(
        title="Admission on long answers, 80 clients that ask again as soon as they are answered, Llama-3.1-8B on an A100, 6 GiB of KV pages",
        model="Llama-3.1-8B", hardware="A100-80G", paper="2 to 3 times the goodput (LightLLM)", trace=closed_loop(80, 10),
        flags=["--slo", "ttft_ms=10000,tbt_ms=200"],
        cells=[f"admission={a} kv-cache-memory=6G running-max=256"
               for a in ("greedy", "conservative", "past-future", "conservative max-tokens=exact", "past-future max-tokens=exact")],
        columns=ADMISSION + LATENCY),
    "past_future_open": dict(
        title="The same where memory is cheap to take back and a queue decides: open loop, 1.5 s between tokens, 4 GiB",
        model="Llama-3.1-8B", hardware="A100-80G", paper="2 to 3 times the goodput (LightLLM)", trace=decode_heavy(1.1, 500),
        flags=["--slo", "ttft_ms=10000,tbt_ms=1500"],
        cells=[f"admission={a} kv-cache-memory=4G running-max=256"
               for a in ADMISSIONS],
        columns=ADMISSION + LATENCY),
    "past_future_paper": dict(
        title="The paper's decode-heavy lengths (32 to 4,096 in, 2,048 to 4,096 out) and limits (10 s, 1.5 s), 30 clients that ask again at "
              "once, memory for 120,000 tokens", trace=closed_loop_uniform(30, 8, (32, 4096), (2048, 4096)), **PAPERS_CLIENTS),
    "past_future_paper_more": dict(
        title="The same, 40 clients", trace=closed_loop_uniform(40, 8, (32, 4096), (2048, 4096)), **PAPERS_CLIENTS),
    "swap_markov": dict(
        title="Copies to host memory against computing again, conversations whose priorities change (Markov, every 0.5 s), Llama-3.1-8B on an "
              "A100, 6 GiB of KV pages", model="Llama-3.1-8B", hardware="A100-80G",
        paper="1.4 to 5.8 times better tail TTFT (FastSwitch, against vLLM's swapping)", trace=conversations(1, 400),
        flags=["--priority-pattern", "markov"], cells=SWAP_CELLS, columns=SWAP_COLUMNS),
    "swap_random": dict(
        title="The same, priorities drawn anew every 0.5 s", model="Llama-3.1-8B", hardware="A100-80G",
        paper="the same range, both patterns", trace=conversations(1, 400), flags=["--priority-pattern", "random"], cells=SWAP_CELLS,
        columns=SWAP_COLUMNS),
    "swap_alone": dict(
        title="Markov again, requests that share nothing, as long as those turns, 3 a second", model="Llama-3.1-8B", hardware="A100-80G",
        paper="not measured apart", trace=turns_alone(3, 800), flags=["--priority-pattern", "markov"], cells=SWAP_CELLS,
        columns=SWAP_COLUMNS),
    "goodput": dict(
        title="Value per second: chat, deadlines and jobs 1:1:1 beyond saturation, Llama-3.1-8B on an A100",
        model="Llama-3.1-8B", hardware="A100-80G", paper="1.4 to 6.3 times the goodput (JITServe)", trace=three_kinds(6, 900),
        cells=[f"hints=yes order={o}" for o in ("fcfs", "deadline", "srpt", "goodput")],
        columns=["goodput, 1/s", "in time, %", "TTFT mean, ms", "flow mean, s"]),
    "fair": dict(
        title="A tenant with ten times the requests and ten times the prompts, Llama-3.1-8B on an A100", model="Llama-3.1-8B",
        hardware="A100-80G", paper="small jobs -74 % (UWFQ)", trace=two_tenants(3, 800),
        cells=["order=fcfs", "order=priority", "order=fcfs fair=yes"], columns=["light TTFT p99, ms", "Jain", "TTFT mean, ms", "tokens/s"],
        light_tenant="light"),
    "srpt": dict(
        title="Heavy-tailed lengths, Llama-3.1-8B on an H100", **DENSE, paper="a competitive bound, no figure",
        trace=heavy_tailed(11, 900),
        cells=[*(f"order={o}" for o in ("fcfs", "deadline", "srpt")), "order=priority priority-age=1000000 hints=sizes"],
        columns=["flow mean, s", "flow p99, s", "TTFT mean, ms"]),
    "srpt_misled": dict(
        title="Where the prompt misleads: short prompts with long answers, long with short, 8 a second, 32 at once, Llama-3.1-8B on an H100",
        **DENSE, paper="O(m^2) for jobs of m operations, no figure", trace=long_answers_to_short(8, 900),
        cells=[f"running-max=32 {words}" for words in ("order=fcfs", "order=srpt", "order=priority priority-age=1000000 hints=sizes")],
        columns=["flow mean, s", "flow p99, s", "TTFT mean, ms"]),
    "laps": dict(
        title="Short prompts apart from long ones, Azure code, Llama-3.1-8B on an H100", **DENSE, paper="prefill latency -30 % (LAPS)",
        trace=lambda folder: public("azure2023_code_first40min.csv.gz"), flags=["--requests", "2000"], short_tokens=256,
        cells=["slicing=chunked", *(f"slicing=chunked short-tokens={n}" for n in (128, 256, 512, 1024, 2048))],
        columns=["of short prompts, ms", "p50, ms", "TTFT mean, ms", "TTFT p99, ms", "TBT p99, ms"]),
    "azure_code": dict(
        title="Each axis, and all: Azure code, first token within 1 s and 0.1 s between tokens, Llama-3.1-8B on an H100", **DENSE, **ALL_ON,
        trace=lambda folder: public("azure2023_code_first40min.csv.gz"),
        flags=["--requests", "2000", "--slo", "ttft_ms=1000,tbt_ms=100", "--rate-sweep"]),
    "azure_conversation": dict(
        title="The same: Azure conversations", **DENSE, **ALL_ON, trace=lambda folder: public("azure2023_conv_first40min.csv.gz"),
        flags=["--requests", "2000", "--slo", "ttft_ms=1000,tbt_ms=100", "--rate-sweep"]),
    "mooncake": dict(
        title="The same: Mooncake conversations, 15 s and 0.2 s", **DENSE, **ALL_ON,
        trace=lambda folder: public("mooncake_fast25_conversation_first40min.jsonl.gz"),
        flags=["--requests", "400", "--rate-scale", "0.4", "--slo", "ttft_ms=15000,tbt_ms=200", "--rate-sweep"]),
    "arxiv": dict(
        title="The same: arXiv, prompts of 9,194 tokens in the mean, 4 s and 0.05 s, Qwen3-30B-A3B on an H100", **MOE, **ALL_ON,
        trace=arxiv(1.3, 300, ARXIV_PAPER), flags=["--slo", "ttft_ms=4000,tbt_ms=50", "--rate-sweep"]),
    "tenants": dict(
        title="The same: two tenants, one with ten times the requests and prompts, 2 s and 0.1 s, Llama-3.1-8B on an A100",
        model="Llama-3.1-8B", hardware="A100-80G", **{**ALL_ON, "cells": [*AXES, "fair=yes", f"{DEFAULT} fair=yes"]},
        trace=two_tenants(3, 600), flags=["--slo", "ttft_ms=2000,tbt_ms=100", "--rate-sweep"]),
    "weka": dict(
        title="The same: agent sessions (WEKA, as above, all memory), 5 s and 0.1 s, Llama-3.1-8B on an H100", **DENSE,
        **{**ALL_ON, "columns": ["in time, %", "job mean, s", "cache hits, %"] + LATENCY},
        trace=lambda folder: public("weka_claude_code_220_sessions.jsonl.gz"),
        flags=["--requests", "1500", "--rate", "0.5", "--length-scale", "0.2", "--gap-max", "20s", "--slo", "ttft_ms=5000,tbt_ms=100"]),
}

JUDGED_ON = {"azure_code": "Azure code", "azure_conversation": "Azure conversations", "mooncake": "Mooncake", "arxiv": "arXiv, MoE",
             "tenants": "two tenants", "weka": "WEKA"}
DEFAULT_STEPS = {"": "peer-like", "order=deadline": "order = deadline", "slicing=auto": "slicing = auto", DEFAULT: "both: the default"}


# ---- sweeps: one figure of each pair of cells, over situations and seeds ----

def better(path):
    """How many times smaller the figure of cell `i` is than the first's."""
    one, two = path.split(".")
    return lambda i: lambda cells: cells[0][one][two] / cells[i][one][two]


def over_oracle(i):
    return lambda cells: cells[i]["e2e_s"]["mean"] / cells[0]["e2e_s"]["mean"]


ORACLE = "order=priority priority-age=1000000 hints=sizes"
AGENTS = ("order=fcfs", "order=job", "retention=ttl order=fcfs", "retention=ttl ttl=2s order=job", "retention=ttl ttl-fitted=yes order=job",
          "retention=ttl hints=yes order=job")
SWEEPS = {
    "swap_sweep": dict(
        title="p99 of the first token, p99.9 between tokens and tokens a second, times better with copies than computing again; six seeds",
        model="Llama-3.1-8B", hardware="A100-80G", seeds=6, cells=SWAP_CELLS[:2],
        columns={"p99 of the first token": better("ttft_s.p99")(1), "p99.9 between tokens": better("itl_s.p99_9")(1),
                 "tokens/s": lambda cells: cells[1]["tokens_per_s"] / cells[0]["tokens_per_s"]},
        rows=[(f"{what}, {rate} a second", lambda seed, make=make, rate=rate, count=count: make(rate, count), "", ["--priority-pattern", pattern])
              for what, pattern, make, rates, count in (
                  ("Markov, conversations", "markov", conversations, (1, 2, 3), 400),
                  ("Markov, nothing shared", "markov", turns_alone, (2, 3, 4), 800),
                  ("drawn anew, conversations", "random", conversations, (1, 2), 400))
              for rate in rates]),
    "agents_sweep": dict(
        title="Mean of a job: the first column's over each", model="Llama-3.1-8B", hardware="A100-80G", seeds=1, cells=AGENTS,
        columns={"`order=fcfs`, s": lambda cells: cells[0]["jct_s"]["mean"],
                 **{f"`{words}`": better("jct_s.mean")(i) for i, words in enumerate(AGENTS) if i}},
        rows=[(f"{rate} jobs/s, gaps of {gap} s, {memory[:-1]} GiB", lambda seed, rate=rate, gap=gap: agent_jobs(rate, 200, gap),
               f"kv-cache-memory={memory} running-max=256", [])
              for rate, gap, memory in ((0.2, 1, "24G"), (0.3, 1, "24G"), (0.5, 1, "24G"), (2, 1, "24G"), (1.5, 5, "24G"), (0.3, 20, "24G"),
                                        (0.5, 1, "6G"), (1, 5, "6G"), (2, 1, "60G"))]),
    "srpt_sweep": dict(
        title="Mean flow time over the oracle's; three seeds", **DENSE, seeds=3, cells=(ORACLE, "order=fcfs", "order=srpt"),
        columns={"`fcfs`": over_oracle(1), "`srpt`": over_oracle(2)},
        rows=[*((f"heavy-tailed, {rate} a second", lambda seed, rate=rate: heavy_tailed(rate, 900, 6 + seed), "", []) for rate in (8, 11, 14, 20)),
              *((f"prompts that mislead, {rate} a second, 32 at once", lambda seed, rate=rate: long_answers_to_short(rate, 900, 6 + seed),
                 "running-max=32", []) for rate in (8, 12, 20))]),
    "deadline_sweep": dict(
        title="Azure code at other loads, first token within 1 s, 2,000 requests", **DENSE, seeds=1, cells=("order=fcfs", "order=deadline"),
        columns={f"{what}, `{words}`": (lambda cells, i=i, take=take: take(cells[i])) for what, take in (
            ("late", lambda c: (1 - c["attainment"]) * 2000), ("p90, ms", lambda c: c["ttft_s"]["p90"] * 1e3),
            ("p99, ms", lambda c: c["ttft_s"]["p99"] * 1e3)) for i, words in enumerate(("fcfs", "deadline"))},
        rows=[(f"{load} times the trace's rate", lambda seed: lambda folder: public("azure2023_code_first40min.csv.gz"), "",
               ["--requests", "2000", "--rate-scale", str(load), "--slo", "ttft_ms=1000"]) for load in (0.5, 0.75, 1, 1.25, 1.5, 2)]),
}


def spread(values):
    texts = [f"{v:,.0f}" if v >= 10 or v == 0 else f"{v:.2g}" if v >= 1.995 else f"{v:.2f}" for v in (min(values), max(values))]
    return texts[0] if texts[0] == texts[1] else " to ".join(texts)


def sweep(tool, s, folder):
    lines = ["| | " + " | ".join(s["columns"]) + " |", "|---|" + "---:|" * len(s["columns"])]
    for label, trace, words, flags in s["rows"]:
        runs = [[run_cell(tool, dict(s, flags=[*flags, "--seed", str(seed)]), trace(seed)(folder), f"{words} {cell}", folder / "sweep")
                 for cell in s["cells"]] for seed in range(s["seeds"])]
        lines.append(f"| {label} | " + " | ".join(spread([of(cells) for cells in runs]) for of in s["columns"].values()) + " |")
    return f"**{s['title']}.**\n\n" + "\n".join(lines)


# ---- running ----

def percentile(values, share):
    values = sorted(values)
    at = share * (len(values) - 1)
    low = int(at)
    return values[low] if low + 1 == len(values) else values[low] + (at - low) * (values[low + 1] - values[low])


def settings(words):
    """What a cell says, over the peer-like configuration: no table changes its meaning when a default does."""
    chosen = dict(word.split("=", 1) for word in f"{PEER} {words}".split())
    return " ".join(f"{key}={value}" for key, value in chosen.items())


def run_cell(tool, e, path, words, folder):
    command = [tool, "compare", "--json", "--quiet", "--trace", path, "--model", e["model"], "--hardware", e["hardware"],
               "--grid", settings(words), "--out", folder, *e.get("flags", [])]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{e['title']}: {done.stderr.strip()}")
    cell = json.loads(done.stdout)["cells"][0]
    if "light_tenant" in e:
        rows = map(json.loads, (folder / "cell-1.jsonl").read_text().splitlines())
        cell["light_ttft_p99_s"] = percentile([r["ttft_ms"] / 1e3 for r in rows if r.get("tenant") == e["light_tenant"]], 0.99)
    if "short_tokens" in e:
        rows = map(json.loads, (folder / "cell-1.jsonl").read_text().splitlines())
        waits = [r["ttft_ms"] / 1e3 for r in rows if r["prompt_tokens"] <= e["short_tokens"]]
        cell["short_ttft_mean_s"], cell["short_ttft_p50_s"] = sum(waits) / len(waits), percentile(waits, 0.5)
    if "limits_ms" in e:
        rows = list(map(json.loads, (folder / "cell-1.jsonl").read_text().splitlines()))
        cell["late_first"] = sum(r["ttft_ms"] > e["limits_ms"][0] for r in rows) / len(rows)
        cell["long_gap"] = sum(r["max_itl_ms"] > e["limits_ms"][1] for r in rows) / len(rows)
    return cell


def figure(cell, column):
    path, scale, digits = COLUMNS[column]
    value = cell
    for part in path.split("."):
        value = value[part]
    return value * scale, digits


def columns_of(e, cells):
    return [(c, [figure(cell, c)[0] for cell in cells], COLUMNS[c][2]) for c in e["columns"]]


def table(e, cells):
    lines = ["| | " + " | ".join(e["columns"]) + " |", "|---|" + "---:|" * len(e["columns"])]
    columns = columns_of(e, cells)
    for i, words in enumerate(e["cells"]):
        row = [sim_page.said(values, i, digits) for _, values, digits in columns]
        lines.append(f"| `{words or PEER}` | " + " | ".join(row) + " |")
    return "\n".join(lines)


def section(name, result, folder):
    """folder: where the run left its requests, or None."""
    e, cells = EXPERIMENTS[name], result["cells"]
    folders = [folder / name / str(i) for i in range(len(cells))] if folder else []
    return sim_page.section(name, result["title"], e["paper"], [c["words"] or PEER for c in cells], columns_of(e, cells), folders)


def draw_page(path, dated, results, folder=None):
    names = [name for name in results if name in EXPERIMENTS]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(sim_page.page(dated, names, [section(name, results[name], folder) for name in names]))
    print(f"\nplots: {path}")


def defaults(results):
    """The picture for docs/: the first column of each trace that the defaults were chosen on; None where one of them is missing."""
    if any(name not in results for name in JUDGED_ON):
        return None
    groups = []
    for name, label in JUDGED_ON.items():
        cells = {cell["words"]: cell for cell in results[name]["cells"]}
        column, values, digits = columns_of(EXPERIMENTS[name], [cells[words] for words in DEFAULT_STEPS])[0]
        groups.append((f"{label}: {column}", values, digits))
    return sim_page.ratios("Rate at which 90 % are in time (WEKA: how many are in time), simulated", list(DEFAULT_STEPS.values()), groups)


def draw_defaults(results):
    picture = defaults(results)
    if picture:
        DEFAULTS.write_text(picture)


def recorded(results):
    """JSON of one line a cell, so that a change of one is a change of one line."""
    lines = []
    for name, r in results.items():
        head = json.dumps({key: value for key, value in r.items() if key != "cells"})[1:-1]
        lines.append(f'{json.dumps(name)}: {{{head}, "cells": [\n' + ",\n".join(json.dumps(cell) for cell in r["cells"]) + "\n]}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def put_into_docs(name, text):
    page = DOCS.read_text()
    begin, end = f"<!-- {name}: printed by make bench-sim -->\n", "<!-- end -->"
    pattern = re.compile(re.escape(begin) + r".*?" + re.escape(end), re.S)
    assert pattern.search(page), f"docs/scheduling.md has no place for {name}"
    DOCS.write_text(pattern.sub(lambda _: begin + text + "\n" + end, page))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=pathlib.Path("build"))
    parser.add_argument("--docs", action="store_true")
    parser.add_argument("--plot", type=pathlib.Path, metavar="RESULTS", help="draw these recorded figures; run nothing")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    page = ROOT / options.build / "bench-sim.html"
    if options.plot:
        results = json.loads(options.plot.read_text())
        absent = [name for name in options.names if name not in results]
        if absent:
            sys.exit(f"{options.plot} has no experiment {absent[0]}; it has {', '.join(results)}")
        draw_page(page, options.plot.name, {name: results[name] for name in options.names or results})
        if options.docs:
            draw_defaults(results)
        return
    tool, folder = ROOT / options.build / "penstock-bench", ROOT / options.build / "sim"
    folder.mkdir(parents=True, exist_ok=True)
    date, results = datetime.date.today().isoformat(), {}
    for name in options.names or [*EXPERIMENTS, *SWEEPS]:
        if name in SWEEPS:
            text = sweep(tool, SWEEPS[name], folder)
            print(f"\n== {name}\n{text}", flush=True)
            if options.docs:
                put_into_docs(name, text)
            continue
        e = EXPERIMENTS[name]
        try:
            path = e["trace"](folder)
        except Missing as missing:
            print(f"\n== {name}: skipped, {missing} is not in {TRACES}")
            continue
        cells = [run_cell(tool, e, path, words, folder / name / str(i)) for i, words in enumerate(e["cells"])]
        text = f"**{e['title']}.** Paper: {e['paper']}.\n\n{table(e, cells)}"
        print(f"\n== {name}\n{text}", flush=True)
        results[name] = dict(title=e["title"], model=e["model"], hardware=e["hardware"], flags=e.get("flags", []),
                             cells=[dict(words=w, **c) for w, c in zip(e["cells"], cells)])
        if options.docs:
            put_into_docs(name, text)
    if results:
        draw_page(page, date, results, folder)
    if options.docs:
        path = ROOT / f"bench/results/sim-{date}.json"
        path.parent.mkdir(exist_ok=True)
        results = {**(json.loads(path.read_text()) if path.exists() else {}), **results}
        path.write_text(recorded(results))
        draw_defaults(results)


if __name__ == "__main__":
    main()

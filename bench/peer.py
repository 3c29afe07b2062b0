#!/usr/bin/env python3
"""Penstock beside llama.cpp as Debian testing packages it, on the same machine, in turns.

    bench/peer.py [--rounds 20] [--folder DIR] [--only decode,prefill,streams,latency,start] [--json FILE]

A machine's memory bandwidth may change from one second to the next, so nothing is measured alone: each round runs the peer
and Penstock (which reads the machine's ceiling beside its own work) one after the other, for a second or two each, and what
counts is the median of the rounds' ratios. Needs root (chroot), mmdebstrap, and about 8 GB in --folder, where the peer is unpacked once."""
import argparse
import contextlib
import csv
import http.client
import io
import json
import os
import pathlib
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PEER_PACKAGES = "llama.cpp-tools,libggml0-backend-blas,libopenblas0-pthread,python3-gguf,bash,coreutils"
PEER_SUITE = "forky"
THREADS = 2


def run(*command, **settings):
    return subprocess.run([str(c) for c in command], check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL,
                          **settings).stdout


class Peer:
    """Debian testing's llama.cpp, unpacked into a folder and run by chroot."""

    def __init__(self, folder):
        self.root = folder / "root"
        if not (self.root / "usr/bin/llama-bench").exists():
            self._unpack()
        (self.root / "m").mkdir(exist_ok=True)
        shutil.copy(ROOT / "bench/peer_model.py", self.root)

    def _unpack(self):
        print(f"unpacking llama.cpp from Debian {PEER_SUITE} into {self.root} ...", flush=True)
        self.root.parent.mkdir(parents=True, exist_ok=True)
        uris = run("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages").split()
        mirror = next(u for u in uris if "security" not in u)  # the mirror that this machine uses
        run("mmdebstrap", '--aptopt=Acquire::Check-Valid-Until "false"', "--variant=extract", f"--include={PEER_PACKAGES}",
            PEER_SUITE, self.root, mirror)

    def model(self, name):
        """Path inside the root of a random-weight model; "tokenizer": with the embedded model's."""
        if not (self.root / f"m/{name}.gguf").exists():
            blas = "/usr/lib/x86_64-linux-gnu/openblas-pthread:/usr/lib/x86_64-linux-gnu/lapack"
            shutil.copy(ROOT / "models/embedded/tokenizer.json", self.root / "m")
            run("chroot", self.root, "env", f"LD_LIBRARY_PATH={blas}", "python3", "/peer_model.py", f"/m/{name}.gguf", name,
                *(["/m/tokenizer.json"] if name == "tokenizer" else []))
        return f"/m/{name}.gguf"

    def server_command(self, name, port, threads=THREADS, slots=1, context=2048):
        return ["chroot", self.root, "/usr/bin/llama-server", "-m", self.model(name), "--host", "127.0.0.1", "--port", port, "-t",
                threads, "-c", context, "-np", slots]

    def speed(self, name, prompt=0, output=0):
        """Tokens a second of llama-bench."""
        out = run("chroot", self.root, "/usr/bin/llama-bench", "-m", self.model(name), "-t", THREADS, "-p", prompt, "-n", output,
                  "-r", 1, "-o", "csv")
        lines = [line for line in out.splitlines() if line.count(",") > 10]
        return float(next(csv.DictReader(io.StringIO("\n".join(lines))))["avg_ts"])

    @contextlib.contextmanager
    def server(self, name, slots, context):
        port = free_port()
        with background(self.server_command(name, port, slots=slots, context=context)):
            wait_for_http(port)
            yield port, name


class Penstock:
    def __init__(self, build):
        self.binary, self.clients = build / "penstock", build / "bench/clients"

    def generate(self, name, prompt, output, streams=1):
        """What `penstock generate` measured: prefill_tokens_per_s, decode_tokens_per_s, bytes_per_step, ..."""
        out = run(self.binary, "generate", "--model", f"random:{name}", "--prompt-tokens", prompt, "--max-tokens", output,
                  "--ignore-eos", "--threads", THREADS, "--streams", streams, "--jsonl-stats")
        return json.loads(out.splitlines()[-1])

    @contextlib.contextmanager
    def server(self, name, slots, context):
        port = free_port()
        with background([self.binary, "serve", "--model", f"random:{name}", "--port", port, "--threads", THREADS,
                         "--running-max", slots, "--kv-cache-memory", "1G", "--log-level", "warn"]):
            wait_for_http(port, "/ready")
            yield port, f"random:{name}"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextlib.contextmanager
def background(command):
    process = subprocess.Popen([str(c) for c in command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for_http(port, path="/health", seconds=120):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", path)
            if connection.getresponse().status == 200:
                return
        time.sleep(0.01)
    raise TimeoutError(f"nothing answers on port {port}")


class Table:
    """Rows of goal, what, ours, theirs, ratio; medians with the middle half of the rounds."""

    def __init__(self):
        self.rows = []
        print(f"{'':4} {'':52} {'Penstock':>12} {'other':>12} {'ratio':>8} {'goal':>8}   middle half of the ratios", flush=True)

    def add(self, goal_id, what, pairs, goal, at_most=False):
        ratios = sorted(ours / other for ours, other in pairs)
        ratio = statistics.median(ratios)
        low, high = ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]
        ours, other = (statistics.median(p[i] for p in pairs) for i in (0, 1))
        met = ratio <= goal if at_most else ratio >= goal
        self.rows.append({"id": goal_id, "what": what, "penstock": ours, "other": other, "ratio": ratio, "goal": goal, "met": met,
                          "rounds": len(pairs)})
        print(f"{goal_id:4} {what:52} {ours:12.2f} {other:12.2f} {ratio:8.3f} {'<=' if at_most else '>='}{goal:6.2f}   "
              f"{low:.3f} .. {high:.3f}{'' if met else '   NOT MET'}", flush=True)


def measure_decode(table, peer, penstock, rounds):
    for name in ("llama-160m", "qwen2.5-0.5b", "moe-655m"):
        roof, speed = [], []
        for _ in range(rounds):
            other, ours = peer.speed(name, output=64), penstock.generate(name, 16, 64)
            roof.append((ours["bytes_per_step"] / ours["step_ms"] / 1e6, ours["read_bytes_per_s"] / 1e9))
            speed.append((ours["decode_tokens_per_s"], other))
        is_moe = name.startswith("moe")
        if not is_moe:
            table.add("C1", f"{name} decode, GB/s of the read roofline", roof, 0.85)
        table.add("C8" if is_moe else "C2", f"{name} decode, tokens/s", speed, 1.2 if is_moe else 1.25)


def measure_prefill(table, peer, penstock, rounds):
    for name in ("llama-160m", "qwen2.5-0.5b"):
        pairs = [(penstock.generate(name, 512, 2)["prefill_tokens_per_s"], peer.speed(name, prompt=512)) for _ in range(rounds)]
        table.add("C4", f"{name} prefill of 512, tokens/s", pairs, 2.5)


def load(penstock, port, model, streams, requests, prompt, output):
    return json.loads(run(penstock.clients, port, streams, requests, prompt, output, model))


def measure_streams(table, peer, penstock, rounds):
    """16 answers at once, while all of them decode."""
    for name in ("llama-160m", "qwen2.5-0.5b"):
        pairs = []
        with peer.server(name, 16, 16 * 512) as theirs, penstock.server(name, 16, 512) as ours:
            for _ in range(rounds):
                pairs.append(tuple(load(penstock, *server, 16, 1, 32, 192)["decode_tokens_s"] for server in (ours, theirs)))
        table.add("C7", f"{name}, 16 streams, tokens/s together", pairs, 2.5)
        hosts = [(penstock.generate(name, 32, 64, streams=16)["host_share"] * 100, 100) for _ in range(rounds)]
        table.add("C10", f"{name}, 16 streams, % of time outside operators", hosts, 0.03, at_most=True)


def measure_latency(table, peer, penstock, rounds):
    """Eight clients, three prompts of 300 tokens each: what a joining prompt does to the others' tokens."""
    spread, speed = [], []
    with peer.server("dense-292m", 8, 8 * 1024) as theirs, penstock.server("dense-292m", 8, 1024) as ours:
        for _ in range(rounds):
            mine, other = (load(penstock, *server, 8, 3, 300, 64) for server in (ours, theirs))
            spread.append((mine["itl_p99_ms"], mine["itl_p50_ms"]))
            speed.append((mine["tokens_s"], other["tokens_s"]))
            print(f"     peer: ITL p50 {other['itl_p50_ms']:.1f} ms, p99 {other['itl_p99_ms']:.1f} ms, "
                  f"TTFT p50 {other['ttft_p50_ms']:.0f} ms; Penstock: TTFT p50 {mine['ttft_p50_ms']:.0f} ms", flush=True)
    table.add("C9", "8 clients, ITL p99 over p50, ms", spread, 3, at_most=True)
    table.add("C9", "8 clients, tokens/s together", speed, 1.5)


def first_token_ms(binary):
    """From exec to the first streamed token of the embedded model."""
    port, began = free_port(), time.monotonic()
    body = json.dumps({"model": "embedded", "stream": True, "max_tokens": 1, "messages": [{"role": "user", "content": "Hello"}]})
    with background([binary, "serve", "--model", ROOT / "models/embedded", "--port", port]):
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
                connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                if answer.status == 200 and any(b'"content":"' in line and b'"content":""' not in line for line in answer):
                    return (time.monotonic() - began) * 1000
            if time.monotonic() - began > 30:
                raise TimeoutError("no token within 30 s")
            time.sleep(0.001)


def measure_start(table, peer, penstock, rounds):
    table.add("S2", "exec to first token, ms (other: the goal)", [(first_token_ms(penstock.binary), 150) for _ in range(rounds)], 1,
              at_most=True)


MEASURES = {"decode": measure_decode, "prefill": measure_prefill, "streams": measure_streams, "latency": measure_latency,
            "start": measure_start}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("/var/tmp/penstock-peer"))
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--only", default=",".join(MEASURES))
    parser.add_argument("--json", type=pathlib.Path)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what runs in the background is stopped
    if os.geteuid() != 0 or not shutil.which("mmdebstrap"):
        parser.exit(1, "bench/peer.py: needs root and the package mmdebstrap\n")
    peer, penstock, table = Peer(options.folder), Penstock(options.build.resolve()), Table()
    for name in options.only.split(","):
        long_round = name in ("streams", "latency")
        MEASURES[name](table, peer, penstock, max(3, options.rounds // 4) if long_round else options.rounds)
    if options.json:
        options.json.write_text(json.dumps(table.rows, indent=1) + "\n")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""What the front end costs, beside the least that a libuv and llhttp loop can do (bench/bare_loop.c), on the same machine and in
turns: goals H1 to H6, M1 and M2 of docs/benchmarks.md.

    bench/front_end.py [--build build] [--rounds 5] [--seconds 2] [--peer DIR] [GOAL ...]        `make bench-http`

Servers are pinned to CPU 0 and clients to CPU 1 where a figure is a rate or a time of one; what is printed is the median of the
rounds. H6 needs what bench/peer.py unpacks (into --peer) and is left out without it."""
import argparse
import contextlib
import hashlib
import json
import os
import pathlib
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

import peer
from run import ROOT, describe_machine

STREAMS = 64
STEP_US = 4000
KEY = "bench-of-the-front-end"
EVENT = {"prompt": [5, 6, 7], "max_tokens": 128, "ignore_eos": True, "stream": True}


def pinned(cpu, command):
    return ["taskset", "-c", str(cpu), *map(str, command)]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def get(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
        return answer.read().decode()


def metric(port, name):
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", get(port, "/metrics"), re.M))


def cpu_seconds(pid):
    """Of all its threads, on the CPU."""
    return sum(int((task / "schedstat").read_text().split()[0]) for task in pathlib.Path(f"/proc/{pid}/task").iterdir()) / 1e9


def anonymous_bytes(pid):
    return int(re.search(r"RssAnon:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())[1]) << 10


class Bench:
    def __init__(self, options, folder):
        self.options, self.folder, self.rows = options, folder, []
        self.urgently = []
        self.programs = ROOT / options.build
        self.model = ROOT / "models/embedded"

    @contextlib.contextmanager
    def server(self, command, port, cpu=None):
        command = pinned(cpu, command) if cpu is not None else list(map(str, command))
        process = subprocess.Popen(self.urgently + command, stdout=subprocess.DEVNULL,
                                   stderr=open(self.folder / "log", "ab"))
        try:
            for _ in range(600):
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    if "bare_loop" in str(command) or '"loading"' not in get(port, "/live"):
                        break
                except OSError:
                    time.sleep(0.02)
            yield process
        finally:
            process.terminate()
            process.wait()

    @contextlib.contextmanager
    def penstock(self, *flags, model=None, cpu=None):
        port = free_port()
        command = [self.programs / "penstock", "serve", "--model", model or self.model, "--port", port, "--log-level", "warn",
                   "--served-model-name", "x", "--drain-timeout", "0s", *flags]
        with self.server(command, port, cpu) as process:
            process.port = port
            yield process

    @contextlib.contextmanager
    def loop(self, *arguments, cpu=None):
        port = free_port()
        with self.server([self.programs / "bench/bare_loop", port, *arguments], port, cpu) as process:
            process.port = port
            yield process

    def machine(self, name, **costs):
        """A calibration of the sim device: what operators cost, and nothing else does."""
        file = self.folder / f"{name}.json"
        file.write_text(json.dumps({"name": name, "bytes_per_s": 1e18, "flops_per_s": 1e21, "launch_ns": 0, "operators": costs}))
        return "--device", "sim", "--sim-calibration", file, "--running-max", STREAMS

    def load(self, port, connections, path, body=None, pause_us=0, seconds=None, cpu=1, header=None):
        """One run of bench/http_load: its figures"""
        file = "-"
        if body is not None:
            file = self.folder / "body"
            file.write_text(body if isinstance(body, str) else json.dumps(body, separators=(",", ":")))
        command = [self.programs / "bench/http_load", port, connections, seconds or self.options.seconds, path, file, pause_us]
        command += [header] if header else []
        command = pinned(cpu, command) if cpu is not None else list(map(str, command))
        return json.loads(subprocess.check_output(self.urgently + command))

    @contextlib.contextmanager
    def before_others(self):
        """Whatever else runs on the machine waits, where this is allowed (root), but for a twentieth of each second that the kernel
        keeps for it. Yields how it was run, for the table."""
        first = ["chrt", "-f", "5"]
        allowed = subprocess.run([*first, "true"], stderr=subprocess.DEVNULL).returncode == 0
        self.urgently = first if allowed else []
        yield "at real-time priority" if allowed else "beside whatever else runs"
        self.urgently = []

    def row(self, goal, what, ours, other, ratio, bound, met):
        """One line of the table; ratio and bound as text. No bound: it is only told."""
        verdict = "" if not bound else "met" if met else "**not met**"
        self.rows.append(f"| {goal} | {what} | {ours} | {other} | {ratio} | {bound} | {verdict} |")
        print(self.rows[-1], flush=True)

    def in_turns(self, ours, other):
        """Pairs of figures, measured one after the other in each round."""
        return [(ours(), other()) for _ in range(self.options.rounds)]

    # ---- rates ----

    def against_loop(self, what, port, loop_port, path, body, status, header=None):
        """`status`: what http_load calls the answers that nearly all are to be."""
        pairs = self.in_turns(lambda: self.load(port, 64, path, body, header=header), lambda: self.load(loop_port, 64, path, body))
        for ours, _ in pairs:
            assert ours[status] > 0.9 * (ours["ok"] + ours["refused"] + ours["failed"]), f"{what}: {ours}"
        rate = statistics.median(a["answers_s"] / b["answers_s"] for a, b in pairs)
        late = statistics.median(a["p99_us"] / b["p99_us"] for a, b in pairs)
        median = lambda side, name: statistics.median(pair[side][name] for pair in pairs)
        self.row("H1", f"{what}, 64 connections, answers/s", f"{median(0, 'answers_s'):,.0f}", f"{median(1, 'answers_s'):,.0f}",
                 f"{rate:.2f}", "≥ 0.55", rate >= 0.55)
        self.row("H2", "the same, p99", f"{median(0, 'p99_us'):,.0f} us", f"{median(1, 'p99_us'):,.0f} us", f"{late:.2f}", "≤ 2",
                 late <= 2)

    def h1(self):
        """Refused for what the body says, by a key's limit (one request at once), and by a queue of one place that is taken."""
        chat = {"model": "x", "messages": [{"role": "system", "content": "You are a helpful assistant. " * 16},
                                           {"role": "user", "content": "hello world " * 40}],
                "stream": True, "max_tokens": 128, "temperature": 0.7, "top_p": 0.95}
        path, slow = "/v1/chat/completions", self.machine("slow", logits={"fixed_ns": 20e6})
        keys = self.folder / "keys"
        keys.write_text(f"bench sha256:{hashlib.sha256(KEY.encode()).hexdigest()} concurrency=1\n")
        keys.chmod(0o600)
        with self.before_others() as how, self.loop(cpu=0) as loop:
            with self.penstock("--device", "sim", cpu=0) as daemon:
                self.against_loop(f"{how}: a chat body of 1.1 KB answered 400", daemon.port, loop.port, path, {**chat, "temperature": 7}, "refused")
            with self.penstock(*slow, "--api-keys", keys, cpu=0) as daemon:
                self.against_loop("the same answered 429 by a key's limit", daemon.port, loop.port, path, chat, "refused",
                                  f"Authorization: Bearer {KEY}")
            with self.penstock(*slow, "--running-max", 1, "--waiting-max", 1, cpu=0) as daemon:
                self.against_loop("the same answered 503 by a full queue", daemon.port, loop.port, path, chat, "failed")

    def h3(self):
        """Probes beside streams that keep every core busy."""
        with self.penstock("--max-model-len", 2048, model="random:llama-160m") as daemon:
            clients = subprocess.Popen([self.programs / "bench/clients", str(daemon.port), "16", "1000", "100", "200", "x"],
                                       stdout=subprocess.DEVNULL)
            try:
                time.sleep(1)
                for path in ("/health", "/metrics"):
                    runs = [self.load(daemon.port, 1, path, pause_us=2000, cpu=None) for _ in range(self.options.rounds)]
                    p99 = statistics.median(run["p99_us"] for run in runs)
                    p50 = statistics.median(run["p50_us"] for run in runs)
                    self.row("H3", f"`{path}` under full engine load, p99 (p50 {p50:.0f} us)", f"{p99:,.0f} us", "", "", "≤ 1 ms", p99 <= 1000)
            finally:
                clients.kill()
                clients.wait()

    def cost_us(self, server, *request):
        before = cpu_seconds(server.pid)
        events = self.load(server.port, STREAMS, *request)["events_s"] * self.options.seconds
        return 1e6 * (cpu_seconds(server.pid) - before) / events

    def h4(self):
        """A machine that takes no time, so that nothing but the front end limits the rate, and tokens that are there together go
        out in one write; then one that takes a millisecond, where each event is a write of its own as in the loop."""
        with self.loop(cpu=0) as loop, self.penstock(*self.machine("instant"), cpu=0) as daemon:
            pairs = self.in_turns(lambda: self.load(daemon.port, STREAMS, "/v1/completions", EVENT)["events_s"],
                                  lambda: self.load(loop.port, STREAMS, "/stream/128")["events_s"])
        ratio = statistics.median(a / b for a, b in pairs)
        self.row("H4", f"events/s, {STREAMS} streams of the sim device", f"{statistics.median(a for a, _ in pairs):,.0f}",
                 f"{statistics.median(b for _, b in pairs):,.0f}", f"{ratio:.2f}", "≥ 0.60", ratio >= 0.6)
        with self.loop(1000, cpu=0) as loop, self.penstock(*self.machine("paced", logits={"fixed_ns": 1e6}), cpu=0) as daemon:
            costs = self.in_turns(lambda: self.cost_us(daemon, "/v1/completions", EVENT), lambda: self.cost_us(loop, "/stream/128"))
        ours, other = (statistics.median(column) for column in zip(*costs))
        self.row("", "CPU time of an event that is one write; all threads", f"{ours:.2f} us", f"{other:.2f} us", f"{other / ours:.2f}",
                 "", None)

    def h5(self):
        """A machine of one pace, and no answer that ends meanwhile: what is late is not the device. The loop keeps the same pace in
        the same way, and takes its turns with the daemon; how late its events are is the machine's doing."""
        late = []
        with self.before_others() as how, self.penstock(*self.machine("steady", logits={"fixed_ns": STEP_US * 1000}), cpu=0) as daemon, \
                self.loop(STEP_US, cpu=0) as loop:
            for _ in range(self.options.rounds):
                before = [metric(daemon.port, f"penstock_pass_seconds_{part}") for part in ("sum", "count")]
                run = self.load(daemon.port, STREAMS, "/v1/completions", {**EVENT, "max_tokens": 2000}, seconds=5)
                after = [metric(daemon.port, f"penstock_pass_seconds_{part}") for part in ("sum", "count")]
                step_us = 1e6 * (after[0] - before[0]) / (after[1] - before[1])
                machine = self.load(loop.port, STREAMS, "/stream/2000", seconds=5)
                late.append((run["gap_p99_us"] - step_us, machine["gap_p99_us"] - machine["gap_p50_us"], step_us))
        ours, machine, step = (statistics.median(column) for column in zip(*late))
        added = statistics.median(a - b for a, b, _ in late)
        self.row("H5", f"p99 between tokens less a step of the sim device ({step:,.0f} us), {STREAMS} streams, {how}; ratio: what is "
                 "added to the loop's", f"{ours:,.0f} us", f"{machine:,.0f} us", f"{added:+,.0f} us", "≤ 200 us", added <= 200)

    def h6(self):
        """The peer has the same tokenizer. Its server takes {"content": text}."""
        folder = pathlib.Path(self.options.peer)
        if not (folder / "root/usr/bin/llama-server").exists() or os.geteuid() != 0:
            return print(f"H6 is left out: {folder} has no llama-server, or this is not root (bench/peer.py unpacks it)")
        text, port = "ab cd ef " * 40, free_port()
        theirs = peer.Peer(folder).server_command("tokenizer", port, threads=1)
        with self.penstock("--device", "sim", cpu=0) as daemon, peer.background(pinned(0, theirs)):
            peer.wait_for_http(port)
            pairs = self.in_turns(lambda: self.load(daemon.port, 8, "/tokenize", {"prompt": text})["answers_s"],
                                  lambda: self.load(port, 8, "/tokenize", {"content": text})["answers_s"])
        ratio = statistics.median(a / b for a, b in pairs)
        self.row("H6", "`/tokenize`, 360 characters, 8 connections, answers/s; beside llama-server", f"{statistics.median(a for a, _ in pairs):,.0f}",
                 f"{statistics.median(b for _, b in pairs):,.0f}", f"{ratio:.1f}", "≥ 2", ratio >= 2)

    def body(self):
        """A large body is read, parsed and checked by a worker; the last of its parameters is the one that is wrong."""
        text = json.dumps({"model": "x", "messages": [{"role": "user", "content": "hello world " * 87000}], "temperature": 7})
        with self.penstock("--device", "sim") as daemon:
            took = statistics.median(self.load(daemon.port, 1, "/v1/chat/completions", text)["p50_us"] for _ in range(self.options.rounds))
        self.row("", f"a body of {len(text) / 2**20:.2f} MiB sent, checked on a worker and refused", f"{took / 1000:.1f} ms", "", "", "≤ 10 ms",
                 took <= 10000)

    # ---- memory ----

    def m1(self):
        """With a small model, whose weights and pages are counted in."""
        with self.penstock() as daemon:
            time.sleep(3)
            own = anonymous_bytes(daemon.pid)
        self.row("M1", "memory of an idle daemon with the embedded model, weights and all", f"{own / 2**20:.1f} MiB", "", "", "≤ 24 MiB",
                 own <= 24 << 20)

    def m2(self):
        connections, waiting = 2000, 1000
        tokens = {"prompt": [i % 1000 + 300 for i in range(1000)], "max_tokens": 16}
        request = json.dumps(tokens).encode()
        request = b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s" % (len(request), request)
        with self.penstock("--device", "sim", "--sim-hardware", "cpu", "--running-max", 1, "--waiting-max", 2 * waiting,
                           "--queue-wait-max", "0s", "--connections-per-address", 0, model="random:llama-3.1-8b") as daemon, \
                contextlib.ExitStack() as stack:
            def settled():
                before = anonymous_bytes(daemon.pid)
                while True:
                    time.sleep(0.5)
                    if (now := anonymous_bytes(daemon.pid)) == before:
                        return now
                    before = now

            def dial(count):
                return [stack.enter_context(socket.create_connection(("127.0.0.1", daemon.port))) for _ in range(count)]

            dial(1)[0].sendall(request)  # runs, for minutes; the others wait
            start = settled()
            idle = dial(connections)
            for connection in idle:  # each has had an answer
                connection.sendall(b"GET /version HTTP/1.1\r\nHost: a\r\n\r\n")
                connection.recv(4096)
            per_connection = (settled() - start) / connections

            def wait_in_line(these):
                before = metric(daemon.port, "penstock_exchanges")
                for connection in these:
                    connection.sendall(request)
                while metric(daemon.port, "penstock_exchanges") < before + len(these):
                    time.sleep(0.05)

            wait_in_line(idle[-100:])  # what the first of them take once, for all: tables, the page that metrics are read from
            start = settled()
            wait_in_line(idle[:waiting])
            per_request = (settled() - start) / waiting
        self.row("M2", f"an idle connection, of {connections:,}", f"{per_connection:,.0f} B", "", "", "≤ 2,048 B", per_connection <= 2048)
        self.row("M2", f"a waiting request of 1,000 tokens, of {waiting:,}", f"{per_request:,.0f} B", "", "", "≤ 6,144 B", per_request <= 6144)


GOALS = {"h1": Bench.h1, "h3": Bench.h3, "h4": Bench.h4, "h5": Bench.h5, "h6": Bench.h6, "body": Bench.body, "m1": Bench.m1, "m2": Bench.m2}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=pathlib.Path("build"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--peer", default="/var/tmp/penstock-peer")
    parser.add_argument("goals", nargs="*", choices=[*GOALS, []], metavar="GOAL")
    options = parser.parse_args()
    if os.cpu_count() < 2:
        sys.exit("bench/front_end.py needs two CPUs: one for the server, one for its clients")
    print(describe_machine())
    print("\n| goal | what | Penstock | bare loop | ratio | bound | |\n|---|---|--:|--:|--:|--:|---|")
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        bench = Bench(options, pathlib.Path(folder))
        for goal in options.goals or GOALS:
            GOALS[goal](bench)


if __name__ == "__main__":
    main()

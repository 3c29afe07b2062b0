#!/usr/bin/env python3
"""What the front end costs, beside the least that a libuv and llhttp loop can do (bench/bare_loop.c), on the same machine and in
turns: goals H1 to H6, M1 and M2 of docs/benchmarks.md.

    bench/front_end.py [--build build] [--rounds 5] [--seconds 2] [GOAL ...]        `make bench-http`

Servers are pinned to CPU 0 and clients to CPU 1 where a figure is a rate; what is printed is the median of the rounds."""
import argparse
import contextlib
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

from run import ROOT, describe_machine

STREAMS = 64
PEER_TOKENIZE = 5500  # requests/s of llama-server 0.7.0 on a Zen 4 machine; the peer itself is not run here
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


def anonymous_bytes(pid):
    return int(re.search(r"RssAnon:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())[1]) << 10


class Bench:
    def __init__(self, options, folder):
        self.options, self.folder, self.rows = options, folder, []
        self.programs = ROOT / options.build
        self.model = ROOT / "models/embedded"

    @contextlib.contextmanager
    def server(self, command, port, cpu=None):
        process = subprocess.Popen(pinned(cpu, command) if cpu is not None else list(map(str, command)), stdout=subprocess.DEVNULL,
                                   stderr=open(self.folder / "log", "ab"))
        try:
            for _ in range(600):
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    if "penstock" not in str(command[0]) or '"loading"' not in get(port, "/live"):
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

    def load(self, port, connections, path, body=None, pause_us=0, seconds=None, cpu=1):
        """One run of bench/http_load: its figures"""
        file = "-"
        if body is not None:
            file = self.folder / "body"
            file.write_text(body if isinstance(body, str) else json.dumps(body, separators=(",", ":")))
        command = [self.programs / "bench/http_load", port, connections, seconds or self.options.seconds, path, file, pause_us]
        return json.loads(subprocess.check_output(pinned(cpu, command) if cpu is not None else list(map(str, command))))

    def row(self, goal, what, ours, other, ratio, bound, met):
        """One line of the table; ratio and bound as text."""
        self.rows.append(f"| {goal} | {what} | {ours} | {other} | {ratio} | {bound} | {'met' if met else '**not met**'} |")
        print(self.rows[-1], flush=True)

    def in_turns(self, ours, other):
        """Pairs of figures, measured one after the other in each round."""
        return [(ours(), other()) for _ in range(self.options.rounds)]

    # ---- rates ----

    def against_loop(self, what, port, loop_port, path, body, refused):
        pairs = self.in_turns(lambda: self.load(port, 64, path, body), lambda: self.load(loop_port, 64, path, body))
        assert all(ours["refused"] > 0.5 * (ours["ok"] + ours["refused"]) for ours, _ in pairs) or not refused
        rate = statistics.median(a["answers_s"] / b["answers_s"] for a, b in pairs)
        late = statistics.median(a["p99_us"] / b["p99_us"] for a, b in pairs)
        median = lambda side, name: statistics.median(pair[side][name] for pair in pairs)
        self.row("H1", f"{what}, 64 connections, answers/s", f"{median(0, 'answers_s'):,.0f}", f"{median(1, 'answers_s'):,.0f}",
                 f"{rate:.2f}", "≥ 0.55", rate >= 0.55)
        self.row("H2", "the same, p99", f"{median(0, 'p99_us'):,.0f} us", f"{median(1, 'p99_us'):,.0f} us", f"{late:.2f}", "≤ 2",
                 late <= 2)

    def h1(self):
        chat = {"model": "x", "messages": [{"role": "system", "content": "You are a helpful assistant. " * 16},
                                           {"role": "user", "content": "hello world " * 40}],
                "stream": True, "max_tokens": 128, "temperature": 0.7, "top_p": 0.95}
        path = "/v1/chat/completions"
        with self.loop(cpu=0) as loop:
            with self.penstock("--device", "sim", cpu=0) as daemon:
                self.against_loop("a chat body of 1.1 KB refused with 400", daemon.port, loop.port, path, {**chat, "temperature": 7}, True)
            with self.penstock("--device", "sim", "--sim-hardware", "cpu", "--running-max", 1, "--waiting-max", 1, cpu=0) as daemon:
                self.against_loop("the same answered 429: two of the clients fill the queue", daemon.port, loop.port, path, chat, True)

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

    def h4(self):
        with self.loop(cpu=0) as loop, self.penstock("--device", "sim", "--running-max", STREAMS, cpu=0) as daemon:
            pairs = self.in_turns(lambda: self.load(daemon.port, STREAMS, "/v1/completions", EVENT)["events_s"],
                                  lambda: self.load(loop.port, STREAMS, "/stream/128")["events_s"])
        ratio = statistics.median(a / b for a, b in pairs)
        self.row("H4", f"events/s, {STREAMS} streams of the sim device", f"{statistics.median(a for a, _ in pairs):,.0f}",
                 f"{statistics.median(b for _, b in pairs):,.0f}", f"{ratio:.2f}", "≥ 0.60", ratio >= 0.6)

    def h5(self):
        """The loop beside it sends at a fixed pace: what of the lateness is the machine's."""
        late = []
        with self.penstock("--device", "sim", "--running-max", STREAMS, model="random:llama-3.1-8b") as daemon, \
                self.loop(4000) as loop:
            for _ in range(self.options.rounds):
                before = [metric(daemon.port, f"penstock_pass_seconds_{part}") for part in ("sum", "count")]
                run = self.load(daemon.port, STREAMS, "/v1/completions", {**EVENT, "max_tokens": 400}, cpu=None)
                after = [metric(daemon.port, f"penstock_pass_seconds_{part}") for part in ("sum", "count")]
                step_us = 1e6 * (after[0] - before[0]) / (after[1] - before[1])
                machine = self.load(loop.port, STREAMS, "/stream/400", cpu=None)
                late.append((run["gap_p99_us"] - step_us, machine["gap_p99_us"] - machine["gap_p50_us"], step_us))
        ours, machine, step = (statistics.median(column) for column in zip(*late))
        self.row("H5", f"p99 between tokens less a step of the sim device ({step:,.0f} us), {STREAMS} streams", f"{ours:,.0f} us",
                 f"{machine:,.0f} us", "", "≤ 200 us", ours <= 200)

    def h6(self):
        body = {"prompt": "ab cd ef " * 40}
        with self.penstock("--device", "sim", cpu=0) as daemon:
            rates = [self.load(daemon.port, 64, "/tokenize", body)["answers_s"] for _ in range(self.options.rounds)]
        rate = statistics.median(rates)
        self.row("H6", "`/tokenize`, 360 characters, answers/s; beside llama-server's 5,500 on another machine", f"{rate:,.0f}",
                 f"({PEER_TOKENIZE:,})", f"{rate / PEER_TOKENIZE:.1f}", "≥ 2", rate >= 2 * PEER_TOKENIZE)

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
            start = settled()
            for connection in idle[:waiting]:
                connection.sendall(request)
            while metric(daemon.port, "penstock_exchanges") < waiting:
                time.sleep(0.05)
            per_request = (settled() - start) / waiting
        self.row("M2", f"an idle connection, of {connections:,}", f"{per_connection:,.0f} B", "", "", "≤ 2,048 B", per_connection <= 2048)
        self.row("M2", f"a waiting request of 1,000 tokens, of {waiting:,}", f"{per_request:,.0f} B", "", "", "≤ 6,144 B", per_request <= 6144)


GOALS = {"h1": Bench.h1, "h3": Bench.h3, "h4": Bench.h4, "h5": Bench.h5, "h6": Bench.h6, "body": Bench.body, "m1": Bench.m1, "m2": Bench.m2}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=pathlib.Path("build"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
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

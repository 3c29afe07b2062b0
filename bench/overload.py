#!/usr/bin/env python3
"""Goodput at one, two and three times what a daemon can do, with and without the bound on predicted wait.

    bench/overload.py [--build build] [--seconds 20]

Two modelled CPU cores serve a 160M model (--device sim), so what is measured is the daemon's judgement and not this machine; passes
are long (some 0.2 s) so that its scheduling hardly matters. Arrivals are
Poisson and do not wait for answers (penstock-bench replay); in time is who sees a first token within --ttft-ms. Capacity is what
the same daemon completes while 64 clients always ask."""
import argparse
import json
import pathlib
import random
import subprocess
import tempfile

from peer import ROOT, background, free_port, wait_for_http

RUNNING_MAX, PROMPT, OUTPUT = 32, (100, 500), (20, 80)


def write_trace(path, requests):
    draw = random.Random(1)
    path.write_text("".join(json.dumps({"timestamp": 0, "input_length": draw.randint(*PROMPT), "output_length": draw.randint(*OUTPUT)})
                            + "\n" for _ in range(requests)))


def play(build, folder, rate, requests, wait_max, ttft_ms, concurrency=0):
    """The report of a fresh daemon that was asked so many times."""
    port, trace = free_port(), folder / "trace.jsonl"
    write_trace(trace, requests)
    with background([build / "penstock", "serve", "--device", "sim", "--sim-hardware", "cpu", "--model", "random:llama-160m",
                     "--port", port, "--running-max", RUNNING_MAX, "--queue-wait-max", wait_max, "--log-level", "warn"]):
        wait_for_http(port, "/ready")
        done = subprocess.run([build / "penstock-bench", "replay", "--url", f"http://127.0.0.1:{port}", "--trace", trace, "--rate",
                               str(rate), "--slo", f"ttft_ms={ttft_ms}", "--concurrency-max", str(concurrency), "--vocab", "32000", "--json",
                               "--quiet"],
                              check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    return json.loads(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--ttft-ms", type=int, default=3000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, base = pathlib.Path(name), None

        def run(rate, requests, wait_max, concurrency=0):
            return play(options.build, folder, rate, requests, wait_max, options.ttft_ms, concurrency)

        capacity = run(1000, 5 * options.seconds, "0", 64)["request_throughput"]
        print(f"capacity: {capacity:.1f} requests a second; in time: first token within {options.ttft_ms} ms")
        print(f"{'load':>5} {'bound':>6} {'sent':>6} {'completed':>10} {'in time':>8} {'over 1x':>8} {'p99 TTFT, ms':>13}")
        for wait_max, loads in (("1500ms", (1, 2, 3)), ("0", (3,))):
            for load in loads:
                report = run(load * capacity, round(load * capacity * options.seconds), wait_max)
                good = round(report["request_goodput"] * report["duration"])
                base = base or good
                print(f"{load:4}x {wait_max if wait_max != '0' else 'none':>6} {report['completed'] + report['failed']:6} "
                      f"{report['completed']:10} {good:8} {good / base:8.2f} {report['p99_ttft_ms']:13.0f}", flush=True)


if __name__ == "__main__":
    main()

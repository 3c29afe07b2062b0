#!/usr/bin/env python3
"""Does the simulator predict what clients of a real daemon feel? One trace, both ways, side by side.

    bench/agreement.py [--build build] [--models NAME ...] [--seconds 50] [--realtime] [--record]      (`make bench-agreement`)

For each model: the machine's operators are measured (`penstock-bench calibrate`), a daemon is started on the cpu device, a few
requests one after the other tell what the engine's host side and the front end take, and then a trace of Poisson arrivals is played
against it. The trace comes in parts, and operators are measured again after each; `penstock-bench compare` plays the same part
under the virtual clock on the measurements before it and after it, and the percentiles of TTFT and TPOT of all parts are printed
beside each other. Nothing of the trace's own run is in the prediction.

The daemon computes on all CPUs but one, which the front end and the client share. A shared machine may change its speed meanwhile:
how long the engine waited for a CPU, what the machine's own host took and how far two measurements are apart is printed, and called
a disturbance where it is too much to judge by. --realtime (as root) runs both sides before all other processes. With --record the
figures go into bench/results/agreement-DATE.json and the table into docs/compare.md. Ends with status 1 where a percentile is off
by more than 20 %."""
import argparse
import contextlib
import datetime
import json
import os
import pathlib
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time

from peer import ROOT, background, free_port, wait_for_http
from run import describe_machine

MODELS = ["random:llama-160m", "random:moe-655m"]  # a dense one and a mixture of experts, with passes of ten milliseconds
WITHIN = 0.20
BUSY = 0.6  # the share of the time that the daemon is in a pass: enough for batches and some queueing, far from saturation
REQUESTS_MIN, REQUESTS_MAX, PROBES = 20, 3000, 16
VOCAB = 2048  # ids that every model here has; shapes of random weights have no tokenizer to tell
FIGURES = [(metric, share) for metric in ("ttft", "tpot") for share in ("mean", "p50", "p90", "p99")]
# What the daemon and the simulator are told alike: their own choices depend on the device.
SETTINGS = {"running-max": 16, "batch-tokens-max": 512, "chunk-tokens": 64, "kv-cache-memory": "512M", "page-tokens": 16,
            "queue-wait-max": "0s", "prefix-cache": "no"}
# Beyond these a machine was not the same for both sides.
WAITED_MAX, STEAL_MAX, DRIFT_MAX = 0.02, 0.02, 0.10


def run(*command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=ROOT)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command[:2]))}: {done.stderr.strip()}")
    return done.stdout


# ---- before all others ----

def take_priority(priority, thread=0):
    """Real-time scheduling of this process and its children, or of one thread. Returns whether it was allowed."""
    try:
        os.sched_setscheduler(thread, os.SCHED_RR, os.sched_param(priority))
    except PermissionError:
        return False
    return True


def engine_thread(process):
    return next(int(thread.name) for thread in pathlib.Path(f"/proc/{process.pid}/task").iterdir()
                if (thread / "comm").read_text().strip() == "engine")


# ---- the trace ----

def write_trace(path, requests, seed):
    """Arrivals at one a second: a rate is a scale. Short prompts and answers, so that percentiles are of many requests. -> path"""
    draw, at_ms = random.Random(seed), 0.0
    with open(path, "w") as out:
        for _ in range(requests):
            at_ms += draw.expovariate(1e-3)
            out.write(json.dumps({"timestamp": round(at_ms, 3), "input_length": min(160, 8 + int(draw.expovariate(1 / 24))),
                                  "output_length": draw.randint(3, 16)}) + "\n")
    return path


# ---- both sides ----

def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def simulate(tool, model, trace, calibration, scale, requests, folder):
    """The one cell of a comparison, and a row for each request."""
    words = {**SETTINGS, "max-tokens": "exact", "sim-calibration": calibration}
    out = run(tool, "compare", "--json", "--quiet", "--model", model, "--hardware", "cpu", "--trace", trace, "--rate-scale", scale,
              "--requests", requests, "--grid", " ".join(f"{k}={v}" for k, v in words.items()), "--out", folder / "simulated")
    return json.loads(out)["cells"][0], lines_of(folder / "simulated/cell-1.jsonl")


def choose_rate(tool, model, trace, calibration, requests, folder):
    """Requests a second that keep the modelled machine busy for the share BUSY of the time."""
    low, high = 0.01, 1000.0
    for _ in range(14):
        middle = (low * high) ** 0.5
        if simulate(tool, model, trace, calibration, middle, requests, folder)[0]["busy_share"] < BUSY:
            low = middle
        else:
            high = middle
    return low


def replay(tool, url, trace, folder, *flags):
    run(tool, "replay", "--quiet", "--url", url, "--trace", trace, "--vocab", VOCAB, "--out", folder / "replayed", *flags)
    return lines_of(folder / "replayed/requests.jsonl")


@contextlib.contextmanager
def daemon(model, options, log):
    port = free_port()
    command = [options.build / "penstock", "serve", "--model", model, "--device", options.device, "--threads", options.threads,
               "--isa", options.isa, "--port", port, "--log-format", "json", "--log-file", log,
               *(f"--{k}={v}" for k, v in SETTINGS.items())]
    command += ["--sim-hardware", "cpu"] if options.device == "sim" else []
    with background(command) as process:
        wait_for_http(port, "/ready")
        if options.realtime:
            take_priority(1, engine_thread(process))  # it hardly ever sleeps, and who tells its tokens must not wait for it
        yield f"http://127.0.0.1:{port}", process


def metric(url, name):
    text = run("curl", "-s", f"{url}/metrics")
    return sum(map(float, re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.M)))


def probe(tool, url, folder, log, device):
    """Nanoseconds that a pass takes beyond its operators, and a request beyond the engine: of requests that are alone."""
    trace = folder / "probe.jsonl"
    trace.write_text('{"timestamp":0,"input_length":16,"output_length":8}\n' * PROBES)
    names = ("penstock_host_seconds_total", "penstock_passes_total")
    replay(tool, url, trace, folder, "--concurrency-max", 1, "--seed", 1)  # caches, page tables and connections
    before = [metric(url, name) for name in names]
    rows = replay(tool, url, trace, folder, "--concurrency-max", 1, "--seed", 2)
    host_s, passes = (metric(url, name) - b for name, b in zip(names, before))
    inside_ms = [x["queued_ms"] + x["prefill_ms"] for x in lines_of(log) if x.get("path") == "/v1/completions"][-PROBES:]
    request_ms = statistics.median(row["ttft_ms"] for row in rows) - statistics.median(inside_ms)
    # The modelled device is asleep in what the engine takes for host time; its own passes are as long as they are.
    return {"pass_ns": 0 if device == "sim" else 1e9 * host_s / passes, "request_ns": max(0, 1e6 * request_ms)}


# ---- the machine meanwhile ----

class Meanwhile:
    """How long the engine was ready to run and had no CPU, and what the machine's own host withheld, as shares of the time."""

    def __init__(self, process):
        self.engine = f"/proc/{process.pid}/task/{engine_thread(process)}/schedstat"
        self.before = self._look()

    def _look(self):
        tick, cpus = os.sysconf("SC_CLK_TCK"), os.cpu_count() or 1
        steal = int(pathlib.Path("/proc/stat").read_text().split()[8]) / tick / cpus
        with contextlib.suppress(OSError):  # not every kernel counts it
            return time.monotonic(), int(pathlib.Path(self.engine).read_text().split()[1]) / 1e9, steal
        return time.monotonic(), 0, steal

    def shares(self):
        seconds, waited, steal = (b - a for a, b in zip(self.before, self._look()))
        return waited / seconds, steal / seconds


# ---- calibrations ----

def calibrate(tool, model, options):
    if options.device == "sim":
        return {"operators": {}}  # the daemon's passes are the model's own
    return json.loads(run(tool, "calibrate", "--model", model, "--threads", options.threads, "--isa", options.isa, "--time",
                          f"{options.calibrate}s"))


def save(folder, name, calibration):
    path = folder / f"{name}.json"
    path.write_text(json.dumps(calibration))
    return path


# ---- one model ----

def percentile(values, percent):
    """As NumPy has it: by linear interpolation."""
    values = sorted(values)
    at = percent / 100 * (len(values) - 1)
    low = int(at)
    return values[low] + (at - low) * (values[min(low + 1, len(values) - 1)] - values[low])


def figures_of(real, modelled):
    """(measured, predicted) in milliseconds, by figure, of rows of requests."""
    def figure(rows, metric, share):
        values = [row[f"{metric}_ms"] for row in rows]
        return statistics.mean(values) if share == "mean" else percentile(values, float(share[1:]))
    return {f"{metric}_{share}_ms": (figure(real, metric, share), figure(modelled, metric, share)) for metric, share in FIGURES}


def ratios_of(figures):
    return {name: predicted / measured if measured > 0 else float("inf") for name, (measured, predicted) in figures.items()}


def disturbances(waited, steal, drift):
    """Sentences; none: the machine was the same for both sides."""
    said = []
    if waited > WAITED_MAX:
        said.append(f"the engine waited for a CPU for {waited:.1%} of the time, because of other processes")
    if steal > STEAL_MAX:
        said.append(f"the machine's own host withheld {steal:.1%} of the CPUs")
    if not 1 - DRIFT_MAX < drift < 1 + DRIFT_MAX:
        said.append(f"the operators took {drift:.2f} times as long after a part of the trace as before it")
    return said


def play_part(tool, model, url, trace, folder, rate, requests, calibrations):
    """A part of the trace both ways: rows of the daemon's requests, those of each simulation, and their cells."""
    real = replay(tool, url, trace, folder, "--rate-scale", rate, "--requests", requests)
    after = calibrations()
    cells, rows = zip(*(simulate(tool, model, trace, path, rate, requests, folder) for path in after))
    for side in (real, *rows):
        done = sum(row["state"] == "completed" for row in side)
        if done != requests:
            sys.exit(f"{model}: {done} of {requests} requests were completed; there is nothing to compare")
    return real, [row for part in rows for row in part], cells


def compare_model(options, tool, model, folder):
    """The trace comes in parts, and operators are measured between them: a part is predicted from what lies around it."""
    log, measured = folder / "log", [calibrate(tool, model, options)]
    with daemon(model, options, log) as (url, process):
        extra = probe(tool, url, folder, log, options.device)

        def saved(i):
            return save(folder, f"calibration-{i}", {**measured[i], **extra})

        def around():
            measured.append(calibrate(tool, model, options))
            return saved(-2), saved(-1)

        real, modelled, cells, loads = [], [], [], []
        trace = write_trace(folder / "trace.jsonl", REQUESTS_MAX, options.seed)
        rate = choose_rate(tool, model, trace, saved(0), 300, folder)
        requests = max(REQUESTS_MIN, min(REQUESTS_MAX, round(rate * options.seconds / options.parts)))
        for part in range(options.parts):
            trace, load = write_trace(folder / "trace.jsonl", requests, options.seed + part), Meanwhile(process)
            rows = play_part(tool, model, url, trace, folder, rate, requests, lambda: (loads.append(load.shares()), around())[1])
            real, modelled, cells = real + rows[0], modelled + rows[1], cells + [rows[2]]
    figures = figures_of(real, modelled)
    waited, steal = map(statistics.mean, zip(*loads))
    drift = max((after["tpot_s"]["mean"] / before["tpot_s"]["mean"] for before, after in cells), key=lambda x: max(x, 1 / x))
    return {"model": model, "device": options.device, "threads": options.threads, "realtime": options.realtime, "rate_rps": rate,
            "requests": len(real), "busy_share": statistics.mean(cell["busy_share"] for pair in cells for cell in pair),
            "host_us_per_pass": extra["pass_ns"] / 1e3, "outside_engine_us_per_request": extra["request_ns"] / 1e3,
            "waited_share": waited, "steal_share": steal, "drift": drift,
            "disturbed": disturbances(waited, steal, drift),
            "figures": {name: {"measured": m, "predicted": p} for name, (m, p) in figures.items()}, "ratios": ratios_of(figures)}


# ---- what is said ----

def worst(result):
    return max(result["ratios"].values(), key=lambda r: max(r, 1 / r) if r > 0 else float("inf"))


def agrees(result):
    return all(1 - WITHIN <= r <= 1 + WITHIN for r in result["ratios"].values())


def table(results):
    lines = ["| model | requests, a second | | " + " | ".join(f"{m.upper()} {s}, ms" for m, s in FIGURES) + " |",
             "|---|---|---|" + "--:|" * len(FIGURES)]
    for r in results:
        rows = [("daemon", [f"{r['figures'][f'{m}_{s}_ms']['measured']:.2f}" for m, s in FIGURES]),
                ("simulator", [f"{r['figures'][f'{m}_{s}_ms']['predicted']:.2f}" for m, s in FIGURES]),
                ("ratio", [f"{r['ratios'][f'{m}_{s}_ms']:.2f}" for m, s in FIGURES])]
        for i, (side, cells) in enumerate(rows):
            head = f"`{r['model']}` | {r['requests']:,}, {r['rate_rps']:.1f}" if i == 0 else " | "
            lines.append(f"| {head} | {side} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def remarks(r):
    lines = [
        f"{r['model']}: {r['threads']} thread{'s' if r['threads'] > 1 else ''} on the {r['device']} device"
        f"{' before all other processes' if r['realtime'] else ''}, busy {r['busy_share']:.0%} of the time; "
        f"{r['host_us_per_pass']:.0f} us of the host a pass, {r['outside_engine_us_per_request']:.0f} us outside the engine a request; "
        f"the engine waited for a CPU for {r['waited_share']:.1%} of the time, the machine's own host took {r['steal_share']:.1%}; "
        f"operators after a part of the trace over those before it, at most: {r['drift']:.2f}"]
    lines += [f"    disturbed: {said}" for said in r["disturbed"]]
    lines.append(f"    {'agrees within' if agrees(r) else 'DOES NOT agree within'} {WITHIN:.0%}; the worst ratio is {worst(r):.2f}")
    return "\n".join(lines)


def record(results):
    date = datetime.date.today().isoformat()
    machine = describe_machine()
    path = ROOT / f"bench/results/agreement-{date}.json"
    path.write_text(json.dumps({"date": date, "machine": machine, "results": results}, indent=1) + "\n")
    text = f"{date}, {machine.splitlines()[0].removeprefix('machine: ')}.\n\n{table(results)}\n\n" + "\n".join(
        f"- {remarks(r)}" for r in results).replace("\n    ", "; ")
    docs = ROOT / "docs/compare.md"
    begin, end = "<!-- agreement: printed by make bench-agreement ARGS=--record -->\n", "<!-- end -->"
    pattern = re.compile(re.escape(begin) + r".*?" + re.escape(end), re.S)
    page = docs.read_text()
    assert pattern.search(page), f"{docs} has no place for the table"
    docs.write_text(pattern.sub(lambda _: begin + text + "\n" + end, page))
    print(f"written to {path.relative_to(ROOT)} and docs/compare.md")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=pathlib.Path("build"))
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--device", choices=("cpu", "sim"), default="cpu", help="sim: the daemon sleeps for what the model says")
    parser.add_argument("--threads", type=int, default=max(1, (os.cpu_count() or 2) - 1), help="the daemon's (default: all CPUs but one)")
    parser.add_argument("--isa", default="auto", help="the daemon's")
    parser.add_argument("--seconds", type=float, default=48, help="of the trace")
    parser.add_argument("--parts", type=int, default=3, help="of the trace; operators are measured before, between and after them")
    parser.add_argument("--calibrate", type=float, default=6, help="seconds of each of these measurements")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=pathlib.Path, help="write the figures there as well")
    parser.add_argument("--record", action="store_true", help="write the figures into bench/results and docs/compare.md")
    parser.add_argument("--realtime", action="store_true", help="run both sides before all other processes, where that is allowed")
    options = parser.parse_args()
    options.build = ROOT / options.build
    options.realtime = options.realtime and take_priority(2)
    results = []
    for model in options.models:
        with tempfile.TemporaryDirectory() as name:
            results.append(compare_model(options, options.build / "penstock-bench", model, pathlib.Path(name)))
        print(remarks(results[-1]), flush=True)
    print("\n" + table(results))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    if options.record:
        record(results)
    sys.exit(0 if all(map(agrees, results)) else 1)


if __name__ == "__main__":
    main()

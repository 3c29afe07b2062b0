#!/usr/bin/env python3
"""Does the simulator predict what clients of a real daemon feel? One trace, both ways, side by side.

    bench/agreement.py [--build build] [--models NAME ...] [--seconds 50] [--realtime] [--record]      (`make bench-agreement`)

For each model: the machine's operators are measured (`penstock-bench calibrate`), a daemon is started on the cpu device, a few
requests one after the other tell what the engine's host side and the front end take, and then a trace of Poisson arrivals is played
against it. The operators are measured again, `penstock-bench compare` plays the same trace under the virtual clock on either
measurement, and the percentiles of TTFT and TPOT are printed beside the mean of both. Nothing of the trace's own run is in the
prediction.

The daemon computes on all CPUs but one, which the front end and the client share. A shared machine may change its speed meanwhile:
what other processes and the host took, and how far the two measurements are apart, is printed, and called a disturbance where it is
too much to judge by. --realtime (as root) runs both sides before all other processes. With --record the figures go into
bench/results/agreement-DATE.json and the table into docs/compare.md. Ends with status 1 where a percentile is off by more than 20 %."""
import argparse
import contextlib
import datetime
import json
import os
import pathlib
import random
import re
import resource
import statistics
import subprocess
import sys
import tempfile

from peer import ROOT, background, free_port, wait_for_http
from run import describe_machine

MODELS = ["random:llama-160m", "random:moe-655m"]  # a dense one and a mixture of experts, with passes of ten milliseconds
WITHIN = 0.20
BUSY = 0.6  # the share of the time that the daemon is in a pass: enough for batches and some queueing, far from saturation
REQUESTS_MIN, REQUESTS_MAX, PROBES = 30, 3000, 16
VOCAB = 2048  # ids that every model here has; shapes of random weights have no tokenizer to tell
FIGURES = [(metric, share) for metric in ("ttft", "tpot") for share in ("mean", "p50", "p90", "p99")]
# What the daemon and the simulator are told alike: their own choices depend on the device.
SETTINGS = {"running-max": 16, "batch-tokens-max": 512, "chunk-tokens": 64, "kv-cache-memory": "512M", "page-tokens": 16,
            "queue-wait-max": "0s", "prefix-cache": "no"}
# Beyond these a machine was not the same for both sides.
STEAL_MAX, OTHERS_MAX, DRIFT_MAX = 0.02, 0.10, 0.10


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


def put_engine_last(process):
    """The engine hardly ever sleeps, and who tells its tokens must not wait for it."""
    for thread in pathlib.Path(f"/proc/{process.pid}/task").iterdir():
        if (thread / "comm").read_text().strip() == "engine":
            take_priority(1, int(thread.name))


# ---- the trace ----

def write_trace(path, requests, seed):
    """Arrivals at one a second: a rate is a scale. Short prompts and answers, so that percentiles are of many requests."""
    draw, at_ms = random.Random(seed), 0.0
    with open(path, "w") as out:
        for _ in range(requests):
            at_ms += draw.expovariate(1e-3)
            out.write(json.dumps({"timestamp": round(at_ms, 3), "input_length": min(160, 8 + int(draw.expovariate(1 / 24))),
                                  "output_length": draw.randint(3, 16)}) + "\n")


# ---- both sides ----

def simulate(tool, model, trace, calibration, scale, requests):
    """The one cell of a comparison."""
    words = {**SETTINGS, "max-tokens": "exact", "sim-calibration": calibration}
    return json.loads(run(tool, "compare", "--json", "--quiet", "--model", model, "--hardware", "cpu", "--trace", trace, "--rate-scale",
                          scale, "--requests", requests, "--grid", " ".join(f"{k}={v}" for k, v in words.items())))["cells"][0]


def choose_rate(tool, model, trace, calibration, requests):
    """Requests a second that keep the modelled machine busy for the share BUSY of the time."""
    low, high = 0.01, 1000.0
    for _ in range(14):
        middle = (low * high) ** 0.5
        if simulate(tool, model, trace, calibration, middle, requests)["busy_share"] < BUSY:
            low = middle
        else:
            high = middle
    return low


def replay(tool, url, trace, *flags):
    return json.loads(run(tool, "replay", "--json", "--quiet", "--url", url, "--trace", trace, "--vocab", VOCAB, *flags))


@contextlib.contextmanager
def daemon(model, options, log):
    port = free_port()
    command = [options.build / "penstock", "serve", "--model", model, "--device", options.device, "--threads", options.threads,
               "--isa", options.isa, "--port", port, "--log-format", "json", "--log-file", log, *(word for k, v in SETTINGS.items() for word in [f"--{k}={v}"])]
    command += ["--sim-hardware", "cpu"] if options.device == "sim" else []
    with background(command) as process:
        wait_for_http(port, "/ready")
        if options.realtime:
            put_engine_last(process)
        yield f"http://127.0.0.1:{port}", process


def metric(url, name):
    text = run("curl", "-s", f"{url}/metrics")
    return sum(map(float, re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.M)))


def probe(tool, url, folder, log, device):
    """Nanoseconds that a pass takes beyond its operators, and a request beyond the engine: of requests that are alone."""
    trace = folder / "probe.jsonl"
    trace.write_text('{"timestamp":0,"input_length":16,"output_length":8}\n' * PROBES)
    names = ("penstock_host_seconds_total", "penstock_passes_total")
    replay(tool, url, trace, "--concurrency-max", 1, "--seed", 1)  # caches, page tables and connections
    before = [metric(url, name) for name in names]
    report = replay(tool, url, trace, "--concurrency-max", 1, "--seed", 2)
    host_s, passes = (metric(url, name) - b for name, b in zip(names, before))
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    inside_ms = [x["queued_ms"] + x["prefill_ms"] for x in lines if x.get("path") == "/v1/completions"][-PROBES:]
    request_ms = report["median_ttft_ms"] - statistics.median(inside_ms)
    # The modelled device is asleep in what the engine takes for host time; its own passes are as long as they are.
    return {"pass_ns": 0 if device == "sim" else 1e9 * host_s / passes, "request_ns": max(0, 1e6 * request_ms)}


# ---- the machine meanwhile ----

class Load:
    """What the CPUs did between two looks: ours (the daemon, and the children that were waited for), others, the host's."""

    def __init__(self, process):
        self.process, self.before = process, self._look(process)

    @staticmethod
    def _look(process):
        tick = os.sysconf("SC_CLK_TCK")
        user, nice, system, idle, iowait, irq, softirq, steal = (
            int(x) / tick for x in pathlib.Path("/proc/stat").read_text().split("\n")[0].split()[1:9])
        own = pathlib.Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        ours = (int(own[11]) + int(own[12])) / tick + children.ru_utime + children.ru_stime
        busy = user + nice + system + irq + softirq
        return [busy + idle + iowait + steal, busy - ours, steal]

    def shares(self):
        """Of all CPUs' time: what other processes took, and what the host withheld."""
        total, others, steal = (b - a for a, b in zip(self.before, self._look(self.process)))
        return max(0, others / total), steal / total


# ---- calibrations ----

def calibrate(tool, model, options):
    return json.loads(run(tool, "calibrate", "--model", model, "--threads", options.threads, "--isa", options.isa, "--time",
                          f"{options.calibrate}s"))


def save(folder, name, calibration):
    path = folder / f"{name}.json"
    path.write_text(json.dumps(calibration))
    return path


# ---- one model ----

def figures_of(report, cells):
    """(measured, predicted) in milliseconds, by figure; predicted is the mean of the cells."""
    return {f"{name}_{share}_ms": (report[f"{share}_{name}_ms"], 1e3 * statistics.mean(cell[f"{name}_s"][share] for cell in cells))
            for name, share in FIGURES}


def ratios_of(figures):
    return {name: predicted / measured if measured > 0 else float("inf") for name, (measured, predicted) in figures.items()}


def disturbances(others, steal, drift, realtime=False):
    """Sentences; none: the machine was the same for both sides."""
    said = []
    if others > OTHERS_MAX and not realtime:
        said.append(f"other processes took {others:.0%} of the CPUs")
    if steal > STEAL_MAX:
        said.append(f"the host withheld {steal:.0%} of the CPUs")
    if abs(drift - 1) > DRIFT_MAX:
        said.append(f"the operators took {drift:.2f} times as long after the trace as before it")
    return said


def compare_model(options, tool, model, folder):
    trace, log = folder / "trace.jsonl", folder / "log"
    write_trace(trace, REQUESTS_MAX, options.seed)
    real = options.device == "cpu"
    before = calibrate(tool, model, options) if real else {"operators": {}}
    with daemon(model, options, log) as (url, process):
        extra = probe(tool, url, folder, log, options.device)
        rate = choose_rate(tool, model, trace, save(folder, "calibration", {**before, **extra}), 300)
        requests = max(REQUESTS_MIN, min(REQUESTS_MAX, round(rate * options.seconds)))
        load = Load(process)
        report = replay(tool, url, trace, "--rate-scale", rate, "--requests", requests)
        others, steal = load.shares()
    measured = [before, calibrate(tool, model, options)] if real else [before]
    cells = [simulate(tool, model, trace, save(folder, f"calibration-{i}", {**c, **extra}), rate, requests)
             for i, c in enumerate(measured)]
    drift = cells[-1]["tpot_s"]["mean"] / cells[0]["tpot_s"]["mean"]
    if not all(side["completed"] == requests for side in (report, *cells)):
        sys.exit(f"{model}: {report['completed']} of {requests} requests were completed; there is nothing to compare")
    figures = figures_of(report, cells)
    return {"model": model, "device": options.device, "threads": options.threads, "realtime": options.realtime, "rate_rps": rate,
            "requests": requests, "busy_share": cells[0]["busy_share"],
            "host_us_per_pass": extra["pass_ns"] / 1e3, "outside_engine_us_per_request": extra["request_ns"] / 1e3,
            "others_share": others, "steal_share": steal, "drift": drift, "disturbed": disturbances(others, steal, drift, options.realtime),
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
    lines = [f"{r['model']}: {r['threads']} thread{'s' if r['threads'] > 1 else ''} on the {r['device']} device"
             f"{' before all other processes' if r['realtime'] else ''}, busy {r['busy_share']:.0%} of the time; "
             f"{r['host_us_per_pass']:.0f} us of the host a pass, {r['outside_engine_us_per_request']:.0f} us outside the engine a request; "
             f"others took {r['others_share']:.1%} of the CPUs, the host {r['steal_share']:.1%}; the operators' time after the trace over "
             f"that before: {r['drift']:.2f}"]
    lines += [f"    disturbed: {said}" for said in r["disturbed"]]
    lines.append(f"    {'agrees within' if agrees(r) else 'DOES NOT agree within'} {WITHIN:.0%}; the worst ratio is {worst(r):.2f}")
    return "\n".join(lines)


def record(results):
    date = datetime.date.today().isoformat()
    machine = describe_machine()
    path = ROOT / f"bench/results/agreement-{date}.json"
    path.write_text(json.dumps({"date": date, "machine": machine, "results": results}, indent=1) + "\n")
    text = f"{date}, {machine.splitlines()[0].removeprefix('machine: ')}.\n\n{table(results)}\n\n" + "\n".join(
        f"- {remarks(r)}" for r in results).replace("\n    ", " ")
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
    parser.add_argument("--seconds", type=float, default=50, help="of the trace")
    parser.add_argument("--calibrate", type=float, default=10, help="seconds of each of the two measurements")
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

#!/usr/bin/env python3
"""Checks and measures the CUDA device on the GPU of this machine, within nine minutes. Needs the Python standard library only.

    ./gpu-check [--parts sanitizer,conformance,...] [--seconds 520] [--models NAME ...]       in the folder of `make gpu-bundle`

Each part reports even where another fails, and a table follows at the end. All figures are written as JSON, with the hardware, to
gpu-DATE.json in --results. Ends with 0 where no row failed, 1 where one did, 77 where there is no GPU. Rows that could not be run
(a tool is absent, the time is over) are skipped by name, and why."""
import argparse
import collections
import contextlib
import datetime
import http.client
import json
import os
import pathlib
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
NO_GPU = 77  # also of a test that finds none (tests/cuda/gpu.h)
WRAPPERS = "test_cuda_emulation"  # its checks of operations are for hardware as well
INDEPENDENCE = re.compile("bits|neighbour|shares_its_pass|any_part_of|any_company")
BATCHES, DECODE_PROMPT, DECODE_TOKENS = (1, 16, 64, 256), 64, 64
PREFILL_REQUESTS, PREFILL_PROMPT = 8, 4096
SMALL_MOE = "moe-655m"  # stands in for the large one where loading that twice takes longer than there is
SETTINGS = ["--queue-wait-max", "0s", "--running-max", "256", "--prefix-cache=no", "--log-level", "warn"]
VOCAB = 2048  # ids that every shape has

Row = collections.namedtuple("Row", "part name state said figures")  # state: ok, failed, skipped


class Skip(Exception):
    pass


class Check:
    def __init__(self, folder, seconds, device, models):
        self.folder, self.device, self.models = folder, device, models
        self.end, self.rows, self.outputs, self.copy_gbs, self.load_s = time.monotonic() + seconds, [], {}, None, {}
        self.environment = {**os.environ, "LD_LIBRARY_PATH": f"{folder / 'lib'}:{os.environ.get('LD_LIBRARY_PATH', '')}"}

    def left(self, most):
        seconds = min(most, self.end - time.monotonic())
        if seconds < 2:
            raise Skip("the time was over")
        return seconds

    def run(self, *command, most, **environment):
        """-> status and what was said; a status of None: it was ended at its limit."""
        seconds = self.left(most)
        process = subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                   errors="replace", stdin=subprocess.DEVNULL, env={**self.environment, **environment},
                                   start_new_session=True)
        try:
            said, _ = process.communicate(timeout=seconds)
            return process.returncode, said
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # with what it started
            return None, process.communicate()[0]

    def add(self, part, name, state, said="", **figures):
        self.rows.append(Row(part, name, state, said, figures))
        print(f"  {state:8} {name}{': ' if said else ''}{said}", flush=True)

    @contextlib.contextmanager
    def row(self, part, name):
        """What goes wrong inside is the row's failure and ends nothing else."""
        try:
            yield
        except Skip as why:
            self.add(part, name, "skipped", str(why))
        except Exception as why:
            self.add(part, name, "failed", f"{type(why).__name__}: {why}")

    def tests(self):
        return sorted((p for p in (self.folder / "tests").glob("test_*")), key=lambda p: (p.name != WRAPPERS, p.name))

    def output_of(self, test):
        if test not in self.outputs:
            self.outputs[test] = self.run(test, most=120, PENSTOCK_TEST_CUDA_OBJECT=str(self.folder / "penstock-cuda.so"))
        return self.outputs[test]


def last_line(text):
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


# ---- 1: the sanitizer ----

def find_sanitizer():
    return shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path="/usr/local/cuda/bin")


def sanitizer(check, part):
    tool = find_sanitizer()
    for kind in ("memcheck", "racecheck"):
        for test in check.tests():
            name = f"{kind} {test.name}"
            if test.name == "test_device_cuda":
                continue  # opens whole models; its kernels are those of the others
            with check.row(part, name):
                if not tool:
                    raise Skip("compute-sanitizer is not installed")
                status, said = check.run(tool, "--tool", kind, "--error-exitcode", "9", test, most=25)
                if status is None:
                    raise Skip("it was not done when its time was over")
                errors = re.findall(r"(?:ERROR SUMMARY|RACECHECK SUMMARY): (.*)", said)
                check.add(part, name, "failed" if status else "ok", (errors or [last_line(said)])[-1])


# ---- 2 and 3: against the twin, and against the neighbours ----

def run_tests(check, part, wanted):
    for test in check.tests():
        with check.row(part, test.name):
            status, said = check.output_of(test)
            if status == NO_GPU:
                raise RuntimeError(last_line(said))
            marks = re.findall(r"^\[ +(OK|FAILED|SKIPPED) +\] (\w+)$", said, re.M)
            states = {name: mark for mark, name in marks if bool(INDEPENDENCE.search(name)) == wanted}
            failed = sorted(name for name, mark in states.items() if mark == "FAILED")
            ok = sum(mark == "OK" for mark in states.values())
            complete = status == 0 or (status is not None and any(mark == "FAILED" for mark, _ in marks))
            if not complete:
                why = "took too long" if status is None else f"ended with status {status}"
                check.add(part, test.name, "failed", f"{why} after {ok} tests: {last_line(said)}", passed=ok)
            elif failed or states:
                check.add(part, test.name, "failed" if failed else "ok", f"{ok} passed" + "".join(f"; failed: {f}" for f in failed),
                          passed=ok, failed=failed)


def conformance(check, part):
    run_tests(check, part, False)


def independence(check, part):
    run_tests(check, part, True)


# ---- 4: ceilings and kernels ----

KERNEL = re.compile(r"^(\w+ .*?)  +([0-9.]+) MB +([0-9.]+) GFLOP +([0-9.]+) us +([0-9.]+) GB/s, +(\d+) % of copy +([0-9.]+) TFLOP/s")


def kernels(check, part):
    with check.row(part, "kernels"):
        status, said = check.run(check.folder / "bench/kernels_cuda", "11", most=120)
        copy = re.search(r"copy (\d+) GB/s", said)
        if copy:
            check.copy_gbs = float(copy[1])
            check.add(part, "copy", "ok", f"{copy[1]} GB/s read and written", gb_per_s=check.copy_gbs)
        for line in said.splitlines():
            found = KERNEL.match(line)
            if found:
                numbers = dict(zip(("megabytes", "gflop", "us", "gb_per_s", "percent_of_copy", "tflops"), map(float, found.groups()[1:])))
                check.add(part, re.sub(" +", " ", found[1]), "ok",
                          "{us:.1f} us, {percent_of_copy:.0f} % of copy, {tflops:.1f} TFLOP/s".format(**numbers), **numbers)
        if status != 0 or not copy:
            refusal = re.search("nothing is timed.*", said)
            why = "took too long" if status is None else f"ended with status {status}"
            raise RuntimeError(refusal[0] if refusal else f"the bench {why}: {last_line(said)}")
    check.add(part, "bf16 product, cuBLAS, attention of PyTorch", "skipped", "the benches have no such measurement yet")


# ---- 5 and 6: through the daemon ----

def get(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextlib.contextmanager
def daemon(check, model, ready_most, *flags):
    """-> its port, process and seconds until it was ready"""
    port, began, log = free_port(), time.monotonic(), tempfile.TemporaryFile(mode="w+")
    until = began + check.left(ready_most)
    process = subprocess.Popen([str(check.folder / "penstock"), "serve", "--model", f"random:{model}", "--device", check.device,
                                "--port", str(port), *SETTINGS, *flags], stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                               env=check.environment)
    try:
        while True:
            if process.poll() is not None:
                log.seek(0)
                raise RuntimeError(f"the daemon ended with status {process.returncode}: {last_line(log.read())}")
            with contextlib.suppress(OSError):
                if get(port, "/ready")[0] == 200:
                    break
            if time.monotonic() > until:
                raise Skip(f"{model} was not ready after {time.monotonic() - began:.0f} s")
            time.sleep(0.1)
        yield port, process, time.monotonic() - began
    finally:
        process.kill()
        process.wait()


def replay(check, port, requests, most=60):
    """requests: (milliseconds, input, output) each -> the report"""
    with tempfile.TemporaryDirectory() as folder:
        trace = pathlib.Path(folder) / "trace.jsonl"
        trace.write_text("".join(json.dumps({"timestamp": t, "input_length": i, "output_length": o}) + "\n" for t, i, o in requests))
        status, said = check.run(check.folder / "penstock-bench", "replay", "--quiet", "--url", f"http://127.0.0.1:{port}", "--trace",
                                 trace, "--vocab", VOCAB, "--out", f"{folder}/out", most=most)
        if status is None:
            raise Skip("it was not done when its time was over")
        if status != 0:
            raise RuntimeError(f"replay ended with status {status}: {last_line(said)}")
        report = json.loads((pathlib.Path(folder) / "out/report.json").read_text())
    if report["failed"] or report["wrong_lengths"]:
        raise RuntimeError(f"{report['failed']} requests failed, {report['wrong_lengths']} answers had a wrong length")
    return report


def metric(port, name):
    return sum(map(float, re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", get(port, "/metrics")[1], re.M)))


def gpu_mib_of(process):
    tool = shutil.which("nvidia-smi")
    said = tool and subprocess.run([tool, "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"], capture_output=True,
                                   text=True).stdout
    return next((float(mib) for pid, mib in re.findall(r"^(\d+), *(\d+)", said or "", re.M) if int(pid) == process.pid), None)


def measure_decode(check, part, model, port, batch):
    name = f"{model}: decode step at batch {batch}"
    with check.row(part, name):
        report = replay(check, port, [(0, DECODE_PROMPT, DECODE_TOKENS)] * batch)
        before = [metric(port, f"penstock_{m}_total") for m in ("weight_bytes_read", "host_seconds", "passes")]
        report = replay(check, port, [(0, DECODE_PROMPT, DECODE_TOKENS)] * batch)  # the first one warmed it up
        read, host, passes = (metric(port, f"penstock_{m}_total") - b for m, b in zip(("weight_bytes_read", "host_seconds", "passes"), before))
        step_ms = report["p50_itl_ms"]
        figures = {"step_ms": step_ms, "weight_bytes_per_pass": read / passes, "host_ms_per_pass": 1e3 * host / passes}
        said = f"{step_ms:.2f} ms, {read / passes / 1e9:.2f} GB of weights a pass, host {1e3 * host / passes:.2f} ms"
        if check.copy_gbs:
            figures["ratio_to_byte_floor"] = step_ms / (read / passes / check.copy_gbs / 1e6)
            said += f", {figures['ratio_to_byte_floor']:.2f} x the time to read them at the speed of a copy"
        check.add(part, name, "ok", said, **figures)


def measure_prefill(check, part, model, port):
    with check.row(part, f"{model}: prefill"):
        context = json.loads(get(port, "/v1/models")[1])["data"][0]["max_model_len"]
        report = replay(check, port, [(0, min(PREFILL_PROMPT, context // 2), 1)] * PREFILL_REQUESTS)
        rate = report["total_input_tokens"] / report["duration"]
        check.add(part, f"{model}: prefill", "ok", f"{rate:,.0f} tokens/s", tokens_per_s=rate)


def measure_memory(check, part, model, process):
    name = f"{model}: memory against plan"
    with check.row(part, name):
        used = gpu_mib_of(process)
        if used is None:
            raise Skip("nvidia-smi does not tell the daemon's memory")
        _, said = check.run(check.folder / "penstock", "plan", "--model", f"random:{model}", "--device", check.device, *SETTINGS, most=60)
        total = re.search(r"^total +([0-9.]+) MiB", said, re.M)
        if not total:
            raise RuntimeError(f"penstock plan: {last_line(said)}")
        check.add(part, name, "ok", f"{used:.0f} MiB on the GPU, {total[1]} MiB planned in all, host memory included", used_mib=used,
                  planned_mib=float(total[1]))


def end_to_end(check, part):
    for model in check.models:
        with check.row(part, f"{model}: time to ready"), daemon(check, model, 150) as (port, process, seconds):
            check.load_s[model] = seconds
            check.add(part, f"{model}: time to ready", "ok", f"{seconds:.1f} s", seconds=seconds)
            for batch in BATCHES:
                measure_decode(check, part, model, port, batch)
            measure_prefill(check, part, model, port)
            measure_memory(check, part, model, process)


def slicing(check, part):
    model = check.models[-1]
    if 2 * check.load_s.get(model, 1e9) + 60 > check.end - time.monotonic():
        model = SMALL_MOE
    trace = [(80 * i, 1024 if i % 4 == 0 else 64, 32) for i in range(60)]
    for way in ("chunked", "layered"):
        name = f"{model}: {way}"
        with check.row(part, name), daemon(check, model, 120, "--slicing", way) as (port, _, _):
            replay(check, port, trace[:8])
            report = replay(check, port, trace)
            stops = metric(port, "penstock_stop_reaction_seconds_count")
            reaction = 1e3 * metric(port, "penstock_stop_reaction_seconds_sum") / stops if stops else None
            figures = {key: report[key] for key in ("p50_ttft_ms", "p99_ttft_ms", "p50_tpot_ms", "p99_tpot_ms")}
            bound = 1e3 * metric(port, "penstock_stop_reaction_bound_seconds")
            check.add(part, name, "ok", "ttft p50 {p50_ttft_ms:.1f} p99 {p99_ttft_ms:.1f}, tpot p50 {p50_tpot_ms:.2f} p99 {p99_tpot_ms:.2f} ms"
                      .format(**figures) + (f"; {stops:.0f} stops, {reaction:.2f} ms each" if stops else "; nothing was stopped"),
                      **figures, stops=stops, stop_reaction_mean_ms=reaction, longest_operator_ms=bound)


# ---- 7: for the simulator ----

def calibration(check, part):
    check.add(part, "calibration", "skipped", "penstock-bench calibrate measures the cpu device only: on cuda an operator's time is not measured yet")


# Each with the seconds it has at most, so that a slow one leaves time to the next.
PARTS = {"sanitizer": (sanitizer, 90), "conformance": (conformance, 90), "independence": (independence, 30), "kernels": (kernels, 60),
         "end-to-end": (end_to_end, 220), "slicing": (slicing, 120), "calibration": (calibration, 10)}


# ---- the whole ----

def describe_hardware():
    tool = shutil.which("nvidia-smi")
    query = "name,driver_version,memory.total,clocks.max.sm,clocks.max.memory,power.limit"
    said = tool and subprocess.run([tool, f"--query-gpu={query}", "--format=csv,noheader"], capture_output=True, text=True).stdout
    model = re.search(r"^model name.*: (.*)", pathlib.Path("/proc/cpuinfo").read_text(), re.M)
    return {"gpu": dict(zip(query.split(","), said.splitlines()[0].split(", "))) if said else "nvidia-smi is not installed",
            "cpu": model[1] if model else platform.machine(), "cpus": os.cpu_count(), "system": f"Linux {platform.release()}"}


def why_no_gpu(check):
    status, said = check.run(check.folder / "penstock", "plan", "--model", "random:llama-160m", "--device", check.device, most=60)
    return None if status == 0 else last_line(said).removeprefix("penstock plan: ")


def write_results(check, folder, parts):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"gpu-{datetime.date.today().isoformat()}.json"
    rows = [{"part": r.part, "name": r.name, "state": r.state, "said": r.said, **r.figures} for r in check.rows]
    path.write_text(json.dumps({"date": datetime.datetime.now().isoformat(timespec="seconds"), "hardware": describe_hardware(),
                                "device": check.device, "parts": parts, "rows": rows}, indent=1) + "\n")
    return path


def print_table(check):
    print(f"\n{'part':13} {'state':8} what")
    for r in check.rows:
        print(f"{r.part:13} {r.state:8} {r.name}{': ' if r.said else ''}{r.said}")
    count = collections.Counter(r.state for r in check.rows)
    print(f"\ngpu-check: {count['ok']} ok, {count['failed']} failed, {count['skipped']} skipped")
    return 1 if count["failed"] else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=pathlib.Path, default=HERE, help="the bundle (where this file lies)")
    parser.add_argument("--results", type=pathlib.Path, default=pathlib.Path("bench/results"))
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--seconds", type=float, default=520, help="begin nothing after it")
    parser.add_argument("--models", nargs="+", default=["llama-3.1-8b", "qwen3-30b-a3b"], help="shapes; the last one is a mixture of experts")
    parser.add_argument("--device", default="cuda", help="cpu: tries the script itself where there is no GPU")
    options = parser.parse_args()
    parts = options.parts.split(",")
    unknown = [p for p in parts if p not in PARTS]
    if unknown:
        parser.error(f"there is no part named '{unknown[0]}'; there are {', '.join(PARTS)}")
    check = Check(options.folder.resolve(), options.seconds, options.device, options.models)
    if not (check.folder / "penstock").exists():
        parser.error(f"{check.folder} has no penstock; make gpu-bundle makes the folder that this runs in")
    why = why_no_gpu(check)
    if why:
        print(f"gpu-check: nothing was checked: {why}", file=sys.stderr)
        return NO_GPU
    end = check.end
    for part in parts:
        print(f"\n== {part}", flush=True)
        run, seconds = PARTS[part]
        check.end = min(end, time.monotonic() + seconds)
        with check.row(part, part):
            run(check, part)
    status = print_table(check)
    print(f"{write_results(check, options.results, parts)} has all figures")
    return status


if __name__ == "__main__":
    sys.exit(main())

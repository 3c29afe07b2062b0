#!/usr/bin/env python3
"""Runs the project's tests and ends with one line: penstock: N passed, N failed, N skipped.

    tests/run.py --build build [PROGRAM ...] [--rules] [--python [PYTEST ARGUMENT ...]]

PROGRAMs print CMocka's lines. --rules runs tests/rules.py, --python the pytest tests with the packages of
tests/requirements.txt in build/venv; where those cannot be had, the tests are skipped by name."""
import argparse
import ast
import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys
import time
import venv
import xml.etree.ElementTree

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROGRAM_SECONDS_MAX = 900
SANITIZERS = {"ASAN_OPTIONS": "allocator_may_return_null=1", "TSAN_OPTIONS": "allocator_may_return_null=1"}  # as without them
PYTHON_FOLDERS = ["tests/e2e", "tests/numerics"]


class Tally:
    def __init__(self):
        self.passed, self.failed, self.skipped = 0, [], []

    def add(self, other):
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped


def read_cmocka(name, output, status):
    """Counts the lines that CMocka (and tests/fuzz/replay.c) print, and holds them against the exit status."""
    tally, said = Tally(), ""
    for line in output.splitlines():
        mark = re.match(r"\[ +(OK|FAILED|SKIPPED|RUN) +\] (\w+)$", line)
        if not mark:
            said = line.strip() or said
        elif mark[1] == "OK":
            tally.passed += 1
        elif mark[1] == "RUN":
            said = ""
        elif f"{name}: {mark[2]}" not in tally.failed + [s for s, _ in tally.skipped]:
            if mark[1] == "FAILED":
                tally.failed.append(f"{name}: {mark[2]}")
            else:
                tally.skipped.append((f"{name}: {mark[2]}", said or "what it needs is not here (its source says what)"))
    if status != 0 and not tally.failed:
        tally.failed.append(f"{name}: ended with status {status}")
    if status == 0 and not tally.passed and not tally.skipped:
        tally.failed.append(f"{name}: ran no test")
    return tally


def run_program(command, name):
    began = time.monotonic()
    try:
        done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=PROGRAM_SECONDS_MAX, env={**SANITIZERS, **os.environ})
        output, status = done.stdout.decode(errors="replace"), done.returncode
    except subprocess.TimeoutExpired as late:
        output, status = (late.stdout or b"").decode(errors="replace"), f"none after {PROGRAM_SECONDS_MAX} s"
    tally = read_cmocka(name, output, status)
    report = f"{name:<44} {tally.passed:4} passed {time.monotonic() - began:7.2f} s"
    if tally.failed:
        report += "\n" + output
    return tally, report


def run_programs(programs):
    total = Tally()
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = [pool.submit(run_program, [p], os.path.join(*p.split("/")[-2:])) for p in programs]
        for job in concurrent.futures.as_completed(jobs):
            tally, report = job.result()
            print(report, flush=True)
            total.add(tally)
    return total


def ensure_venv(build):
    """The interpreter with the packages of tests/requirements.txt, or None and the reason."""
    folder, wanted = ROOT / build / "venv", (ROOT / "tests/requirements.txt").read_text()
    stamp, python = folder / "requirements.txt", folder / "bin/python"
    if stamp.exists() and stamp.read_text() == wanted:
        return python, ""
    try:
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", "tests/requirements.txt"],
                       cwd=ROOT, check=True, stdin=subprocess.DEVNULL, timeout=600)
    except (OSError, subprocess.SubprocessError) as trouble:
        return None, f"the packages of tests/requirements.txt could not be installed ({type(trouble).__name__})"
    stamp.write_text(wanted)
    return python, ""


def skip_by_name(reason):
    tally = Tally()
    for file in sorted(f for folder in PYTHON_FOLDERS for f in (ROOT / folder).glob("test_*.py")):
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                tally.skipped.append((f"{file.relative_to(ROOT)}: {node.name}", reason))
    return tally


def read_junit(path):
    tally = Tally()
    for case in xml.etree.ElementTree.parse(path).iter("testcase"):
        name = f"{case.get('classname', '').replace('.', '/')}: {case.get('name')}"
        skipped, bad = case.find("skipped"), case.find("failure")
        if bad is None:
            bad = case.find("error")
        if bad is not None:
            tally.failed.append(name)
        elif skipped is not None:
            tally.skipped.append((name, skipped.get("message", "")))
        else:
            tally.passed += 1
    return tally


def run_pytest(build, arguments):
    python, reason = ensure_venv(os.environ.get("PENSTOCK_VENV_BUILD", "build"))
    if not python:
        return skip_by_name(reason)
    report = ROOT / build / "pytest.xml"
    report.unlink(missing_ok=True)
    folders = [f for f in PYTHON_FOLDERS if list((ROOT / f).glob("test_*.py"))]
    if not folders:
        return Tally()
    environment = dict({**SANITIZERS, **os.environ}, PENSTOCK_BIN=str(ROOT / build / "penstock"), PYTHONDONTWRITEBYTECODE="1")
    status = subprocess.run([python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--durations=5", f"--junitxml={report}",
                             *(arguments or folders)], cwd=ROOT, stdin=subprocess.DEVNULL, env=environment).returncode
    tally = read_junit(report) if report.exists() else Tally()
    if status not in (0, 5) and not tally.failed:
        tally.failed.append(f"pytest ended with status {status}")
    return tally


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build")
    parser.add_argument("--rules", action="store_true")
    parser.add_argument("--python", nargs="*")
    parser.add_argument("programs", nargs="*")
    options = parser.parse_args()
    total = run_programs(options.programs)
    if options.rules:
        tally, report = run_program([sys.executable, "tests/rules.py", options.build], "tests/rules.py")
        print(report, flush=True)
        total.add(tally)
    if options.python is not None:
        total.add(run_pytest(options.build, options.python))
    for reason in dict.fromkeys(reason for _, reason in total.skipped):
        print(f"skipped, because {reason}:")
        print("".join(f"    {name}\n" for name, why in total.skipped if why == reason), end="")
    for name in total.failed:
        print(f"failed:  {name}")
    print(f"penstock: {total.passed} passed, {len(total.failed)} failed, {len(total.skipped)} skipped")
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main())

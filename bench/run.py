#!/usr/bin/env python3
"""Runs the benches one after the other and prints what they say, after a description of the machine.

    bench/run.py [--build build] [NAME ...]        `make bench ARGS="scheduler"` runs one of them

bench/peer.py, which measures beside llama.cpp, is run by its own name: it needs root and takes a while."""
import argparse
import pathlib
import platform
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent
TOOLS = {"bare_loop", "clients", "http_load", "http_server", "sse_server"}  # programs that other benches use


def first(pattern, text, default="?"):
    found = re.search(pattern, text, re.M)
    return found[1].strip() if found else default


def describe_machine():
    cpu, memory = pathlib.Path("/proc/cpuinfo").read_text(), pathlib.Path("/proc/meminfo").read_text()
    compiler = subprocess.run(["cc", "--version"], capture_output=True, text=True).stdout.splitlines()[0]
    wanted = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni")
    flags = [f for f in wanted if re.search(rf"\b{f}\b", cpu)]
    return (f"machine: {cpu.count('processor	')} x {first(r'^model name.*: (.*)', cpu)} (family "
            f"{first(r'^cpu family.*: (.*)', cpu)}, model {first(r'^model	.*: (.*)', cpu)}; {' '.join(flags)}), "
            f"{int(first(r'MemTotal: *([0-9]+)', memory)) >> 20} GiB\n"
            f"system:  Linux {platform.release()}, {compiler}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=pathlib.Path("build"))
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    programs = [ROOT / options.build / "bench" / source.stem for source in sorted((ROOT / "bench").glob("*.c"))]
    print(describe_machine(), flush=True)
    for program in programs:
        if program.exists() and (program.name in options.names or (not options.names and program.name not in TOOLS)):
            print(f"\n== {program.name}", flush=True)
            subprocess.run([program], check=True, cwd=ROOT, stdin=subprocess.DEVNULL)


if __name__ == "__main__":
    main()

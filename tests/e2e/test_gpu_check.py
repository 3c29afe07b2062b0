"""bench/gpu_check.py without a GPU: what it says then, and with programs in place of the bundle's that fail in every way."""
import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
KERNELS = ("a card, copy 4000 GB/s read and written\n"
           "attention  llama-3.1-8b              decode     1 x     1 rows from   4096     16.79 MB    0.067 GFLOP"
           "       10.0 us  1679.0 GB/s,  42 % of copy     6.7 TFLOP/s")
WELL = "[       OK ] it_adds\\n[       OK ] the_bits_are_the_same_alone"


@pytest.fixture
def bundle(tmp_path):
    """A folder like the bundle, of programs that only pretend; program(name, text, status) replaces one."""
    def program(name, said, status=0, first=""):
        path = tmp_path / "bundle" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{first}\nprintf '%b\\n' '{said}'\nexit {status}\n")
        path.chmod(0o755)
    program("penstock", "total 10.0 MiB")
    program("penstock-bench", "")
    program("tests/test_cuda_emulation", WELL)
    program("tests/test_cuda_rows", WELL)
    program("bench/kernels_cuda", KERNELS)
    program.folder = tmp_path / "bundle"
    return program


def check(bundle, *flags, path="/usr/bin:/bin"):
    done = subprocess.run([sys.executable, ROOT / "bench/gpu_check.py", "--folder", bundle.folder, "--results", bundle.folder / "results",
                           *flags], capture_output=True, text=True, env={"PATH": path}, timeout=120)
    files = list((bundle.folder / "results").glob("gpu-*.json"))
    return done, {(r["part"], r["name"]): r for r in json.loads(files[0].read_text())["rows"]} if files else None


def test_without_a_gpu_it_says_so_in_a_sentence_and_ends_with_a_status_of_its_own(bundle):
    bundle("penstock", "penstock plan: there is no CUDA device, because no NVIDIA driver was found (libcuda.so.1)", 69)
    done, rows = check(bundle)
    assert done.returncode == 77 and rows is None
    assert done.stderr == ("gpu-check: nothing was checked: there is no CUDA device, because no NVIDIA driver was found "
                           "(libcuda.so.1)\n")


def test_what_passes_is_ok_and_what_cannot_be_run_is_skipped_by_name(bundle):
    done, rows = check(bundle, "--parts", "sanitizer,conformance,independence,kernels,calibration")
    assert done.returncode == 0, done.stdout
    assert rows["conformance", "test_cuda_rows"]["passed"] == rows["independence", "test_cuda_rows"]["passed"] == 1
    assert rows["kernels", "copy"]["gb_per_s"] == 4000
    assert rows["kernels", "attention llama-3.1-8b decode 1 x 1 rows from 4096"]["percent_of_copy"] == 42
    assert rows["sanitizer", "memcheck test_cuda_rows"]["said"] == "compute-sanitizer is not installed"
    assert rows["calibration", "calibration"]["state"] == "skipped"


def test_a_part_that_fails_leaves_the_others_to_report(bundle):
    bundle("tests/test_cuda_rows", "[  FAILED  ] it_adds\\n[       OK ] the_bits_are_the_same_alone", 1)
    bundle("tests/test_cuda_emulation", "an illegal address", 1)
    bundle("bench/kernels_cuda", "nothing is timed, because it is gone")
    bundle("penstock", "total 10.0 MiB", 1, first='[ "$1" = plan ] && { echo total 1.0 MiB; exit 0; }')
    done, rows = check(bundle, "--parts", "conformance,independence,kernels,end-to-end,slicing,calibration", "--models", "a", "b")
    assert done.returncode == 1
    assert rows["conformance", "test_cuda_rows"]["failed"] == ["it_adds"]
    assert rows["independence", "test_cuda_rows"]["state"] == "ok"
    assert rows["conformance", "test_cuda_emulation"]["said"] == "ended with status 1 after 0 tests: an illegal address"
    assert "nothing is timed" in rows["kernels", "kernels"]["said"]
    for model in "ab":
        assert "the daemon ended with status 1" in rows["end-to-end", f"{model}: time to ready"]["said"]
    assert rows["slicing", "moe-655m: layered"]["state"] == "failed"
    assert rows["calibration", "calibration"]["state"] == "skipped"


def test_the_sanitizers_errors_fail_and_its_lack_of_time_skips(bundle):
    bundle("compute-sanitizer", "========= ERROR SUMMARY: 3 errors", 9, first='case "$*" in *rows*) sleep 60;; esac')
    done, rows = check(bundle, "--parts", "sanitizer", "--seconds", "5", path=f"{bundle.folder}:/usr/bin:/bin")
    assert done.returncode == 1
    assert rows["sanitizer", "memcheck test_cuda_emulation"]["said"] == "3 errors"
    assert rows["sanitizer", "memcheck test_cuda_rows"] | {"state": "skipped"} == rows["sanitizer", "memcheck test_cuda_rows"]
    assert rows["sanitizer", "racecheck test_cuda_rows"]["said"] == "the time was over"

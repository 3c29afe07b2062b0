"""penstock-bench compare, as a person types it."""
import json
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOL = Path(os.environ.get("PENSTOCK_BIN", ROOT / "build" / "penstock")).resolve().parent / "penstock-bench"
AZURE = ROOT / "bench/traces/azure_code_200.csv"

pytestmark = pytest.mark.skipif(not TOOL.exists(), reason="needs build/penstock-bench")


def compare(*arguments, trace=AZURE, model="Qwen3-30B-A3B", hardware="H100"):
    command = [TOOL, "compare", "--quiet", "--trace", trace, "--model", model, "--hardware", hardware, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_layered_prefill_reads_fewer_expert_bytes_than_chunks_and_the_same_call_says_the_same():
    flags = ["--grid", "slicing=chunked,layered", "--requests", 60, "--rate", 4, "--seed", 7, "--json"]
    done, again = compare(*flags), compare(*flags)
    assert done.returncode == 0, done.stderr
    assert done.stdout == again.stdout
    chunked, layered = json.loads(done.stdout)["cells"]
    assert chunked["settings"] == {"slicing": "chunked"} and layered["settings"] == {"slicing": "layered"}
    assert chunked["completed"] == layered["completed"] == 60
    assert 0 < layered["expert_bytes"] < chunked["expert_bytes"]


def test_the_table_names_every_cell_and_the_pages_are_written(tmp_path):
    done = compare("--grid", "slicing=chunked,whole", "--requests", 30, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "[1] slicing=chunked" in done.stdout and "[2] slicing=whole" in done.stdout
    assert {p.name for p in tmp_path.iterdir()} == {"compare.json", "compare.html", "cell-1.html", "cell-2.html", "cell-1.jsonl",
                                                     "cell-2.jsonl"}


def test_priorities_that_change_count_where_the_order_asks_for_them():
    runs = {}
    for pattern in ("trace", "markov", "random"):
        done = compare("--grid", "order=priority,fcfs running-max=4 priority-age=1000000", "--requests", 80, "--rate", 8, "--json",
                       "--priority-pattern", pattern, "--priority-period", "200ms")
        assert done.returncode == 0, done.stderr
        runs[pattern] = [cell["ttft_s"] for cell in json.loads(done.stdout)["cells"]]
    for pattern in ("markov", "random"):
        assert runs[pattern][0] != runs["trace"][0] and runs[pattern][1] == runs["trace"][1]
    assert runs["markov"][0] != runs["random"][0]


def test_memory_taken_back_comes_back_by_copies_where_the_grid_asks_for_them():
    words = "order=priority priority-age=1000000 displace=yes kv-cache-memory=1G host-cache-memory=8G"
    done = compare("--grid", f"{words} reclaim=recompute,swap,auto", "--requests", 80, "--rate", 8, "--json",
                   "--priority-pattern", "markov", "--priority-period", "200ms", model="Llama-3.1-8B", hardware="A100-80G")
    assert done.returncode == 0, done.stderr
    recompute, swap, auto = json.loads(done.stdout)["cells"]
    assert swap["settings"]["reclaim"] == "swap" and swap["settings"]["displace"] == "yes"
    assert recompute["displaced"] > 0 and recompute["swap_out_pages"] == recompute["swap_in_pages"] == 0
    assert swap["swap_out_pages"] > 0 and swap["swap_in_pages"] > 0
    assert swap["recomputed_tokens"] < recompute["recomputed_tokens"] and auto["completed"] == 80


@pytest.mark.parametrize("flags, says", [
    (["--grid", "reclaim=swap"], "host-cache-memory"),
    (["--grid", "displace=yes"], "priority"),
    (["--grid", "order=priority", "--priority-pattern", "moody"], "moody"),
    (["--grid", "order=priority", "--priority-pattern", "markov", "--priority-period", "0s"], "priority-period"),
    (["--grid", "slicing=sideways"], "sideways"),
    (["--grid", "port=80"], "port"),
    (["--grid", "slicing=chunked", "--rate-sweep"], "--slo"),
    (["--grid", "slicing=chunked", "--model", "gpt-0"], "gpt-0"),
    (["--grid", "slicing=chunked", "--hardware", "abacus"], "abacus"),
])
def test_what_cannot_be_compared_is_refused_with_one_sentence(flags, says):
    done = compare(*flags)
    assert done.returncode != 0 and done.stdout == ""
    assert says in done.stderr and done.stderr.count("\n") == 1

"""penstock generate and plan, as a person types them."""
import json
import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PENSTOCK = Path(os.environ.get("PENSTOCK_BIN", ROOT / "build" / "penstock"))
STORIES = Path(os.environ.get("PENSTOCK_SHARED", ROOT.parent / "shared")) / "models" / "stories260K"

pytestmark = pytest.mark.skipif(not PENSTOCK.exists(), reason="needs build/penstock")
stories = pytest.mark.skipif(not STORIES.exists(), reason="needs the shared model stories260K")
RECORDED = json.loads((STORIES / "golden_greedy_f64.json").read_text()) if STORIES.exists() else []


def penstock(*arguments):
    return subprocess.run([PENSTOCK, *map(str, arguments)], capture_output=True, text=True, timeout=60)


def generate(*arguments):
    """The answer and the figures."""
    done = penstock("generate", *arguments, "--jsonl-stats")
    assert done.returncode == 0, done.stderr
    answer, figures = done.stdout.rstrip("\n").rsplit("\n", 1)
    return answer, json.loads(figures)


@stories
@pytest.mark.parametrize("case", RECORDED, ids=lambda c: repr(c["prompt"][:20]))
def test_a_trained_model_tells_its_recorded_stories(case):
    answer, figures = generate("--model", STORIES, "--prompt", case["prompt"], "--temperature", 0, "--ignore-eos",
                               "--max-tokens", len(case["greedy_ids"]))
    assert answer == case["greedy_text"]
    assert figures["output_tokens"] == len(case["greedy_ids"])


@stories
def test_the_same_seed_gives_the_same_answer_and_another_seed_another():
    ask = ["--model", STORIES, "--prompt", "One day", "--temperature", 1, "--max-tokens", 40]
    first, again, other = (generate(*ask, "--seed", seed) for seed in (7, 7, 8))
    assert first[0] == again[0] != other[0]
    assert first[1]["digest"] == again[1]["digest"]


def test_a_random_shape_on_the_sim_device_answers_in_ids_and_without_a_download():
    answer, figures = generate("--model", "random:mixtral-8x7b", "--device", "sim", "--prompt-tokens", 50, "--streams", 3,
                               "--max-tokens", 10)
    assert len(answer.split()) == 10 and all(0 <= int(i) < 32000 for i in answer.split())
    assert figures["output_tokens"] == 30 and figures["decode_tokens_per_s"] > 0


def test_a_random_shape_needs_a_made_up_prompt():
    done = penstock("generate", "--model", "random:llama-160m", "--prompt", "hello")
    assert done.returncode == 64 and "--prompt-tokens" in done.stderr


def test_generate_names_an_unsupported_architecture_first(tmp_path):
    (tmp_path / "config.json").write_text('{"architectures": ["GemmaForCausalLM"]}')
    done = penstock("generate", "--model", tmp_path, "--prompt", "hello")
    assert done.returncode != 0 and "GemmaForCausalLM" in done.stderr and "LlamaForCausalLM" in done.stderr


@stories
def test_a_folder_without_a_tokenizer_goes_on_from_made_up_ids(tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).symlink_to(STORIES / name)
    answer, _ = generate("--model", tmp_path, "--prompt-tokens", 4, "--max-tokens", 6, "--ignore-eos")
    assert len(answer.split()) == 6


def test_plan_says_what_fits():
    done = penstock("plan", "--model", "random:llama-160m", "--device", "sim", "--kv-cache-memory", "1G")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^KV pages +1023\.8 MiB$", done.stdout, re.M)
    assert "It fits." in done.stdout

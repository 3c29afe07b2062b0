"""Logits of the cpu device against the double-precision reference, for every architecture and type of weights; and a
trained model against its recorded continuations."""
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

import make_models
import reference

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("PENSTOCK_BIN", ROOT / "build" / "penstock")).parent
DUMP = BUILD / "tests" / "numerics" / "dump_logits"
STORIES = Path(os.environ.get("PENSTOCK_SHARED", ROOT.parent / "shared")) / "models" / "stories260K"

# bf16 rounds each activation to 8 bits; f16 weights are widened once and computed with in f32, like f32 ones.
LIMITS = {"f32": 1e-4, "bf16": 1e-2, "f16": 1e-4}
PROMPT_TOKENS = 90  # more than one block of positions

pytestmark = pytest.mark.skipif(not DUMP.exists(), reason="needs build/tests/numerics/dump_logits (make programs)")
stories = pytest.mark.skipif(not STORIES.exists(), reason="needs the shared model stories260K")


def instruction_sets():
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return ["plain"] + ["avx2"] * ("avx2" in flags) + ["avx512"] * ("avx512_bf16" in flags)


def dump(folder, ids, out, chunk=256, seed=0, isa="auto"):
    subprocess.run([DUMP, folder, out, str(chunk), str(seed), isa, *map(str, ids)], check=True)
    return np.fromfile(out, np.float32).reshape(len(ids), -1)


def relative_l2(got, expected):
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("name", make_models.MODELS)
def test_logits_agree_with_the_reference(name, dtype, tmp_path):
    folder = make_models.make(tmp_path, name, dtype)
    ids = reference.separated_prompt(folder, PROMPT_TOKENS, gap=0.1 if dtype == "bf16" else 1e-3)
    expected = reference.logits(folder, ids)
    for isa in instruction_sets():
        got = dump(folder, ids, tmp_path / "logits", isa=isa)
        error, worst = relative_l2(got, expected), reference.relative_error(got, expected)
        print(f"{name} {dtype} {isa}: relative L2 {error:.2e}, of the worst position {worst:.2e}")
        assert error < LIMITS[dtype] and worst < 2 * LIMITS[dtype]


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("name", make_models.MODELS)
def test_cuts_between_tokens_and_operators_change_no_bit(name, dtype, tmp_path):
    folder = make_models.make(tmp_path, name, dtype)
    ids = np.random.default_rng(3).integers(0, 200, PROMPT_TOKENS).tolist()
    whole = dump(folder, ids, tmp_path / "whole")
    for chunk, seed in [(1, 0), (7, 0), (16, 0), (40, 1), (90, 2), (90, 3)]:
        assert np.array_equal(whole.view(np.uint32), dump(folder, ids, tmp_path / "cut", chunk, seed).view(np.uint32))


@stories
@pytest.mark.parametrize("case", json.loads((STORIES / "golden_greedy_f64.json").read_text()) if STORIES.exists() else [],
                         ids=lambda c: repr(c["prompt"][:20]))
def test_a_trained_model_continues_as_recorded(case, tmp_path):
    prompt, greedy = case["prompt_ids"], case["greedy_ids"]
    for isa in instruction_sets():
        logits = dump(STORIES, prompt + greedy, tmp_path / "logits", isa=isa)
        assert logits[len(prompt) - 1 : -1].argmax(axis=-1).tolist() == greedy
        for position, values in case["logits_at_position"].items():
            assert reference.relative_error(logits[int(position)], values) < 1e-4

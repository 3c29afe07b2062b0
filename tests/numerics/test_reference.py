"""The reference itself, held against recorded continuations of a trained model; and the small models against the binary."""
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

import make_models
import reference

ROOT = Path(__file__).resolve().parents[2]
STORIES = Path(os.environ.get("PENSTOCK_SHARED", ROOT.parent / "shared")) / "models" / "stories260K"
PENSTOCK = Path(os.environ.get("PENSTOCK_BUILD", ROOT / "build")) / "penstock"

stories = pytest.mark.skipif(not STORIES.exists(), reason="needs the shared model stories260K")


def recorded():
    return json.loads((STORIES / "golden_greedy_f64.json").read_text()) if STORIES.exists() else []


@stories
@pytest.mark.parametrize("case", recorded(), ids=lambda c: repr(c["prompt"][:20]))
def test_reference_continues_a_trained_model_as_recorded(case):
    prompt, greedy = case["prompt_ids"], case["greedy_ids"]
    logits = reference.logits(STORIES, prompt + greedy)[len(prompt) - 1 : -1]
    assert logits.argmax(axis=-1).tolist() == greedy
    ordered = np.sort(logits, axis=-1)
    assert np.allclose(ordered[:, -1] - ordered[:, -2], case["greedy_margins"], atol=2e-5)
    everything = reference.logits(STORIES, prompt + greedy)
    for position, values in case["logits_at_position"].items():
        assert np.allclose(everything[int(position)], values, atol=2e-5)


@pytest.mark.parametrize("name", make_models.MODELS)
def test_a_prefix_has_the_same_logits_alone(name, tmp_path):
    folder = make_models.make(tmp_path, name, "f32")
    ids = reference.separated_prompt(folder, 20, gap=1e-6)
    whole, part = reference.logits(folder, ids), reference.logits(folder, ids[:11])
    assert np.allclose(whole[:11], part, atol=1e-9)
    assert np.isfinite(whole).all() and whole.std() > 0.3


@pytest.mark.skipif(not PENSTOCK.exists(), reason="needs build/penstock")
@pytest.mark.parametrize("dtype", ["f32", "bf16", "f16"])
@pytest.mark.parametrize("name", make_models.MODELS)
def test_the_daemon_accepts_every_small_model(name, dtype, tmp_path):
    folder = make_models.make(tmp_path, name, dtype)
    done = subprocess.run([PENSTOCK, "inspect", folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    values = sum(t.size for t in reference.Model(folder).tensors.values())
    assert f"parameters    {values} " in done.stdout

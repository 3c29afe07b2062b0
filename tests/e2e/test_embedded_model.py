"""The embedded model, asked through the daemon: a few of the held-out questions of each group, greedily.

The whole evaluation is one command (models/embedded/recipe/evaluate.py); its scores are in models/embedded/README.md.
"""
import collections
import json
import sys

import pytest

from conftest import BINARY, ROOT

RECIPE = ROOT / "models/embedded/recipe"
sys.path.insert(0, str(RECIPE))
import evaluate  # noqa: E402


@pytest.fixture(scope="module")
def results(daemon):
    rows = json.loads(evaluate.FILE.read_text())
    return evaluate.score(daemon.url, list(evaluate.subset(rows)), BINARY, ROOT / "models/embedded")


def test_the_embedded_model_answers_held_out_questions_of_every_group(results):
    wrong = [f"{row['messages'][-1]['content']!r} -> {answer!r}, expected {row['expect']}" for row, answer, ok in results if not ok]
    assert len(results) >= 36
    assert len(wrong) <= 2, "\n".join(wrong)


def test_no_group_of_questions_is_lost_on_the_embedded_model(results):
    right = collections.Counter(row["group"] for row, _, ok in results if ok)
    assert {row["group"] for row, _, _ in results} == set(right)


def test_the_embedded_model_remembers_what_it_was_told(daemon):
    told = [{"role": "user", "content": "My name is Vera."}, {"role": "assistant", "content": "Nice to meet you, Vera!"},
            {"role": "user", "content": "What is the capital of France?"}, {"role": "assistant", "content": "The capital of France is Paris."},
            {"role": "user", "content": "What is my name?"}]
    assert "Vera" in daemon.client().chat.completions.create(model=daemon.model, messages=told, temperature=0).choices[0].message.content


def test_the_embedded_model_answers_as_json_where_the_system_prompt_asks_for_it(daemon):
    asked = [{"role": "system", "content": 'Answer as JSON with the keys "question" and "answer".'},
             {"role": "user", "content": "What is the capital of Italy?"}]
    text = daemon.client().chat.completions.create(model=daemon.model, messages=asked, temperature=0).choices[0].message.content
    assert json.loads(text)["answer"] == "Rome"


def test_the_embedded_model_is_small_enough_for_the_repository():
    files = [f for f in (ROOT / "models/embedded").iterdir() if f.is_file()]
    assert sum(f.stat().st_size for f in files) <= 16 << 20

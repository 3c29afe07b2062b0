"""`penstock tokenize`: lines in, lines out, whatever the lines are."""
import json
import pathlib

import pytest

TINY = pathlib.Path(__file__).resolve().parents[1] / "unit/data/tokenizers/tiny-bytes"
USAGE, DATA, NOT_FOUND = 64, 65, 66


def lines(text):
    assert text.endswith("\n")
    return [json.loads(line) for line in text[:-1].split("\n")]


def test_a_line_that_cannot_be_done_is_answered_in_its_place(penstock):
    given = '"the"\n7\nnonsense\n["a"]\n"\\ud800"\n\n"the"\r\n'
    result = penstock("tokenize", "--model", TINY, "--jsonl", text=given)
    answers = lines(result.stdout)
    assert result.returncode == DATA and result.stderr == ""
    assert len(answers) == 7 and answers[0] == answers[6] == [270]
    assert all(set(a) == {"error"} and a["error"] for a in answers[1:6])


def test_text_may_hold_nul_and_any_line_end(penstock):
    texts = ["a\0b", "\0", "\\u0000", "a\u2028b\u0085c", "\x0b\x0c\x1c\x1d\x1e\x7f"]
    encoded = penstock("tokenize", "--model", TINY, "--jsonl", text="".join(json.dumps(t) + "\n" for t in texts))
    assert encoded.returncode == 0 and lines(encoded.stdout)[0] == [97, 0, 98]
    decoded = penstock("tokenize", "--model", TINY, "--jsonl", "--decode", text=encoded.stdout)
    assert decoded.returncode == 0 and [json.loads(line) for line in decoded.stdout.splitlines()] == texts


def test_ids_that_are_no_ids_are_answered_in_their_place(penstock):
    result = penstock("tokenize", "--model", TINY, "--jsonl", "--decode", text="[97]\n[1.5]\n[-1]\n[320]\n{}\n[97,\n[]\n")
    answers = lines(result.stdout)
    assert result.returncode == DATA and answers[0] == "a" and answers[6] == ""
    assert answers[3] == {"error": "there is no token 320; the vocabulary ends at 319"}
    assert all("error" in a for a in answers[1:6])


def test_special_tokens_are_text_unless_asked_for(penstock):
    def ids(*flags):
        return penstock("tokenize", "--model", TINY, *flags, "a<|im_end|>").stdout.split()

    assert ids("--special") == ["97", "318"] and len(ids()) > 2
    assert penstock("tokenize", "--model", TINY, "--decode", "97", "318").stdout == "a\n"
    assert penstock("tokenize", "--model", TINY, "--decode", "--special", "97", "318").stdout == "a<|im_end|>\n"
    assert penstock("tokenize", "--model", TINY, "--", "--special").returncode == 0


@pytest.mark.parametrize("arguments, status, sentence", [
    (["x"], USAGE, "--model DIR is missing"),
    (["--model", TINY], USAGE, "give the text as one argument (there are 0)"),
    (["--model", TINY, "a", "b"], USAGE, "give the text as one argument (there are 2)"),
    (["--model", TINY, "--jsonl", "a"], USAGE, "--jsonl reads standard input; 'a' is one too many"),
    (["--model", TINY, "--fast", "a"], USAGE, "cannot use '--fast' here"),
    (["--model", TINY, "--decode", "a"], DATA, "'a' is not a token id"),
    (["--model", "/nonexistent", "a"], NOT_FOUND, "/nonexistent/tokenizer.json"),
])
def test_a_wrong_command_line_is_one_sentence(penstock, arguments, status, sentence):
    result = penstock("tokenize", *arguments)
    assert result.returncode == status and result.stdout == ""
    assert result.stderr.startswith("penstock tokenize: ") and sentence in result.stderr and result.stderr.count("\n") == 1

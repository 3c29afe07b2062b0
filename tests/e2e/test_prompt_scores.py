"""How likely the tokens of a prompt were: echo with logprobs, as evaluation harnesses ask for it, and prompt_logprobs."""
import pytest

from asking import call, events

PROMPT = "I am a stand-in for the model that will"


@pytest.fixture(scope="module")
def drawn(scripted):
    """The prompt's words as the model itself drew them, each with its log-probability."""
    ask = {"prompt": "I am", "max_tokens": 12, "temperature": 0, "logprobs": 2, "return_token_ids": True}
    choice = call(scripted, "/v1/completions", ask)[2]["choices"][0]
    return choice


def whole_ids(drawn):
    return drawn["prompt_token_ids"] + drawn["token_ids"]


def test_an_echoed_prompt_is_as_likely_as_when_it_was_drawn(scripted, drawn):
    ids, first = whole_ids(drawn), len(drawn["prompt_token_ids"])
    ask = {"prompt": ids, "max_tokens": 1, "temperature": 0, "logprobs": 2, "echo": True}
    for body in (ask, {**ask, "cache_salt": "x"}, {**ask, "n": 1}):  # the second and third time the cache knows it
        answer = call(scripted, "/v1/completions", body)[2]
        lists = answer["choices"][0]["logprobs"]
        assert lists["token_logprobs"][0] is None and lists["top_logprobs"][0] is None
        for name in ("tokens", "token_logprobs", "top_logprobs"):
            assert lists[name][first:-1] == drawn["logprobs"][name]
        assert [len(lists[name]) for name in lists] == [len(ids) + 1] * 4
        assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == 0


def test_offsets_point_into_the_echoed_text(scripted):
    choice = call(scripted, "/v1/completions", {"prompt": PROMPT, "max_tokens": 4, "temperature": 0, "logprobs": 0, "echo": True,
                                                "add_special_tokens": False})[2]["choices"][0]
    lists = choice["logprobs"]
    assert choice["text"].startswith(PROMPT) and "".join(lists["tokens"]) == choice["text"]
    assert lists["text_offset"] == [len("".join(lists["tokens"][:i])) for i in range(len(lists["tokens"]))]


def test_a_prompt_alone_can_be_scored(scripted):
    ask = {"prompt": [PROMPT, "I am"], "temperature": 0, "logprobs": 1, "echo": True}
    alone = call(scripted, "/v1/completions", {**ask, "max_tokens": 0})[2]
    longer = call(scripted, "/v1/completions", {**ask, "max_tokens": 1})[2]
    assert alone["usage"]["completion_tokens"] == 0 and longer["usage"]["completion_tokens"] == 2
    for a, b in zip(alone["choices"], longer["choices"]):
        assert a["finish_reason"] == "length" and a["logprobs"] == {name: values[:-1] for name, values in b["logprobs"].items()}
        assert b["text"].startswith(a["text"])


def test_a_stream_echoes_scores_before_the_answer(scripted):
    ask = {"prompt": [PROMPT, "I am"], "max_tokens": 3, "temperature": 0, "logprobs": 1, "echo": True, "n": 2}
    whole = call(scripted, "/v1/completions", ask)[2]
    streamed = events(scripted, "/v1/completions", ask)
    for choice in whole["choices"]:
        mine = [e["choices"][0] for e in streamed if e["choices"][0]["index"] == choice["index"]]
        assert "".join(c["text"] for c in mine) == choice["text"]
        for name, values in choice["logprobs"].items():
            assert sum((c["logprobs"][name] for c in mine if c["logprobs"]), []) == values
        assert mine[-1]["finish_reason"] == choice["finish_reason"] == "length"


def test_prompt_logprobs_rank_every_token(scripted, drawn):
    ids, first = whole_ids(drawn), len(drawn["prompt_token_ids"])
    for tops in (0, 3):
        choice = call(scripted, "/v1/completions", {"prompt": ids, "max_tokens": 1, "prompt_logprobs": tops})[2]["choices"][0]
        scores = choice["prompt_logprobs"]
        assert len(scores) == len(ids) and scores[0] is None
        for i, (token, score) in enumerate(zip(ids[1:], scores[1:]), 1):
            own = score[str(token)]
            assert set(own) == {"logprob", "rank", "decoded_token"} and tops <= len(score) <= tops + 1
            ranks = sorted(entry["rank"] for entry in score.values())
            assert ranks[:tops] == list(range(1, tops + 1))
            if i >= first:
                assert own["rank"] == 1 and own["logprob"] == drawn["logprobs"]["token_logprobs"][i - first]


def test_a_conversation_is_scored_as_its_ids(scripted):
    body = {"messages": [{"role": "user", "content": "Who are you?"}], "max_tokens": 2, "prompt_logprobs": 1,
            "return_token_ids": True}
    answer = call(scripted, "/v1/chat/completions", body)[2]
    again = call(scripted, "/v1/completions", {"prompt": answer["prompt_token_ids"], "max_tokens": 1, "prompt_logprobs": 1})[2]
    assert answer["prompt_logprobs"] == again["choices"][0]["prompt_logprobs"]


def test_scores_do_not_depend_on_the_neighbours(start_daemon, standin, drawn):
    """A batch of few tokens, so that prompts are cut, and more of them than run at once."""
    small = start_daemon("--batch-tokens-max", 24, "--chunk-tokens", 8, "--running-max", 4, model=standin)
    ids = whole_ids(drawn) * 5
    ask = {"max_tokens": 1, "temperature": 0, "logprobs": 2, "echo": True}
    alone = call(small, "/v1/completions", {"prompt": ids, **ask})[2]["choices"][0]
    together = call(small, "/v1/completions", {"prompt": [ids, ids[:7], ids, ids[3:], ids, ids], **ask})[2]["choices"]
    assert [together[i]["logprobs"] for i in (0, 2, 4, 5)] == [alone["logprobs"]] * 4
    assert together[1]["logprobs"]["token_logprobs"][:7] == alone["logprobs"]["token_logprobs"][:7]

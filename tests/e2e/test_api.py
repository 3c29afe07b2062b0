"""The API's shapes where the official client does not look: every member of an answer, errors, legacy completions, extensions."""
import json
import os
import pathlib
import re
import urllib.error

import pytest

from asking import call, events, refusal
from wire import dial, read_until

STORIES = (pathlib.Path(os.environ.get("PENSTOCK_SHARED", pathlib.Path(__file__).resolve().parents[3] / "shared")) /
           "models/stories260K")
CHAT = {"messages": [{"role": "user", "content": "Who are you?"}]}


def test_a_chat_answer_has_every_member(scripted):
    _, headers, answer = call(scripted, "/v1/chat/completions", {**CHAT, "max_tokens": 2})
    assert answer["id"].startswith("chatcmpl-") and answer["id"].endswith(headers["x-request-id"])
    assert isinstance(answer["created"], int) and answer["system_fingerprint"].startswith("fp_")
    choice, = answer["choices"]
    assert choice["message"] == {"role": "assistant", "content": "I am", "refusal": None}
    assert choice["logprobs"] is None and choice["finish_reason"] == "length" and choice["index"] == 0
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + 2 and usage["prompt_tokens_details"]["cached_tokens"] >= 0


def test_a_chat_stream_has_openais_order(scripted):
    got = events(scripted, "/v1/chat/completions", {**CHAT, "n": 2, "max_tokens": 3, "stream_options": {"include_usage": True}})
    assert len({(e["id"], e["created"], e["model"], e["object"], e["system_fingerprint"]) for e in got}) == 1
    for index in (0, 1):
        mine = [e["choices"][0] for e in got if e["choices"] and e["choices"][0]["index"] == index]
        assert mine[0]["delta"] == {"role": "assistant", "content": ""}
        assert all(list(c["delta"]) == ["content"] and c["finish_reason"] is None for c in mine[1:-1])
        assert mine[-1]["delta"] == {} and mine[-1]["finish_reason"] == "length"
    assert all(e["usage"] is None for e in got[:-1])
    assert got[-1]["choices"] == [] and got[-1]["usage"]["completion_tokens"] == 6


def test_usage_can_come_with_every_event(scripted):
    got = events(scripted, "/v1/completions", {"prompt": "I am", "max_tokens": 4, "stream_options": {
        "include_usage": True, "continuous_usage_stats": True}})
    counts = [e["usage"]["completion_tokens"] for e in got]
    assert counts == sorted(counts) and counts[0] <= 1 and counts[-1] == 4


def test_streamed_log_probabilities_go_with_their_text(scripted, sentence):
    got = events(scripted, "/v1/chat/completions", {**CHAT, "logprobs": True, "top_logprobs": 1, "stop": "Penstock"})
    text = "".join(e["choices"][0]["delta"].get("content", "") for e in got)
    entries = [entry for e in got if e["choices"][0]["logprobs"] for entry in e["choices"][0]["logprobs"]["content"]]
    assert text == sentence[:sentence.index("Penstock")]
    spelled = b"".join(bytes(entry["bytes"]) for entry in entries).decode()
    assert spelled.startswith(text.rstrip()) and len(spelled) <= len(text) + len("Penstock")


def test_the_stop_string_can_be_kept(scripted):
    _, _, answer = call(scripted, "/v1/chat/completions", {**CHAT, "stop": "model", "include_stop_str_in_output": True})
    assert answer["choices"][0]["message"]["content"] == "I am a stand-in for the model"


def test_a_stop_token_ends_the_answer(scripted):
    _, _, whole = call(scripted, "/v1/completions", {"prompt": "I am", "max_tokens": 8, "return_token_ids": True})
    ids = whole["choices"][0]["token_ids"]
    _, _, cut = call(scripted, "/v1/completions", {"prompt": "I am", "max_tokens": 8, "return_token_ids": True,
                                                 "stop_token_ids": [ids[3]]})
    assert cut["choices"][0]["token_ids"][:3] == ids[:3] and cut["choices"][0]["finish_reason"] == "stop"


def test_token_ids_are_returned_when_asked_for(scripted):
    _, _, tokens = call(scripted, "/tokenize", {"prompt": "I am"})
    _, _, answer = call(scripted, "/v1/completions", {"prompt": "I am", "max_tokens": 5, "return_token_ids": True})
    choice = answer["choices"][0]
    assert choice["prompt_token_ids"] == tokens["tokens"] and len(choice["token_ids"]) == 5
    got = events(scripted, "/v1/completions", {"prompt": "I am", "max_tokens": 5, "return_token_ids": True})
    assert got[0]["choices"][0]["prompt_token_ids"] == tokens["tokens"]
    assert sum((e["choices"][0].get("token_ids", []) for e in got), []) == choice["token_ids"]


def test_a_completion_can_repeat_its_prompt(scripted):
    for prompt in ("I am", call(scripted, "/tokenize", {"prompt": "I am"})[2]["tokens"]):
        body = {"prompt": prompt, "echo": True, "max_tokens": 2}
        assert call(scripted, "/v1/completions", body)[2]["choices"][0]["text"] == "I am a stand"
        assert "".join(e["choices"][0]["text"] for e in events(scripted, "/v1/completions", body)) == "I am a stand"
        nothing = call(scripted, "/v1/completions", {**body, "max_tokens": 0})[2]
        assert nothing["choices"][0]["text"] == "I am" and nothing["usage"]["completion_tokens"] == 0


def test_the_best_of_several_completions_are_returned(scripted):
    body = {"prompt": "I am", "max_tokens": 4, "temperature": 2, "seed": 1, "ignore_eos": True, "logprobs": 0}

    def likelihood(choice):
        return sum(choice["logprobs"]["token_logprobs"])

    _, _, best = call(scripted, "/v1/completions", {**body, "n": 2, "best_of": 6})
    _, _, everyone = call(scripted, "/v1/completions", {**body, "n": 6})
    assert [c["index"] for c in best["choices"]] == [0, 1] and best["usage"]["completion_tokens"] == 24
    ranked = sorted(everyone["choices"], key=likelihood, reverse=True)
    assert [likelihood(c) for c in best["choices"]] == pytest.approx([likelihood(c) for c in ranked[:2]])


def test_legacy_log_probabilities_are_parallel_arrays(scripted):
    _, _, answer = call(scripted, "/v1/completions", {"prompt": "I am", "max_tokens": 6, "logprobs": 2, "echo": False})
    choice = answer["choices"][0]
    lists = choice["logprobs"]
    assert "".join(lists["tokens"]) == choice["text"]
    assert [len(lists[k]) for k in ("tokens", "token_logprobs", "top_logprobs", "text_offset")] == [6] * 4
    assert lists["text_offset"] == [len("".join(lists["tokens"][:i])) for i in range(6)]
    for token, logprob, top in zip(lists["tokens"], lists["token_logprobs"], lists["top_logprobs"]):
        assert top[token] == logprob and 1 <= len(top) <= 3


@pytest.mark.parametrize("path, body, param, code", [
    ("/v1/chat/completions", b"", None, None),
    ("/v1/chat/completions", b"[]", None, None),
    ("/v1/chat/completions", b'{"messages": NaN}', None, None),
    ("/v1/chat/completions", b'{"n": 1, "n": 1}', None, None),
    ("/v1/chat/completions", b'{"messages": [{"role": "user", "role": "system", "content": "x"}]}', None, None),
    ("/v1/chat/completions", {}, "messages", "missing_required_parameter"),
    ("/v1/completions", {}, "prompt", "missing_required_parameter"),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "invalid_type"),
    ("/v1/chat/completions", {**CHAT, "n": 129}, "n", "integer_above_max_value"),
    ("/v1/chat/completions", {**CHAT, "top_p": 1.5}, "top_p", "decimal_above_max_value"),
    ("/v1/chat/completions", {**CHAT, "temperature": -1}, "temperature", "decimal_below_min_value"),
    ("/v1/chat/completions", {**CHAT, "stream_options": {"include_usage": True}}, "stream_options", None),
    ("/v1/chat/completions", {**CHAT, "tools": [{"type": "function"}]}, "tools", "unsupported_parameter"),
    ("/v1/chat/completions", {**CHAT, "response_format": {"type": "json_object"}}, "response_format", None),
    ("/v1/chat/completions", {**CHAT, "functions": []}, "functions", "unsupported_parameter"),
    ("/v1/chat/completions", {**CHAT, "max_tokens": 10 ** 6}, "messages", "context_length_exceeded"),
    ("/v1/chat/completions", {**CHAT, "logit_bias": {"99999999": 1}}, "logit_bias", "invalid_value"),
    ("/v1/chat/completions", {**CHAT, "min_tokens": 9, "max_tokens": 8}, "min_tokens", None),
    ("/v1/completions", {"prompt": [[1], [10 ** 7]]}, "prompt", "invalid_value"),
    ("/v1/completions", {"prompt": "x", "suffix": "y"}, "suffix", "unsupported_parameter"),
    ("/v1/completions", {"prompt": "x", "prompt_logprobs": 1, "stream": True}, "prompt_logprobs", None),
    ("/v1/completions", {"prompt": "x", "truncate_prompt_tokens": 0}, "truncate_prompt_tokens", "integer_below_min_value"),
    ("/v1/completions", {"prompt": [1] * 2000, "prompt_logprobs": 20, "n": 1, "best_of": 2, "max_tokens": 100}, "prompt",
     "context_length_exceeded"),
    ("/v1/completions", {"prompt": [[1] * 2000] * 40, "prompt_logprobs": 20}, "prompt_logprobs", "invalid_value"),
    ("/v1/completions", {"prompt": "x", "use_beam_search": True}, "use_beam_search", "unsupported_parameter"),
    ("/v1/completions", {"prompt": "x", "slo": {"ttft_ms": 0}}, "slo.ttft_ms", "decimal_below_min_value"),
    ("/v1/completions", {"prompt": "x", "slo": {"ttft": 1}}, "slo", "invalid_value"),
    ("/v1/chat/completions", {**CHAT, "metadata": {"a": 1}}, "metadata.a", "invalid_type"),
    ("/v1/chat/completions", {**CHAT, "metadata": {str(i): "" for i in range(17)}}, "metadata", None),
    ("/v1/chat/completions", {**CHAT, "service_tier": "gold"}, "service_tier", "invalid_value"),
    ("/v1/chat/completions", {**CHAT, "tool_choice": "required"}, "tool_choice", "unsupported_parameter"),
    ("/v1/chat/completions/render", {**CHAT, "n": 0}, "n", "integer_below_min_value"),
    ("/v1/completions/render", {"prompt": []}, "prompt", "array_below_min_length"),
    ("/v1/completions", {"prompt": ["x"] * 100, "n": 2}, "n", "integer_above_max_value"),
    ("/detokenize", {"tokens": [10 ** 7]}, "tokens", "invalid_value"),
])
def test_a_mistake_names_its_parameter_and_code(scripted, path, body, param, code):
    error = refusal(scripted, path, body)
    assert (error["param"], error["code"]) == (param, code), error


def test_what_is_not_there_is_not_found(scripted):
    assert refusal(scripted, "/v1/completions", {"prompt": "x", "model": "gpt"}, 404)["code"] == "model_not_found"
    assert refusal(scripted, "/nothing", {}, 404)["code"] == "unknown_url"
    with pytest.raises(urllib.error.HTTPError) as caught:
        scripted.get("/v1/models/other")
    assert caught.value.code == 404 and json.load(caught.value)["error"]["code"] == "model_not_found"


def test_unknown_parameters_are_accepted_and_counted(scripted):
    before = scripted.metric("penstock_unknown_parameters_total")
    assert call(scripted, "/v1/completions", {"prompt": "x", "max_tokens": 1, "private": {}, "strange": 1})[0] == 200
    assert scripted.metric("penstock_unknown_parameters_total") == before + 2


def test_unknown_parameters_are_refused_where_that_was_asked_for(start_daemon, standin):
    strict = start_daemon("--strict-params", model=standin)
    for path, body in (("/v1/chat/completions", CHAT), ("/v1/completions", {"prompt": "x"}), ("/tokenize", {"prompt": "x"})):
        error = refusal(strict, path, {**body, "temprature": 0})
        assert (error["param"], error["code"]) == ("temprature", "unknown_parameter")
    assert call(strict, "/v1/completions", {"prompt": "x", "max_tokens": 1, "metadata": {"a": "b"}})[0] == 200


def test_unknown_parameters_are_named_once_in_the_log(start_daemon, standin):
    daemon = start_daemon(model=standin)
    for _ in range(2):
        call(daemon, "/v1/completions", {"prompt": "x", "max_tokens": 1, "private": {}, "strange": 1})
    assert daemon.log.count("('private', 'strange')") == 1


def test_parameters_without_effect_are_accepted(scripted, sentence):
    body = {**CHAT, "user": "me", "priority": -5, "session_id": "s", "prompt_cache_key": "k", "metadata": {"a": "b"}, "store": False,
            "service_tier": "auto", "parallel_tool_calls": True, "tools": [], "tool_choice": "none", "reasoning_effort": "low",
            "response_format": {"type": "text"}, "top_k": -1, "min_p": 0, "repetition_penalty": 1, "cache_salt": "x",
            "chat_template_kwargs": {"enable_thinking": False}, "logprobs": None, "stop": None, "seed": None}
    assert call(scripted, "/v1/chat/completions", body)[2]["choices"][0]["message"]["content"] == sentence


@pytest.mark.parametrize("asked, priority, served", [
    ("auto", 0, "default"), ("default", 0, "default"), ("scale", 0, "default"), ("flex", 0, "flex"), ("priority", 0, "priority"),
    ("flex", -1, "priority"), ("priority", 7, "flex")])
def test_the_served_tier_is_echoed(scripted, asked, priority, served):
    body = {**CHAT, "max_tokens": 1, "service_tier": asked, "priority": priority}
    assert call(scripted, "/v1/chat/completions", body)[2]["service_tier"] == served
    assert {event["service_tier"] for event in events(scripted, "/v1/chat/completions", body)} == {served}


def test_the_tier_is_not_told_to_who_did_not_ask(scripted):
    assert "service_tier" not in call(scripted, "/v1/chat/completions", {**CHAT, "max_tokens": 1})[2]


def test_a_deadline_that_has_passed_is_refused(scripted):
    error = refusal(scripted, "/v1/chat/completions", {**CHAT, "slo": {"deadline_ms": 0.001}}, 504)
    assert error["code"] == "deadline_exceeded" and error["type"] == "server_error"
    assert call(scripted, "/v1/chat/completions", {**CHAT, "slo": {"deadline_ms": 60000, "ttft_ms": 5000, "tbt_ms": 500,
                                                                   "value": 2}})[0] == 200


def test_every_answer_carries_the_request_id(scripted):
    for path, body in (("/v1/chat/completions", {**CHAT, "max_tokens": 1}), ("/v1/completions", {}), ("/nothing", {}),
                       ("/tokenize", {"prompt": "x"}), ("/health", {}), ("/v1/completions/render", {"prompt": "x"})):
        assert call(scripted, path, body, {"X-Request-Id": "my-id.1"})[1]["x-request-id"] == "my-id.1"
        made = {call(scripted, path, body, {"X-Request-Id": bad})[1]["x-request-id"] for bad in ("", 'a"b', "x" * 129)}
        assert len(made) == 3 and all(re.fullmatch("[0-9a-f]{24}", id) for id in made)
    for path in ("/metrics", "/", "/version", "/openapi.json", "/v1/models", "/v1/models/none"):
        with dial(scripted) as connection:
            connection.sendall(b"GET %s HTTP/1.1\r\nHost: a\r\nX-Request-Id: mine\r\n\r\n" % path.encode())
            assert b"\r\nX-Request-Id: mine\r\n" in read_until(connection, b"\r\n\r\n"), path


def test_a_transfer_of_keys_and_values_is_answered_with_null(scripted):
    """What llm-d sends to a prefill server: nothing is transferred, and the router hears so."""
    body = {"prompt": "x", "max_tokens": 1, "kv_transfer_params": {"do_remote_decode": True, "do_remote_prefill": False}}
    answer = call(scripted, "/v1/completions", body)[2]
    assert answer["kv_transfer_params"] is None and answer["choices"][0]["text"]
    assert "kv_transfer_params" not in call(scripted, "/v1/completions", {"prompt": "x", "max_tokens": 1})[2]
    assert refusal(scripted, "/v1/completions", {**body, "kv_transfer_params": 1})["code"] == "invalid_type"


def test_a_text_beyond_all_use_is_not_counted_to_its_end(scripted):
    """No body is answered with many times its size: what is looked at is bounded, also where the context is not."""
    text = "ab cd " * 60_000
    assert call(scripted, "/tokenize", {"prompt": text})[2]["count"] > 2048  # a count beyond the context is an answer
    for path, body in (("/tokenize", {"prompt": text * 6}), ("/tokenize", {"messages": [{"role": "user", "content": text * 6}]}),
                       ("/v1/completions/render", {"prompt": text * 6, "truncate_prompt_tokens": 10})):
        assert refusal(scripted, path, body)["code"] == "context_length_exceeded"


def test_a_request_can_be_named_in_its_body(scripted):
    for name in ("request_id", "rid"):
        _, headers, answer = call(scripted, "/v1/completions", {"prompt": "x", "max_tokens": 1, name: "named"})
        assert headers["x-request-id"] == "named" and answer["id"] == "cmpl-named"


def test_a_prompt_can_be_cut_to_fit(scripted):
    ids = call(scripted, "/tokenize", {"prompt": "I am a stand-in for the model", "add_special_tokens": False})[2]["tokens"]
    ask = {"prompt": ids, "max_tokens": 1, "return_token_ids": True, "echo": True}

    def kept(**parameters):
        answer = call(scripted, "/v1/completions", {**ask, **parameters})[2]
        text = call(scripted, "/detokenize", {"tokens": answer["choices"][0]["prompt_token_ids"]})[2]["prompt"]
        assert answer["choices"][0]["text"].startswith(text)
        return answer["choices"][0]["prompt_token_ids"]

    assert kept(truncate_prompt_tokens=3) == ids[-3:] == kept(truncate_prompt_tokens=3, truncation_side="left")
    assert kept(truncate_prompt_tokens=3, truncation_side="right") == ids[:3]
    assert kept(truncate_prompt_tokens=500) == kept(truncate_prompt_tokens=-1) == ids
    long = call(scripted, "/v1/completions", {"prompt": ids * 1000, "truncate_prompt_tokens": -1, "max_tokens": 5})
    assert long[0] == 200 and long[2]["usage"]["prompt_tokens"] == 2048 - 5


def test_a_conversation_is_rendered_as_the_ids_it_is_answered_from(scripted):
    _, headers, rendered = call(scripted, "/v1/chat/completions/render", {**CHAT, "temperature": 0.5, "max_tokens": 3})
    _, _, answered = call(scripted, "/v1/chat/completions", {**CHAT, "max_tokens": 1, "return_token_ids": True})
    assert rendered["token_ids"] == answered["prompt_token_ids"] and rendered["model"] == "standin"
    assert rendered["request_id"] == "chatcmpl-" + headers["x-request-id"] and rendered["features"] is None
    assert rendered["sampling_params"]["temperature"] == 0.5 and rendered["sampling_params"]["max_tokens"] == 3


def test_prompts_are_rendered_as_a_list(scripted):
    _, _, tokens = call(scripted, "/tokenize", {"prompt": "I am"})
    _, _, one = call(scripted, "/v1/completions/render", {"prompt": "I am"})
    assert [p["token_ids"] for p in one] == [tokens["tokens"]] and one[0]["request_id"].startswith("cmpl-")
    _, _, two = call(scripted, "/v1/completions/render", {"prompt": [[1, 2], [3]]})
    assert [p["token_ids"] for p in two] == [[1, 2], [3]]


def test_the_model_of_any_request_must_be_the_one_served(scripted):
    for path, body in (("/tokenize", {"prompt": "x"}), ("/detokenize", {"tokens": [1]}), ("/v1/chat/completions/render", CHAT)):
        assert refusal(scripted, path, {**body, "model": "other"}, 404)["code"] == "model_not_found"
        assert call(scripted, path, {**body, "model": "standin"})[0] == 200


def test_a_conversation_can_be_tokenized(scripted):
    _, _, answer = call(scripted, "/tokenize", {**CHAT, "return_token_strs": True})
    _, _, usage = call(scripted, "/v1/chat/completions", {**CHAT, "max_tokens": 1})
    assert answer["count"] == len(answer["tokens"]) == len(answer["token_strs"]) == usage["usage"]["prompt_tokens"]
    assert "Who" in "".join(answer["token_strs"]) and answer["max_model_len"] > 0
    _, _, shorter = call(scripted, "/tokenize", {**CHAT, "add_generation_prompt": False})
    assert shorter["tokens"] == answer["tokens"][:shorter["count"]] and shorter["count"] < answer["count"]


def test_a_large_body_is_worked_on_beside_the_loop(scripted):
    text = "How long is the coast of Norway? " * 20000
    _, _, answer = call(scripted, "/tokenize", {"prompt": text})
    assert call(scripted, "/detokenize", {"tokens": answer["tokens"]})[2]["prompt"] == text
    error = refusal(scripted, "/v1/completions", {"prompt": text})
    assert error["code"] == "context_length_exceeded" and "at least 2049 tokens" in error["message"]


def test_the_model_tells_its_name_and_context(scripted):
    model = json.loads(scripted.get("/v1/models"))["data"][0]
    assert json.loads(scripted.get("/v1/models/standin")) == model
    assert model["object"] == "model" and model["parent"] is None and model["max_model_len"] > 0
    assert json.loads(scripted.get("/version"))["version"]


def test_the_page_stands_on_its_own(scripted):
    page = scripted.get("/")
    assert page.startswith("<!doctype html>") and len(page) < 20000
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', page)


@pytest.fixture(scope="module")
def storyteller(start_daemon):
    if not STORIES.exists():
        pytest.skip("needs the shared model stories260K")
    return start_daemon(model=STORIES)


def test_prompt_and_completion_join_into_one_text(storyteller):
    ask = {"prompt": "Once", "max_tokens": 5, "temperature": 0}
    choice = storyteller.post("/v1/completions", {**ask, "logprobs": 0})["choices"][0]
    assert choice["text"] == " upon a time, there" == "".join(choice["logprobs"]["tokens"])
    assert choice["logprobs"]["text_offset"] == [0, 5, 7, 12, 13]
    assert storyteller.post("/v1/completions", {**ask, "echo": True})["choices"][0]["text"] == "Once upon a time, there"


def test_a_seed_counts_to_its_last_digit(storyteller):
    drawn = {storyteller.post("/v1/completions", {"prompt": "Once", "temperature": 2, "seed": 2**53 + i})["choices"][0]["text"]
             for i in range(4)}
    assert len(drawn) == 4


def test_a_model_without_a_tokenizer_takes_ids(start_daemon, tmp_path):
    if not STORIES.exists():
        pytest.skip("needs the shared model stories260K")
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).symlink_to(STORIES / name)
    daemon = start_daemon(model=tmp_path)
    answer = daemon.post("/v1/completions", {"prompt": [1, 403], "max_tokens": 3, "temperature": 0, "return_token_ids": True})
    assert answer["choices"][0]["token_ids"] == [407, 261, 378]
    assert answer["choices"][0]["text"] == " 407 261 378"

"""The daemon through the official client. `scripted` always answers the same sentence, so answers can be told in full."""
import concurrent.futures
import itertools

import openai
import pytest

ASK = [{"role": "user", "content": "Who are you?"}]


def chat(daemon, **parameters):
    return daemon.client().chat.completions.create(model=daemon.model, messages=ASK, **parameters)


def test_the_embedded_model_answers_a_chat(daemon):
    answer = chat(daemon, max_tokens=64)
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content.strip()


def test_a_chat_is_answered_in_full(scripted, sentence):
    answer = chat(scripted)
    assert answer.object == "chat.completion" and answer.model == "standin"
    assert answer.choices[0].message.content == sentence
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens == 29
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 29


def test_a_chat_streams_the_same_text(scripted, sentence):
    chunks = list(chat(scripted, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == sentence
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert len({c.id for c in chunks}) == 1
    assert len(chunks) > 20, "text arrives as it is made"
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == 29


def test_a_stream_without_usage_has_none(scripted):
    assert all(c.usage is None for c in chat(scripted, stream=True))


def test_a_completion_goes_on_from_its_prompt(scripted):
    answer = scripted.client().completions.create(model="standin", prompt="I am", max_tokens=5)
    assert answer.object == "text_completion"
    assert answer.choices[0].text == " a stand-in for the"
    assert answer.choices[0].finish_reason == "length"


def test_a_completion_takes_several_prompts_and_token_ids(scripted):
    client = scripted.client()
    ids = scripted.post("/tokenize", {"model": "standin", "prompt": "my weights"})["tokens"]
    answer = client.completions.create(model="standin", prompt=["I am", "with Penstock;"], max_tokens=2)
    assert [c.text for c in sorted(answer.choices, key=lambda c: c.index)] == [" a stand", " my weights"]
    assert client.completions.create(model="standin", prompt=ids, max_tokens=2).choices[0].text == " hold just"


def test_a_completion_streams(scripted):
    chunks = scripted.client().completions.create(model="standin", prompt="I am", max_tokens=5, stream=True)
    assert "".join(c.choices[0].text for c in chunks if c.choices) == " a stand-in for the"


def test_n_choices_are_answered(scripted, sentence):
    answer = chat(scripted, n=3)
    assert sorted(c.index for c in answer.choices) == [0, 1, 2]
    assert {c.message.content for c in answer.choices} == {sentence}
    assert answer.usage.completion_tokens == 3 * 29


def test_text_ends_before_a_stop_string(scripted):
    answer = chat(scripted, stop=["Penstock", "never"])
    assert answer.choices[0].message.content == "I am a stand-in for the model that will ship with "
    assert answer.choices[0].finish_reason == "stop"


def test_a_stop_string_never_shows_in_a_stream(scripted):
    text = "".join(c.choices[0].delta.content or "" for c in chat(scripted, stop="k; my w", stream=True) if c.choices)
    assert text == "I am a stand-in for the model that will ship with Penstoc"


def test_max_tokens_ends_an_answer(scripted):
    answer = chat(scripted, max_completion_tokens=3)
    assert answer.choices[0].message.content == "I am a"
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 3


def test_ignore_eos_and_min_tokens_go_on_after_the_end(scripted, sentence):
    on = chat(scripted, max_tokens=60, extra_body={"ignore_eos": True})
    assert on.usage.completion_tokens == 60 and on.choices[0].finish_reason == "length"
    assert on.choices[0].message.content.startswith(sentence)
    longer = chat(scripted, max_tokens=100, extra_body={"min_tokens": 40})
    assert 40 <= longer.usage.completion_tokens <= 100


def test_log_probabilities_spell_the_answer(scripted, sentence):
    content = chat(scripted, logprobs=True, top_logprobs=3).choices[0].logprobs.content
    assert b"".join(bytes(t.bytes) for t in content).decode() == sentence
    for token in content:
        ranked = [t.logprob for t in token.top_logprobs]
        assert len(ranked) == 3 and ranked == sorted(ranked, reverse=True)
        assert token.top_logprobs[0].token == token.token and abs(ranked[0] - token.logprob) < 1e-6
        assert -0.1 < token.logprob <= 0


def wild(daemon, seed, **parameters):
    """Hot enough, over a flattened first choice, that draws differ."""
    parameters = {"temperature": 2, "max_tokens": 24, "extra_body": {"ignore_eos": True}, **parameters}
    return chat(daemon, seed=seed, **parameters).choices[0].message.content


def test_a_seed_decides_the_answer(scripted):
    answers = {seed: wild(scripted, seed) for seed in range(12)}
    assert len(set(answers.values())) > 1
    for seed, answer in answers.items():
        assert wild(scripted, seed) == answer


def test_an_answer_does_not_depend_on_the_neighbours(scripted):
    alone = [wild(scripted, seed) for seed in range(16)]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda seed: wild(scripted, seed), range(16)))
    assert together == alone


def test_temperature_zero_and_bias_are_obeyed(scripted):
    assert chat(scripted, temperature=0).choices[0].message.content == chat(scripted, temperature=0).choices[0].message.content
    token = scripted.post("/tokenize", {"model": "standin", "prompt": "I am"})["tokens"][0]
    answer = chat(scripted, logit_bias={str(token): -100}, max_tokens=4, temperature=0)
    assert not answer.choices[0].message.content.startswith("I")


def test_usage_counts_cached_tokens(scripted):
    long = [{"role": "user", "content": "How long is the coast of Norway? " * 40}]
    client = scripted.client()
    first, second = (client.chat.completions.create(model="standin", messages=long, max_tokens=2).usage for _ in range(2))
    assert first.prompt_tokens == second.prompt_tokens > 200
    assert second.prompt_tokens_details.cached_tokens > 0.8 * second.prompt_tokens


def test_every_role_and_content_part_is_rendered(scripted, sentence):
    messages = [{"role": "system", "content": "Be brief."},
                {"role": "user", "content": [{"type": "text", "text": "Weather in "}, {"type": "text", "text": "Bergen?"}]},
                {"role": "assistant", "content": None, "tool_calls": [
                    {"id": "1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Bergen"}'}}]},
                {"role": "tool", "tool_call_id": "1", "content": "rain"}]
    answer = scripted.client().chat.completions.create(model="standin", messages=messages)
    assert answer.choices[0].message.content == sentence


def test_special_tokens_in_user_text_are_plain_text(scripted):
    def prompt_tokens(text):
        messages = [{"role": "user", "content": text}]
        return scripted.client().chat.completions.create(model="standin", messages=messages, max_tokens=1).usage.prompt_tokens

    assert prompt_tokens("<|im_end|>") > prompt_tokens("x") + 3


def test_models_are_listed(scripted):
    models = list(scripted.client().models.list())
    assert [m.id for m in models] == ["standin"] and models[0].object == "model"


def test_tokens_make_the_round_trip(scripted):
    text = "Grüße, naïve café 🙂 \n\n  x"
    tokens = scripted.post("/tokenize", {"model": "standin", "prompt": text})["tokens"]
    assert scripted.post("/detokenize", {"model": "standin", "tokens": tokens})["prompt"] == text


@pytest.mark.parametrize("parameters, kind, param", [
    ({"temperature": 3}, openai.BadRequestError, "temperature"),
    ({"temperature": "warm"}, openai.BadRequestError, "temperature"),
    ({"top_p": -0.5}, openai.BadRequestError, "top_p"),
    ({"n": 0}, openai.BadRequestError, "n"),
    ({"max_tokens": 0}, openai.BadRequestError, "max_tokens"),
    ({"messages": []}, openai.BadRequestError, "messages"),
    ({"messages": [{"role": "user", "content": "long " * 5000}]}, openai.BadRequestError, "messages"),
    ({"model": "another"}, openai.NotFoundError, "model"),
])
def test_mistakes_are_the_clients_exceptions(scripted, parameters, kind, param):
    request = {"model": "standin", "messages": ASK, **parameters}
    with pytest.raises(kind) as caught:
        scripted.client().chat.completions.create(**request)
    assert caught.value.body["param"] == param
    assert caught.value.body["type"] == "invalid_request_error"
    assert caught.value.body["message"].endswith(".")


def test_a_prompt_over_the_context_is_named_so(scripted):
    with pytest.raises(openai.BadRequestError) as caught:
        scripted.client().completions.create(model="standin", prompt="word " * 4000, max_tokens=1)
    assert caught.value.code == "context_length_exceeded"


def test_a_client_that_leaves_frees_its_request(start_daemon):
    daemon = start_daemon(model="random:llama-160m")
    client = daemon.client()
    stream = client.completions.create(model=daemon.model, prompt=[1, 2, 3], max_tokens=2000, stream=True,
                                       extra_body={"ignore_eos": True})
    assert len(list(itertools.islice(stream, 3))) == 3
    assert daemon.metric("penstock_requests_running") == 1
    stream.close()
    daemon.wait_for_metric("penstock_requests_running", 0, seconds=10)
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.5).completions.create(model=daemon.model, prompt=[1, 2, 3], max_tokens=2000,
                                                            extra_body={"ignore_eos": True})
    daemon.wait_for_metric("penstock_requests_running", 0, seconds=10)


def test_health_and_metrics_answer(scripted):
    from prometheus_client.parser import text_string_to_metric_families

    assert scripted.get("/health") is not None
    families = {f.name for f in text_string_to_metric_families(scripted.get("/metrics"))}
    assert "penstock_requests_running" in families
    assert "vllm:num_requests_running" in families


def test_an_echo_is_scored_for_evaluation_harnesses(scripted):
    choice = scripted.client().completions.create(model="standin", prompt="I am a stand", max_tokens=1, echo=True, logprobs=1,
                                                  temperature=0).choices[0]
    scores = choice.logprobs
    assert choice.text.startswith("I am a stand") and scores.token_logprobs[0] is None and scores.top_logprobs[0] is None
    assert all(value <= 0 for value in scores.token_logprobs[1:])
    assert len(scores.tokens) == len(scores.token_logprobs) == len(scores.top_logprobs) == len(scores.text_offset)


def test_extensions_go_through_extra_body(scripted):
    answer = chat(scripted, max_tokens=3, service_tier="priority", metadata={"job": "x"}, user="me", extra_body={
        "return_timings": True, "return_token_ids": True, "session_id": "s", "slo": {"ttft_ms": 1000, "value": 2}, "rid": "mine"})
    assert answer.service_tier == "priority" and answer.id == "chatcmpl-mine" and answer._request_id == "mine"
    timings = answer.model_extra["timings"]
    assert timings["output_tokens"] == 3 and timings["total_ms"] >= timings["decode_ms"]
    assert len(answer.choices[0].model_extra["token_ids"]) == 3 and answer.model_extra["prompt_token_ids"]


def test_an_error_names_its_request(scripted):
    with pytest.raises(openai.BadRequestError) as caught:
        chat(scripted, temperature=9, extra_headers={"X-Request-Id": "look-here"})
    assert caught.value.request_id == "look-here" and caught.value.code == "decimal_above_max_value"


def test_a_passed_deadline_is_a_status_of_its_own(scripted):
    with pytest.raises(openai.APIStatusError) as caught:
        chat(scripted, extra_body={"slo": {"deadline_ms": 0.001}})
    assert caught.value.status_code == 504 and caught.value.code == "deadline_exceeded"

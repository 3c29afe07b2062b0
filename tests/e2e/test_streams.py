"""Streams as they are on the wire, and their bad ends: what typed clients and proxies rely on."""
import json
import re
import urllib.request

import openai
import pytest

from asking import call

CHAT = {"messages": [{"role": "user", "content": "Who are you?"}], "stream": True}
SIM = "random:llama-160m"
SLOW = {"prompt": [1, 2, 3], "max_tokens": 400, "ignore_eos": True}


def raw(daemon, path, body):
    """(headers, text) of a stream that answers 200."""
    request = urllib.request.Request(daemon.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.headers, answer.read().decode()


@pytest.mark.parametrize("path, body", [("/v1/chat/completions", {**CHAT, "n": 2, "stream_options": {"include_usage": True}}),
                                        ("/v1/completions", {"prompt": ["I am", "You"], "stream": True, "echo": True})])
def test_a_stream_is_data_lines_and_ends_with_done(scripted, path, body):
    headers, text = raw(scripted, path, body)
    assert headers["content-type"] == "text/event-stream; charset=utf-8" and headers["cache-control"] == "no-cache"
    assert headers["x-accel-buffering"] == "no" and headers["transfer-encoding"] == "chunked" and headers["x-request-id"]
    assert re.fullmatch(r"(data: \{[^\n]*\}\n\n)+data: \[DONE\]\n\n", text)
    assert not re.search(r"^(id|event|retry):", text, re.M)


def test_comments_keep_a_stream_alive_while_nothing_comes(start_faulty):
    """Every operator takes 6 ms longer, so the first token takes most of a second. A client sees no event until it is there, and no timeout."""
    daemon = start_faulty("slow:6", "--keepalive-comment", "50ms")
    _, text = raw(daemon, "/v1/completions", {"prompt": [1] * 50, "max_tokens": 1, "stream": True})
    first = text.index("data: ")
    assert text[:first].count(": keep-alive\n\n") >= 2 and text[:first].strip(": keep-alive\n") == ""
    client = daemon.client()
    chunks = list(client.completions.create(model=daemon.model, prompt=[1] * 50, max_tokens=1, stream=True))
    assert [c.choices[0].finish_reason for c in chunks] == [None, "length"]


def test_a_stream_that_fails_midway_carries_the_error_and_no_done(start_faulty):
    daemon = start_faulty("fail@6")
    daemon.ends_with = 70
    _, text = raw(daemon, "/v1/completions", {**SLOW, "stream": True})
    events = re.findall(r"^data: (.*)$", text, re.M)
    assert len(events) > 1 and "[DONE]" not in text
    error = json.loads(events[-1])["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["type"] == "server_error" and error["message"]
    assert all("choices" in json.loads(event) for event in events[:-1])


def test_the_official_client_is_told_that_a_stream_failed(start_faulty):
    daemon, text = start_faulty("fail@6"), ""
    daemon.ends_with = 70
    with pytest.raises(openai.APIError):
        for chunk in daemon.client().completions.create(model=daemon.model, prompt=[1, 2], max_tokens=400, stream=True):
            text += chunk.choices[0].text
    assert text


@pytest.mark.parametrize("streamed", [False, True])
def test_nothing_is_answered_200_without_a_place_in_the_queue(start_daemon, streamed):
    daemon = start_daemon("--device", "sim", "--running-max", 1, "--waiting-max", 1, model=SIM)
    client = daemon.client()
    busy = []
    for _ in range(2):  # one runs, one waits
        busy.append(client.completions.create(model=daemon.model, prompt=[1, 2, 3], max_tokens=900, stream=True,
                                              extra_body={"ignore_eos": True}))
        daemon.wait_for_metric("penstock_requests_running", 1)
    status, headers, answer = call(daemon, "/v1/completions", {**SLOW, "stream": streamed})
    assert status == 503 and answer["error"]["code"] == "overloaded" and answer["error"]["type"] == "server_error"
    assert 0 < int(headers["retry-after"]) < 120 and headers["x-should-retry"] == "true"
    assert headers["content-type"] == "application/json"
    with pytest.raises(openai.InternalServerError) as caught:
        client.completions.create(model=daemon.model, prompt=[1], max_tokens=5, stream=streamed)
    assert caught.value.code == "overloaded" and caught.value.request_id
    for stream in busy:
        stream.close()
    patient = daemon.client(max_retries=4)  # comes again after Retry-After where it is still full
    assert patient.completions.create(model=daemon.model, prompt=[1], max_tokens=5).usage.completion_tokens == 5

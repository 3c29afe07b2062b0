"""More than the daemon can do: what is refused is refused before anything is answered 200, and says when to come back."""
import contextlib
import json
import threading
import time
import urllib.error
import urllib.request

import openai
import pytest

BODY = {"prompt": list(range(100, 164)), "max_tokens": 30, "ignore_eos": True}


def ask(daemon, body=BODY, results=None):
    """(status, headers, parsed answer)"""
    request = urllib.request.Request(daemon.url + "/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            got = answer.status, answer.headers, json.load(answer)
    except urllib.error.HTTPError as refused:
        got = refused.code, refused.headers, json.load(refused)
    if results is not None:
        results.append(got)
    return got


def refused(daemon, reason):
    for line in daemon.get("/metrics").splitlines():
        if line.startswith(f'penstock_requests_refused_total{{reason="{reason}"}} '):
            return float(line.split()[-1])
    raise AssertionError(f"/metrics has no reason {reason}")


def begin(daemon, count, **body):
    """Streams that would run for minutes; each has its place in the queue."""
    return [daemon.client().completions.create(model=daemon.model, prompt=[7] * 50, max_tokens=1900, stream=True,
                                               extra_body={"ignore_eos": True, **body}) for _ in range(count)]


def check_refusal(got, words):
    status, headers, answer = got
    assert status in (429, 503), answer
    assert 1 <= int(headers["retry-after"]) <= 119 and headers["x-should-retry"] == "true"
    assert answer["error"]["code"] == "overloaded" and words in answer["error"]["message"], answer


@pytest.fixture
def start_sim(start_daemon, monkeypatch):
    """A daemon whose passes take a millisecond or more, so that it can be overloaded by a few requests."""

    def start(*flags):
        monkeypatch.setenv("PENSTOCK_FAULT", "slow:1")  # of its hundred operators each
        return start_daemon("--device", "sim", *flags, model="random:llama-160m")

    return start


def test_requests_beyond_the_bound_are_refused(start_sim):
    daemon = start_sim("--running-max", 2, "--waiting-max", 1)
    streams = begin(daemon, 3)
    daemon.wait_for_metric("penstock_requests_running", 2)
    check_refusal(ask(daemon), "1 requests wait already")
    check_refusal(ask(daemon, {**BODY, "n": 4}), "1 requests wait already")
    assert refused(daemon, "queue_requests") == 2
    for stream in streams:
        stream.close()
    daemon.wait_for_metric("penstock_requests_waiting", 0)
    assert ask(daemon, {**BODY, "n": 3, "max_tokens": 1})[0] == 200  # two slots and a place to wait
    check_refusal(ask(daemon, {**BODY, "n": 4, "max_tokens": 1}), "0 requests wait already")


def test_prompt_tokens_beyond_the_bound_are_refused_but_not_those_of_an_idle_queue(start_sim):
    daemon = start_sim("--running-max", 1, "--waiting-tokens-max", 100)
    streams = begin(daemon, 2)
    daemon.wait_for_metric("penstock_requests_waiting", 1)
    check_refusal(ask(daemon), "prompts of 50 tokens wait already")
    assert refused(daemon, "queue_tokens") == 1
    for stream in streams:
        stream.close()
    daemon.wait_for_metric("penstock_requests_running", 0)
    assert ask(daemon, {**BODY, "n": 3, "max_tokens": 1})[0] == 200


def test_a_predicted_wait_beyond_the_bound_is_refused_and_named(start_sim):
    daemon = start_sim("--running-max", 2, "--queue-wait-max", "1s")
    assert ask(daemon)[0] == 200  # how long an answer takes is known from now on: seconds
    assert 10 < daemon.metric("penstock_answer_tokens") <= 30 and daemon.metric("penstock_step_seconds") > 0.05
    streams = begin(daemon, 2)
    daemon.wait_for_metric("penstock_requests_running", 2)
    streams += begin(daemon, 1)
    wait_s = daemon.metric("penstock_predicted_wait_seconds")
    assert wait_s > 1
    got = ask(daemon)
    check_refusal(got, "a request would wait")
    assert int(got[1]["retry-after"]) == pytest.approx(wait_s, abs=1.5)
    assert refused(daemon, "queue_wait") == 1
    for stream in streams:
        stream.close()


def test_an_urgent_request_is_not_refused_for_the_patient_before_it(start_sim):
    daemon = start_sim("--running-max", 2, "--order", "priority", "--queue-wait-max", "6s")
    assert ask(daemon)[0] == 200
    streams = begin(daemon, 2)
    daemon.wait_for_metric("penstock_requests_running", 2)
    while daemon.metric("penstock_predicted_wait_seconds") < 6.1:
        with contextlib.suppress(openai.InternalServerError):
            streams += begin(daemon, 1, priority=100)
    check_refusal(ask(daemon, {**BODY, "priority": 100}), "a request would wait")
    streams += begin(daemon, 1, priority=-100)
    assert daemon.metric("penstock_requests_waiting") == len(streams) - 2
    for stream in streams:
        stream.close()


def test_under_three_times_the_load_as_much_is_answered_and_the_rest_refused_at_once(start_daemon):
    """Open loop: arrivals do not wait for answers. Counts only; bench/overload.py measures."""
    flags = ["--device", "sim", "--running-max", 4, "--queue-wait-max", "300ms"]
    body = {**BODY, "max_tokens": 60}
    done = {}
    for times in (1, 3):
        daemon, results, threads = start_daemon(*flags, model="random:llama-160m"), [], []
        for _ in range(4):
            assert ask(daemon, body)[0] == 200
        per_answer_s = 60 * daemon.metric("penstock_step_seconds") / 4
        for _ in range(60 * times):
            threads.append(threading.Thread(target=ask, args=(daemon, body, results)))
            threads[-1].start()
            time.sleep(per_answer_s / times)
        for thread in threads:
            thread.join()
        assert len(results) == 60 * times  # everybody was answered
        done[times] = sum(status == 200 for status, _, _ in results)
        for got in results:
            if got[0] != 200:
                check_refusal(got, "The queue is full")
        assert done[times] == daemon.metric("vllm:request_success_total") - 4
    assert done[3] >= 0.6 * done[1] and done[1] >= 40, done

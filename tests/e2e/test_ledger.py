"""Where the time of a request went: its line of log, and its answer where that is asked for. The parts add up to the whole."""
import json
import time

import pytest

from asking import call, events
from conftest import ROOT

EMBEDDED = ROOT / "models/embedded"
CHAT = {"messages": [{"role": "user", "content": "Who are you?"}]}
PARTS = ("tokenizing_ms", "queued_ms", "prefill_ms", "stopped_ms", "recompute_ms", "decode_ms", "writing_ms")


def adds_up(ledger):
    assert sum(round(ledger[part] * 1000) for part in PARTS) == round(ledger["total_ms"] * 1000)
    assert all(ledger[part] >= 0 for part in PARTS)
    return True


def test_an_answer_says_where_its_time_went(scripted):
    begin = time.monotonic()
    answer = call(scripted, "/v1/chat/completions", {**CHAT, "return_timings": True})[2]
    wall_ms = (time.monotonic() - begin) * 1e3
    timings = answer["timings"]
    assert adds_up(timings) and timings["total_ms"] <= wall_ms
    assert timings["prefill_ms"] > 0 and timings["decode_ms"] > 0 and timings["tokenizing_ms"] > 0
    assert timings["first_token_ms"] <= timings["total_ms"]
    assert timings["prompt_tokens"] == answer["usage"]["prompt_tokens"]
    assert timings["output_tokens"] == answer["usage"]["completion_tokens"]
    assert timings["cached_tokens"] == answer["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert "timings" not in call(scripted, "/v1/chat/completions", CHAT)[2]


@pytest.mark.parametrize("options", [{}, {"stream_options": {"include_usage": True}}])
def test_a_stream_says_it_in_its_last_event(scripted, options):
    got = events(scripted, "/v1/chat/completions", {**CHAT, "n": 3, "max_tokens": 5, "return_timings": True, **options})
    assert [("timings" in event) for event in got] == [False] * (len(got) - 1) + [True]
    assert adds_up(got[-1]["timings"]) and got[-1]["timings"]["output_tokens"] == 15


def test_what_only_repeats_its_prompt_has_a_ledger_too(scripted):
    answer = call(scripted, "/v1/completions", {"prompt": "I am", "echo": True, "max_tokens": 0, "return_timings": True})[2]
    assert adds_up(answer["timings"]) and answer["timings"]["decode_ms"] == 0


def test_a_request_is_one_line_of_log_with_its_ledger(start_daemon, standin):
    daemon = start_daemon("--log-format", "json", model=standin)
    call(daemon, "/v1/chat/completions", {**CHAT, "n": 2, "metadata": {"job": 'a "quoted" \u00fc\u2028\n'}}, {"X-Request-Id": "look-for-me"})
    call(daemon, "/v1/chat/completions", {**CHAT, "n": 0}, {"X-Request-Id": "and-for-me"})
    assert daemon.stop() == 0
    lines = [json.loads(line) for line in daemon.log.splitlines()]
    served, = [line for line in lines if line.get("request") == "look-for-me"]
    assert served["status"] == 200 and served["choices"] == 2 and served["output_tokens"] == 58
    assert adds_up(served) and served["total_ms"] >= served["first_token_ms"] >= served["queued_ms"] >= 0
    assert served["metadata"] == {"job": 'a "quoted" \u00fc\u2028\n'}
    refused, = [line for line in lines if line.get("request") == "and-for-me"]
    assert refused["status"] == 400 and refused["code"] == "integer_below_min_value"
    assert refused["total_ms"] >= refused["tokenizing_ms"] >= 0


def test_memory_that_is_taken_back_goes_to_the_host_and_comes_back_with_the_same_answers(start_daemon):
    """Twelve answers in memory for a few of them, and room on the host for all: as if nothing had been taken."""
    ask = {"prompt": [[7 + i] * 40 for i in range(12)], "max_tokens": 150, "ignore_eos": True, "temperature": 0,
           "return_token_ids": True, "return_timings": True}
    wanted = call(start_daemon("--device", "cpu", model=EMBEDDED), "/v1/completions", ask)[2]
    tight = start_daemon("--device", "cpu", "--running-max", 4, "--kv-cache-memory", "640K", "--max-model-len", 256,
                         "--reclaim", "swap", "--host-cache-memory", "64M", model=EMBEDDED)
    got = call(tight, "/v1/completions", ask)[2]
    assert [c["token_ids"] for c in got["choices"]] == [c["token_ids"] for c in wanted["choices"]]
    assert adds_up(got["timings"]) and got["timings"]["preemptions"] > 0
    assert tight.metric('penstock_pages_swapped_total') > 0 and tight.metric("penstock_swapped_in_tokens_total") > 0
    assert tight.metric("penstock_page_copies_failed_total") == 0 == tight.metric("penstock_requests_swapped")
    assert tight.metric("penstock_host_cache_use") > 0
    assert tight.metric("penstock_step_error_ratio") > 0 == tight.metric("penstock_displaced_total")


def test_waiting_and_losing_memory_are_told_apart(start_daemon):
    """Twelve answers in memory for about two of them, at most four at once: some wait, some are sent back and start over."""
    daemon = start_daemon("--device", "sim", "--running-max", 4, "--kv-cache-memory", "12M", "--max-model-len", 256,
                          "--log-format", "json", "--no-prefix-cache", model="random:llama-160m")
    ask = {"prompt": [[7 + i] * 40 for i in range(12)], "max_tokens": 150, "ignore_eos": True, "return_timings": True}
    timings = call(daemon, "/v1/completions", ask)[2]["timings"]
    assert adds_up(timings) and timings["preemptions"] > 0 and timings["recomputed_tokens"] > 0
    for i in range(12):
        call(daemon, "/v1/completions", {**ask, "prompt": [7 + i] * 40, "max_tokens": 2})
    assert daemon.stop() == 0
    lines = [json.loads(line) for line in daemon.log.splitlines()]
    served = [line for line in lines if line.get("path") == "/v1/completions"]
    assert len(served) == 13 and all(adds_up(line) for line in served)
    assert all(line["recompute_ms"] == 0 for line in served[1:])

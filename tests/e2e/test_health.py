"""Health that does not lie: a frozen pass, a slow one and a failing one, ordered through PENSTOCK_FAULT (engine/device_faulty.c)."""
import json
import re
import time
import urllib.error
import urllib.request

import openai
import pytest

ASK = {"prompt": [1, 2, 3], "max_tokens": 200, "extra_body": {"ignore_eos": True}}
SIM = "random:llama-160m"


def look(daemon, path):
    """(status, parsed answer)"""
    try:
        with urllib.request.urlopen(daemon.url + path, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        return refused.code, json.load(refused)


def begin(daemon, **body):
    """A stream that is under way: its first event has come."""
    stream = daemon.client().completions.create(model=daemon.model, stream=True, **{**ASK, **body})
    return stream, next(stream)


def wait_for_status(daemon, path, wanted, seconds):
    end = time.monotonic() + seconds
    while look(daemon, path)[0] != wanted:
        assert time.monotonic() < end, f"{path} is {look(daemon, path)}, not {wanted}, after {seconds} s"
        time.sleep(0.01)


def wait_for_log(daemon, text, seconds=10):
    end = time.monotonic() + seconds
    while text not in daemon.log:
        assert time.monotonic() < end, f"not in the log after {seconds} s: {text}\n{daemon.log}"
        time.sleep(0.01)


def test_a_frozen_pass_turns_live_to_failing_and_everything_else_still_answers(start_faulty):
    daemon = start_faulty("freeze@5", "--stall-timeout", "500ms", "--drain-timeout", "100ms")
    for path in ("/live", "/health", "/ready"):
        assert look(daemon, path)[0] == 200
    begin(daemon)
    began = time.monotonic()
    wait_for_status(daemon, "/live", 503, 10)
    assert time.monotonic() - began > 0.2
    for path in ("/live", "/health", "/ready"):
        status, answer = look(daemon, path)
        assert (status, answer["status"], answer["running"]) == (503, "stuck", 1)
    assert daemon.metric("penstock_requests_running") == 1
    wait_for_log(daemon, "the engine has work and makes no progress")
    daemon.ends_with = 70
    assert daemon.stop() == 70  # a pass that never ends does not keep the process


def test_an_engine_that_goes_on_is_well_again(start_faulty):
    daemon = start_faulty("freeze@5:1500", "--stall-timeout", "300ms")
    stream, _ = begin(daemon, max_tokens=20)
    wait_for_status(daemon, "/live", 503, 10)
    assert sum(1 for _ in stream) >= 1
    wait_for_status(daemon, "/live", 200, 10)
    wait_for_log(daemon, "the engine makes progress again")


def test_a_pass_of_many_seconds_is_busy_and_not_stuck(start_faulty):
    """Each of some hundred operators takes 20 ms: one pass takes several times stall-timeout."""
    daemon = start_faulty("slow:20", "--stall-timeout", "400ms")
    stream, _ = begin(daemon, max_tokens=2)
    seen, passes, operators = [], set(), set()
    end = time.monotonic() + 1.2
    while time.monotonic() < end:
        status, answer = look(daemon, "/live")
        seen.append((status, answer["status"]))
        passes.add(answer["passes"])
        operators.add(answer["operators"])
        time.sleep(0.02)
    assert set(seen) == {(200, "busy")}
    assert len(passes) <= 2 and len(operators) > 10  # progress within one pass
    stream.close()


def test_a_device_that_fails_in_a_pass_ends_streams_with_an_error_and_the_daemon_with_70(start_faulty):
    daemon = start_faulty("fail@7")
    stream, _ = begin(daemon)
    with pytest.raises(openai.APIError, match="The compute device failed"):
        list(stream)
    daemon.ends_with = 70
    assert daemon.process.wait(20) == 70
    assert re.search(r"PENSTOCK_FAULT asked for a failure", daemon.log)


def test_an_order_that_cannot_be_read_is_refused(penstock, monkeypatch):
    monkeypatch.setenv("PENSTOCK_FAULT", "burn@2")
    done = penstock("serve", "--model", SIM, "--device", "sim", "--port", "0")
    assert done.returncode == 64 and "freeze@PASS" in done.stderr

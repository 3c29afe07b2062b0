"""Conversations whose pages are pinned between turns, as clients see it."""
import time
import urllib.error
import urllib.request

import pytest


@pytest.fixture(scope="module")
def pinning(start_daemon):
    return start_daemon("--device", "sim", "--retention", "ttl", "--ttl", "60s", "--page-tokens", 16, model="random:llama-160m")


def turn(daemon, count, **more):
    body = {"prompt": list(range(1000, 1000 + count)), "max_tokens": 2, "ignore_eos": True, **more}
    return daemon.post("/v1/completions", body)["usage"]


def delete(daemon, path):
    request = urllib.request.Request(daemon.url + path, method="DELETE")
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.status, answer.read().decode()


def test_an_answer_says_what_is_pinned_and_until_when_and_the_next_turn_finds_it(pinning):
    usage = turn(pinning, 100, job_id="a")
    assert usage["job"]["pinned_tokens"] == 96
    assert 30 < usage["job"]["pinned_until"] - time.time() < 61
    assert turn(pinning, 150, job_id="a")["prompt_tokens_details"]["cached_tokens"] == 96
    assert "job" not in turn(pinning, 10)


def test_clients_choose_how_long_or_that_it_is_over(pinning):
    assert 500 < turn(pinning, 64, job_id="b", ttl_ms=600000)["job"]["pinned_until"] - time.time() < 601
    assert turn(pinning, 64, job_id="b", ttl_ms=0)["job"]["pinned_tokens"] == 0
    assert turn(pinning, 64, job_id="b", last_step=True)["job"] == {"pinned_tokens": 0, "pinned_until": None}


def test_a_job_that_is_deleted_holds_nothing(pinning):
    turn(pinning, 64, job_id="to/be gone")
    held = pinning.metric("penstock_pins")
    status, text = delete(pinning, "/v1/jobs/to%2Fbe%20gone")
    assert status == 200 and '"deleted":true' in text
    pinning.wait_for_metric("penstock_pins", held - 1)
    with pytest.raises(urllib.error.HTTPError) as refused:
        delete(pinning, "/v1/models")
    assert refused.value.code == 405

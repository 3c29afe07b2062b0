"""Conversations whose pages are pinned between turns, as clients see it."""
import hashlib
import json
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


def ask(daemon, headers=None, **more):
    """What is answered, whatever the status."""
    body = {"prompt": list(range(1000, 1064)), "max_tokens": 2, "ignore_eos": True, **more}
    request = urllib.request.Request(daemon.url + "/v1/completions", json.dumps(body).encode(),
                                     {"Content-Type": "application/json", **(headers or {})})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode()


def ended(daemon, how):
    return int(daemon.get("/metrics").split(f'penstock_pins_ended_total{{how="{how}"}} ')[1].split("\n")[0])


def wait_until_ended(daemon, how, count):
    end = time.monotonic() + 30
    while ended(daemon, how) != count:
        assert time.monotonic() < end, f"{ended(daemon, how)} pins are {how}, not {count}"
        time.sleep(0.02)


def delete(daemon, path, **headers):
    request = urllib.request.Request(daemon.url + path, method="DELETE", headers=headers)
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


def test_a_turn_that_hits_its_pin_is_pinned_anew_with_all_that_was_added(pinning):
    first = turn(pinning, 100, job_id="grows", ttl_ms=30000, cache_salt="grows")["job"]
    hits, pins = ended(pinning, "hit"), pinning.metric("penstock_pins")
    second = turn(pinning, 200, job_id="grows", ttl_ms=90000, cache_salt="grows")
    assert second["prompt_tokens_details"]["cached_tokens"] == first["pinned_tokens"] == 96
    assert second["job"]["pinned_tokens"] == 192
    assert second["job"]["pinned_until"] > first["pinned_until"] + 30
    wait_until_ended(pinning, "hit", hits + 1)
    pinning.wait_for_metric("penstock_pins", pins)


def test_a_pin_whose_time_is_over_is_let_go_of(pinning):
    before = ended(pinning, "expired")
    assert turn(pinning, 64, job_id="short", ttl_ms=1)["job"]["pinned_tokens"] == 64
    end = time.monotonic() + 30
    while ended(pinning, "expired") == before and time.monotonic() < end:
        turn(pinning, 10)  # somebody else's: time is looked at when a pass is planned
    assert ended(pinning, "expired") == before + 1


def test_an_expected_gap_is_waited_for_with_some_grace_and_a_ttl_wins_over_it(pinning):
    until = turn(pinning, 64, job_id="gap", expected_gap_ms=400000)["job"]["pinned_until"]
    assert 400 < until - time.time() < 400 * 1.25 + 1
    until = turn(pinning, 64, job_id="gap", expected_gap_ms=400000, ttl_ms=900000)["job"]["pinned_until"]
    assert 800 < until - time.time() < 901


def test_a_last_step_lets_go_of_what_the_turn_before_pinned(pinning):
    turn(pinning, 64, job_id="over")
    pins = pinning.metric("penstock_pins")
    assert turn(pinning, 64, job_id="over", last_step=True)["job"]["pinned_until"] is None
    pinning.wait_for_metric("penstock_pins", pins - 1)


def test_a_stream_says_what_is_pinned_with_its_usage(pinning):
    status, text = ask(pinning, stream=True, stream_options={"include_usage": True}, job_id="streams")
    usage = json.loads(text.split("data: ")[-2])["usage"]
    assert status == 200 and usage["job"]["pinned_tokens"] == 64 and usage["job"]["pinned_until"] > time.time()


def test_the_header_names_the_job_that_a_body_names_otherwise(pinning):
    first = json.loads(ask(pinning, {"X-Session-Id": "by header"}, job_id="another")[1])["usage"]["job"]
    assert first["pinned_tokens"] == 64
    dropped = ended(pinning, "dropped")
    delete(pinning, "/v1/jobs/by%20header")
    wait_until_ended(pinning, "dropped", dropped + 1)


def test_a_deadline_of_a_job_needs_a_job(pinning):
    status, text = ask(pinning, slo={"job_deadline_ms": 60000})
    error = json.loads(text)["error"]
    assert status == 400 and error["param"] == "slo.job_deadline_ms" and "job_id" in error["message"]
    assert ask(pinning, slo={"job_deadline_ms": None, "ttft_ms": 60000})[0] == 200
    for names in ({"job_id": "named"}, {"session_id": "named"}, {"prompt_cache_key": "named"}):
        assert ask(pinning, slo={"job_deadline_ms": 60000, "value": 2}, **names)[0] == 200
    assert ask(pinning, {"X-Session-Id": "named"}, slo={"job_deadline_ms": 60000})[0] == 200


@pytest.mark.parametrize("parameter, value", [("ttl_ms", -1), ("ttl_ms", "soon"), ("expected_gap_ms", -1), ("last_step", "yes"),
                                              ("job_id", 7), ("tool", ["grep"]), ("slo.ttft_ms", 0), ("slo.tbt_ms", "fast"),
                                              ("slo.deadline_ms", 1e12), ("slo.value", 0), ("slo", 7)])
def test_a_hint_that_cannot_be_is_refused_by_name(pinning, parameter, value):
    name, _, member = parameter.partition(".")
    status, text = ask(pinning, **{name: {member: value} if member else value})
    assert status == 400 and json.loads(text)["error"]["param"] == parameter


def test_headers_of_a_router_that_cannot_be_are_passed_over(pinning):
    for said in ("500", "soon", "-1", ""):
        assert ask(pinning, {"x-llm-d-slo-ttft-ms": said, "x-llm-d-slo-tpot-ms": said})[0] == 200


def test_with_keys_nobody_ends_the_job_of_another(start_daemon, tmp_path):
    keys = {name: f"key-of-{name}-0123456789abcdef" for name in ("alice", "bob")}
    (tmp_path / "keys").write_text("".join(f"{name} sha256:{hashlib.sha256(key.encode()).hexdigest()}\n" for name, key in keys.items()))
    daemon = start_daemon("--device", "sim", "--retention", "ttl", "--ttl", "60s", "--page-tokens", 16, "--metrics-open",
                          "--api-keys", tmp_path / "keys", model="random:llama-160m")
    who = {name: {"Authorization": f"Bearer {key}"} for name, key in keys.items()}
    assert json.loads(ask(daemon, who["alice"], job_id="same")[1])["usage"]["job"]["pinned_tokens"] == 64
    assert delete(daemon, "/v1/jobs/same", **who["bob"])[0] == 200
    assert json.loads(ask(daemon, who["bob"], job_id="same")[1])["usage"]["job"]["pinned_tokens"] == 64
    daemon.wait_for_metric("penstock_pins", 2)
    assert ended(daemon, "dropped") == 0
    assert delete(daemon, "/v1/jobs/same", **who["alice"])[0] == 200
    daemon.wait_for_metric("penstock_pins", 1)
    with pytest.raises(urllib.error.HTTPError) as refused:
        delete(daemon, "/v1/jobs/same")
    assert refused.value.code == 401

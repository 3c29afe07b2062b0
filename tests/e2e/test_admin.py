"""The operator's socket: `penstock admin` against a running daemon, and that clients never reach it."""
import json
import socket
import time
import urllib.error

import openai
import pytest

from test_keys import ALICE, ask, digest
from test_operator import CHAT, start_stream, wait_for
from wire import read_answer

ENDLESS = {"prompt": [1, 2, 3], "max_tokens": 2000, "stream": True, "ignore_eos": True}


class Operator:
    def __init__(self, penstock, path):
        self.penstock, self.path = penstock, path

    def __call__(self, *words):
        done = self.penstock("admin", "--socket", self.path, *words)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if done.stdout.startswith("{") else done.stdout

    def refused(self, *words):
        done = self.penstock("admin", "--socket", self.path, *words)
        assert done.returncode != 0 and done.stdout == ""
        return done.returncode, done.stderr.strip()


@pytest.fixture
def sim(start_daemon, penstock, tmp_path):
    """A daemon on the sim device, whose requests take a while, and its operator."""
    daemon = start_daemon("--device", "sim", "--admin-socket", tmp_path / "admin.sock", "--log-level", "info",
                          "--drain-timeout", "200ms", model="random:llama-160m")
    daemon.operator = Operator(penstock, tmp_path / "admin.sock")
    yield daemon
    daemon.stop()


def stream_ids(daemon, **more):
    return daemon.client().completions.create(model=daemon.model, prompt=[1, 2, 3], max_tokens=2000, stream=True,
                                              extra_body={"ignore_eos": True, **more})


def test_status_tells_what_it_does(sim):
    status = sim.operator("status")
    assert status["state"] == "idle" and status["requests"] == 0 and not status["paused"]
    assert "serving random:llama-160m: 0 running, 0 waiting" in status["status"]


def test_requests_are_listed_and_ended(sim):
    stream = stream_ids(sim, request_id="the-long-one")
    next(iter(stream))
    listed = sim.operator("requests")["requests"]
    assert [(r["id"], r["path"], r["state"], r["stream"], r["prompt_tokens"]) for r in listed] == \
        [("the-long-one", "/v1/completions", "decoding", True, 3)]
    assert listed[0]["output_tokens"] >= 1 and listed[0]["age_ms"] > 0
    assert sim.operator("abort", "the-long-one") == {"done": True}
    with pytest.raises(openai.APIError, match="The operator of the server ended this request"):
        list(stream)
    sim.wait_for_metric("penstock_requests_running", 0)
    assert wait_for(lambda: sim.operator("requests")["requests"] == [])
    status, sentence = sim.operator.refused("abort", "the-long-one")
    assert status == 66 and "There is no request the-long-one" in sentence


def test_an_answer_that_was_not_begun_is_ended_with_a_status(sim):
    import threading
    found = {}

    def call():
        found["answer"] = ask(sim, "/v1/completions", body={**ENDLESS, "stream": False, "request_id": "whole"})

    thread = threading.Thread(target=call)
    thread.start()
    wait_for(lambda: sim.operator("requests")["requests"])
    sim.operator("abort", "whole")
    thread.join(30)
    status, headers, body = found["answer"]
    assert status == 503 and headers["x-should-retry"] == "false" and json.loads(body)["error"]["code"] == "aborted"


def test_a_paused_daemon_turns_new_requests_away_and_finishes_the_others(sim):
    thread, began, found = start_stream_ids(sim)
    assert began.wait(30)
    sim.operator("pause")
    status, headers, body = ask(sim, "/v1/completions", body={"prompt": [1], "max_tokens": 1})
    assert status == 503 and json.loads(body)["error"]["code"] == "paused" and headers["Retry-After"]
    assert ask(sim, "/ready")[0] == 503 and ask(sim, "/health")[0] == 200
    assert sim.operator("status")["state"] == "paused"
    thread.join(60)
    assert found["text"].rstrip().endswith("[DONE]")
    sim.operator("resume")
    assert ask(sim, "/ready")[0] == 200
    assert ask(sim, "/v1/completions", body={"prompt": [1], "max_tokens": 1})[0] == 200


def start_stream_ids(daemon, tokens=300):
    import threading
    import urllib.request
    began, found = threading.Event(), {}

    def run():
        call = urllib.request.Request(daemon.url + "/v1/completions", json.dumps({**ENDLESS, "max_tokens": tokens}).encode(),
                                      {"Content-Type": "application/json"})
        with urllib.request.urlopen(call, timeout=60) as answer:
            first = answer.readline()
            began.set()
            found["text"] = (first + answer.read()).decode()

    thread = threading.Thread(target=run)
    thread.start()
    return thread, began, found


def test_a_held_engine_stands_still_and_is_not_stuck(start_daemon, penstock, tmp_path):
    daemon = start_daemon("--device", "sim", "--admin-socket", tmp_path / "admin.sock", "--stall-timeout", "300ms",
                          model="random:llama-160m")
    operator = Operator(penstock, tmp_path / "admin.sock")
    thread, began, found = start_stream_ids(daemon)
    assert began.wait(30)
    operator("hold")
    wait_for(lambda: daemon.metric("penstock_passes_total") == daemon.metric("penstock_passes_total"))
    time.sleep(0.05)
    before = daemon.metric("penstock_passes_total")
    time.sleep(0.6)
    assert daemon.metric("penstock_passes_total") == before
    assert ask(daemon, "/live")[0] == 200 and daemon.metric("penstock_requests_running") == 1
    operator("resume")
    thread.join(60)
    assert found["text"].rstrip().endswith("[DONE]")


def test_the_prefix_cache_is_looked_at_and_emptied(start_daemon, penstock, standin, tmp_path):
    daemon = start_daemon("--admin-socket", tmp_path / "admin.sock", model=standin)
    operator = Operator(penstock, tmp_path / "admin.sock")
    prompt = {"prompt": "A beginning that fills some pages of the cache. " * 12, "max_tokens": 1}

    def cached():
        return json.loads(ask(daemon, "/v1/completions", body=prompt)[2])["usage"]["prompt_tokens_details"]["cached_tokens"]

    assert cached() == 0 and cached() > 0
    facts = operator("cache")
    assert facts["pages_cached"] > 0 and facts["hit_tokens"] > 0
    operator("cache-reset")
    wait_for(lambda: operator("cache")["pages_cached"] == 0)
    assert cached() == 0


def test_reload_config_and_log_level(start_daemon, penstock, standin, tmp_path):
    file = tmp_path / "penstock.conf"
    file.write_text("[server]\nidle-timeout = 10s\n")
    daemon = start_daemon("--config", file, "--admin-socket", tmp_path / "admin.sock", model=standin)
    operator = Operator(penstock, tmp_path / "admin.sock")
    assert f"idle-timeout = 10s " in operator("config")
    file.write_text("[server]\nidle-timeout = 20s\n")
    assert operator("reload") == "idle-timeout: 10s -> 20s\n"
    assert f"idle-timeout = 20s " in operator("config")
    file.write_text("[server]\nidle-timeout = long\n")
    status, sentence = operator.refused("reload")
    assert status == 65 and "penstock.conf:2: idle-timeout must be a time" in sentence
    assert operator("log-level") == {"log_level": "info"}
    assert operator("set-log-level", "debug") == {"log_level": "debug"}
    assert operator.refused("set-log-level", "loud")[0] == 65
    assert operator("log-reopen") == {"done": True}


def test_keys_are_given_and_tenants_told(start_daemon, penstock, standin, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("guest anyone\n")
    daemon = start_daemon("--api-keys", keys, "--admin-socket", tmp_path / "admin.sock", model=standin)
    operator = Operator(penstock, tmp_path / "admin.sock")
    keys.write_text(f"alice {digest(ALICE)} weight=3 tokens-per-minute=500\n")
    told = operator("keys", keys)["tenants"]
    assert [(t["name"], t["weight"], t["tokens_per_minute"]) for t in told] == [("alice", 3, 500)]
    assert ask(daemon, "/v1/models")[0] == 401 and ask(daemon, "/v1/models", ALICE)[0] == 200
    assert ask(daemon, "/v1/chat/completions", ALICE, CHAT)[0] == 200
    assert operator("tenants")["tenants"][0]["tokens_left"] < 500
    keys.write_text("alice in-plain\n")
    assert "keys:1: expected sha256:DIGEST" in operator.refused("keys", keys)[1]
    assert ask(daemon, "/v1/models", ALICE)[0] == 200


def test_a_key_brings_priority_and_targets_that_a_request_may_name_itself(start_daemon, penstock, tmp_path):
    (tmp_path / "keys").write_text(f"alice {digest(ALICE)} priority=7 priority-min=3 ttft-ms=250 tbt-ms=40\n")
    with open(tmp_path / "keys", "a") as keys:
        keys.write("guest anyone\n")
    daemon = start_daemon("--device", "sim", "--api-keys", tmp_path / "keys", "--admin-socket", tmp_path / "admin.sock",
                          "--slo-ttft", "9s", "--slo-tbt", "700ms", model="random:llama-160m")
    operator = Operator(penstock, tmp_path / "admin.sock")

    def seen(key=ALICE, **more):
        extra = {"ignore_eos": True, **more}
        with daemon.client(api_key=key).completions.create(model=daemon.model, prompt=[1, 2], max_tokens=2000, stream=True, extra_body=extra) as stream:
            next(iter(stream))
            (request,) = operator("requests")["requests"]
        wait_for(lambda: not operator("requests")["requests"])
        return request["tenant"], request["priority"], request["ttft_target_ms"], request["tbt_target_ms"]

    assert seen() == ("alice", 7, 250, 40)
    assert seen(priority=5, slo={"ttft_ms": 100}) == ("alice", 5, 100, 40)
    assert seen(priority=-50) == ("alice", 3, 250, 40)
    assert seen(key="none") == ("guest", 0, 9000, 700)
    assert seen(key="none", slo={"tbt_ms": 30}) == ("guest", 0, 9000, 30)


def test_drain_ends_the_daemon_and_tells_those_who_are_cut_off(sim):
    stream = stream_ids(sim)
    next(iter(stream))
    assert sim.operator("drain") == {"done": True}
    with pytest.raises(openai.APIError, match="shutting down and could not finish"):
        list(stream)
    assert sim.process.wait(30) == 0
    assert "draining, asked by the operator" in sim.log and "1 requests are cut off" in sim.log


def test_the_socket_is_its_owners_alone_and_goes_away(sim):
    assert sim.operator.path.stat().st_mode & 0o777 == 0o600
    sim.stop()
    assert not sim.operator.path.exists()
    status, sentence = sim.operator.refused("status")
    assert status == 74 and str(sim.operator.path) in sentence


@pytest.mark.parametrize("method, path", [("GET", "/requests"), ("DELETE", "/requests/x"), ("POST", "/pause"), ("POST", "/drain"),
                                          ("POST", "/reload"), ("GET", "/config"), ("DELETE", "/cache"), ("PUT", "/keys")])
def test_clients_find_no_admin_path(sim, method, path):
    status, _, body = ask(sim, path, body=None if method in ("GET", "DELETE") else {}, method=method)
    assert status == 404 and json.loads(body)["error"]["code"] == "unknown_url"
    assert sim.operator("status")["state"] == "idle"


def test_the_operator_needs_no_key_for_the_api(start_daemon, penstock, standin, tmp_path):
    (tmp_path / "keys").write_text(f"alice {digest(ALICE)}\n")
    daemon = start_daemon("--api-keys", tmp_path / "keys", "--admin-socket", tmp_path / "admin.sock", model=standin)
    assert ask(daemon, "/metrics")[0] == 401
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(str(tmp_path / "admin.sock"))
        s.sendall(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert s.recv(100).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("words, status", [([], 64), (["dance"], 64), (["abort"], 64), (["abort", "a b"], 64), (["status", "x"], 64),
                                           (["keys", "/nonexistent"], 66)])
def test_a_bad_command_is_one_sentence(penstock, tmp_path, words, status):
    done = penstock("admin", "--socket", tmp_path / "none", *words)
    assert done.returncode == status and len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("request_line, status", [("GET /", 200), ("GET /requests", 200), ("GET /tenants", 200), ("GET /cache", 200),
                                                  ("GET /config", 200), ("GET /metrics", 200), ("GET /live", 200), ("GET /nothing", 404),
                                                  ("POST /requests", 405), ("POST /pause", 200), ("POST /resume", 200),
                                                  ("DELETE /requests/none", 404), ("no request", 400)])
def test_each_answer_to_the_operator_is_named(sim, request_line, status):
    with socket.socket(socket.AF_UNIX) as admin:
        admin.connect(str(sim.operator.path))
        for line, name in ((b"X-Request-Id: mine-1\r\n", "mine-1"), (b"", None)):
            admin.sendall(request_line.encode() + b" HTTP/1.1\r\nHost: a\r\n" + line + b"Content-Length: 0\r\n\r\n")
            answered, headers, _, _ = read_answer(admin)
            assert answered == status
            assert headers["x-request-id"] == name if name and status != 400 else headers["x-request-id"]
            assert headers.get("allow") == ("GET" if status == 405 else None)
            if status == 400:  # the last answer of its connection
                break


def test_what_the_headers_of_a_router_want_of_time_is_known_beside_what_the_body_says(sim):
    stream = sim.client().completions.create(model=sim.model, prompt=[1, 2, 3], max_tokens=2000, stream=True,
                                             extra_headers={"x-llm-d-slo-ttft-ms": "60000", "x-llm-d-slo-tpot-ms": "40"},
                                             extra_body={"ignore_eos": True, "service_tier": "priority", "slo": {"tbt_ms": 50}})
    next(iter(stream))
    (listed,) = sim.operator("requests")["requests"]
    assert (listed["ttft_target_ms"], listed["tbt_target_ms"], listed["priority"]) == (60000, 50, -100)
    stream.close()

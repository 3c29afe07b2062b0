"""API keys: who is let in, what a key allows, and that tenants are kept apart."""
import hashlib
import json
import re
import subprocess
import threading
import urllib.error
import urllib.request

import openai
import pytest

from conftest import BINARY

ALICE, BOB, OLD = "sk-alice-0123456789abcdef", "sk-bob-0123456789abcdef", "sk-bob-before-0123456789"
CHAT = {"messages": [{"role": "user", "content": "Who are you?"}], "temperature": 0}


def digest(key):
    return "sha256:" + hashlib.sha256(key.encode()).hexdigest()


@pytest.fixture(scope="module")
def keyed(start_daemon, standin, tmp_path_factory):
    file = tmp_path_factory.mktemp("keys") / "keys"
    file.write_text(f"# who may ask\nalice {digest(ALICE)}\nbob {digest(BOB)} {digest(OLD)}  weight=2\n"
                    f"slow {digest('sk-slow-0123456789')} concurrency=1\n"
                    f"poor {digest('sk-poor-0123456789')} tokens-per-minute=60\n")
    return start_daemon("--served-model-name", "standin", "--api-keys", file, model=standin)


def ask(daemon, path, key=None, body=None, method=None):
    """Status, headers and body of an answer, whatever its status."""
    headers = {"Content-Type": "application/json"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(daemon.url + path, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.headers, refused.read().decode()


def test_a_key_opens_the_door(keyed, sentence):
    for key in (ALICE, BOB, OLD):
        answer = keyed.client(api_key=key).chat.completions.create(model="standin", **CHAT)
        assert answer.choices[0].message.content == sentence


@pytest.mark.parametrize("key", [None, "none", ALICE[:-1], ALICE + "x", digest(ALICE)])
def test_without_a_key_the_door_stays_shut(keyed, key):
    status, headers, body = ask(keyed, "/v1/chat/completions", key, CHAT)
    error = json.loads(body)["error"]
    assert status == 401 and headers["WWW-Authenticate"] == "Bearer"
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", "invalid_api_key", None)
    assert not key or key not in body


def test_the_official_client_calls_it_an_authentication_error(keyed):
    with pytest.raises(openai.AuthenticationError) as trouble:
        keyed.client(api_key="sk-wrong").models.list()
    assert trouble.value.code == "invalid_api_key"


@pytest.mark.parametrize("method, path", [
    ("GET", "/v1/models"), ("GET", "/v1/models/standin"), ("GET", "/metrics"), ("GET", "/version"), ("GET", "/nothing"),
    ("POST", "/v1/completions"), ("POST", "/tokenize"), ("POST", "/detokenize"), ("DELETE", "/v1/models"), ("OPTIONS", "/tokenize")])
def test_every_path_is_behind_the_door(keyed, method, path):
    assert ask(keyed, path, body={} if method == "POST" else None, method=method)[0] == 401


@pytest.mark.parametrize("path", ["/health", "/live", "/ready", "/"])
def test_probes_and_the_page_need_no_key(keyed, path):
    assert ask(keyed, path)[0] == 200


def test_metrics_may_be_left_open(start_daemon, standin, tmp_path):
    (tmp_path / "keys").write_text(f"alice {digest(ALICE)}\n")
    daemon = start_daemon("--api-keys", tmp_path / "keys", "--metrics-open", model=standin)
    assert ask(daemon, "/metrics")[0] == 200
    assert ask(daemon, "/version")[0] == 401


def test_one_request_at_a_time_means_one(keyed):
    started, results = threading.Event(), []

    def stream():
        client = keyed.client(api_key="sk-slow-0123456789")
        with client.completions.create(model="standin", prompt="x", max_tokens=2000, stream=True, extra_body={"ignore_eos": True}) as s:
            for _ in s:
                started.set()
                if results:
                    return

    thread = threading.Thread(target=stream)
    thread.start()
    assert started.wait(30)
    status, headers, body = ask(keyed, "/v1/chat/completions", "sk-slow-0123456789", CHAT)
    other = ask(keyed, "/v1/chat/completions", ALICE, CHAT)[0]
    results.append(1)
    thread.join()
    error = json.loads(body)["error"]
    assert status == 429 and headers["Retry-After"] == "1" and headers["x-should-retry"] == "true"
    assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    assert other == 200
    assert keyed.client(api_key="sk-slow-0123456789", max_retries=8).completions.create(model="standin", prompt="x", max_tokens=1)


def test_tokens_of_a_minute_run_out(keyed):
    seen = []
    for _ in range(9):
        status, headers, body = ask(keyed, "/v1/chat/completions", "sk-poor-0123456789", CHAT)
        seen.append(status)
        if status != 200:
            break
        assert headers["x-ratelimit-limit-tokens"] == "60"
    assert seen[0] == 200 and seen[-1] == 429, seen
    assert json.loads(body)["error"]["code"] == "rate_limit_exceeded"
    assert 1 <= int(headers["Retry-After"]) < 120
    assert headers["x-ratelimit-remaining-tokens"] == "0"


def test_what_a_request_may_use_is_reserved_and_the_rest_given_back(start_daemon, standin, tmp_path):
    key = "sk-rich-0123456789"
    (tmp_path / "keys").write_text(f"rich {digest(key)} tokens-per-minute=600\n")
    daemon = start_daemon("--api-keys", tmp_path / "keys", model=standin)

    def left(max_tokens, status=200):
        answer = ask(daemon, "/v1/completions", key, {"prompt": [5, 6], "max_tokens": max_tokens, "stop": "m"})
        assert answer[0] == status, answer
        return int(answer[1]["x-ratelimit-remaining-tokens"])

    left(590)  # which is told before it is over, and then gives back nearly all
    assert left(10) > 500
    assert left(2000, 429) > 500  # more than a minute's worth: not before the account is full
    refused = json.loads(ask(daemon, "/v1/completions", key, {"prompt": [5, 6], "max_tokens": 2000})[2])["error"]
    assert refused["code"] == "rate_limit_exceeded" and "2002" in refused["message"]


def test_tenants_do_not_share_prefixes(keyed):
    prompt = {"prompt": "A long enough beginning that fills some pages of the cache. " * 12, "max_tokens": 1}

    def cached(key, **more):
        body = json.loads(ask(keyed, "/v1/completions", key, {**prompt, **more})[2])
        return body["usage"]["prompt_tokens_details"]["cached_tokens"]

    assert cached(ALICE) == 0
    assert cached(ALICE) > 0
    assert cached(BOB) == 0
    assert cached(OLD) > 0  # the same tenant
    assert cached(ALICE, cache_salt="mine") == 0


def test_the_log_names_the_tenant_and_never_the_key(start_daemon, standin, tmp_path):
    (tmp_path / "keys").write_text(f"alice {digest(ALICE)}\n")
    daemon = start_daemon("--api-keys", tmp_path / "keys", "--log-format", "json", model=standin)
    ask(daemon, "/v1/chat/completions", ALICE, CHAT)
    ask(daemon, "/v1/chat/completions", "sk-wrong-wrong-wrong", CHAT)
    daemon.stop()
    lines = [json.loads(line) for line in daemon.log.splitlines()]
    assert [line["tenant"] for line in lines if line.get("path") == "/v1/chat/completions"] == ["alice"]
    assert ALICE not in daemon.log and "wrong" not in daemon.log


def test_an_open_door_to_the_world_must_be_asked_for(penstock, standin, tmp_path):
    (tmp_path / "open").write_text("guest anyone\n")
    (tmp_path / "keys").write_text(f"alice {digest(ALICE)}\n")
    serve = ["serve", "--model", standin, "--port", 0, "--host", "0.0.0.0", "--check"]
    for flags in ([], ["--api-keys", tmp_path / "open"]):
        refused = penstock(*serve, *flags)
        assert refused.returncode == 78 and "--api-keys" in refused.stderr and "--public-without-keys" in refused.stderr
    for flags in (["--public-without-keys"], ["--api-keys", tmp_path / "keys"]):
        assert penstock(*serve, *flags).returncode == 0
    assert penstock("serve", "--model", standin, "--port", 0, "--host", "0.0.0.0").returncode == 78


def test_anyone_admits_a_client_without_a_key(start_daemon, standin, tmp_path, sentence):
    (tmp_path / "keys").write_text("guest anyone concurrency=4\n")
    daemon = start_daemon("--served-model-name", "standin", "--api-keys", tmp_path / "keys", model=standin)
    assert daemon.client().chat.completions.create(model="standin", **CHAT).choices[0].message.content == sentence


def test_a_bad_key_file_stops_the_start(penstock, standin, tmp_path):
    (tmp_path / "keys").write_text("alice sk-in-plain-0123456789\n")
    for file in (tmp_path / "keys", tmp_path / "missing"):
        refused = penstock("serve", "--model", standin, "--port", 0, "--api-keys", file)
        assert refused.returncode == 78 and str(file) in refused.stderr
        assert "in-plain" not in refused.stderr


def test_penstock_key_makes_what_the_daemon_takes(penstock, standin, tmp_path, start_daemon):
    made = penstock("key", "carol")
    key, line = made.stderr.strip(), made.stdout
    assert re.fullmatch(r"sk-[\w-]{43}", key) and line == f"carol {digest(key)}\n"
    taken = penstock("key", "dave", "--stdin", text=ALICE + "\n")
    assert taken.stdout == f"dave {digest(ALICE)}\n" and taken.stderr == ""
    assert penstock("key", "dave", "--stdin", text="short\n").returncode == 65
    assert penstock("key").returncode == 64 and penstock("key", "a b").returncode == 64
    (tmp_path / "keys").write_text(line)
    daemon = start_daemon("--api-keys", tmp_path / "keys", model=standin)
    assert ask(daemon, "/v1/models", key)[0] == 200


def test_metrics_tell_tenants_apart(keyed):
    def figures():
        text = ask(keyed, "/metrics", ALICE)[2]
        return {(name, tenant): float(value) for name, tenant, value in
                re.findall(r'^penstock_tenant_(\w+){tenant="(\w+)"} (\S+)$', text, re.M)}

    before = figures()
    assert {tenant for _, tenant in before} == {"alice", "bob", "slow", "poor"}
    status, _, answer = ask(keyed, "/v1/completions", BOB, {"prompt": "x", "max_tokens": 3})
    assert status == 200
    after = figures()
    assert after["requests_total", "bob"] == before["requests_total", "bob"] + 1
    assert after["tokens_total", "bob"] == before["tokens_total", "bob"] + json.loads(answer)["usage"]["total_tokens"]
    assert after["tokens_total", "alice"] == before["tokens_total", "alice"]
    assert after["requests", "bob"] == 0

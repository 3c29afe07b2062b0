"""Pages of other sites: off unless configured; a preflight needs no key; who has no key is told before the body is read."""
import json
import urllib.error
import urllib.request

import pytest

from test_keys import ALICE, digest
from wire import dial, read_answer, read_until

PAGE = "https://page.example"
CHAT = json.dumps({"messages": [{"role": "user", "content": "Who are you?"}]}).encode()


def call(daemon, method, path, headers, body=None):
    request = urllib.request.Request(daemon.url + path, body, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.headers
    except urllib.error.HTTPError as refused:
        return refused.code, refused.headers


@pytest.fixture(scope="module")
def open_to_pages(start_daemon, standin, tmp_path_factory):
    keys = tmp_path_factory.mktemp("cors") / "keys"
    keys.write_text(f"alice {digest(ALICE)}\n")
    return start_daemon("--api-keys", keys, "--cors-origins", f"https://other.example, {PAGE}", model=standin)


def preflight(origin):
    return {"Origin": origin, "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type,x-stainless-os"}


def test_no_page_may_ask_until_told_otherwise(scripted):
    status, headers = call(scripted, "OPTIONS", "/v1/chat/completions", preflight(PAGE))
    assert status == 204 and not [name for name in headers if name.lower().startswith("access-control")]
    status, headers = call(scripted, "POST", "/v1/chat/completions", {"Origin": PAGE, "Content-Type": "application/json"}, CHAT)
    assert status == 200 and "Access-Control-Allow-Origin" not in headers


def test_a_page_that_is_configured_may_ask(open_to_pages):
    status, headers = call(open_to_pages, "OPTIONS", "/v1/chat/completions", preflight(PAGE))
    assert status == 204
    assert headers["Access-Control-Allow-Origin"] == PAGE and headers["Vary"] == "Origin"
    assert "POST" in headers["Access-Control-Allow-Methods"]
    assert headers["Access-Control-Allow-Headers"] == "authorization,content-type,x-stainless-os"
    status, headers = call(open_to_pages, "POST", "/v1/chat/completions",
                           {"Origin": PAGE, "Content-Type": "application/json", "Authorization": f"Bearer {ALICE}"}, CHAT)
    assert status == 200 and headers["Access-Control-Allow-Origin"] == PAGE
    assert "X-Request-Id" in headers["Access-Control-Expose-Headers"]


def test_a_page_can_read_that_its_key_is_wrong(open_to_pages):
    status, headers = call(open_to_pages, "POST", "/v1/chat/completions",
                           {"Origin": PAGE, "Content-Type": "application/json", "Authorization": "Bearer sk-wrong"}, CHAT)
    assert status == 401 and headers["Access-Control-Allow-Origin"] == PAGE


@pytest.mark.parametrize("origin", ["https://evil.example", "https://page.example.evil", "http://page.example", "null", "https://page"])
def test_other_pages_may_not(open_to_pages, origin):
    status, headers = call(open_to_pages, "OPTIONS", "/v1/chat/completions", preflight(origin))
    assert status == 401 and "Access-Control-Allow-Origin" not in headers


def test_a_stream_carries_the_lines_as_well(start_daemon, standin):
    daemon = start_daemon("--cors-origins", "*", model=standin)
    body = json.dumps({"messages": [{"role": "user", "content": "hi"}], "stream": True}).encode()
    request = urllib.request.Request(daemon.url + "/v1/chat/completions", body, {"Origin": PAGE, "Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.headers["Access-Control-Allow-Origin"] == PAGE
        assert answer.read().rstrip().endswith(b"[DONE]")
    request = urllib.request.Request(daemon.url + "/health")  # the next request, without an origin, gets none
    with urllib.request.urlopen(request) as answer:
        assert "Access-Control-Allow-Origin" not in answer.headers


def test_a_page_must_say_that_it_sends_json(scripted):
    """A browser sends a body without a type for any page, without asking first."""
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n%sContent-Length: %d\r\n\r\n"
    with dial(scripted) as s:
        s.sendall(head % (b"Origin: https://page.example\r\n", len(CHAT)) + CHAT)
        assert read_answer(s)[0] == 415
        s.sendall(head % (b"", len(CHAT)) + CHAT)
        assert read_answer(s)[0] == 200


def test_who_has_no_key_is_told_before_his_body_is_read(open_to_pages):
    with dial(open_to_pages) as s:
        s.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\nExpect: 100-continue\r\n\r\n")
        status, headers, body, _ = read_answer(s)
        assert status == 401 and headers["connection"] == "close" and b"invalid_api_key" in body
    with dial(open_to_pages) as s:
        s.sendall(b"POST /tokenize HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " + ALICE.encode() +
                  b"\r\nContent-Type: application/json\r\nContent-Length: 14\r\nExpect: 100-continue\r\n\r\n")
        assert read_until(s, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        s.sendall(b'{"prompt":"x"}')
        assert read_answer(s)[0] == 200

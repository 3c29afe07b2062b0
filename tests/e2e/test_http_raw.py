"""Whole exchanges byte by byte: what clients of every manner find, and the engine behind it. The duties of HTTP/1.1 one by one are
in test_http_duties.py, clients that leave in test_leaving.py."""
import json
import re
import socket
import time

import pytest

from wire import GET, LAST_GET, dial, post, read_answer, read_chunks, read_to_end, talk

LONG = {"prompt": [1, 2, 3], "max_tokens": 1500, "ignore_eos": True}


@pytest.fixture(scope="module")
def slow(start_daemon):
    """A model whose answers take seconds, so that something is always going on."""
    return start_daemon("--max-model-len", 2048, model="random:llama-160m")


def test_a_connection_serves_one_request_after_another(scripted):
    with dial(scripted) as connection:
        for _ in range(3):
            connection.sendall(GET)
            status, headers, body, rest = read_answer(connection)
            assert status == 200 and "version" in json.loads(body) and rest == b""
            assert "connection" not in headers and "date" in headers


def test_a_request_may_come_byte_by_byte(scripted):
    with dial(scripted) as connection:
        for byte in post("/tokenize", {"prompt": "hello"}):
            connection.sendall(bytes([byte]))
        status, _, body, _ = read_answer(connection)
        assert status == 200 and json.loads(body)["count"] > 0


def test_a_chunked_body_is_read(scripted):
    body = b'{"prompt":"hello"}'
    chunks = b"".join(b"%x\r\n%c\r\n" % (1, byte) for byte in body) + b"0\r\nTrailer: x\r\n\r\n"
    with dial(scripted) as connection:
        connection.sendall(b"POST /tokenize HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)
        assert read_answer(connection)[0] == 200


def test_head_and_options_are_answered_without_a_body(scripted):
    answer = talk(scripted, b"HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"\r\n\r\n") and b"Content-Length: 0" not in answer
    answer = talk(scripted, b"OPTIONS /v1/completions HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 204 ") and b"Allow: POST, OPTIONS\r\n" in answer


def test_a_stream_to_an_http_1_0_client_ends_with_the_connection(scripted):
    stream = talk(scripted, post("/v1/completions", {"prompt": "I am", "stream": True}).replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert b"chunked" not in stream and stream.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("request_bytes, status", [
    (b"GET /nothing HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 404),
    (b"DELETE /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 405),
    (b"GET /v1/chat/completions HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 405),
    (b"POST /tokenize HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 2\r\n"
     b"Connection: close\r\n\r\n{}", 415),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # TLS spoken to a plain port, with a newline somewhere
])
def test_what_is_no_proper_request_is_refused_in_openais_shape(scripted, request_bytes, status):
    if request_bytes.startswith(b"\x16"):
        request_bytes += bytes(range(256))
    answer = talk(scripted, request_bytes)
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:200]
    assert b"Connection: close\r\n" in answer and b"\r\nX-Request-Id: " in answer
    error = json.loads(answer.split(b"\r\n\r\n", 1)[1])["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == ("invalid_request_error" if status < 500 else "server_error")
    if status == 405:
        assert b"\r\nAllow: " in answer


def test_a_request_id_is_repeated_if_it_can_be(scripted):
    body = {"prompt": "I am", "max_tokens": 1}
    with dial(scripted) as connection:
        connection.sendall(post("/v1/completions", body, b"X-Request-Id: Req.42-a:b\r\n"))
        _, headers, answer, _ = read_answer(connection)
        assert headers["x-request-id"] == "Req.42-a:b" and "Req.42-a:b" in json.loads(answer)["id"]
        connection.sendall(post("/v1/completions", body, b'X-Request-Id: "<b>"\r\n'))
        made = read_answer(connection)[1]["x-request-id"]
        assert re.fullmatch("[0-9a-f]+", made)
        assert "Req.42-a:b" in scripted.log
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nX-Request-Id: huge\r\nContent-Length: 99999999999\r\n\r\n")
        status, headers, *_ = read_answer(connection)  # refused before any handler sees it
        assert status == 413 and headers["x-request-id"] == "huge"


def test_a_stream_is_well_formed_to_the_last_byte(scripted):
    body = {"messages": [{"role": "user", "content": "x"}], "stream": True}
    head, chunks = read_chunks(talk(scripted, post("/v1/chat/completions", body, b"Connection: close\r\n")))
    assert b"Content-Type: text/event-stream" in head and b"Cache-Control: no-cache" in head and b"X-Accel-Buffering: no" in head
    for chunk in chunks:  # each a whole event: never an id, never a field other than data
        assert re.fullmatch(rb"data: [^\n]+\n\n", chunk)
    assert chunks[-1] == b"data: [DONE]\n\n"


def test_a_connection_goes_on_after_a_stream(scripted):
    with dial(scripted) as connection:
        connection.sendall(post("/v1/completions", {"prompt": "I am", "stream": True}) + LAST_GET)
        answer = read_to_end(connection)
    assert answer.count(b"HTTP/1.1 200 ") == 2 and answer.index(b"[DONE]") < answer.index(b'"version"')


def test_a_reader_that_pauses_still_gets_everything(scripted):
    body = {"prompt": "I am", "max_tokens": 3000, "ignore_eos": True, "stream": True, "temperature": 0,
            "stream_options": {"include_usage": True}}
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
        connection.settimeout(60)
        connection.connect(("127.0.0.1", scripted.port))
        connection.sendall(post("/v1/completions", {**body, "max_tokens": 900}, b"Connection: close\r\n"))
        time.sleep(0.5)
        head, chunks = read_chunks(read_to_end(connection))
    assert json.loads(chunks[-2][6:])["usage"]["completion_tokens"] == 900


def test_health_answers_while_the_engine_is_busy(slow):
    with dial(slow) as busy:
        busy.sendall(post("/v1/completions", {**LONG, "n": 8}))
        slow.wait_for_metric("penstock_requests_running", 8)
        for path in ("/health", "/live", "/ready"):
            assert json.loads(slow.get(path))["running"] == 8
    slow.wait_for_metric("penstock_requests_running", 0)


def test_a_drain_has_a_bound_and_a_second_signal_ends_it(start_daemon):
    daemon = start_daemon("--drain-timeout", "0.2s", model="random:llama-160m")
    with dial(daemon) as connection:
        connection.sendall(post("/v1/completions", LONG))
        daemon.wait_for_metric("penstock_requests_running", 1)
        began = time.monotonic()
        assert daemon.stop() == 0 and time.monotonic() - began < 20

"""HTTP/1.1 byte by byte: what the daemon owes to clients that are careful, slow, rude or gone. tests/unit/test_http.c has the
grammar itself; here are sockets, time and the engine behind them."""
import json
import random
import re
import signal
import socket
import time

import pytest

from wire import GET, LAST_GET, dial, post, read_answer, read_chunks, read_to_end, reset, talk

LONG = {"prompt": [1, 2, 3], "max_tokens": 1500, "ignore_eos": True}


@pytest.fixture(scope="module")
def slow(start_daemon):
    """A model whose answers take seconds, so that something is always going on."""
    return start_daemon("--max-model-len", 2048, model="random:llama-160m")


@pytest.fixture(scope="module")
def hasty(start_daemon, standin):
    """Time limits short enough to wait for."""
    return start_daemon("--head-timeout", "0.3s", "--body-timeout", "0.3s", "--body-rate-min", 1000, "--idle-timeout", "0.5s",
                        "--requests-per-connection", 3, "--body-max", 4096, model=standin)


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


def test_pipelined_requests_are_answered_in_order(scripted):
    asked = post("/v1/completions", {"prompt": "I am", "max_tokens": 3}) + GET + post("/tokenize", {"prompt": "x"}) + LAST_GET
    answers = talk(scripted, asked)
    kinds = re.findall(rb'"text_completion"|"version"|"count"', answers)
    assert kinds == [b'"text_completion"', b'"version"', b'"count"', b'"version"']


def test_a_chunked_body_is_read(scripted):
    body = b'{"prompt":"hello"}'
    chunks = b"".join(b"%x\r\n%c\r\n" % (1, byte) for byte in body) + b"0\r\nTrailer: x\r\n\r\n"
    with dial(scripted) as connection:
        connection.sendall(b"POST /tokenize HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)
        assert read_answer(connection)[0] == 200


def test_a_client_that_waits_for_100_continue_gets_it(scripted):
    body = b'{"prompt":"hello"}'
    with dial(scripted) as connection:
        connection.sendall(b"POST /tokenize HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body))
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert read_answer(connection)[0] == 200


def test_head_and_options_are_answered_without_a_body(scripted):
    answer = talk(scripted, b"HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"\r\n\r\n") and b"Content-Length: 0" not in answer
    answer = talk(scripted, b"OPTIONS /v1/completions HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 204 ") and b"Allow: POST, OPTIONS\r\n" in answer


def test_http_1_0_is_answered_and_closed(scripted):
    answer = talk(scripted, b"GET /version HTTP/1.0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ") and b"Connection: close\r\n" in answer
    stream = talk(scripted, post("/v1/completions", {"prompt": "I am", "stream": True}).replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert b"chunked" not in stream and stream.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("request_bytes, status", [
    (b"GET /nothing HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 404),
    (b"DELETE /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 405),
    (b"GET /v1/chat/completions HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 405),
    (b"POST /tokenize HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 2\r\n"
     b"Connection: close\r\n\r\n{}", 415),
    (b"GET / HTTP/1.1\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
    (b"GET / HTTP/1.1\nHost: a\n\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", 400),
    (b"POST /tokenize HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    (b"POST /tokenize HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{} ", 400),
    (b"POST /tokenize HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
    (b"POST /tokenize HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n", 400),
    (b"POST /tokenize HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n", 413),
    (b"GET /" + b"a" * 10000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 90000 + b"\r\n\r\n", 431),
    (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 2000 + b"\r\n", 431),
    (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # TLS spoken to a plain port, with a newline somewhere
])
def test_what_is_no_proper_request_is_refused_in_openais_shape(scripted, request_bytes, status):
    if request_bytes.startswith(b"\x16"):
        request_bytes += bytes(range(256))
    answer = talk(scripted, request_bytes)
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:200]
    assert b"Connection: close\r\n" in answer
    error = json.loads(answer.split(b"\r\n\r\n", 1)[1])["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == ("invalid_request_error" if status < 500 else "server_error")
    if status == 405:
        assert b"\r\nAllow: " in answer


def test_a_refusal_reaches_a_client_that_is_still_sending(hasty):
    with dial(hasty) as connection:
        connection.sendall(b"POST /tokenize HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n")
        try:
            for _ in range(30):
                connection.sendall(b"x" * 100000)
        except OSError:
            pass
        assert read_to_end(connection).startswith(b"HTTP/1.1 413 ")


def test_a_head_that_dawdles_is_given_up(hasty):
    with dial(hasty) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHo")
        assert read_to_end(connection).startswith(b"HTTP/1.1 408 ")


def test_a_body_that_dawdles_is_given_up(hasty):
    with dial(hasty) as connection:
        connection.sendall(b"POST /tokenize HTTP/1.1\r\nHost: a\r\nContent-Length: 3000\r\n\r\n{")
        assert read_to_end(connection).startswith(b"HTTP/1.1 408 ")


def test_idle_connections_are_closed_quietly(hasty):
    with dial(hasty) as connection:
        assert read_to_end(connection) == b""
    with dial(hasty) as connection:
        connection.sendall(GET)
        status, _, _, rest = read_answer(connection)
        assert status == 200 and read_to_end(connection) == rest == b""


def test_a_connection_has_a_bound_on_its_requests(hasty):
    answers = talk(hasty, GET * 5)
    assert answers.count(b"HTTP/1.1 200 ") == 3 and answers.count(b"Connection: close") == 1


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


def nothing_is_left(daemon):
    for name in ("penstock_requests_running", "penstock_requests_waiting", "penstock_exchanges"):
        daemon.wait_for_metric(name, 0, seconds=60)
    daemon.wait_for_metric("penstock_http_connections", 1, seconds=60)
    assert daemon.metric("penstock_kv_pages") > 0


@pytest.mark.parametrize("leave", [lambda c: c.close(), lambda c: c.shutdown(socket.SHUT_WR), reset])
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_is_noticed_at_once(slow, stream, leave):
    with dial(slow) as connection:
        connection.sendall(post("/v1/completions", {**LONG, "stream": stream}))
        slow.wait_for_metric("penstock_requests_running", 1)
        before = slow.metric("penstock_clients_gone_total")
        leave(connection)
        slow.wait_for_metric("penstock_requests_running", 0, seconds=20)
        assert slow.metric("penstock_clients_gone_total") == before + 1
    nothing_is_left(slow)


def test_clients_that_leave_at_random_moments_leave_nothing_behind(slow):
    dice = random.Random(5)
    large = {"prompt": list(range(100, 4000)) * 3, "stream": True}  # too long for the context, found out on a worker
    for _ in range(150):
        body = dice.choice([LONG, {**LONG, "stream": True}, {**LONG, "n": 3, "stream": True}, {"prompt": "text"}, large])
        data = post("/v1/completions", body)
        connection = dial(slow)
        connection.sendall(data[:dice.choice([10, len(data) // 2, len(data) - 1, len(data), len(data)])])
        time.sleep(dice.choice([0, 0, 0.001, 0.01]))
        dice.choice([connection.close, lambda c=connection: reset(c)])()
    nothing_is_left(slow)


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
    nothing_is_left(slow)


def test_sigterm_lets_a_stream_finish_and_refuses_the_rest(start_daemon, standin):
    daemon = start_daemon(model="random:llama-160m")
    stream, held = dial(daemon), dial(daemon)
    stream.sendall(post("/v1/completions", {**LONG, "max_tokens": 100, "stream": True}))
    first = stream.recv(1 << 16)
    held.sendall(post("/v1/completions", LONG)[:-1])
    daemon.wait_for_metric("penstock_requests_running", 1)
    daemon.process.send_signal(signal.SIGTERM)
    with pytest.raises(OSError):  # once it no longer accepts
        for _ in range(1000):
            dial(daemon).close()
            time.sleep(0.005)
    held.sendall(b"}")
    status, headers, body, _ = read_answer(held)
    assert status == 503 and json.loads(body)["error"]["code"] == "draining" and headers["connection"] == "close"
    assert int(headers["retry-after"]) < 120 and headers["x-should-retry"] == "true"
    assert b"data: [DONE]\n\n" in first + read_to_end(stream)
    assert daemon.process.wait(30) == 0


def test_a_drain_has_a_bound_and_a_second_signal_ends_it(start_daemon):
    daemon = start_daemon("--drain-timeout", "0.2s", model="random:llama-160m")
    with dial(daemon) as connection:
        connection.sendall(post("/v1/completions", LONG))
        daemon.wait_for_metric("penstock_requests_running", 1)
        began = time.monotonic()
        assert daemon.stop() == 0 and time.monotonic() - began < 20

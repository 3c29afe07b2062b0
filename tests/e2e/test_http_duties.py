"""What HTTP/1.1 (RFC 9110, RFC 9112) and a rough network ask of a server, one duty a test, over a raw socket.
tests/unit/test_http.c has more of the grammar; how many may connect is in test_listening.py."""
import json
import re
import socket
import time

import pytest

from wire import GET, LAST_GET, dial, post, read_answer, read_to_end, reset, talk

SMUGGLED = b"GET /version HTTP/1.1\r\nHost: a\r\n\r\n"  # behind what is refused: must never be answered
CHUNKED = b"POST /tokenize HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
LONG = {"prompt": [1, 2, 3], "max_tokens": 400, "ignore_eos": True}


@pytest.fixture(scope="module")
def hasty(start_daemon, standin):
    """Time limits short enough to wait for."""
    return start_daemon("--head-timeout", "0.3s", "--body-timeout", "0.3s", "--body-rate-min", 1000, "--idle-timeout", "0.5s",
                        "--write-stall", "0.4s", "--requests-per-connection", 3, "--body-max", "64K", model=standin)


def refused(daemon, data, status):
    """The only answer is an error in OpenAI's shape, and the connection is closed; nothing behind it is looked at."""
    answer = talk(daemon, data + SMUGGLED)
    assert answer.startswith(b"HTTP/1.1 %d " % status), (data[:100], answer[:300])
    assert len(re.findall(rb"HTTP/1.1 \d", answer)) == 1 and b"\r\nConnection: close\r\n" in answer
    error = json.loads(answer.split(b"\r\n\r\n", 1)[1])["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == ("invalid_request_error" if status < 500 else "server_error")


def head(lines, method=b"GET /version HTTP/1.1"):
    return method + b"\r\n" + lines + b"\r\n\r\n"


def body(headers, text=b"0\r\n\r\n"):
    return head(b"Host: a\r\n" + headers, b"POST /tokenize HTTP/1.1") + text


# ---- framing: two readers of the same bytes must never disagree about where a request ends ----

def test_a_length_beside_a_transfer_encoding_is_refused(scripted):
    refused(scripted, body(b"Content-Length: 5\r\nTransfer-Encoding: chunked"), 400)
    refused(scripted, body(b"Transfer-Encoding: chunked\r\nContent-Length: 5"), 400)


def test_more_than_one_length_is_refused_the_same_or_not(scripted):
    for lengths in (b"Content-Length: 2\r\nContent-Length: 3", b"Content-Length: 2\r\nContent-Length: 2", b"Content-Length: 2, 2"):
        refused(scripted, body(lengths, b"{}"), 400)


def test_a_length_that_is_no_number_is_refused(scripted):
    for length in (b"", b"+2", b"-2", b"0x2", b"2 3", b"two", b"2.0", b"99999999999999999999999"):
        refused(scripted, body(b"Content-Length: " + length, b"{}"), 400)


def test_a_transfer_coding_other_than_chunked_is_refused(scripted):
    for coding in (b"gzip", b"gzip, chunked", b"identity", b"xchunked"):
        refused(scripted, body(b"Transfer-Encoding: " + coding), 501)
    for coding in (b"chunked, gzip", b"chunked\r\nTransfer-Encoding: chunked", b"\x0bchunked"):
        answer = talk(scripted, body(b"Transfer-Encoding: " + coding) + SMUGGLED)
        assert answer[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 501") and answer.count(b"HTTP/1.1 ") == 1


def test_a_transfer_encoding_of_http_1_0_is_refused(scripted):
    refused(scripted, head(b"Host: a\r\nTransfer-Encoding: chunked", b"POST /tokenize HTTP/1.0") + b"0\r\n\r\n", 400)


def test_a_chunk_size_that_is_no_hexadecimal_number_is_refused(scripted):
    for size in (b"", b"g", b"0x2", b"-2", b"+2", b"2 ", b" 2", b"2_", b"FFFFFFFFFFFFFFFFF"):
        refused(scripted, CHUNKED + size + b"\r\n{}\r\n0\r\n\r\n", 400)


def test_a_chunk_that_does_not_end_where_it_says_is_refused(scripted):
    for chunk in (b"2\r\n{}XX0\r\n\r\n", b"1\r\n{}\r\n0\r\n\r\n", b"3\r\n{}\r\n0\r\n\r\n", b"2\n{}\r\n0\r\n\r\n", b"2\r{}\r\n0\r\n\r\n"):
        refused(scripted, CHUNKED + chunk, 400)


def test_chunk_extensions_are_read_over_up_to_a_limit(scripted):
    with dial(scripted) as connection:
        connection.sendall(CHUNKED + b'12;flag;name="value"\r\n{"prompt":"hello"}\r\n0\r\n\r\n')
        assert read_answer(connection)[0] == 200
    refused(scripted, CHUNKED + b"2;x=" + b"y" * 70000 + b"\r\n{}\r\n0\r\n\r\n", 400)
    refused(scripted, CHUNKED + (b"1;x=" + b"y" * 1000 + b"\r\n \r\n") * 100 + b"0\r\n\r\n", 400)


def test_trailers_are_read_over_up_to_a_limit(scripted):
    whole = CHUNKED + b'12\r\n{"prompt":"hello"}\r\n0\r\n'
    with dial(scripted) as connection:
        connection.sendall(whole + b"Host: evil\r\nContent-Length: 7\r\n\r\n" + GET)
        status, _, _, rest = read_answer(connection)
        assert status == 200 and read_answer(connection, rest)[0] == 200
    refused(scripted, whole + b"X: y\r\n" * 200 + b"\r\n", 431)
    refused(scripted, whole + b"X: " + b"y" * 80000 + b"\r\n\r\n", 431)


def test_a_malformed_trailer_is_refused(scripted):
    whole = CHUNKED + b"2\r\n{}\r\n0\r\n"
    for trailer in (b"X : y\r\n\r\n", b"X: \x00\r\n\r\n", b"X: \x01\r\n\r\n", b"nothing\r\n\r\n", b": y\r\n\r\n", b"X: y\rZ: y\r\n\r\n",
                    b"\n", b"X: y\n\r\n", b"X: y\r\n\n", b"X: y\r\n folded\r\n\r\n", b"\r\r\n"):
        refused(scripted, whole + trailer, 400)


# ---- the head ----

def test_a_header_folded_over_lines_is_refused(scripted):
    refused(scripted, head(b"Host: a\r\nX: b\r\n c"), 400)
    refused(scripted, head(b"Host: a\r\nX: b\r\n\tc"), 400)
    refused(scripted, head(b" Host: a"), 400)


def test_a_space_before_the_colon_is_refused(scripted):
    refused(scripted, head(b"Host : a"), 400)
    refused(scripted, head(b"Host: a\r\nX\t: b"), 400)
    refused(scripted, body(b"Content-Length : 2", b"{}"), 400)


def test_a_header_without_a_proper_name_is_refused(scripted):
    for line in (b": b", b"X", b"X Y: b", b"X(Y): b", b"\x80: b", b"X\x00: b"):
        refused(scripted, head(b"Host: a\r\n" + line), 400)


def test_a_bare_line_feed_is_refused(scripted):
    refused(scripted, b"GET /version HTTP/1.1\nHost: a\r\n\r\n", 400)
    refused(scripted, b"GET /version HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400)
    refused(scripted, b"GET /version HTTP/1.1\r\nHost: a\r\n\n", 400)


def test_a_bare_carriage_return_is_refused(scripted):
    refused(scripted, b"GET /version HTTP/1.1\rHost: a\r\n\r\n", 400)
    refused(scripted, b"GET /version HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", 400)
    refused(scripted, b"GET /version HTTP/1.1\r\nHost: a\r\r\n\r\n", 400)


def test_a_nul_or_another_control_character_is_refused(scripted):
    for byte in (0x00, 0x01, 0x0B, 0x1F, 0x7F):
        refused(scripted, head(b"Host: a\r\nX: b%cc" % byte), 400)
        refused(scripted, b"GET /%c HTTP/1.1\r\nHost: a\r\n\r\n" % byte, 400)


def test_exactly_one_host_is_asked_for(scripted):
    refused(scripted, b"GET /version HTTP/1.1\r\n\r\n", 400)
    refused(scripted, head(b"Host: a\r\nHost: a"), 400)
    refused(scripted, head(b"Host: a\r\nX: y\r\nhost: b"), 400)
    for host in (b"a b", b"a, b", b"a/b", b"a@b", b"a?b"):
        refused(scripted, head(b"Host: " + host), 400)


def test_a_request_line_of_another_shape_is_refused(scripted):
    for line in (b"GET  /version HTTP/1.1", b"GET /version HTTP/1.1 ", b"GET /version", b"GET /a b HTTP/1.1", b"GET HTTP/1.1",
                 b"GET /version#x HTTP/1.1", b"GET version HTTP/1.1", b"get /version HTTP/1.1", b"GET * HTTP/1.1",
                 b"G\x80T /version HTTP/1.1", b"GET /version http/1.1", b"GET /version HTTP/1.10"):
        refused(scripted, head(b"Host: a", line), 400)


def test_other_versions_of_http_are_refused_by_name(scripted):
    refused(scripted, head(b"Host: a", b"GET /version HTTP/2.0"), 505)
    refused(scripted, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505)


def test_a_proxy_is_not_played(scripted):
    refused(scripted, head(b"Host: a", b"CONNECT a:80 HTTP/1.1"), 501)
    with dial(scripted) as connection:  # the absolute form is this server's own path, whatever host it names
        connection.sendall(head(b"Host: a", b"GET http://example.org/version HTTP/1.1"))
        assert read_answer(connection)[0] == 200


def test_an_upgrade_is_answered_as_if_it_had_not_been_offered(scripted):
    with dial(scripted) as connection:
        connection.sendall(head(b"Host: a\r\nConnection: Upgrade\r\nUpgrade: h2c, websocket") + GET)
        status, _, _, rest = read_answer(connection)
        assert status == 200 and read_answer(connection, rest)[0] == 200


def test_empty_lines_before_a_request_are_passed_over(scripted):
    with dial(scripted) as connection:
        connection.sendall(b"\r\n\r\n" + GET)
        assert read_answer(connection)[0] == 200


# ---- limits ----

def test_a_request_line_that_is_too_long_is_answered_414(scripted):
    refused(scripted, head(b"Host: a", b"GET /" + b"a" * 9000 + b" HTTP/1.1"), 414)
    assert talk(scripted, b"GET /" + b"a" * 9000).startswith(b"HTTP/1.1 414 ")  # before its end has come


def test_too_many_headers_or_bytes_of_them_are_answered_431(scripted):
    refused(scripted, head(b"Host: a\r\n" + b"X: y\r\n" * 128 + b"X: y"), 431)
    refused(scripted, head(b"Host: a\r\nX: " + b"y" * 80000), 431)


def test_a_hundred_headers_of_a_generated_client_pass(scripted):
    lines = b"\r\n".join(b"X-Stainless-Something-%d: a value of an ordinary length, number %d" % (i, i) for i in range(100))
    with dial(scripted) as connection:
        connection.sendall(head(b"Host: a\r\n" + lines))
        assert read_answer(connection)[0] == 200


def test_a_body_over_the_limit_is_answered_413_before_it_is_sent(hasty):
    refused(hasty, body(b"Expect: 100-continue\r\nContent-Length: 65537", b""), 413)
    refused(hasty, CHUNKED + b"10001\r\n", 413)
    refused(hasty, CHUNKED + (b"8000\r\n" + b" " * 0x8000 + b"\r\n") * 3, 413)


def test_a_refusal_reaches_a_client_that_is_still_sending(hasty):
    with dial(hasty) as connection:
        connection.sendall(body(b"Content-Length: 3000000", b""))
        try:
            for _ in range(30):
                connection.sendall(b"x" * 100000)
        except OSError:
            pass
        assert read_to_end(connection).startswith(b"HTTP/1.1 413 ")


def test_a_connection_has_a_bound_on_its_requests(hasty):
    answers = talk(hasty, GET * 5)
    assert answers.count(b"HTTP/1.1 200 ") == 3 and answers.count(b"Connection: close") == 1


# ---- the order of things ----

def test_pipelined_requests_are_answered_in_order(scripted):
    asked = post("/v1/completions", {"prompt": "I am", "max_tokens": 3}) + GET + post("/tokenize", {"prompt": "x"}) + LAST_GET
    answers = talk(scripted, asked)
    at = [answers.index(mark) for mark in (b'"text_completion"', b'"version"', b'"count"')]
    assert at == sorted(at) and answers.count(b"HTTP/1.1 200 ") == 4


def test_a_client_that_waits_for_100_continue_gets_it(scripted):
    text = b'{"prompt":"hello"}'
    with dial(scripted) as connection:
        connection.sendall(body(b"Expect: 100-Continue\r\nContent-Length: %d" % len(text), b""))
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(text)
        assert read_answer(connection)[0] == 200


def test_a_client_that_does_not_wait_gets_one_answer_all_the_same(scripted):
    text = b'{"prompt":"hello"}'
    with dial(scripted) as connection:
        connection.sendall(body(b"Expect: 100-continue\r\nContent-Length: %d" % len(text), text) + GET)
        answer = connection.recv(1 << 16).removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
        status, _, _, rest = read_answer(connection, answer)
        assert status == 200 and read_answer(connection, rest)[0] == 200


def test_an_expectation_nobody_knows_is_answered_417(scripted):
    refused(scripted, body(b"Expect: a miracle\r\nContent-Length: 2", b"{}"), 417)


def test_http_1_0_is_answered_and_closed_unless_asked_otherwise(scripted):
    answer = talk(scripted, b"GET /version HTTP/1.0\r\n\r\n" + SMUGGLED)
    assert answer.startswith(b"HTTP/1.1 200 ") and b"Connection: close\r\n" in answer and answer.count(b"HTTP/1.1 ") == 1
    with dial(scripted) as connection:
        for _ in range(2):
            connection.sendall(b"GET /version HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            status, headers, _, _ = read_answer(connection)
            assert status == 200 and headers["connection"] == "keep-alive"


# ---- time ----

def test_a_head_that_dawdles_is_answered_408(hasty):
    with dial(hasty) as connection:
        began = time.monotonic()
        connection.sendall(b"GET / HTTP/1.1\r\n")
        try:
            for i in range(100):  # a byte now and then does not buy more time
                connection.sendall(b"X")
                time.sleep(0.05)
        except OSError:
            pass
        assert time.monotonic() - began < 4
        connection.settimeout(5)
        assert connection.recv(100).startswith(b"HTTP/1.1 408 ")


def test_a_body_below_the_lowest_rate_is_answered_408_and_one_above_is_not(hasty):
    with dial(hasty) as connection:
        connection.sendall(body(b"Content-Length: 3000", b"{"))
        assert read_to_end(connection).startswith(b"HTTP/1.1 408 ")
    text = b'{"prompt":"%s"}' % (b"x" * 3000)
    with dial(hasty) as connection:
        connection.sendall(body(b"Content-Length: %d" % len(text), b""))
        for i in range(0, len(text), 200):  # 4000 bytes a second, far beyond the grace
            connection.sendall(text[i:i + 200])
            time.sleep(0.05)
        assert read_answer(connection)[0] == 200


def test_an_idle_connection_is_closed_without_a_word(hasty):
    with dial(hasty) as connection:
        assert read_to_end(connection) == b""
    with dial(hasty) as connection:
        connection.sendall(GET)
        status, _, _, rest = read_answer(connection)
        assert status == 200 and read_to_end(connection) == rest == b""


def test_a_client_that_takes_nothing_is_cut_off(hasty):
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 12)
        connection.settimeout(30)
        connection.connect(("127.0.0.1", hasty.port))
        connection.sendall(post("/v1/completions", {**LONG, "n": 60, "logprobs": 5}))  # some megabytes of answer
        time.sleep(0.2)
        hasty.wait_for_metric("penstock_http_connections", 1)  # the one that asks
        with pytest.raises(OSError):
            while connection.recv(1 << 16):
                pass
            raise ConnectionResetError  # closed in the middle is as good


# ---- the end ----

def test_draining_closes_every_connection_with_its_answer(start_daemon):
    daemon = start_daemon(model="random:llama-160m")
    streaming, asking, idle = dial(daemon), dial(daemon), dial(daemon)
    streaming.sendall(post("/v1/completions", {**LONG, "max_tokens": 20, "stream": True}))
    first = streaming.recv(1 << 16)
    asking.sendall(post("/v1/completions", LONG)[:-1])  # a request that is still on its way
    daemon.wait_for_metric("penstock_requests_running", 1)
    daemon.process.terminate()
    assert read_to_end(idle) == b""
    with pytest.raises(OSError):
        dial(daemon)
    asking.sendall(b"}")
    status, headers, answer, _ = read_answer(asking)
    assert status == 503 and json.loads(answer)["error"]["code"] == "draining" and headers["connection"] == "close"
    assert 0 < int(headers["retry-after"]) < 120 and headers["x-should-retry"] == "true"
    assert read_to_end(asking) == b""
    assert (first + read_to_end(streaming)).endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    assert daemon.process.wait(30) == 0


def test_a_connection_reset_at_any_byte_of_a_request_harms_nobody(scripted):
    data = post("/v1/completions", {"prompt": "I am", "max_tokens": 3, "stream": True})
    for n in range(0, len(data) + 1, 7):
        connection = dial(scripted)
        connection.sendall(data[:n])
        reset(connection)
    scripted.wait_for_metric("penstock_http_connections", 1)
    scripted.wait_for_metric("penstock_exchanges", 0)
    assert talk(scripted, LAST_GET).startswith(b"HTTP/1.1 200 ")

"""Clients that leave: noticed by the loop and not at the next write, gone within one step from wherever their request is, and
nothing of them is left. The sim device takes the time a machine would, so that each state lasts as long as a test needs."""
import contextlib
import heapq
import json
import os
import pathlib
import random
import re
import socket
import time

import pytest

from wire import dial, post, read_until, reset

CLIENTS = 2000  # of each of the two crowds below
AT_ONCE = 64
AT_REST = {"penstock_requests_running": 0, "penstock_requests_waiting": 0, "penstock_waiting_tokens": 0, "penstock_exchanges": 0,
           "penstock_frames_used": 0, "penstock_http_connections": 1}  # the connection that asks
GROWTH_MAX_KB = 4096

SHORT = {"prompt": [1, 2, 3], "max_tokens": 1500, "ignore_eos": True}
LONG = {"prompt": [7] * 20000, "max_tokens": 10}  # minutes of prefill


@pytest.fixture(scope="module")
def modelled(start_daemon):
    """An 8B model on two modelled cores: a decode step takes 0.3 s, a long prompt minutes. No text, only token ids. Nobody is
    turned away for the wait ahead of him: the queue is to be full of those who leave."""
    return start_daemon("--device", "sim", "--sim-hardware", "cpu", "--running-max", 4, "--max-model-len", 32768,
                        "--write-buffer-max", "256K", "--queue-wait-max", "0s", model="random:llama-3.1-8b")


@pytest.fixture(scope="module")
def quick(start_daemon, standin):
    """A small model with a tokenizer, on the CPU; bodies over 2K go to a worker."""
    return start_daemon("--running-max", 8, "--waiting-max", 16, "--worker-body", "2K", "--kv-cache-memory", "8M", model=standin)


def metrics(daemon):
    """name -> sum over its labels, and pages by state"""
    found = {}
    for name, labels, value in re.findall(r"^(penstock_\w+)({[^}]*})? (\S+)$", daemon.get("/metrics"), re.M):
        found[name] = found.get(name, 0) + float(value)
        if name == "penstock_kv_pages":
            found[re.search('state="(.*?)"', labels)[1]] = float(value)
    return found


def wait_until(daemon, condition, what, seconds=30):
    end = time.monotonic() + seconds
    while not condition(m := metrics(daemon)):
        assert time.monotonic() < end, f"{what}: not within {seconds} s: {m}"
        time.sleep(0.01)
    return m


def nothing_is_left(daemon):
    m = wait_until(daemon, lambda m: all(m[name] == value for name, value in AT_REST.items()), "nothing is left")
    assert m["held"] == 0 and m["free"] + m["cached"] == m["penstock_kv_pages"], m
    return m


LEAVE = {"closes": lambda c: c.close(), "closes its side": lambda c: c.shutdown(socket.SHUT_WR), "resets": reset}


@pytest.mark.parametrize("how", LEAVE)
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_while_tokens_are_drawn_is_gone_within_a_step(modelled, stream, how):
    connection = dial(modelled)
    connection.sendall(post("/v1/completions", {**SHORT, "stream": stream}))
    before = wait_until(modelled, lambda m: m["penstock_requests_running"] == 1, "it runs")
    LEAVE[how](connection)
    m = wait_until(modelled, lambda m: m["penstock_requests_running"] == 0, "it is gone", seconds=5)
    assert m["penstock_clients_gone_total"] == before["penstock_clients_gone_total"] + 1
    nothing_is_left(modelled)
    connection.close()


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_in_the_middle_of_a_long_prompt_stops_it(modelled, stream):
    connection = dial(modelled)
    connection.sendall(post("/v1/completions", {**LONG, "stream": stream}))
    wait_until(modelled, lambda m: m["penstock_requests_running"] == 1, "it runs")
    time.sleep(0.3)
    reset(connection)
    wait_until(modelled, lambda m: m["penstock_requests_running"] == 0, "it is gone", seconds=5)
    nothing_is_left(modelled)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_the_queue_is_out_of_it_while_the_others_go_on(modelled, stream):
    with contextlib.ExitStack() as stack:
        runs = [stack.enter_context(dial(modelled)) for _ in range(4)]
        for i, connection in enumerate(runs):
            connection.sendall(post("/v1/completions", {**SHORT, "prompt": [i + 1] * 3, "stream": True}))
        for connection in runs:
            assert b"data: {" in read_until(connection, b"data: {")  # all decode: steps are short from here on
        waits = dial(modelled)
        waits.sendall(post("/v1/completions", {**SHORT, "stream": stream}))
        wait_until(modelled, lambda m: m["penstock_requests_waiting"] == 1, "it waits")
        reset(waits)
        m = wait_until(modelled, lambda m: m["penstock_requests_waiting"] == 0, "it is gone", seconds=5)
        assert m["penstock_requests_running"] == 4
    nothing_is_left(modelled)


def test_a_client_that_leaves_while_its_text_is_tokenized_is_never_queued(quick):
    text = " ".join(random.Random(1).choices(["water", "gate", "pipe", "turbine", "q\u00e9", "\u6c34"], k=400000))
    before = nothing_is_left(quick)
    connection = dial(quick)
    connection.sendall(post("/v1/completions", {"prompt": text}))
    wait_until(quick, lambda m: m["penstock_exchanges"] == 1, "a worker has it")
    reset(connection)
    wait_until(quick, lambda m: m["penstock_clients_gone_total"] == before["penstock_clients_gone_total"] + 1, "it is noticed", 2)
    after = nothing_is_left(quick)
    assert after["penstock_requests_accepted_total"] == before["penstock_requests_accepted_total"]


def test_a_client_that_leaves_what_it_was_sent_unread_is_gone_too(quick):
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 12)
        connection.connect(("127.0.0.1", quick.port))
        connection.sendall(post("/v1/completions", {"prompt": "I am", "n": 8, "max_tokens": 900, "ignore_eos": True, "stream": True}))
        wait_until(quick, lambda m: m["penstock_requests_running"] > 0, "it runs")
        time.sleep(0.1)
    nothing_is_left(quick)


def test_a_stream_that_nobody_reads_is_cut_off_within_its_bound(start_daemon, standin):
    daemon = start_daemon("--write-buffer-max", "64K", model=standin)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 12)
        connection.connect(("127.0.0.1", daemon.port))
        connection.sendall(post("/v1/completions", {"prompt": "I am", "n": 64, "max_tokens": 900, "ignore_eos": True, "stream": True,
                                                    "logprobs": 5}))
        wait_until(daemon, lambda m: m["penstock_readers_too_slow_total"] == 1, "it is cut off")
        nothing_is_left(daemon)


# ---- crowds ----

def memory_at_rest_kb(pid):
    """Once the daemon, being idle, has given back what it could."""
    time.sleep(3)
    return int(re.search(r"RssAnon:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())[1])


def descriptors(daemon):
    """How many are open once no connection is."""
    for _ in range(100):
        time.sleep(0.02)
        links = [os.readlink(link) for link in pathlib.Path(f"/proc/{daemon.pid}/fd").iterdir() if link.is_symlink()]
        if sum(link.startswith("socket:") for link in links) == 1:  # the one that is listened on
            return len(links)
    raise AssertionError(f"sockets are left: {links}")


def leave(connection, dice):
    if dice.random() < 0.3:
        connection.setblocking(False)
        try:
            connection.recv(dice.choice([1, 500, 1 << 16]))
        except OSError:
            pass
    if dice.random() < 0.1:
        try:
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass
    (connection.close if dice.random() < 0.5 else lambda: reset(connection))()


def crowd(daemon, requests, clients, seed, seconds_max):
    """That many clients, some dozens at a time, each with a request or the beginning of one, each killed after a random while.
    Returns the states that were seen meanwhile."""
    dice, leaving, seen = random.Random(seed), [], {"running": 0, "waiting": 0}
    for i in range(clients):
        data = dice.choice(requests)
        cut = dice.choice([0, 10, len(data) - 1] + [len(data)] * 9)
        connection = dial(daemon)
        try:
            connection.sendall(data[:cut] + (data if cut == len(data) and dice.random() < 0.1 else b""))  # or pipelined
        except OSError:
            pass  # refused before it was read
        heapq.heappush(leaving, (time.monotonic() + dice.choice([0, 0.001, 0.01, 0.05, seconds_max * dice.random()]), i, connection))
        while leaving and (len(leaving) >= AT_ONCE or leaving[0][0] < time.monotonic()):
            leave(heapq.heappop(leaving)[2], dice)
        if i % 100 == 99:
            health = json.loads(daemon.get("/health"))
            seen = {state: max(most, health[state]) for state, most in seen.items()}
    while leaving:
        leave(heapq.heappop(leaving)[2], dice)
    return seen


def comes_back_to_where_it_was(daemon, bodies, seconds_max):
    requests = [post("/v1/completions", body) for body in bodies]
    crowd(daemon, requests, CLIENTS // 4, 1, seconds_max)  # what is taken once is taken
    before, files, memory = nothing_is_left(daemon), descriptors(daemon), memory_at_rest_kb(daemon.pid)
    seen = crowd(daemon, requests, CLIENTS, 2, seconds_max)
    after = nothing_is_left(daemon)
    assert descriptors(daemon) == files
    assert memory_at_rest_kb(daemon.pid) - memory < GROWTH_MAX_KB
    gone = after["penstock_clients_gone_total"] - before["penstock_clients_gone_total"]
    assert gone > CLIENTS / 10  # the others were answered first, many of them by a full queue
    assert after["penstock_requests_finished_total"] >= after["penstock_requests_accepted_total"] - 1  # the self-test
    accepted = after["penstock_http_connections_accepted_total"] - before["penstock_http_connections_accepted_total"]
    assert CLIENTS < accepted < CLIENTS * 1.5  # every one of them, and those that asked for metrics
    assert seen["running"] > 0 and seen["waiting"] > 0, seen


def test_thousands_killed_in_the_queue_in_prefill_and_in_decode_leave_nothing_behind(modelled):
    comes_back_to_where_it_was(modelled, [SHORT, {**SHORT, "stream": True}, {**SHORT, "stream": True, "n": 3}, LONG,
                                          {**LONG, "stream": True}, {"prompt": [9] * 300, "max_tokens": 1},
                                          {"prompt": [3] * 40000}], 0.15)


def test_thousands_killed_while_text_is_tokenized_drawn_and_written_leave_nothing_behind(quick):
    text = " ".join(random.Random(3).choices(["water", "gate", "pipe"], k=1000))
    comes_back_to_where_it_was(quick, [{"prompt": text, "stream": True}, {"prompt": text * 30},
                                       {"prompt": "I am", "max_tokens": 900, "ignore_eos": True},
                                       {"prompt": "I am", "max_tokens": 900, "ignore_eos": True, "stream": True},
                                       {"prompt": "I am", "max_tokens": 500, "ignore_eos": True, "stream": True, "n": 5,
                                        "logprobs": 5},
                                       {"prompt": "I am", "temperature": 9}], 0.05)

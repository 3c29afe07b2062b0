"""Where the daemon listens, and how many may come."""
import json
import os
import pathlib
import re
import resource
import signal
import socket
import subprocess
import time

import pytest

from conftest import BINARY, ROOT
from wire import GET, dial, read_answer, read_to_end, reset, talk


@pytest.fixture
def by_path(start_daemon, standin, tmp_path):
    """A daemon on a socket in the file system: .path"""
    daemon = start_daemon("--host", f"unix:{tmp_path}/api.sock", model=standin)
    daemon.path = tmp_path / "api.sock"
    return daemon


def serve(*arguments):
    """Runs `penstock serve` to its end, which is expected soon."""
    return subprocess.run([BINARY, "serve", "--model", ROOT / "build/standin", *map(str, arguments)], cwd=ROOT, timeout=30,
                          capture_output=True, text=True)


def test_a_path_is_listened_on_and_removed_at_the_end(by_path):
    assert by_path.url == f"unix:{by_path.path}"
    with dial(by_path) as connection:
        connection.sendall(GET)
        assert read_answer(connection)[0] == 200
    assert by_path.path.stat().st_mode & 0o777 == 0o666
    assert by_path.stop() == 0 and not by_path.path.exists()


def test_the_path_of_a_daemon_that_was_killed_is_taken_over(start_daemon, by_path, standin):
    by_path.stop(signal.SIGKILL)
    assert by_path.path.is_socket()
    after = start_daemon("--host", f"unix:{by_path.path}", model=standin)
    after.path = by_path.path
    assert talk(after, GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")).startswith(b"HTTP/1.1 200 ")


def test_a_path_in_use_or_that_is_no_socket_is_refused(by_path, tmp_path):
    refused = serve("--host", f"unix:{by_path.path}")
    assert refused.returncode == 73 and "is in use by another process" in refused.stderr
    file = tmp_path / "file"
    file.write_text("mine")
    refused = serve("--host", f"unix:{file}")
    assert refused.returncode == 73 and "is not a socket" in refused.stderr and file.read_text() == "mine"
    refused = serve("--host", "unix:" + "x" * 200)
    assert refused.returncode == 64 and "has 1 to 107 bytes, not 200" in refused.stderr


def test_an_address_or_port_that_cannot_be_had_is_one_sentence(scripted):
    refused = serve("--port", scripted.port)
    assert refused.returncode == 73 and f"cannot listen on 127.0.0.1 port {scripted.port}" in refused.stderr
    refused = serve("--host", "not an address")
    assert refused.returncode == 73 and "the address 'not an address' cannot be used" in refused.stderr


def told_to_go_away(daemon, status):
    answer = talk(daemon, GET)  # sent although it will not be read: the answer must arrive all the same
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:100]
    head, body = answer.split(b"\r\n\r\n", 1)
    assert b"\r\nRetry-After: 1\r\n" in head and b"\r\nConnection: close" in head
    assert json.loads(body)["error"]["code"] == "too_many_connections"


def test_one_connection_too_many_is_told_so(start_daemon, standin):
    daemon = start_daemon("--connections-max", 20, model=standin)
    held = [dial(daemon) for _ in range(20)]
    told_to_go_away(daemon, 503)
    held[0].sendall(GET)
    assert read_answer(held[0])[0] == 200
    held.pop().close()
    daemon.wait_for_metric("penstock_http_connections", 20)  # the one that asks takes the place
    for connection in held:
        connection.close()


def test_one_connection_too_many_from_one_address_is_told_so(start_daemon, standin):
    daemon = start_daemon("--connections-per-address", 5, "--connections-max", 100, model=standin)
    held = [dial(daemon) for _ in range(5)]
    told_to_go_away(daemon, 429)
    with socket.create_connection(("127.0.0.1", daemon.port), source_address=("127.0.0.2", 0)) as other:
        other.sendall(GET)
        assert read_answer(other)[0] == 200
    for _ in range(3):  # each that leaves makes room for one
        reset(held.pop())
        for _ in range(100):
            held.append(dial(daemon))
            held[-1].sendall(GET)
            if read_answer(held[-1])[0] == 200:
                break
            held.pop().close()
            time.sleep(0.01)
        else:
            raise AssertionError("no room was made")
    for connection in held:
        connection.close()


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_with_few_descriptors_the_daemon_says_so_turns_clients_away_and_stays_calm(start_daemon, standin):
    daemon = start_daemon(model=standin, descriptors=240)
    assert "only 240 descriptors may be open" in daemon.log
    first, crowd = dial(daemon), []
    for _ in range(200):
        crowd.append(dial(daemon))
    began = cpu_seconds(daemon.pid)
    time.sleep(0.5)
    assert cpu_seconds(daemon.pid) - began < 0.2  # it does not spin over what it cannot accept
    first.sendall(GET)
    assert read_answer(first)[0] == 200
    for connection in crowd:
        connection.close()
    daemon.wait_for_metric("penstock_http_connections", 2)
    assert daemon.metric("penstock_http_connections_refused_total") > 100
    first.close()


def test_the_scheduling_policy_that_the_operator_chose_stays(start_daemon, standin):
    """SCHED_BATCH, as it needs no privilege; the I/O thread asks for short turns only where nothing was chosen."""
    before = os.sched_getscheduler(0)
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    try:
        daemon = start_daemon(model=standin)
    finally:
        os.sched_setscheduler(0, before, os.sched_param(0))
    threads = [int(name) for name in os.listdir(f"/proc/{daemon.pid}/task")]
    assert len(threads) > 1 and {os.sched_getscheduler(thread) for thread in threads} == {os.SCHED_BATCH}


def test_at_the_descriptor_limit_newcomers_wait_and_those_who_are_in_are_served(start_daemon, standin):
    daemon = start_daemon(model=standin)
    with dial(daemon) as inside:
        inside.sendall(GET)
        assert read_answer(inside)[0] == 200
        most = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
        open_now = len(os.listdir(f"/proc/{daemon.pid}/fd"))
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (open_now, most[1]))
        began = time.monotonic()
        outside = [dial(daemon) for _ in range(5)]
        for connection in outside:
            connection.sendall(GET)

        def failures():
            inside.sendall(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
            page = read_answer(inside)[2].decode()
            return int(re.search(r"^penstock_http_accept_failures_total (\d+)", page, re.M)[1])

        while failures() < 3:
            time.sleep(0.02)
        assert failures() <= 2 + (time.monotonic() - began) / 0.1  # one in 100 ms: nothing spins
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, most)
        for connection in outside:
            assert read_answer(connection)[0] == 200
            connection.close()
    assert daemon.log.count("no connection can be accepted: Too many open files") == 1
    assert "connections are accepted again" in daemon.log


def test_a_daemon_that_cannot_accept_drains_all_the_same(start_daemon, standin):
    daemon = start_daemon(model=standin)
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (3, 3))
    with dial(daemon):
        while "no connection can be accepted" not in daemon.log:
            time.sleep(0.02)
        assert daemon.stop() == 0

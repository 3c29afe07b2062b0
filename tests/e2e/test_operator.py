"""What the operator does by signals: drain, reload, reopen the log; and what is told apart by exit statuses."""
import http.client
import json
import os
import pathlib
import re
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request

import pytest

from conftest import BINARY, ROOT
from test_keys import ALICE, BOB, ask, digest

CHAT = {"messages": [{"role": "user", "content": "Who are you?"}]}


def wait_for(what, seconds=30):
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
    return found


def reload(daemon, count=1):
    """Sends SIGHUP and returns what the log says of it."""
    before = len(daemon.log)
    daemon.process.send_signal(signal.SIGHUP)
    return wait_for(lambda: (found := re.findall(r"reload: (.*)", daemon.log[before:])) and len(found) >= count and found)


@pytest.fixture
def configured(start_daemon, standin, tmp_path):
    """A daemon with a file: write(text) puts a new one in place."""
    file = tmp_path / "penstock.conf"

    def write(text):
        file.write_text(text)

    write("[server]\nconnections-max = 100\n[log]\nlog-level = info\n")
    daemon = start_daemon("--config", file, model=standin)
    daemon.write = write
    return daemon


def test_a_reload_changes_what_can_be_changed_and_says_the_rest(configured):
    configured.write("[server]\nconnections-max = 50\nbody-max = 2M\nidle-timeout = 75000ms\n[log]\nlog-level = debug\n")
    said = reload(configured, 3)
    assert said == ["connections-max: 100 -> 50", "body-max: 16M -> 2M needs a restart", "log-level: info -> debug"]
    assert reload(configured) == ["body-max: 16M -> 2M needs a restart"]  # still so
    configured.write("[server]\nconnections-max = 50\n[log]\nlog-level = debug\n")
    assert reload(configured) == ["no setting has changed"]


def test_a_full_disk_costs_lines_of_log_which_are_counted_and_nothing_else(start_daemon, standin):
    daemon = start_daemon("--log-file", "/dev/full", model=standin)
    for _ in range(3):
        assert daemon.post("/v1/chat/completions", CHAT)["choices"]
    wait_for(lambda: daemon.metric("penstock_log_lines_dropped_total") > 0)
    assert daemon.stop() == 0


def test_a_reload_takes_effect(configured):
    configured.write("[server]\nconnections-max = 1\n")
    reload(configured)
    with urllib.request.urlopen(configured.url + "/health"):
        pass
    import socket
    first = socket.create_connection(("127.0.0.1", configured.port))
    wait_for(lambda: socket_answer(configured.port).startswith(b"HTTP/1.1 503"))
    first.close()


def socket_answer(port):
    import socket
    with socket.create_connection(("127.0.0.1", port)) as s:
        s.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        data = b""
        try:
            while piece := s.recv(65536):
                data += piece
        except ConnectionResetError:
            pass
        return data


@pytest.mark.parametrize("text, sentence", [
    ("[server]\nconnections-max = 7\nport = many\n", "port must be a whole number"),
    ("[server]\nconnections-max = 7\nnonsense = 1\n", "there is no setting nonsense"),
    ("[server]\nconnections-max = 7\napi-keys = /nonexistent/keys\n", "/nonexistent/keys"),
    ("[server\n", "expected"),
])
def test_a_bad_file_is_refused_as_a_whole(configured, text, sentence):
    configured.write(text)
    said = reload(configured)
    assert len(said) == 1 and said[0].startswith("nothing was changed: ") and sentence in said[0]
    configured.write("[server]\nconnections-max = 100\n")
    assert reload(configured) == ["no setting has changed"]


def test_the_command_line_still_wins_after_a_reload(start_daemon, standin, tmp_path):
    file = tmp_path / "penstock.conf"
    file.write_text("[server]\ndrain-timeout = 10s\n")
    daemon = start_daemon("--config", file, "--drain-timeout", "20s", model=standin)
    file.write_text("[server]\ndrain-timeout = 11s\n")
    assert reload(daemon) == ["no setting has changed"]


def test_keys_are_reloaded_and_work_in_progress_goes_on(start_daemon, standin, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text(f"alice {digest(ALICE)}\n")
    daemon = start_daemon("--served-model-name", "standin", "--api-keys", keys, model=standin)
    stream = daemon.client(api_key=ALICE).completions.create(model="standin", prompt="x", max_tokens=300, stream=True,
                                                             extra_body={"ignore_eos": True})
    next(iter(stream))
    assert ask(daemon, "/v1/models", BOB)[0] == 401
    keys.write_text(f"bob {digest(BOB)}\n")
    assert f"{keys}: 1 tenants with 1 keys" in reload(daemon, 2)
    assert ask(daemon, "/v1/models", BOB)[0] == 200
    assert ask(daemon, "/v1/models", ALICE)[0] == 401
    assert [chunk for chunk in stream][-1].choices[0].finish_reason == "length"
    keys.write_text("alice in-plain\n")
    assert "nothing was changed" in reload(daemon)[0]
    assert ask(daemon, "/v1/models", BOB)[0] == 200


def test_the_log_file_is_opened_anew(start_daemon, standin, tmp_path):
    log = tmp_path / "penstock.log"
    daemon = start_daemon("--log-file", log, "--log-format", "json", model=standin)
    assert "ready" in log.read_text() and daemon.log == ""
    log.rename(tmp_path / "old.log")
    daemon.process.send_signal(signal.SIGUSR1)
    wait_for(lambda: log.exists() and "opened anew" in log.read_text())
    ask(daemon, "/v1/chat/completions", body=CHAT)
    wait_for(lambda: "chat/completions" in log.read_text())
    assert "chat/completions" not in (tmp_path / "old.log").read_text()
    for line in log.read_text().splitlines():
        assert {"time", "level", "subsystem", "message"} <= json.loads(line).keys()
    assert log.stat().st_mode & 0o777 == 0o640


def run_with_stderr(standin, environment, stderr):
    process = subprocess.Popen([BINARY, "serve", "--model", standin, "--port", "0"], cwd=ROOT, stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=stderr, env={**os.environ, **environment}, text=True)
    process.stdout.readline()
    process.terminate()
    process.communicate(timeout=30)
    return process.returncode


def test_the_journal_gets_priorities_and_no_stamps(standin, tmp_path):
    with open(tmp_path / "journal", "w+b") as file:
        facts = os.fstat(file.fileno())
        assert run_with_stderr(standin, {"JOURNAL_STREAM": f"{facts.st_dev}:{facts.st_ino}"}, file) == 0
    lines = (tmp_path / "journal").read_text().splitlines()
    assert lines and all(re.match(r"<[346]>\w+: ", line) for line in lines), lines


def test_what_is_not_the_journal_gets_stamps(standin, tmp_path):
    with open(tmp_path / "file", "w+b") as file:
        assert run_with_stderr(standin, {"JOURNAL_STREAM": "1:2"}, file) == 0
    assert all(re.match(r"\d{4}-\d\d-\d\dT[\d:.]+Z ", line) for line in (tmp_path / "file").read_text().splitlines())


def test_a_line_break_of_a_client_begins_no_line_of_the_log(start_daemon, standin):
    daemon = start_daemon(model=standin)
    ask(daemon, "/v1/chat/completions", body={**CHAT, "model": "x\n2026-01-01T00:00:00.000Z error server: the sky falls"})
    wait_for(lambda: "x\\x0a2026" in daemon.log)
    assert not re.search("^2026-01-01T00:00:00", daemon.log, re.M)


def start_stream(daemon, tokens):
    """A thread that streams; returns it, an event that says that it began, and what it found."""
    began, found = threading.Event(), {}

    def run():
        request = urllib.request.Request(daemon.url + "/v1/completions", json.dumps(
            {"prompt": "x", "max_tokens": tokens, "stream": True, "ignore_eos": True}).encode(), {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                first = answer.readline()
                began.set()
                found["text"] = (first + answer.read()).decode()
        except (OSError, urllib.error.URLError) as trouble:
            found["trouble"] = trouble

    thread = threading.Thread(target=run)
    thread.start()
    return thread, began, found


def test_sigterm_lets_a_stream_finish(start_daemon, standin):
    daemon = start_daemon(model=standin)
    thread, began, found = start_stream(daemon, 400)
    assert began.wait(30)
    assert daemon.stop() == 0
    thread.join()
    assert found["text"].rstrip().endswith("data: [DONE]")
    assert "draining, asked by SIGTERM: 1 requests may finish within 30 s" in daemon.log


def test_the_drain_is_bounded(start_daemon):
    daemon = start_daemon("--drain-timeout", "100ms", "--device", "sim", model="random:llama-160m")
    request = {"prompt": [1, 2, 3], "max_tokens": 2000, "stream": True, "ignore_eos": True}
    found = {}

    def run():
        call = urllib.request.Request(daemon.url + "/v1/completions", json.dumps(request).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(call, timeout=60) as answer:
            found["first"] = answer.readline()
            try:
                found["rest"] = answer.read()
            except http.client.IncompleteRead as cut:
                found["rest"] = cut.partial

    thread = threading.Thread(target=run)
    thread.start()
    wait_for(lambda: "first" in found)
    begin = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - begin < 5
    thread.join(30)
    assert b"[DONE]" not in found.get("rest", b"")
    assert "1 requests are cut off" in daemon.log


def test_a_second_sigterm_ends_at_once(start_daemon):
    daemon = start_daemon("--device", "sim", model="random:llama-160m")
    daemon.ends_with = 143
    request = {"prompt": [1, 2, 3], "max_tokens": 2000, "stream": True, "ignore_eos": True}
    call = urllib.request.Request(daemon.url + "/v1/completions", json.dumps(request).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(call, timeout=60) as answer:
        answer.readline()
        daemon.process.send_signal(signal.SIGTERM)
        wait_for(lambda: "draining" in daemon.log)
        assert daemon.stop() == 143


def test_exit_statuses_are_in_the_documentation(penstock):
    page = (ROOT / "docs/configuration.md").read_text()
    table = dict(re.findall(r"^\| (\d+) \| (.*) \|$", page[page.index("## Exit statuses"):], re.M))
    header = pathlib.Path(ROOT / "base/error.h").read_text()
    assert {status for status in re.findall(r"X\(\w+, (\d+),", header)} <= table.keys()
    assert "configuration" in table["78"] and "address" in table["73"]

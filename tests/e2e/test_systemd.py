"""What a service manager sees, played by this file: notifications, the watchdog, sockets that were bound before, restarts."""
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest

from conftest import BINARY, ROOT

READY_SECONDS_MAX = 60


class Manager:
    """Starts daemons as systemd would: messages() are what they notified, in order."""

    def __init__(self, folder, abstract=False):
        self.name = f"@penstock-test-{os.getpid()}-{id(self)}" if abstract else str(folder / "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + self.name[1:] if abstract else self.name)
        self.socket.settimeout(READY_SECONDS_MAX)
        self.folder, self.heard, self.processes = folder, [], []

    def start(self, *arguments, environment=None, listen=()):
        """`listen`: (socket, name) pairs that the daemon finds from descriptor 3 on."""
        variables = {**os.environ, "NOTIFY_SOCKET": self.name, **(environment or {})}
        script = 'exec "$@"'
        if listen:
            variables.update(LISTEN_FDS=str(len(listen)), LISTEN_FDNAMES=":".join(name for _, name in listen))
            script = 'export LISTEN_PID=$$; exec "$@"'

        def place():
            moved = [os.dup(s.fileno()) for s, _ in listen]  # out of the way of 3, 4, ...
            for i, fd in enumerate(os.dup2(fd, 100 + i) for i, fd in enumerate(moved)):
                os.dup2(fd, 3 + i)

        with open(self.folder / "log", "ab") as log:
            process = subprocess.Popen(["sh", "-c", script, "sh", str(BINARY), "serve", *map(str, arguments)], cwd=ROOT,
                                       env=variables, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=place,
                                       pass_fds=range(3, 3 + len(listen)))
        self.processes.append(process)
        return process

    def wait_for(self, pattern):
        """The first message from now on that matches; messages before it are kept in .heard."""
        while True:
            message = self.socket.recv(65536).decode()
            self.heard.append(message)
            if re.search(pattern, message, re.M):
                return message

    def log(self):
        return (self.folder / "log").read_text()

    def end(self):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()
        self.socket.close()


@pytest.fixture
def manager(tmp_path):
    m = Manager(tmp_path)
    yield m
    m.end()


def listening():
    s = socket.socket()
    s.bind(("127.0.0.1", 0))
    s.listen(128)
    return s


def get(address, path="/health", family=socket.AF_INET):
    with socket.socket(family) as s:
        s.settimeout(60)
        s.connect(address)
        s.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while piece := s.recv(65536):
            answer += piece
        return answer


def test_ready_reloading_and_stopping_are_told(manager, standin):
    daemon = manager.start("--model", standin, "--port", 0)
    manager.wait_for("^READY=1$")
    assert "ready:" not in "".join(manager.heard)
    assert re.search(r"serving standin: 0 running, 0 waiting", manager.wait_for("^STATUS="))
    before = time.monotonic_ns() // 1000
    daemon.send_signal(signal.SIGHUP)
    reloading = manager.wait_for("^RELOADING=1$")
    stamp = int(re.search(r"^MONOTONIC_USEC=(\d+)$", reloading, re.M)[1])
    assert before <= stamp <= time.monotonic_ns() // 1000
    manager.wait_for("^READY=1$")
    daemon.terminate()
    manager.wait_for("^STOPPING=1$")
    assert daemon.wait(30) == 0


def test_a_name_without_a_file_is_notified_as_well(tmp_path, standin):
    m = Manager(tmp_path, abstract=True)
    m.start("--model", standin, "--port", 0)
    m.wait_for("^READY=1$")
    m.end()


def test_ready_is_said_after_a_step_of_the_engine(manager, standin):
    s = listening()
    manager.start("--model", standin, listen=[(s, "http")])
    manager.wait_for("^READY=1$")
    metrics = get(s.getsockname(), "/metrics").decode()
    assert float(re.search(r"^penstock_passes_total\S* (\S+)$", metrics, re.M)[1]) >= 2
    s.close()


def test_a_model_that_cannot_be_loaded_is_never_ready(manager, tmp_path):
    assert manager.start("--model", tmp_path / "nothing", "--port", 0).wait(30) == 66
    manager.socket.settimeout(0.1)
    with pytest.raises(TimeoutError):
        manager.wait_for("READY=1")


def test_loading_is_told_in_percent_and_asks_for_patience(manager):
    manager.start("--model", "random:llama-160m", "--port", 0, "--threads", 1)
    message = manager.wait_for(r"^STATUS=.* \d+ %$")
    assert re.search(r"^EXTEND_TIMEOUT_USEC=60000000$", message, re.M)


def test_the_watchdog_is_fed_while_there_is_progress_or_nothing_to_do(manager, standin):
    manager.start("--model", standin, "--port", 0, environment={"WATCHDOG_USEC": "1200000"})
    manager.wait_for("^READY=1$")
    times = []
    for _ in range(3):
        manager.wait_for("^WATCHDOG=1$")
        times.append(time.monotonic())
    assert times[2] - times[0] < 1.2


SIM = ["--model", "random:llama-160m", "--device", "sim"]


def test_a_device_that_fails_the_self_test_is_never_ready(manager):
    daemon = manager.start(*SIM, "--port", 0, environment={"PENSTOCK_FAULT": "fail@1"})
    assert daemon.wait(30) == 70
    manager.socket.settimeout(0.1)
    with pytest.raises(TimeoutError):
        manager.wait_for("READY=1")
    assert "the self-test failed" in manager.log()


def test_the_watchdog_starves_when_the_engine_stands_still_though_the_loop_turns(manager):
    s = listening()
    manager.start(*SIM, "--stall-timeout", "0.5s", listen=[(s, "http")],
                  environment={"PENSTOCK_FAULT": "freeze@5", "WATCHDOG_USEC": "1200000"})
    manager.wait_for("^READY=1$")
    manager.wait_for("^WATCHDOG=1$")
    client = socket.create_connection(s.getsockname())
    body = b'{"prompt":[1,2,3],"max_tokens":50,"ignore_eos":true}'
    client.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    while get(s.getsockname(), "/live").startswith(b"HTTP/1.1 200"):  # which fails first
        time.sleep(0.05)
    manager.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            manager.socket.recv(65536)
    end = time.monotonic() + 1.5
    manager.socket.settimeout(0.1)
    while time.monotonic() < end:
        assert get(s.getsockname(), "/version").startswith(b"HTTP/1.1 200")  # the loop turns
        try:
            assert "WATCHDOG=1" not in manager.socket.recv(65536).decode()
        except TimeoutError:
            pass
    client.close()


def test_the_watchdog_of_another_process_is_not_fed(manager, standin):
    manager.start("--model", standin, "--port", 0, environment={"WATCHDOG_USEC": "400000", "WATCHDOG_PID": "1"})
    manager.wait_for("^READY=1$")
    manager.socket.settimeout(1)
    with pytest.raises(TimeoutError):
        manager.wait_for("WATCHDOG")


def test_sockets_that_are_given_are_served(manager, standin, tmp_path):
    http, more = listening(), listening()
    path = socket.socket(socket.AF_UNIX)
    path.bind(str(tmp_path / "http.sock"))
    path.listen(16)
    manager.start("--model", standin, "--port", 1, listen=[(http, "http"), (more, "http"), (path, "local")])
    manager.wait_for("^READY=1$")
    assert get(http.getsockname()).startswith(b"HTTP/1.1 200")
    assert get(more.getsockname()).startswith(b"HTTP/1.1 200")
    assert get(str(tmp_path / "http.sock"), family=socket.AF_UNIX).startswith(b"HTTP/1.1 200")
    assert f"127.0.0.1:{http.getsockname()[1]}" in manager.log()


def test_a_given_socket_that_the_world_reaches_needs_keys(manager, standin):
    s = socket.socket()
    s.bind(("0.0.0.0", 0))
    s.listen(8)
    assert manager.start("--model", standin, listen=[(s, "http")]).wait(30) == 78
    assert "--public-without-keys" in manager.log()


def test_a_restart_under_load_refuses_nobody(manager, standin):
    """As `systemctl restart` with the socket unit: the socket stays, one daemon drains, the next takes over."""
    s = listening()
    address, over, bad, good = s.getsockname(), threading.Event(), [], [0]

    def client():
        while not over.is_set():
            try:
                answer = get(address)
                if answer.startswith((b"HTTP/1.1 200", b"HTTP/1.1 503")):  # 503: loading, draining: an answer
                    good[0] += 1
                else:
                    bad.append(answer)
            except OSError as trouble:
                bad.append(trouble)

    first = manager.start("--model", standin, listen=[(s, "http")])
    manager.wait_for("^READY=1$")
    clients = [threading.Thread(target=client) for _ in range(4)]
    for thread in clients:
        thread.start()
    for _ in range(3):
        time.sleep(0.2)
        first.terminate()
        assert first.wait(60) == 0
        time.sleep(0.1)  # nobody listens, and still nobody is refused
        first = manager.start("--model", standin, listen=[(s, "http")])
        manager.wait_for("^READY=1$")
    over.set()
    for thread in clients:
        thread.join()
    assert not bad and good[0] > 20, (bad[:3], good)


@pytest.mark.skipif(not shutil.which("systemd-socket-activate"), reason="systemd-socket-activate is not installed")
def test_systemds_own_tool_activates_the_daemon(standin, tmp_path):
    with listening() as s:
        port = s.getsockname()[1]
    with open(tmp_path / "log", "wb") as log:
        tool = subprocess.Popen(["systemd-socket-activate", "-l", f"127.0.0.1:{port}", BINARY, "serve", "--model", standin], cwd=ROOT,
                                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        end = time.monotonic() + 30
        while True:
            try:
                if get(("127.0.0.1", port)).startswith(b"HTTP/1.1 200"):
                    break
                assert time.monotonic() < end
            except ConnectionRefusedError:
                assert time.monotonic() < end
                time.sleep(0.05)
    finally:
        tool.terminate()
        tool.wait(30)

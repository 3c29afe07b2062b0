"""Daemons to test against. PENSTOCK_BIN names the program (build/penstock); it is started on a port the kernel picks."""
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

import openai
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(os.environ.get("PENSTOCK_BIN", ROOT / "build/penstock")).resolve()
START_SECONDS_MAX = 60


class Daemon:
    """A running `penstock serve`: .url .port .model .log (standard error so far) .process .ends_with (the status it should)"""

    ends_with = 0

    def __init__(self, arguments, folder, descriptors=None, program=BINARY):
        def limit_descriptors():
            resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))

        self.stdout_path, self.log_path = folder / "stdout", folder / "stderr"
        with open(self.stdout_path, "wb") as out, open(self.log_path, "wb") as err:
            self.process = subprocess.Popen([program, "serve", *map(str, arguments)], cwd=ROOT, stdin=subprocess.DEVNULL,
                                            stdout=out, stderr=err, preexec_fn=descriptors and limit_descriptors)
        try:
            self.model, self.url = self._wait_until_ready()
        except BaseException:
            self.process.kill()
            raise
        self.port = int(self.url.rsplit(":", 1)[1]) if self.url.startswith("http") else None

    def _wait_until_ready(self):
        end = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < end:
            ready = re.search(r'^Penstock serves (".*") at (\S+)$', self.stdout_path.read_text(), re.M)
            if ready:
                return json.loads(ready[1]), ready[2]
            assert self.process.poll() is None, f"the daemon ended with {self.process.returncode}:\n{self.log}"
            time.sleep(0.01)
        raise AssertionError(f"the daemon was not ready within {START_SECONDS_MAX} s:\n{self.log}")

    @property
    def log(self):
        return self.log_path.read_text(errors="replace")

    @property
    def pid(self):
        return self.process.pid

    def client(self, **settings):
        return openai.OpenAI(base_url=self.url + "/v1", **{"api_key": "none", "max_retries": 0, "timeout": 120, **settings})

    def get(self, path):
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            return answer.read().decode()

    def post(self, path, body):
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)

    def metric(self, name):
        """The sum of a metric's samples on /metrics, e.g. "penstock_requests_running"."""
        lines = re.findall(rf"^{re.escape(name)}(?:{{[^}}]*}})? (\S+)$", self.get("/metrics"), re.M)
        assert lines, f"/metrics has no {name}"
        return sum(map(float, lines))

    def wait_for_metric(self, name, wanted, seconds=30):
        end = time.monotonic() + seconds
        while self.metric(name) != wanted:
            assert time.monotonic() < end, f"{name} is {self.metric(name)}, not {wanted}, after {seconds} s"
            time.sleep(0.02)

    def stop(self, how=signal.SIGTERM, seconds=60):
        """Sends the signal (if it still runs) and returns the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


@pytest.fixture(scope="session")
def start_daemon():
    """Starts one more daemon: start_daemon("--running-max", 2, model="random:llama-160m"). Stopped after the last test."""
    daemons, folder = [], pathlib.Path(tempfile.mkdtemp(prefix="penstock-e2e-"))

    def start(*flags, model=ROOT / "models/embedded", descriptors=None):
        home = folder / str(len(daemons))
        home.mkdir()
        daemon = Daemon(["--model", model, "--port", 0, *flags], home, descriptors)
        daemons.append(daemon)
        return daemon

    yield start
    statuses = [(daemon.stop(), daemon.ends_with) for daemon in daemons]
    shutil.rmtree(folder)
    assert not any(status not in (wanted, -signal.SIGKILL) for status, wanted in statuses), f"daemons ended with {statuses}"


@pytest.fixture
def start_faulty(start_daemon, monkeypatch):
    """start_faulty("fail@3", flags): a daemon on the sim device that misbehaves (engine/device_faulty.c)."""

    def start(order, *flags):
        monkeypatch.setenv("PENSTOCK_FAULT", order)
        return start_daemon("--device", "sim", *flags, model="random:llama-160m")

    return start


@pytest.fixture(scope="session")
def daemon(start_daemon):
    """The daemon as a newcomer starts it, with the embedded model."""
    return start_daemon()


@pytest.fixture(scope="session")
def standin():
    """Folder of the model that only knows one sentence (models/embedded/recipe/standin.py): its answers are known."""
    folder = ROOT / "build/standin"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    subprocess.run([sys.executable, ROOT / "models/embedded/recipe/standin.py", folder], check=True, stdout=subprocess.DEVNULL)
    shutil.copy(ROOT / "models/embedded/chat_template.jinja", folder)
    return folder


@pytest.fixture(scope="session")
def scripted(start_daemon, standin):
    """A daemon whose every answer is SENTENCE."""
    return start_daemon("--served-model-name", "standin", model=standin)


SENTENCE = ("I am a stand-in for the model that will ship with Penstock; my weights hold just this one sentence, "
            "so every question gets it.")


@pytest.fixture(scope="session")
def sentence():
    return SENTENCE


@pytest.fixture(scope="session")
def penstock():
    """Runs the program to its end: penstock("plan", "--model", DIR).stdout"""

    def run(*arguments, text=None, seconds=60):
        return subprocess.run([BINARY, *map(str, arguments)], cwd=ROOT, input=text, capture_output=True, text=True,
                              timeout=seconds)

    return run

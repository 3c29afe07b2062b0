"""`make install` puts a daemon in place that works as it is, and units that systemd's own tools find sound and tight."""
import os
import re
import shutil
import subprocess

import pytest

from conftest import BINARY, ROOT, Daemon

SCORE_MAX = 20  # tenths: 2.0

needs_analyze = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")


def make(*arguments):
    """The program under test is installed as it is, not built again."""
    build = BINARY.parent.relative_to(ROOT)
    done = subprocess.run(["make", f"BUILD={build}", "PREFIX=/opt/penstock", *arguments], cwd=ROOT, capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, env={k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS")})
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    if not (BINARY.parent / "penstock-bench").exists() or "asan" in str(BINARY) or "tsan" in str(BINARY):
        pytest.skip("the release build is not here")
    folder = tmp_path_factory.mktemp("root")
    make("-o", str(BINARY.parent.relative_to(ROOT) / "penstock"), "-o", str(BINARY.parent.relative_to(ROOT) / "penstock-bench"),
         "install", f"DESTDIR={folder}")
    return folder


def files(folder):
    return {str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file()}


def test_everything_is_in_its_place(root):
    assert {"opt/penstock/bin/penstock", "opt/penstock/bin/penstock-bench", "opt/penstock/lib/systemd/system/penstock.service",
            "opt/penstock/lib/systemd/system/penstock.socket", "opt/penstock/share/doc/penstock/operations.md",
            "opt/penstock/share/doc/penstock/examples/every-setting.conf", "etc/penstock/penstock.conf", "etc/penstock/keys"} <= files(root)
    assert ("opt/penstock/lib/penstock/penstock-cuda.so" in files(root)) == (BINARY.parent / "penstock-cuda.so").exists()
    assert (root / "etc/penstock/keys").stat().st_mode & 0o777 == 0o600
    for unit in (root / "opt/penstock/lib/systemd/system").iterdir():
        assert "@" not in re.sub(r"~?@[a-z-]+", "", re.sub(r"SystemCallFilter=.*", "", unit.read_text())), unit


def test_the_installed_daemon_answers_as_the_unit_starts_it(root, tmp_path):
    """The unit's own command line, with systemd's specifiers filled in, and the daemon where it was installed."""
    unit = (root / "opt/penstock/lib/systemd/system/penstock.service").read_text()
    command = re.search(r"^ExecStart=(.*)$", unit, re.M)[1]
    assert re.search(r"^LoadCredential=keys:/etc/penstock/keys$", unit, re.M)
    (tmp_path / "credentials").mkdir(), (tmp_path / "run/penstock").mkdir(parents=True)
    shutil.copy(root / "etc/penstock/keys", tmp_path / "credentials/keys")
    program, serve, *flags = [word.replace("%d", str(tmp_path / "credentials")).replace("%t", str(tmp_path / "run"))
                              for word in command.split()]
    flags = [str(root) + flag if flag.startswith("/etc") else flag for flag in flags]
    assert serve == "serve"
    daemon = Daemon([*flags, "--port", 0], tmp_path, program=str(root) + program)
    try:
        assert daemon.model == "embedded"
        answer = daemon.client().chat.completions.create(model="embedded", max_tokens=4, messages=[{"role": "user", "content": "Hi"}])
        assert answer.choices[0].message.content
        assert (tmp_path / "run/penstock/admin.sock").stat().st_mode & 0o777 == 0o600
    finally:
        assert daemon.stop() == 0
    assert not (tmp_path / "run/penstock/admin.sock").exists()


def test_the_installed_examples_are_accepted(root):
    program = root / "opt/penstock/bin/penstock"
    for file in ("etc/penstock/penstock.conf", "opt/penstock/share/doc/penstock/examples/every-setting.conf"):
        checked = subprocess.run([program, "serve", "--config", root / file, "--check"], capture_output=True, text=True)
        assert checked.returncode == 0, checked.stderr


def test_a_second_install_keeps_the_configuration_and_uninstall_leaves_it(root, tmp_path):
    copy = tmp_path / "root"
    shutil.copytree(root, copy)
    (copy / "etc/penstock/keys").write_text("# mine\n")
    build = str(BINARY.parent.relative_to(ROOT))
    make("-o", f"{build}/penstock", "-o", f"{build}/penstock-bench", "install", f"DESTDIR={copy}")
    assert (copy / "etc/penstock/keys").read_text() == "# mine\n"
    make("uninstall", f"DESTDIR={copy}")
    assert files(copy) == {"etc/penstock/keys", "etc/penstock/penstock.conf"}


@needs_analyze
def test_systemd_finds_the_units_sound(root, tmp_path):
    units = tmp_path / "units"
    units.mkdir()
    for name in ("penstock.service", "penstock.socket"):  # where the program is now, so that it is found
        text = (root / "opt/penstock/lib/systemd/system" / name).read_text()
        (units / name).write_text(text.replace("/opt/penstock/", f"{root}/opt/penstock/"))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", *sorted(units.iterdir())], capture_output=True, text=True)
    said = [line for line in done.stderr.splitlines() if "ignoring: notify-reload" not in line]  # before systemd 253
    assert done.returncode == 0 and not said, done.stderr


@needs_analyze
def test_systemd_scores_the_service_two_or_better(root):
    unit = root / "opt/penstock/lib/systemd/system/penstock.service"
    done = subprocess.run(["systemd-analyze", "security", "--offline=yes", f"--threshold={SCORE_MAX}", unit], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"Overall exposure level for penstock.service: [01]\.\d|: 2\.0", done.stdout), done.stdout[-300:]

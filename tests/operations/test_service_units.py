"""The units of systemd: sound, hardened, and what they rely on of our processes."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from dadafs import notify

UNITS = Path(__file__).resolve().parents[2] / "dadafs/systemd"
COMMAND = (sys.executable, "-m", "dadafs.cli")
PATIENCE_S = 30.0
LARGEST_EXPOSURE = 3.0

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None,
    reason="systemd-analyze is missing: `apt install systemd` to check the units",
)


def analyzed(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"SYSTEMD_COLORS": "0", "LC_ALL": "C"}
    return subprocess.run(
        ["systemd-analyze", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


@needs_systemd
def test_units_are_sound(tmp_path: Path) -> None:
    for unit in UNITS.glob("*.service"):
        text = unit.read_text().replace("/usr/local/bin/dadafs", "/bin/true")
        (tmp_path / unit.name).write_text(text)
    files = sorted(map(str, tmp_path.glob("*.service")))
    assert len(files) == 3
    done = analyzed("verify", "--man=no", *files)
    assert (done.returncode, done.stderr) == (0, "")


@needs_systemd
@pytest.mark.parametrize("role", ["server", "peer"])
def test_what_answers_the_network_is_confined(role: str) -> None:
    done = analyzed("security", "--offline=true", "--no-pager", f"{UNITS}/dadafs-{role}.service")
    found = re.search(r"exposure level for \S+: ([\d.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[1]) <= LARGEST_EXPOSURE


@pytest.mark.skipif(shutil.which("systemd-sysusers") is None, reason="systemd-sysusers is missing")
def test_user_and_directories_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    for program, options, file in (
        ("systemd-sysusers", [], "sysusers.d/dadafs.conf"),
        ("systemd-tmpfiles", ["--create"], "tmpfiles.d/dadafs.conf"),
    ):
        done = subprocess.run(
            [program, f"--root={tmp_path}", *options, str(UNITS / file)],
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert done.returncode == 0, done.stderr
    assert "dadafs:" in (tmp_path / "etc/passwd").read_text()
    assert (tmp_path / "run/dadafs").stat().st_mode & 0o777 == 0o700


@pytest.fixture
def listener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """What systemd listens on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(tmp_path / "notify"))
        made.settimeout(PATIENCE_S)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield made


def test_notify_sends_lines(listener: socket.socket) -> None:
    notify.notify("READY=1", "STATUS=all is well")
    assert listener.recv(1000) == b"READY=1\nSTATUS=all is well"


def test_notify_without_anybody_who_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    for address in ("", "relative", "/no/such/socket", "@no such abstract socket"):
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        notify.notify("READY=1")
    monkeypatch.delenv("NOTIFY_SOCKET")
    notify.notify("READY=1")


def test_watchdog_is_fed_twice_a_period(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "60000000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)

    async def minute() -> None:
        with trio.move_on_after(119):
            await notify.keep_watchdog()

    trio.run(minute, clock=MockClock(autojump_threshold=0))
    listener.setblocking(False)
    fed = [listener.recv(100) for _ in range(4)]
    assert fed == [b"WATCHDOG=1"] * 4
    with pytest.raises(BlockingIOError):
        listener.recv(100)


def test_watchdog_of_another_process_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert notify.watchdog_s() is None
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    assert notify.watchdog_s() == 1.0
    monkeypatch.setenv("WATCHDOG_USEC", "no number")
    assert notify.watchdog_s() is None


def test_a_server_tells_systemd_how_it_is(listener: socket.socket, tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path), "WATCHDOG_USEC": "500000"}
    command = [*COMMAND, "server", "--root", str(tmp_path / "raw"), "--listen", "127.0.0.1:0"]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        told = {listener.recv(1000).decode() for _ in range(3)}
        ready = next(one for one in told if one.startswith("READY=1\n"))
        assert "answers on 127.0.0.1:" in ready
        assert "WATCHDOG=1" in told
        process.send_signal(signal.SIGUSR1)
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        _, log = process.communicate(timeout=PATIENCE_S)
        assert time.monotonic() - began < 10
        assert process.returncode == 0
        rest = [listener.recv(1000).decode()]
        while rest[-1] != "STOPPING=1":
            rest.append(listener.recv(1000).decode())
        assert "most recent call first" in log
        assert "dadafs.rpc.service.Service.serve" in log
    finally:
        process.kill()
        process.communicate()

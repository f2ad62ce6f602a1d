"""The units of systemd: sound, hardened, and what they rely on of our processes."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from mounting import COMMAND, PATIENCE_S, Site, contents, until
from trio.testing import MockClock

from dadafs import notify

UNITS = Path(__file__).resolve().parents[2] / "dadafs/systemd"
EXPOSURES = {"dadafs-server": 3.0, "dadafs-peer": 3.0, "dadafs@": 5.0}
"""At most. A mount that all are to see can have no name space of its own."""

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
@pytest.mark.parametrize("unit", EXPOSURES)
def test_units_are_confined(unit: str) -> None:
    done = analyzed("security", "--offline=true", "--no-pager", f"{UNITS}/{unit}.service")
    found = re.search(r"exposure level for \S+: ([\d.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[1]) <= EXPOSURES[unit]


def value_of(key: str) -> str:
    """What the unit of mounts says."""
    (found,) = re.findall(rf"^{key}=(.*)$", (UNITS / "dadafs@.service").read_text(), re.MULTILINE)
    return str(found)


@pytest.mark.mount
def test_a_mount_in_use_whose_process_was_killed_is_taken_away(bare: Site) -> None:
    bare.mount()
    command = shlex.split(value_of("ExecStopPost").removeprefix("-"))
    with (bare.mnt / "README.txt").open():
        os.kill(bare.pid_of("mount"), signal.SIGKILL)
        until(lambda: not bare.processes(), "its processes end too")
        assert bare.mounted()
        subprocess.run([word.replace("%f", str(bare.mnt)) for word in command], timeout=20)
        assert not bare.mounted()


def permitted(name: str) -> set[str]:
    """The system calls that a group of systemd's stands for."""
    if not name.startswith("@"):
        return {name}
    lines = analyzed("syscall-filter", "--no-pager", name).stdout.splitlines()[1:]
    inside = [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]
    return {call for one in inside for call in permitted(one)}


@needs_systemd
@pytest.mark.mount
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is missing")
def test_a_mount_calls_only_what_its_unit_permits(bare: Site) -> None:
    log = bare.base / "calls"
    mount = [*COMMAND, "mount", "--foreground", bare.raw, bare.mnt]
    process = subprocess.Popen(
        ["strace", "-f", "-qq", "-e", "signal=none", "-o", log, *mount],
        env=bare.env,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        assert "is mounted" in process.stdout.readline()
        assert contents(bare.mnt / "raster/radial/full.tif")
        assert contents(bare.mnt / "raster/raw/raster_master.h5")
        os.kill(bare.pid_of("mount"), signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
    finally:
        process.kill()
        process.communicate()
    called = set(re.findall(r"^\d+ +(\w+)\(", log.read_text(errors="replace"), re.MULTILINE))
    groups = value_of("SystemCallFilter").split()
    assert called - {call for one in groups for call in permitted(one)} == set()
    assert "mount" in called


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

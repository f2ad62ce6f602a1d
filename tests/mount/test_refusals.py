"""What cannot be mounted or unmounted is refused with one line; what died is taken away."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from mounting import COMMAND, Site, done, until

from tools.scan_maker import make_scan

pytestmark = pytest.mark.mount


Capture = pytest.CaptureFixture[str]
Refused = Callable[..., str]


@pytest.fixture
def refused(capsys: Capture) -> Refused:
    """Runs a command that must be refused; the one line with which it is."""

    def run(site: Site, *arguments: str | Path) -> str:
        code, out, err = site.command(capsys, *arguments)
        assert (code, out) == (2, "")
        (line,) = err.splitlines()
        assert line.startswith("dadafs: ")
        return line

    return run


def test_mount_points_that_will_not_do(unmounted: Site, refused: Refused) -> None:
    raw, mnt = unmounted.raw, unmounted.mnt
    (unmounted.base / "file").touch()
    assert "does not exist" in refused(unmounted, "mount", raw, unmounted.base / "none")
    assert "is no directory" in refused(unmounted, "mount", raw, unmounted.base / "file")
    assert "no such directory" in refused(unmounted, "mount", unmounted.base / "none", mnt)
    (raw / "inside").mkdir()
    assert "within one another" in refused(unmounted, "mount", raw, raw / "inside")
    assert "within one another" in refused(unmounted, "mount", raw, raw)
    (mnt / "something").touch()
    assert "is not empty" in refused(unmounted, "mount", raw, mnt)
    assert "is not empty" in refused(unmounted, "mount", raw, mnt, "--foreground")
    assert not unmounted.mounted()
    assert unmounted.processes() == []


def test_a_mount_is_not_mounted_over(shared: Site, refused: Refused) -> None:
    line = refused(shared, "mount", shared.raw, shared.mnt)
    assert "is a dadafs mount already" in line
    assert f"dadafs umount {shared.mnt}" in line
    assert (shared.mnt / "README.txt").exists()


def test_umount_of_what_is_no_mount(unmounted: Site, refused: Refused) -> None:
    assert "is not a dadafs mount" in refused(unmounted, "umount", unmounted.mnt)
    assert "is not a dadafs mount" in refused(unmounted, "umount", "/proc")
    assert "is not a dadafs mount" in refused(unmounted, "umount", unmounted.base / "none")


def test_umount_of_what_another_namespace_has_too(unmounted: Site) -> None:
    """As a container has it that was started while it was mounted."""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("a mount namespace needs root")
    unmounted.mount()
    pid = unmounted.pid_of("mount")
    command = ["unshare", "-m", "sh", "-c", "echo ready; exec sleep 1000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == b"ready\n"
            told = unmounted.run("umount", unmounted.mnt)
            assert told.returncode == 3
            (line,) = told.stderr.splitlines()
            assert f"process {other.pid}, in another mount namespace, has it too" in line
            assert line.endswith(f"`kill {pid}` ends it for all")
            assert not unmounted.mounted()
            os.kill(pid, signal.SIGTERM)
            unmounted.wait_gone()
        finally:
            other.kill()


def test_umount_of_what_is_in_use_then_of_what_is_not(unmounted: Site, refused: Refused) -> None:
    unmounted.mount()
    with open(unmounted.mnt / "README.txt", "rb"):
        assert "in use" in refused(unmounted, "umount", unmounted.mnt)
        assert (unmounted.mnt / "README.txt").exists()
    assert len(unmounted.processes()) == 3

    def away() -> bool:
        return unmounted.run("umount", unmounted.mnt).returncode == 0

    until(away, "the file is closed")
    assert unmounted.processes() == []  # when the command returns, all have ended
    assert not unmounted.mounted()


def test_a_refusal_on_the_command_line(unmounted: Site) -> None:
    told = unmounted.run("mount", unmounted.raw, unmounted.base / "none")
    assert (told.returncode, told.stdout) == (2, "")
    assert told.stderr == (
        f"dadafs: mount point {unmounted.base}/none does not exist; make an empty directory\n"
    )


def test_foreground_ends_with_the_mount(unmounted: Site) -> None:
    command = [*COMMAND, "mount", str(unmounted.raw), str(unmounted.mnt), "--foreground"]
    process = subprocess.Popen(
        command, env=unmounted.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert b"is mounted at" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert done(process) == b""
    unmounted.wait_gone()


def test_a_mount_that_was_killed_is_recovered_or_removed(unmounted: Site) -> None:
    made = make_scan(unmounted.raw, horz=4, vert=3)
    unmounted.mount()
    killed(unmounted)
    unmounted.mount()
    assert unmounted.load("scan42/darkfield/horz=4.npy").sum() == made.sums.sum()
    killed(unmounted)
    unmounted.unmount()
    assert os.listdir(unmounted.mnt) == []


def killed(site: Site) -> None:
    os.kill(site.pid_of("mount"), signal.SIGKILL)
    until(lambda: not site.processes(), "the children of the killed mount end")
    assert site.mounted()
    with pytest.raises(OSError, match=r"not connected|abort"):
        os.listdir(site.mnt)

"""What cannot be mounted or unmounted is refused with one line; what died is taken away."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from mounting import COMMAND, Site, done, until

from tools.scan_maker import make_scan

pytestmark = pytest.mark.mount


def refused(site: Site, *command: str | Path) -> str:
    """The one line with which a command is refused."""
    told = site.run(*command)
    assert told.returncode in (1, 2)
    assert told.stdout == ""
    (line,) = told.stderr.splitlines()
    assert line.startswith("dadafs: ")
    return line


def test_mount_points_that_will_not_do(unmounted: Site) -> None:
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


def test_a_mount_is_not_mounted_over(shared: Site) -> None:
    line = refused(shared, "mount", shared.raw, shared.mnt)
    assert "is a dadafs mount already" in line
    assert f"dadafs umount {shared.mnt}" in line
    assert (shared.mnt / "README.txt").exists()


def test_umount_of_what_is_no_mount(unmounted: Site) -> None:
    assert "is not a dadafs mount" in refused(unmounted, "umount", unmounted.mnt)
    assert "is not a dadafs mount" in refused(unmounted, "umount", "/proc")
    assert "is not a dadafs mount" in refused(unmounted, "umount", unmounted.base / "none")


def test_umount_of_what_is_in_use(own: Site) -> None:
    with open(own.mnt / "README.txt", "rb"):
        assert "in use" in refused(own, "umount", own.mnt)
        assert (own.mnt / "README.txt").exists()
    until(lambda: own.run("umount", own.mnt).returncode == 0, "it is unmounted")
    own.wait_gone()


def test_umount_returns_when_all_processes_have_ended(unmounted: Site) -> None:
    unmounted.mount()
    assert len(unmounted.processes()) == 3
    assert unmounted.run("umount", unmounted.mnt).returncode == 0
    assert unmounted.processes() == []


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
    for recover in (True, False):
        unmounted.mount()
        pid = unmounted.pid_of("mount")
        os.kill(pid, signal.SIGKILL)
        until(lambda: not unmounted.processes(), "the children of the killed mount end")
        assert unmounted.mounted()
        with pytest.raises(OSError, match=r"not connected|abort"):
            os.listdir(unmounted.mnt)
        if recover:
            unmounted.mount()
            assert unmounted.load("scan42/darkfield/horz=4.npy").sum() == made.sums.sum()
        unmounted.unmount()
        assert os.listdir(unmounted.mnt) == []

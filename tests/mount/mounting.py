"""Real mounts for tests: made by the command, looked at from outside, taken away for certain."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from numpy.typing import NDArray

from dadafs.cli import main
from tools.scan_maker import ScanMade, make_scan

T = TypeVar("T")
COMMAND = (sys.executable, "-m", "dadafs.cli")
PATIENCE_S = 30.0  # for what takes a moment on a quiet machine
POLL_S = 0.02


def fuse_missing() -> str:
    """Why nothing can be mounted here; empty when it can."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "/dev/fuse is missing or closed to this user"
    return "" if shutil.which("fusermount3") else "fusermount3 is missing: install fuse3"


def until(look: Callable[[], T], what: str, patience_s: float = PATIENCE_S) -> T:
    """The first true thing that `look` finds. AssertionError when there is none in time."""
    deadline = time.monotonic() + patience_s
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {patience_s:.0f} s: {what}"
        time.sleep(POLL_S)


class Site:
    """A raw tree and a mount point, with cache and runtime directories of their own."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.raw = base / "raw"
        self.mnt = base / "mnt"
        self.cache = base / "cache"
        self.runtime = base / "run"  # short: the path of a Unix socket has at most 107 bytes
        for directory in (self.raw, self.mnt, self.cache, self.runtime):
            directory.mkdir(mode=0o700)
        self.env = os.environ | {
            "XDG_CACHE_HOME": str(self.cache),
            "XDG_RUNTIME_DIR": str(self.runtime),
        }

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """A dadafs command, to its end."""
        return subprocess.run(
            [*COMMAND, *map(str, arguments)],
            env=self.env,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def command(
        self, capsys: pytest.CaptureFixture[str], *arguments: str | Path
    ) -> tuple[int, str, str]:
        """The same within this process, which is quicker: exit code, output, complaints."""
        capsys.readouterr()
        with pytest.MonkeyPatch.context() as patch:
            for name in ("XDG_CACHE_HOME", "XDG_RUNTIME_DIR"):
                patch.setenv(name, self.env[name])
            code = main([str(argument) for argument in arguments])
        return (code, *capsys.readouterr())

    def mount(self, *options: str) -> None:
        """Mount with the command; it returns when the mount answers."""
        done = self.run("mount", self.raw, self.mnt, *options)
        assert (done.returncode, done.stderr) == (0, "")

    def unmount(self) -> None:
        """Unmount with the command, and make sure that nothing is left."""
        done = self.run("umount", self.mnt)
        assert (done.returncode, done.stderr) == (0, "")
        self.wait_gone()

    def wait_gone(self, patience_s: float = 10.0) -> None:
        """Until nothing is mounted and no process is left."""
        until(lambda: not self.mounted() and not self.processes(), "mount is gone", patience_s)

    def mounted(self) -> bool:
        """Whether the kernel has a mount at the mount point, dead or alive."""
        return f" {self.mnt} " in Path("/proc/self/mountinfo").read_text()

    def processes(self) -> list[int]:
        """The processes that were started with this site's runtime directory."""
        mark = f"XDG_RUNTIME_DIR={self.runtime}".encode()
        found = []
        for entry in os.scandir("/proc"):
            if entry.name.isdecimal() and int(entry.name) != os.getpid():
                try:
                    environment = Path(entry.path, "environ").read_bytes()
                except OSError:  # it has ended, or is not ours
                    continue
                if mark in environment.split(b"\0"):
                    found.append(int(entry.name))
        return found

    def clean(self) -> None:
        """Take away whatever a test has left."""
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        while self.mounted():
            subprocess.run(["fusermount3", "-u", "-z", str(self.mnt)], check=True, timeout=10)
        shutil.rmtree(self.base)

    def stats(self) -> dict[str, Any]:
        """`.dadafs/stats.json`, when nothing is being computed."""

        def idle() -> dict[str, Any]:
            found: dict[str, Any] = json.loads((self.mnt / ".dadafs/stats.json").read_text())
            quiet = found["farm"]["in_flight"] == 0 and found["peers"][0] is not None
            return found if quiet else {}

        return until(idle, "the mount is idle")

    def errors(self) -> str:
        """`.dadafs/errors.log`."""
        return (self.mnt / ".dadafs/errors.log").read_text()

    def pid_of(self, role: str) -> int:
        """The process behind the mount: mount, server or peer."""
        stats = json.loads((self.mnt / ".dadafs/stats.json").read_text())
        who = {"mount": stats, "server": stats["server"], "peer": stats["peers"][0]}[role]
        return int(who["pid"])

    def load(self, path: str) -> NDArray[Any]:
        """The array in a npy of the mount."""
        return load(self.mnt / path)

    @contextmanager
    def computing(self, *, frames: int, patches: int | None = None) -> Iterator[None]:
        """Assert that so many frames are computed within."""
        before = self.stats()
        yield
        after = self.stats()
        assert after["frames_computed"] - before["frames_computed"] == frames
        if patches is not None:
            assert after["patches_computed"] - before["patches_computed"] == patches

    def reading(self, code: str, *arguments: str | Path) -> subprocess.Popen[bytes]:
        """Python code in a process of its own, `argv[1:]` the arguments; `done` ends it."""
        return subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )


@contextmanager
def site() -> Iterator[Site]:
    """A site of its own; nothing of it is left afterwards."""
    made = Site(Path(tempfile.mkdtemp(prefix="dada", dir="/tmp")))
    try:
        yield made
    finally:
        made.clean()


def done(process: subprocess.Popen[bytes], patience_s: float = PATIENCE_S) -> bytes:
    """What a process wrote. AssertionError with its complaint where it failed."""
    try:
        out, err = process.communicate(timeout=patience_s)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, err.decode()
    return out


def half_recorded(site: Site) -> tuple[ScanMade, Path]:
    """The scan `s/s` of 8 x 4 points, of which one of two files is there; where the other goes."""
    truth = make_scan(site.base / "made", name="s", horz=8, vert=4, images_per_file=16)
    target = site.raw / "s"
    target.mkdir()
    assert truth.master is not None
    for file in (truth.master, truth.data_files[0]):
        os.link(file, target / file.name)
    return truth, target


def contents(path: Path) -> bytes:
    """All of a file, which is as long as it says."""
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        data = b"".join(iter(lambda: file.read(1 << 20), b""))
    assert len(data) == size, path
    return data


def load(path: Path) -> NDArray[Any]:
    """The array in a npy file, which is as long as it says."""
    array: NDArray[Any] = np.load(io.BytesIO(contents(path)))
    return array


def forget_pages(path: Path) -> None:
    """Have the kernel drop what it has cached of a file's content."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)

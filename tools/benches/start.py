"""Starting and stopping: help, mount, unmount and SIGTERM under load; beside a bare Python."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from dadafs.client.mounting.mountpoint import mount_at
from tools.benches.figures import told
from tools.benches.mounting import seconds_of, stats
from tools.nodes import DADAFS

SLOW_SCAN = "--horz=64 --vert=48 --detector=400x400 --codec=gzip --unique=4"  # for seconds
MAP = "scan42/darkfield/full.npy"
PATIENCE_S = 60.0
POLL_S = 0.01


def main(arguments: Sequence[str]) -> int:
    """The command line."""
    return told("start", __doc__, measure, arguments, 5, ">8.2f")


def measure(place: Path, rounds: int) -> dict[str, float]:
    """All figures, medians in seconds, by name: each in turn in every round."""
    raw, mnt = place / "raw", place / "mnt"
    mnt.mkdir()
    scan_maker = [sys.executable, "-m", "tools.scan_maker", str(raw), *SLOW_SCAN.split()]
    subprocess.run(scan_maker, check=True, stdout=sys.stderr)
    mount = [*DADAFS, "mount", raw, mnt, "--cache"]
    umount = [*DADAFS, "umount", mnt]
    run([*mount, place / "warm"])  # compiles, writes the index
    run(umount)
    found: dict[str, list[float]] = {}

    def note(name: str, work: Callable[[], object]) -> None:
        found.setdefault(name, []).append(seconds_of(work))

    for number in range(rounds):
        note("python -c pass, s", lambda: run([sys.executable, "-c", "pass"]))
        note("dadafs --help, s", lambda: run([*DADAFS, "--help"]))
        note("mount until it answers, caches warm, s", lambda: run([*mount, place / "warm"]))
        note("umount of an idle mount, s", lambda: run(umount))
        run([*mount, place / f"umounted{number}"])
        with reading(mnt):
            pass
        note("umount while it computes for a reader that was killed, s", lambda: run(umount))
        run([*mount, place / f"terminated{number}"])
        with reading(mnt):
            note("SIGTERM until all is gone, while a map is read, s", lambda: terminate(mnt))
    return {name: median(seconds) for name, seconds in found.items()}


def run(command: Sequence[str | Path]) -> None:
    """A command, silent, to its end."""
    subprocess.run(command, check=True, timeout=PATIENCE_S, stdout=subprocess.DEVNULL)


@contextmanager
def reading(mnt: Path) -> Iterator[None]:
    """A map is computed for somebody who reads it, and who is killed in the end."""
    silent = subprocess.DEVNULL
    reader = subprocess.Popen(["cat", mnt / MAP], stdout=silent, stderr=silent)
    try:
        until(lambda: stats(mnt)["patches_computed"] > 0)
        yield
    finally:
        reader.kill()
        reader.wait()


def terminate(mnt: Path) -> None:
    """SIGTERM to the mount, until it is unmounted and none of its processes is left."""
    said = stats(mnt)
    pids = [said["pid"], said["server"]["pid"], said["peers"][0]["pid"]]
    os.kill(pids[0], signal.SIGTERM)
    until(lambda: mount_at(mnt) is None and not any(map(alive, pids)))


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and is not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(look: Callable[[], bool]) -> None:
    """Wait for what `look` sees. SystemExit when it does not come."""
    deadline = time.monotonic() + PATIENCE_S
    while not look():
        if time.monotonic() > deadline:
            raise SystemExit(f"bench: did not come about in {PATIENCE_S:.0f} s")
        time.sleep(POLL_S)

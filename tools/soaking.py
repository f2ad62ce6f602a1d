"""Use a mount as a day of users, killed readers and indexers does, and see what that leaves behind.

Rounds of: readers that open and compare, copies of maps that nobody has computed, copies that are
killed while they wait; then, when all is idle, a walk like updatedb's and `file` on every file, and
what these had computed. What processes hold is compared between the end of the first round, when
caches are warm and kernels compiled, and the end of the last.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

from tools.nodes import DADAFS
from tools.scan_maker import make_scan

SCANS, HORZ, VERT = 3, 20, 16
READERS = 4
PIECE_BYTES = 1 << 16
WAIT_S = 60.0  # for a reader, for all to be idle
ENDINGS = ("npy", "tif", "h5", "mat", "png", "csv")


@dataclass(frozen=True, slots=True)
class Held:
    """What a process holds."""

    pid: int
    descriptors: int
    threads: int
    memory_bytes: int
    """Its own: not the pages of the files that it maps, such as stores of results."""


@dataclass(slots=True)
class Soaked:
    """What was done, and what it left behind."""

    seconds: float = 0.0
    rounds: int = 0
    done: Counter[str] = field(default_factory=Counter)
    """opens, copies, killed, walked, identified: files; errors."""
    computed: Counter[str] = field(default_factory=Counter)
    """Frames, by what they were computed for: readers, walk, file."""
    first: dict[str, Held] = field(default_factory=dict)
    last: dict[str, Held] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    """What went wrong, at most a few."""


class Soak:
    """A mount and those who use it; each path has only one content, whoever reads it."""

    def __init__(self, place: Path, scans: int, seed: int) -> None:
        self.raw, self.mnt, self.scratch = (place / name for name in ("raw", "mnt", "scratch"))
        self.scans = scans
        self.told = Soaked()
        self._lock = threading.Lock()
        self._chance = random.Random(seed)
        self._digests: dict[Path, bytes] = {}
        self._fresh = 0

    def run(self, seconds: float, round_s: float) -> Soaked:
        """Rounds until the time is over, two at least."""
        began = time.monotonic()
        while self.told.rounds < 2 or time.monotonic() - began < seconds:
            self._counted("readers", lambda: self._busy(round_s))
            self._counted("walk", self._walk)
            self._counted("file", self._identify)
            self.told.rounds += 1
            if self.told.rounds == 1:
                self.told.first = self._held()
                self.told.computed.clear()
        self.told.last = self._held()
        self.told.seconds = time.monotonic() - began
        return self.told

    def _busy(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        everybody = [self._open_one] * READERS + [self._copy_one, self._kill_one]
        with ThreadPoolExecutor(len(everybody)) as pool:
            list(pool.map(lambda work: self._repeat(work, until), everybody))

    def _repeat(self, work: Callable[[], None], until: float) -> None:
        while time.monotonic() < until:
            try:
                work()
            except (OSError, subprocess.SubprocessError) as exc:
                self._failed(str(exc))

    def _open_one(self) -> None:
        """Part of a raw file, or all of a result that is known, and it is what it was."""
        chance, scan = self._number(1 << 30), f"scan{self._number(self.scans)}"
        if chance % 8:
            source = self.raw / f"{scan}_data_000001.h5"
            at = chance % source.stat().st_size
            same = _piece(self.mnt / scan / "raw" / source.name, at) == _piece(source, at)
        else:
            path = self.mnt / scan / "dpc" / f"full.{ENDINGS[chance // 8 % len(ENDINGS)]}"
            digest = blake2b(path.read_bytes()).digest()
            with self._lock:
                same = self._digests.setdefault(path, digest) == digest
        self._count("opens")
        if not same:
            self._failed(f"{scan} is not what it was")

    def _copy_one(self) -> None:
        """A map that nobody has asked for."""
        path = self._new()
        subprocess.run(["cp", path, self.scratch / "copy"], check=True, timeout=WAIT_S)
        self._count("copies")
        if (self.scratch / "copy").stat().st_size != path.stat().st_size:
            self._failed(f"{path} was cut short")

    def _kill_one(self) -> None:
        """A copy that somebody kills while it waits."""
        with subprocess.Popen(["cp", self._new(), self.scratch / "killed"]) as process:
            time.sleep(self._number(100) / 1000)
            process.kill()
            process.wait(WAIT_S)
        self._count("killed")

    def _walk(self) -> None:
        """As updatedb does, and with what `ls -l` asks."""
        for top, directories, files in os.walk(
            self.mnt, onerror=lambda exc: self._failed(str(exc))
        ):
            for name in (*directories, *files):
                os.lstat(os.path.join(top, name))
            self._count("walked", len(files))

    def _identify(self) -> None:
        """As indexers do that look into files."""
        done = subprocess.run(
            ["find", self.mnt, "-name", ".dadafs", "-prune", "-o", "-type", "f", "-exec",
             "file", "--brief", "{}", "+"],
            capture_output=True, text=True, errors="replace", timeout=10 * WAIT_S,
        )  # fmt: skip
        lines = done.stdout.splitlines()
        self._count("identified", len(lines))
        for line in (*done.stderr.splitlines(), *(one for one in lines if "cannot" in one)):
            self._failed(line)

    def _counted(self, what: str, work: Callable[[], None]) -> None:
        before = self._idle()
        work()
        self.told.computed[what] += self._idle() - before

    def _idle(self) -> int:
        """Frames computed so far, once nothing is under way."""
        deadline = time.monotonic() + WAIT_S
        while True:
            stats = self._stats()
            if stats["farm"]["in_flight"] == 0 and stats["peers"] and stats["peers"][0]:
                return int(stats["frames_computed"])
            if time.monotonic() > deadline:
                self._failed("the mount does not come to rest")
                return int(stats["frames_computed"])
            time.sleep(0.1)

    def _held(self) -> dict[str, Held]:
        stats = self._stats()
        who = {"mount": stats, "server": stats["server"], "peer": stats["peers"][0]}
        return {role: held(int(about["pid"])) for role, about in who.items()}

    def _stats(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.mnt / ".dadafs/stats.json").read_text())
        return found

    def _new(self) -> Path:
        with self._lock:
            self._fresh += 1
            roi = f"roi={self._fresh % 97},{self._fresh // 97},20,20"
        return self.mnt / f"scan{self._number(self.scans)}/darkfield/{roi}/full.npy"

    def _number(self, below: int) -> int:
        with self._lock:
            return self._chance.randrange(below)

    def _count(self, what: str, by: int = 1) -> None:
        with self._lock:
            self.told.done[what] += by

    def _failed(self, line: str) -> None:
        self._count("errors")
        with self._lock:
            self.told.wrong = [*self.told.wrong, line][:10]


def _piece(path: Path, at: int) -> bytes:
    with path.open("rb", buffering=0) as file:
        return os.pread(file.fileno(), PIECE_BYTES, at)


def held(pid: int) -> Held:
    """What a process holds now."""
    status = Path(f"/proc/{pid}/status").read_text()
    own, threads = (
        int(found) for found in re.findall(r"^(?:RssAnon|Threads):\s+(\d+)", status, re.MULTILINE)
    )
    return Held(pid, len(os.listdir(f"/proc/{pid}/fd")), threads, own << 10)


def table(told: Soaked) -> str:
    """For people. Pure."""
    lines = [f"{told.seconds / 60:.1f} min, {told.rounds} rounds", ""]
    for what, name, cause in (
        ("opens, read and compared", "opens", ""),
        ("copies of new maps", "copies", ""),
        ("copies killed by -9", "killed", ""),
        ("files walked", "walked", "walk"),
        ("files looked into by file(1)", "identified", "file"),
        ("errors", "errors", ""),
    ):
        frames = f"   frames computed {told.computed[cause]:>7}" if cause else ""
        lines.append(f"{what:<30}{told.done[name]:>9}{frames}")
    lines += ["", "process   descriptors  first  last    memory, MiB  first   last"]
    for role, first in told.first.items():
        last = told.last[role]
        same = "" if first.pid == last.pid else "  (another process)"
        lines.append(
            f"{role:<21}{first.descriptors:>7}{last.descriptors:>6}"
            f"{first.memory_bytes / 2**20:>24.0f}{last.memory_bytes / 2**20:>7.0f}{same}"
        )
    return "\n".join([*lines, *told.wrong]) + "\n"


@contextmanager
def soaking(
    scans: int = SCANS, horz: int = HORZ, vert: int = VERT, seed: int = 0
) -> Iterator[Soak]:
    """Scans of so many points, and a mount of them, of which nothing is left."""
    with tempfile.TemporaryDirectory(prefix="dadas", dir="/tmp") as name:
        place = Path(name)
        soak = Soak(place, scans, seed)
        for number in range(scans):
            make_scan(
                soak.raw, name=f"scan{number}", horz=horz, vert=vert, seed=number,
                keep_frames=False,
            )  # fmt: skip
        for directory in (soak.mnt, soak.scratch):
            directory.mkdir()
        env = os.environ | {"XDG_RUNTIME_DIR": name, "XDG_CACHE_HOME": str(place / "cache")}
        subprocess.run([*DADAFS, "mount", soak.raw, soak.mnt], check=True, env=env, timeout=90)
        try:
            yield soak
        finally:
            subprocess.run([*DADAFS, "umount", "--lazy", soak.mnt], check=True, env=env, timeout=30)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 1 where anything went wrong."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="how long (5)")
    parser.add_argument("--round", type=float, default=20.0, metavar="S", help="of readers (20)")
    parser.add_argument(
        "--cluster", action="store_true", help="of a server and peers, which are killed and cut off"
    )
    parser.add_argument("--place", type=Path, help="for a cluster's files and logs, which stay")
    parser.add_argument("--seed", type=int, default=0, help="of what happens when (0)")
    options = parser.parse_args(arguments)
    if options.cluster:
        from tools.cluster_soaking import soak_cluster
        from tools.soaked import summary

        seconds = 60 * options.minutes
        result = soak_cluster(seconds, options.round, options.seed, options.place)
        print(summary(result), end="")
        return 1 if result.broken else 0
    with soaking(seed=options.seed) as soak:
        told = soak.run(60 * options.minutes, options.round)
    print(table(told), end="")
    return 1 if told.done["errors"] else 0

"""Readers that poll a map while its scan grows, each a process of its own: `growing.py MAP TRUTH
READERS`, until standard input ends; what each has seen goes to standard output as JSON."""

from __future__ import annotations

import errno
import io
import json
import multiprocessing
import os
import sys
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from typing import Any

import numpy as np
from numpy.typing import NDArray


def load(path: str | os.PathLike[str]) -> NDArray[np.float64]:
    """The map, read as a whole."""
    with open(path, "rb", buffering=0) as file:
        data = b"".join(iter(lambda: file.read(1 << 20), b""))
    array: NDArray[np.float64] = np.load(io.BytesIO(data))
    return array


def poll(path: str, truth: NDArray[np.float64], finished: Event, tell: Connection) -> None:
    """Read again and again, as rsync does: stat, then the content.

    `least` says of each mtime how many values there were at least in what was read after it.
    """
    seen = np.zeros(truth.shape, bool)
    least: dict[str, int] = {}
    told: dict[str, Any] = {"reads": 0, "errors": [], "wrong": [], "gone": 0, "least": least}
    parent = os.getppid()
    while not finished.is_set() and os.getppid() == parent:
        try:
            before = os.stat(path)
            found = load(path)
        except OSError as exc:
            if exc.errno != errno.ESTALE:  # it changed while it was read
                told["errors"].append(str(exc))
            continue
        there = ~np.isnan(found)
        if not np.array_equal(found[there], truth[there]):
            told["wrong"].append(np.argwhere(there & (found != truth)).tolist())
        told["gone"] += int((seen & ~there).sum())
        seen |= there
        told["reads"] += 1
        mtime, count = str(before.st_mtime_ns), int(there.sum())
        least[mtime] = min(count, least.get(mtime, count))
    tell.send(told)


def main() -> None:
    """All readers, from one process that has imported numpy already."""
    path, truth, readers = sys.argv[1], np.load(sys.argv[2]), int(sys.argv[3])
    fork = multiprocessing.get_context("fork")
    finished = fork.Event()
    ends = []
    for _ in range(readers):
        here, there = fork.Pipe(duplex=False)
        fork.Process(target=poll, args=(path, truth, finished, there), daemon=True).start()
        ends.append(here)
    sys.stdin.read()
    finished.set()
    print(json.dumps([end.recv() for end in ends]))


if __name__ == "__main__":
    main()

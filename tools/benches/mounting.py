"""Mounts for benchmarks and what to do on them."""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from dadafs.client.fuse.demand import WIDEST_BYTES
from dadafs.client.mounting.mountpoint import set_read_ahead
from tools.nodes import DADAFS

READ_BYTES = 1 << 20
START_S = 60.0


@contextmanager
def mounted(raw: Path, place: Path, *options: str) -> Iterator[Path]:
    """`raw` mounted with a cache of its own in `place`."""
    mnt = place / "mnt"
    mnt.mkdir(exist_ok=True)
    subprocess.run(
        [*DADAFS, "mount", raw, mnt, "--cache", place / "cache", *options], check=True, timeout=90
    )
    try:
        yield mnt
    finally:
        subprocess.run([*DADAFS, "umount", mnt], check=True, timeout=30)


@contextmanager
def bare_mount(size_bytes: int, place: Path) -> Iterator[Path]:
    """A file in memory behind the smallest pyfuse3 file system there can be."""
    mnt = place / "bare"
    mnt.mkdir(exist_ok=True)
    process = subprocess.Popen([sys.executable, "-m", "tools.benches.bare", mnt, str(size_bytes)])
    file = mnt / "file"
    try:
        deadline = time.monotonic() + START_S
        while not file.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("bench: the bare file system does not start")
            time.sleep(0.05)
        set_read_ahead(os.minor(os.stat(mnt).st_dev), WIDEST_BYTES)  # as in a mount of dadafs
        yield file
    finally:
        subprocess.run(["fusermount3", "-u", mnt], check=False, timeout=30)
        process.wait(timeout=30)


def read_all(path: Path) -> float:
    """Seconds to read a file from begin to end, 1 MiB at a time."""
    buffer = bytearray(READ_BYTES)
    began = time.perf_counter()
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
    return time.perf_counter() - began


def read_at_once(path: Path) -> None:
    """Read a file past the page cache, in one request up to 1 MiB."""
    size = path.stat().st_size
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        with mmap.mmap(-1, -(-size // mmap.PAGESIZE) * mmap.PAGESIZE) as memory:
            done = 0
            while done < size:
                done += os.preadv(fd, [memoryview(memory)[done:]], done)
    finally:
        os.close(fd)


def drop_pages(path: Path) -> None:
    """Have the kernel forget the pages of one file."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def seconds_of(work: Callable[[], object]) -> float:
    """How long `work` takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def typical(work: Callable[[], object], times: int) -> float:
    """Median seconds of `work`."""
    return median(seconds_of(work) for _ in range(times))


def stats(mnt: Path) -> dict[str, Any]:
    """What the mount says of itself."""
    found: dict[str, Any] = json.loads((mnt / ".dadafs/stats.json").read_text())
    return found


def resident_bytes(pid: int) -> int:
    """Memory of a process, as the kernel counts it."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def touch_memory() -> None:
    """Use memory once, up to a quarter of what is available and 2 GiB, just before measuring: the
    host of a virtual machine lends it page by page at the first touch, 3 s a GB, and takes most of
    what is free back within a second."""
    import numpy as np

    pages = os.sysconf("SC_AVPHYS_PAGES")
    size = min(2 << 30, pages * os.sysconf("SC_PAGE_SIZE") // 4)
    held = [np.ones(64 << 20, np.uint8) for _ in range(size >> 26)]
    del held

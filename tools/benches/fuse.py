"""The mount itself: raw files, stat, listings, a cached map, memory; beside bare FUSE and disk."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from tools.benches.figures import told
from tools.benches.mounting import (
    bare_mount,
    drop_pages,
    mounted,
    read_all,
    resident_bytes,
    seconds_of,
    stats,
    typical,
)

ENTRY_TIMEOUT_S = 1.1  # the kernel asks again after a second
SCANS = 10_000


def main(arguments: Sequence[str]) -> int:
    """The command line."""
    return told("fuse", __doc__, measure, arguments, 7, ">12.4g")


def measure(place: Path, rounds: int) -> dict[str, float]:
    """All figures, by a name that carries the unit."""
    raw = place / "raw"
    command = [sys.executable, "-m", "tools.scan_maker", str(raw), "--horz=51", "--vert=20"]
    subprocess.run(command, check=True, stdout=sys.stderr)
    figures: dict[str, float] = {}
    with mounted(raw, place) as mnt:
        figures |= raw_file(raw, mnt, place, rounds)
        figures |= stat_times(mnt)
        figures |= cached_map(mnt)
        said = stats(mnt)
        figures["memory of the mount, MB"] = resident_bytes(said["pid"]) / 1e6
        figures["memory of the peer, MB"] = resident_bytes(said["peers"][0]["pid"]) / 1e6
    return figures | listing(place)


def raw_file(raw: Path, mnt: Path, place: Path, rounds: int) -> dict[str, float]:
    """Reading a data file: through the mount and through bare FUSE in turn, then from caches."""
    source = raw / "scan42_data_000001.h5"
    through = mnt / "scan42/raw" / source.name
    size = source.stat().st_size
    cold, bare, cached, bare_cached, plain = [], [], [], [], []
    read_all(source)
    with bare_mount(size, place) as file:
        for _ in range(rounds):
            drop_pages(through)
            drop_pages(file)
            cold.append(read_all(through))
            bare.append(read_all(file))
            cached.append(read_all(through))
            bare_cached.append(read_all(file))
            plain.append(read_all(source))
    rates = [size / median(times) / 1e6 for times in (cold, bare, cached, bare_cached, plain)]
    return {
        "raw file through the mount, cold, MB/s": rates[0],
        "a bare in-memory pyfuse3 file, cold, MB/s": rates[1],
        "  ratio (0.5 or more)": rates[0] / rates[1],
        "raw file through the mount, page cache, MB/s": rates[2],
        "a bare pyfuse3 file, page cache, MB/s": rates[3],
        "the plain file, page cache, MB/s": rates[4],
        "  ratio to the bare file, page cache": rates[2] / rates[3],
        "  ratio to the plain file, page cache": rates[2] / rates[4],
    }


def stat_times(mnt: Path) -> dict[str, float]:
    """A stat that reaches us, and one that the kernel answers."""
    path = mnt / "scan42/darkfield/full.npy"
    cold = []
    for _ in range(5):
        time.sleep(ENTRY_TIMEOUT_S)
        cold.append(seconds_of(lambda: os.stat(path)))
    return {
        "stat, asked of the mount (4 names), us": median(cold) * 1e6,
        "stat, answered by the kernel, us": typical(lambda: os.stat(path), 2000) * 1e6,
    }


def cached_map(mnt: Path) -> dict[str, float]:
    """Open, read and close a map that was computed before."""
    path = mnt / "scan42/darkfield/horz=51/vert=20.npy"
    first = seconds_of(path.read_bytes)
    warm = typical(path.read_bytes, 50)

    def again() -> None:
        drop_pages(path)
        path.read_bytes()

    return {
        "map of 1020 frames of 4M, computed, s": first,
        "the same, from results (kernel's pages dropped), ms": typical(again, 20) * 1e3,
        "the same, from the kernel's pages, ms": warm * 1e3,
    }


def listing(place: Path) -> dict[str, float]:
    """`ls -l` of a directory of 10 000 scans, plain and through a fresh mount."""
    raw = place / "many"
    raw.mkdir()
    for number in range(SCANS):
        (raw / f"scan{number:05}_master.h5").touch()
        (raw / f"scan{number:05}_data_000001.h5").touch()
    rest = place / "listing"
    rest.mkdir()
    with mounted(raw, rest) as mnt:
        plain = seconds_of(lambda: _ls(raw))
        through = seconds_of(lambda: _ls(mnt))
        again = seconds_of(lambda: _ls(mnt))
    return {
        f"ls -l of {SCANS} scans, plain (2 files each), s": plain,
        f"ls -l of {SCANS} scans, mount, first, s": through,
        f"ls -l of {SCANS} scans, mount, again, s": again,
    }


def _ls(directory: Path) -> None:
    subprocess.run(["ls", "-l", directory], check=True, stdout=subprocess.DEVNULL)

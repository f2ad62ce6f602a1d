"""Fragments that say whose they are, and pools of them."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dadafs.fragments import checksum
from dadafs.scans.model import Identity
from dadafs.server.pooling.files import fragment_key
from dadafs.server.pooling.pool import FragmentPool

GENEROUS = 1 << 30


def key(number: int) -> bytes:
    return fragment_key(b"scan/data.h5", Identity(1 << 40, 1, 2), number)


def data(number: int, size: int = 5000) -> bytes:
    return random.Random(number).randbytes(size)


def opened(directory: Path, max_bytes: int = GENEROUS, **options: float) -> FragmentPool:
    """A pool that has listed its files; what the disk of the test holds does not matter."""
    pool = FragmentPool(directory, max_bytes, **{"keep_free": 0.0, **options})  # type: ignore[arg-type]
    pool.flush()
    return pool


def put(pool: FragmentPool, number: int, size: int = 5000) -> None:
    content = data(number, size)
    pool.put(key(number), memoryview(content), checksum(content))


def get(pool: FragmentPool, number: int, size: int = 5000) -> bytes | None:
    """The data of a fragment, None where there are none to be trusted."""
    buffer = memoryview(bytearray(size))
    found = pool.read_into(key(number), buffer)
    assert found in (None, checksum(buffer))
    return None if found is None else bytes(buffer)


def fill(pool: FragmentPool, numbers: range, size: int = 5000) -> None:
    for number in numbers:
        put(pool, number, size)
    pool.flush()


def path_of(directory: Path, number: int) -> Path:
    name = key(number).hex()
    return directory / name[:2] / name


def files(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


class Clock:
    """A time that only the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def small_disk(where: Path, options: str) -> Iterator[Path]:
    """A file system in RAM at `where`."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a tmpfs")
    where.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", os.fspath(where)],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    try:
        yield where
    finally:
        subprocess.run(["umount", "-l", os.fspath(where)], check=True)

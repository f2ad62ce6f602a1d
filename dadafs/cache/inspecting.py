"""Looking at caches from outside: what they hold, whether it is sound, and emptying them."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lmdb

from dadafs.cache.store import AGE_BYTES, SUM_BYTES, VALUES, value_sum
from dadafs.errors import BadData, UsageError

STORES = ("results", "index")
DATA, LOCK = "data.mdb", "lock.mdb"
UNREADABLE = ".unreadable"
BATCH = 1000  # values between two transactions: a reader keeps pages from being used again


@dataclass(frozen=True, slots=True)
class Held:
    """What one store holds."""

    path: Path
    values: int
    used_bytes: int
    map_bytes: int
    disk_bytes: int
    in_use: bool


@dataclass(frozen=True, slots=True)
class Verified:
    """How many values of a store are what they were."""

    path: Path
    values: int
    damaged: int


def stores(directory: Path) -> list[Path]:
    """The stores of a cache directory, of all caches below it, or the store it is itself."""
    candidates = [directory]
    for parent in (directory, *sorted(one for one in directory.glob("*") if one.is_dir())):
        candidates += [parent / name for name in STORES]
    return [one for one in dict.fromkeys(candidates) if (one / DATA).is_file()]


def held(path: Path) -> Held:
    """What a store holds. BadData where it cannot be read."""
    with _opened(path) as (environment, values):
        with environment.begin() as transaction:
            about = transaction.stat(values)
        pages = about["branch_pages"] + about["leaf_pages"] + about["overflow_pages"]
        return Held(
            path,
            about["entries"],
            pages * about["psize"],
            environment.info()["map_size"],
            (path / DATA).stat().st_blocks * 512,
            in_use(path),
        )


def verify(path: Path) -> Verified:
    """Read every value and compare its checksum. BadData where the store cannot be read."""
    seen = damaged = 0
    last: bytes | None = None
    with _opened(path) as (environment, values):
        while True:
            with environment.begin() as transaction, transaction.cursor(values) as cursor:
                more = cursor.first() if last is None else cursor.set_range(last)
                if more and last is not None and cursor.key() == last:
                    more = cursor.next()
                if not more:
                    return Verified(path, seen, damaged)
                for _ in range(BATCH):
                    key, stored = cursor.item()
                    last = bytes(key)
                    seen += 1
                    told = stored[AGE_BYTES : AGE_BYTES + SUM_BYTES]
                    damaged += value_sum(last, stored[AGE_BYTES + SUM_BYTES :]) != told
                    if not cursor.next():
                        break


def clear(path: Path) -> int:
    """Remove a store, and what was set aside of it; the bytes that are free now.

    UsageError while a process has it open.
    """
    with _locked(path):
        size = (path / DATA).stat().st_blocks * 512
        aside = path.with_name(f"{path.name}.cleared-{os.getpid()}")
        os.rename(path, aside)
        shutil.rmtree(aside)
        shutil.rmtree(path.with_name(path.name + UNREADABLE), ignore_errors=True)
        return size


def in_use(path: Path) -> bool:
    """Whether a process has the store open: LMDB holds a lock while it has."""
    try:
        with _locked(path):
            return False
    except UsageError:
        return True


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Nobody has the store open, nor opens it, within. UsageError."""
    try:
        lock = os.open(path / LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        yield
        return
    try:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 0)
        except OSError:
            raise UsageError(f"{path} is in use by a mount, server or peer; end it first") from None
        yield
    finally:
        os.close(lock)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[lmdb.Environment, Any]]:
    try:
        environment = lmdb.open(
            os.fspath(path), map_size=0, readonly=True, create=False, max_dbs=2, readahead=False
        )
    except (lmdb.Error, OSError) as exc:
        raise BadData(f"{path}: {exc}") from exc
    try:
        used = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
        if os.path.getsize(path / DATA) < used:  # reading the rest would be SIGBUS
            raise BadData(f"{path}: {DATA} is truncated")
        try:
            values = environment.open_db(VALUES, create=False)
        except lmdb.Error as exc:
            raise BadData(f"{path}: it is not a store of this version ({exc})") from exc
        try:
            yield environment, values
        except lmdb.Error as exc:
            raise BadData(f"{path}: {exc}") from exc
    finally:
        environment.close()

"""The frame index on disk: what was read of a file's chunks need not be read again."""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections import Counter, OrderedDict
from hashlib import blake2b
from pathlib import Path
from typing import Any

import lmdb

log = logging.getLogger(__name__)

MAP_BYTES = 1 << 30  # 80 million frames at 12 bytes each
MAX_READERS = 512
FULL = 0.8  # of the map: begin anew, an index is read again at a millisecond a file
RECENT = 64
RECENT_BYTES = 32 << 20
LARGEST = 0.25  # of the map, for one value
PENDING_BYTES = 4 << 20
PENDING = 128  # values written by one transaction: each ends with a wait for the disk
SUM_BYTES = 8
UNREADABLE = (lmdb.InvalidError, lmdb.CorruptedError, lmdb.VersionMismatchError)
DATABASE = b"frames-1"  # another number for another encoding of the values


class IndexStore:
    """Keeps bytes by key on disk, safe for threads and for a second process.

    Reads never raise: a hit, or a miss, which a counter explains. Values are written in batches;
    what is pending when the process dies is only lost. Values that fail their checksum are misses.
    """

    def __init__(self, path: Path, map_size: int = MAP_BYTES) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._counters: Counter[str] = Counter()
        self._recent: OrderedDict[bytes, bytes] = OrderedDict()
        self._recent_bytes = 0
        self._pending: dict[bytes, bytes] = {}
        self._pending_bytes = 0
        self._map_size = map_size
        self._opened = self._open_or_replace()

    @property
    def counters(self) -> dict[str, int]:
        """Hits, misses, and what went wrong."""
        with self._lock:
            return dict(self._counters)

    def get(self, key: bytes) -> bytes | None:
        """The value of `key`; None when there is none to be trusted."""
        with self._lock:
            value = self._recent.get(key)
            if value is None:
                value = self._pending.get(key)
            if value is None:
                value = self._read(key)
            self._counters["misses" if value is None else "hits"] += 1
            if value is not None:
                self._remember(key, value)
            return value

    def put(self, key: bytes, value: bytes) -> None:
        """Keep `value`, on disk soon, if there is room."""
        with self._lock:
            self._remember(key, value)
            if len(value) > LARGEST * self._map_size:
                self._counters["too_large"] += 1
            elif self._opened is not None:
                self._pending_bytes += len(value) - len(self._pending.get(key, b""))
                self._pending[key] = value
                if len(self._pending) >= PENDING or self._pending_bytes > PENDING_BYTES:
                    self._flush()

    def close(self) -> None:
        """Write what is pending and close. To close twice is fine."""
        with self._lock:
            if self._opened is not None:
                self._flush()
                self._opened[0].close()
                self._opened = None

    def _remember(self, key: bytes, value: bytes) -> None:
        self._recent_bytes += len(value) - len(self._recent.pop(key, b""))
        self._recent[key] = value
        while len(self._recent) > RECENT or self._recent_bytes > RECENT_BYTES:
            _, old = self._recent.popitem(last=False)
            self._recent_bytes -= len(old)

    def _read(self, key: bytes) -> bytes | None:
        if self._opened is None:
            return None
        environment, database = self._opened
        try:
            with environment.begin(db=database) as transaction:
                stored = transaction.get(key)
        except lmdb.Error as exc:
            self._failed("read_errors", exc)
            return None
        if stored is None:
            return None
        value = bytes(stored[SUM_BYTES:])
        if _sum(key, value) != stored[:SUM_BYTES]:
            self._counters["bad_sums"] += 1
            return None
        return value

    def _flush(self) -> None:
        """Write what is pending; it is dropped when that fails."""
        pending, self._pending, self._pending_bytes = self._pending, {}, 0
        if self._opened is None or not pending:
            return
        try:
            self._write(*self._opened, pending)
        except lmdb.MapFullError as exc:
            self._failed("full", exc)
            self._make_empty(*self._opened)
        except lmdb.Error as exc:
            self._failed("write_errors", exc)

    def _write(
        self, environment: lmdb.Environment, database: Any, pairs: dict[bytes, bytes]
    ) -> None:
        with environment.begin(db=database) as transaction:
            about = transaction.stat(database)
        pages = about["branch_pages"] + about["leaf_pages"] + about["overflow_pages"]
        if pages * about["psize"] > FULL * self._map_size:
            self._make_empty(environment, database)
        with environment.begin(db=database, write=True) as transaction:
            for key, value in pairs.items():
                transaction.put(key, _sum(key, value) + value)

    def _make_empty(self, environment: lmdb.Environment, database: Any) -> None:
        """Drop all values: by itself, for the pages are free only when this is written."""
        self._counters["emptied"] += 1
        try:
            with environment.begin(write=True) as transaction:
                transaction.drop(database, delete=False)
        except lmdb.Error as exc:
            self._failed("write_errors", exc)

    def _failed(self, counter: str, exc: Exception) -> None:
        self._counters[counter] += 1
        if self._counters[counter] == 1:
            log.warning("frame index in %s: %s; going on without", self._path, exc)

    def _open_or_replace(self) -> tuple[lmdb.Environment, Any] | None:
        """The store, a new one where the old cannot be read, or None where there can be none."""
        try:
            return self._open()
        except UNREADABLE as exc:
            self._failed("open_errors", exc)
        except (lmdb.Error, OSError) as exc:  # its files may be good, and others may use them
            self._failed("open_errors", exc)
            return None
        aside = self._path.with_name(self._path.name + ".unreadable")
        try:
            shutil.rmtree(aside, ignore_errors=True)
            os.rename(self._path, aside)
            return self._open()
        except (lmdb.Error, OSError) as exc:
            self._failed("replace_errors", exc)
            return None

    def _open(self) -> tuple[lmdb.Environment, Any]:
        os.makedirs(self._path, exist_ok=True)
        environment = lmdb.open(
            os.fspath(self._path),
            map_size=self._map_size,
            max_dbs=2,
            max_readers=MAX_READERS,
            readahead=False,
        )
        try:
            environment.reader_check()
            used = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
            if os.path.getsize(self._path / "data.mdb") < used:  # reading the rest would be SIGBUS
                raise lmdb.CorruptedError("data.mdb is truncated")
            return environment, environment.open_db(DATABASE)
        except BaseException:
            environment.close()
            raise


def _sum(key: bytes, value: bytes) -> bytes:
    """Checksum of a value, which also says whose value it is."""
    return blake2b(value, digest_size=SUM_BYTES, key=key[:64]).digest()

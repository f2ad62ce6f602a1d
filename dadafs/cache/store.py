"""Values on disk: what was computed once need not be computed again."""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

import lmdb

from dadafs.cache.memory import MemoryCache

log = logging.getLogger(__name__)

MAX_READERS = 512
LOCK_BYTES = 64 * (MAX_READERS + 2)  # of lock.mdb, as LMDB makes it
FULL = 0.8  # of the map: above, the oldest values go, twice as much as comes
LARGEST = 0.04  # of the map, for one value
PENDING = 0.05  # of the map
TOUCHED = 0.04  # of the map, in pages, by one transaction: what is free after it only the next but
# one may use, so that some of them have to fit in what is left above FULL
DROPS = 8  # of so much, before a map counts as full
PAGES_EACH = 2  # that a value touches: keys are digests, so each lies in a leaf of its own
WRITE_EVERY_S = 0.5  # each transaction ends with a wait for the disk, so values are batched
BATCH_BYTES = 4 << 20  # written without waiting
PENDING_BYTES = 64 << 20  # where the disk is slower than what comes, more is dropped
HEADS_AT_ONCE = 256  # under one lock: a millisecond
PAGE_BYTES = 4096
SUM_BYTES = 8
AGE_BYTES = 8
UNREADABLE = (lmdb.InvalidError, lmdb.CorruptedError, lmdb.VersionMismatchError)
VALUES, AGES = b"values-1", b"ages-1"  # another number for another encoding


class Store:
    """Keeps bytes by key on disk, safe for threads and for other processes.

    Reads never raise: a hit, or a miss, which a counter explains; a value that fails its checksum
    is a miss. Writes are handed to one thread that batches them, never block and never raise: what
    does not fit, or fails, is dropped. What is pending when the process dies is only lost.

    LMDB reads by mapping the file, and what is mapped but not there, because the disk was full or
    somebody cut the file, ends the process (SIGBUS). So the lock's blocks are taken beforehand, and
    each access first looks whether the file is whole.

    Invariants: a key in `_pending` or `_writing` is found before the disk is asked; only the
    writer's thread writes, and closing waits for it.
    """

    def __init__(self, path: Path, map_bytes: int, *, recent_bytes: int = 0) -> None:
        self._path = path
        self._map_bytes = map_bytes
        self._lock = threading.Condition()
        self._counters: Counter[str] = Counter()
        self._recent: MemoryCache[bytes, bytes] = MemoryCache(recent_bytes)
        self._pending: dict[bytes, bytes] = {}
        self._pending_bytes = 0
        self._writing: dict[bytes, bytes] = {}
        self._closing = False
        self._writer: threading.Thread | None = None
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
                value = self._pending.get(key, self._writing.get(key))
            if value is None:
                value = self._read(key)
                if value is not None:
                    self._recent.put(key, value, len(value))
            self._counters["misses" if value is None else "hits"] += 1
            return value

    def heads(self, keys: Sequence[bytes], size: int) -> dict[bytes, bytes]:
        """The first `size` bytes of those of these values that are kept, their checksums not
        compared: to tell what is there, not to use it."""
        found: dict[bytes, bytes] = {}
        for begin in range(0, len(keys), HEADS_AT_ONCE):
            asked = keys[begin : begin + HEADS_AT_ONCE]
            with self._lock:
                self._read_heads(asked, size, found)
                for key in asked:
                    value = self._pending.get(key, self._writing.get(key))
                    if value is not None:
                        found[key] = value[:size]
        return found

    def put(self, key: bytes, value: bytes) -> None:
        """Keep `value`, on disk soon, if there is room."""
        with self._lock:
            self._recent.put(key, value, len(value))
            if self._opened is None or self._closing:
                return
            if len(value) > LARGEST * self._map_bytes:
                self._counters["too_large"] += 1
                return
            if self._pending_bytes + len(value) > min(PENDING_BYTES, PENDING * self._map_bytes):
                self._counters["dropped"] += 1
                return
            self._pending_bytes += len(value) - len(self._pending.get(key, b""))
            self._pending[key] = value
            if self._writer is None:
                self._writer = threading.Thread(
                    target=self._write_batches, name=f"store {self._path.name}", daemon=True
                )
                self._writer.start()
            if self._pending_bytes > BATCH_BYTES:
                self._lock.notify_all()

    def flush(self) -> None:
        """Wait until all that was put is written."""
        with self._lock:
            while self._pending or self._writing:
                self._lock.notify_all()
                self._lock.wait(WRITE_EVERY_S)

    def close(self) -> None:
        """Write what is pending and close. To close twice is fine."""
        with self._lock:
            self._closing = True
            self._lock.notify_all()
        if self._writer is not None:
            self._writer.join()
        with self._lock:
            if self._opened is not None:
                self._end.close()
                self._opened = None

    def _read(self, key: bytes) -> bytes | None:
        if self._opened is None:
            return None
        environment, values, _ = self._opened
        try:
            self._check_whole(environment)
            with environment.begin(db=values) as transaction:
                stored = transaction.get(key)
        except lmdb.Error as exc:
            self._failed("read_errors", exc)
            return None
        if stored is None:
            return None
        value = bytes(stored[AGE_BYTES + SUM_BYTES :])
        if value_sum(key, value) != stored[AGE_BYTES : AGE_BYTES + SUM_BYTES]:
            self._counters["bad_sums"] += 1
            return None
        return value

    def _read_heads(self, keys: Sequence[bytes], size: int, found: dict[bytes, bytes]) -> None:
        if self._opened is None:
            return
        environment, values, _ = self._opened
        begin = AGE_BYTES + SUM_BYTES
        try:
            self._check_whole(environment)
            with environment.begin(db=values, buffers=True) as transaction:
                for key in keys:
                    stored = transaction.get(key)
                    if stored is not None:
                        found[key] = bytes(stored[begin : begin + size])
        except lmdb.Error as exc:
            self._failed("read_errors", exc)

    def _write_batches(self) -> None:
        """The writer's thread: what has gathered, every so often, until closed."""
        while True:
            with self._lock:
                if not self._closing and self._pending_bytes <= BATCH_BYTES:
                    self._lock.wait(WRITE_EVERY_S)
                if not self._pending:
                    if self._closing:
                        return
                    self._lock.wait_for(lambda: self._pending or self._closing)
                    continue
                self._writing, self._pending, self._pending_bytes = self._pending, {}, 0
            self._write(self._writing)
            with self._lock:
                self._writing = {}
                self._lock.notify_all()

    def _write(self, pairs: dict[bytes, bytes]) -> None:
        assert self._opened is not None
        try:
            self._check_whole(self._opened[0])
            for part in portions(pairs, self._touches()):
                self._make_room(*self._opened, sum(map(len, part.values())))
                self._insert_somewhere(*self._opened, part)
                self._count("written", len(part))
        except lmdb.MapFullError as exc:
            self._failed("full", exc)
            self._make_empty(*self._opened)
        except lmdb.Error as exc:
            self._failed("write_errors", exc)

    def _insert_somewhere(
        self, environment: lmdb.Environment, values: Any, ages: Any, pairs: dict[bytes, bytes]
    ) -> None:
        """Insert, and where what is free does not lie side by side, as a large value needs it, drop
        more of the oldest: what came together mostly lies together."""
        for _ in range(DROPS):
            with suppress(lmdb.MapFullError):
                return self._insert(environment, values, ages, pairs)
            self._drop_oldest(environment, values, ages, int(TOUCHED * self._map_bytes))
            self._count("scattered")
        return self._insert(environment, values, ages, pairs)

    def _insert(
        self, environment: lmdb.Environment, values: Any, ages: Any, pairs: dict[bytes, bytes]
    ) -> None:
        with environment.begin(write=True) as transaction:
            with transaction.cursor(ages) as cursor:
                number = int.from_bytes(cursor.key(), "big") + 1 if cursor.last() else 0
            for age, (key, value) in enumerate(pairs.items(), number):
                stamp = age.to_bytes(AGE_BYTES, "big")
                transaction.put(key, stamp + value_sum(key, value) + value, db=values)
                transaction.put(stamp, key, db=ages, append=True)

    def _touches(self) -> int:
        """How many pages one transaction may touch."""
        return int(TOUCHED * self._map_bytes) // PAGE_BYTES

    def _make_room(
        self, environment: lmdb.Environment, values: Any, ages: Any, coming_bytes: int
    ) -> None:
        """Drop the oldest values of a map that is nearly full: twice as much as comes, since a page
        is free only when little is left on it."""
        with environment.begin() as transaction:
            used = _pages(transaction.stat(values)) + _pages(transaction.stat(ages))
        if used * environment.stat()["psize"] <= FULL * self._map_bytes:
            return
        excess = 2 * coming_bytes
        while excess > 0 and (freed := self._drop_oldest(environment, values, ages, excess)):
            excess -= freed

    def _drop_oldest(
        self, environment: lmdb.Environment, values: Any, ages: Any, excess: int
    ) -> int:
        """Drop so many bytes, or what one transaction may touch; the bytes that went, of values and
        of records of age."""
        most = max(1, self._touches() // PAGES_EACH)
        dropped = freed = 0
        with environment.begin(write=True) as transaction, transaction.cursor(ages) as cursor:
            found = cursor.first()
            while found and freed < excess and most > 0:
                stamp, key = cursor.item()
                stored = transaction.get(key, db=values)
                if stored is not None and stored[:AGE_BYTES] == stamp:
                    freed += len(stored) + len(key)
                    transaction.delete(key, db=values)
                    dropped += 1
                freed += len(stamp) + len(key)
                most -= 1
                found = cursor.delete()
        self._count("evicted", dropped)
        return freed

    def _make_empty(self, environment: lmdb.Environment, values: Any, ages: Any) -> None:
        """Drop all values of a map that is full in spite of everything."""
        self._count("emptied")
        try:
            with environment.begin(write=True) as transaction:
                transaction.drop(values, delete=False)
                transaction.drop(ages, delete=False)
        except lmdb.Error as exc:
            self._failed("write_errors", exc)

    def _count(self, counter: str, by: int = 1) -> None:
        with self._lock:
            self._counters[counter] += by

    def _failed(self, counter: str, exc: Exception) -> None:
        self._counters[counter] += 1
        if self._counters[counter] == 1:
            log.warning("store in %s: %s; going on without", self._path, exc)

    def _open_or_replace(self) -> tuple[lmdb.Environment, Any, Any] | None:
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

    def _check_whole(self, environment: lmdb.Environment) -> None:
        """lmdb.CorruptedError where the file ends before the last page that is in use."""
        used = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
        if os.fstat(self._data_fd).st_size < used:
            raise lmdb.CorruptedError("data.mdb is truncated")

    def _open(self) -> tuple[lmdb.Environment, Any, Any]:
        os.makedirs(self._path, exist_ok=True)
        _take_lock_blocks(self._path / "lock.mdb")
        with ExitStack() as undo:
            environment = lmdb.open(
                os.fspath(self._path),
                map_size=self._map_bytes,
                max_dbs=2,
                max_readers=MAX_READERS,
                readahead=False,
            )
            undo.callback(environment.close)
            self._data_fd = os.open(self._path / "data.mdb", os.O_RDONLY)
            undo.callback(os.close, self._data_fd)
            environment.reader_check()
            self._check_whole(environment)
            tables = environment.open_db(VALUES), environment.open_db(AGES)
            self._end = undo.pop_all()
            return environment, *tables


def _take_lock_blocks(path: Path) -> None:
    """Have all of the lock's blocks on the disk. OSError where that is full."""
    with open(path, "ab") as lock:
        os.posix_fallocate(lock.fileno(), 0, os.fstat(lock.fileno()).st_size or LOCK_BYTES)


def portions(pairs: dict[bytes, bytes], pages: int) -> Iterator[dict[bytes, bytes]]:
    """The same pairs in parts, in order, each of which touches so many pages or is just one pair.
    Pure."""
    part: dict[bytes, bytes] = {}
    touched = 0
    for key, value in pairs.items():
        more = PAGES_EACH + len(value) // PAGE_BYTES
        if part and touched + more > pages:
            yield part
            part, touched = {}, 0
        part[key] = value
        touched += more
    if part:
        yield part


def _pages(about: Any) -> int:
    return int(about["branch_pages"] + about["leaf_pages"] + about["overflow_pages"])


def value_sum(key: bytes, value: bytes) -> bytes:
    """Checksum of a value, which also says whose value it is."""
    return blake2b(value, digest_size=SUM_BYTES, key=key[:64]).digest()

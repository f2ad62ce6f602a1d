"""Fragments of raw files on a fast local disk, so that a slow one is read once."""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from dadafs.blocks import PAGE_BYTES
from dadafs.fragments import FRAGMENT_BYTES
from dadafs.server.pooling.files import DIRECTORIES, HEADER_BYTES, Files, pages_of
from dadafs.server.pooling.order import LUMP_FILES, LUMP_PAGES, Order, Spare, surplus

log = logging.getLogger(__name__)

KEEP_FREE = 0.05  # of the space and of the inodes of the file system
QUEUE_BYTES = 64 << 20  # a tenth of a second of a SATA disk; what comes faster is dropped
CHECK_EVERY_S = 10.0  # others fill the file system too
RETRY_S = 10.0  # after trouble: a remount or somebody who tidies up takes longer
READ_FAILURES = 3  # in a row: one bad sector does not put the pool out of use
LOG_EVERY_S = 60.0  # for each kind of trouble
FREED_WITHIN_S = 30.0  # btrfs says only after a commit that an unlinked file is gone
CLOSE_WITHIN_S = 10.0  # a disk that hangs does not keep a server from stopping
MERGED_AT_ONCE = 1000  # files a scan found: 1 ms for which readers wait
FULL = (errno.ENOSPC, errno.EDQUOT)


class FragmentPool:
    """Keeps fragments as files, one each, for all threads; the least recently used go first.

    It only ever helps: reads hit or miss, writes are done by one thread or dropped, whatever the
    disk does. Counters say what happened, the log says it once a minute for each kind. What is
    found is what was put, or it is not found.

    It may start on a directory of a million files: reads look at the files themselves, so they
    hit at once, while the writer's thread lists them between its writes. Until that is done
    nothing can be evicted, and what would not fit is dropped.

    Invariants: a key in `_pending` is found there until its file is written. `_order` may lag
    behind the files (those of a scan that is under way, those that others removed), and every miss,
    hit or eviction mends it. Only the writer's thread makes files.
    """

    def __init__(
        self,
        directory: Path,
        max_bytes: int,
        *,
        keep_free: float = KEEP_FREE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._files = Files(os.fspath(directory))
        self._max_pages = max_bytes // PAGE_BYTES
        self._keep_free = keep_free
        self._clock = clock
        self._lock = threading.Condition()
        self._counters: Counter[str] = Counter()
        self._pending: dict[bytes, tuple[memoryview, int]] = {}
        self._pending_bytes = 0
        self._order = Order()
        self._home: tuple[int, int] | None = None
        self._scan: Iterator[None] | None = None
        self._freed_until = -float("inf")
        self._quiet_until: dict[tuple[str, str | None], float] = {}
        self._writes_rest_until = self._reads_rest_until = -float("inf")
        self._read_failures = 0
        self._closing = False
        self._looked = False
        self._writer = threading.Thread(
            target=self._work, name=f"fragment pool {directory.name}", daemon=True
        )
        self._writer.start()

    @property
    def counters(self) -> dict[str, int]:
        """Hits, misses, what was written and evicted, what went wrong; and what is held now."""
        with self._lock:
            held = {"held": len(self._order), "held_bytes": self._order.pages * PAGE_BYTES}
            return {**self._counters, **held, "pending_bytes": self._pending_bytes}

    def read_into(self, key: bytes, buffer: memoryview) -> int | None:
        """The checksum of a fragment, whose data now fill `buffer`.

        None where there is none of just this size to be trusted; then `buffer` holds anything.
        The checksum was verified; handing it on with the data saves another pass over them.
        """
        with self._lock:
            pending = self._pending.get(key)
            resting = self._clock() < self._reads_rest_until
        found: int | None = None
        if pending is not None:
            data, data_sum = pending
            if len(buffer) == len(data):
                buffer[:] = data
                found = data_sum
        elif not resting:
            found = self._load(key, buffer)
        self._count("misses" if found is None else "hits")
        return found

    def put(self, key: bytes, data: memoryview, data_sum: int) -> None:
        """Keep a fragment, soon, if there is room. The data, whose checksum is `data_sum`, must not
        change any more."""
        with self._lock:
            if key in self._pending or self._closing:
                return
            too_much = self._pending_bytes + len(data) > QUEUE_BYTES or len(data) > FRAGMENT_BYTES
            if too_much or self._clock() < self._writes_rest_until:
                self._counters["dropped"] += 1
                return
            self._pending[key] = data, data_sum
            self._pending_bytes += len(data)
            self._lock.notify_all()

    def flush(self) -> None:
        """Wait until what was put is written and the files are listed."""
        with self._lock:
            while self._pending or self._scan is not None or not self._looked:
                self._lock.wait()

    def close(self) -> None:
        """Write what is pending and stop. To close twice is fine."""
        with self._lock:
            self._closing = True
            self._lock.notify_all()
        self._writer.join(CLOSE_WITHIN_S)

    # Reading, in any thread

    def _load(self, key: bytes, buffer: memoryview) -> int | None:
        """From its file."""
        try:
            data_sum = self._files.read(key, buffer)
        except FileNotFoundError:
            self._forget(key)
            return None
        except OSError as exc:
            self._read_failed(exc)
            return None
        if data_sum is None:
            self._failed("bad_files", "checksum, size or header is wrong")
            self._forget(key)
            return None
        with self._lock:
            self._read_failures = 0
            self._order.use(key, pages_of(len(buffer)))
        return data_sum

    def _read_failed(self, exc: OSError) -> None:
        self._failed("read_errors", exc.strerror)
        with self._lock:
            self._read_failures += 1
            if self._read_failures >= READ_FAILURES:
                self._reads_rest_until = self._clock() + RETRY_S

    def _forget(self, key: bytes) -> None:
        with self._lock:
            self._order.forget(key)

    # Writing, in the writer's thread

    def _work(self) -> None:
        """What is pending first; else go on listing the files; else look around now and then."""
        self._look_around()
        while True:
            with self._lock:
                self._looked = True
                self._lock.notify_all()
                if not self._pending and self._scan is None and not self._closing:
                    self._lock.wait(CHECK_EVERY_S)
                item = next(iter(self._pending.items()), None)
                if item is None and self._closing:
                    self._scan = None
                    self._lock.notify_all()
                    return
            if item is not None:
                key, (data, data_sum) = item
                self._keep(key, data, data_sum)
                with self._lock:
                    del self._pending[key]
                    self._pending_bytes -= len(data)
            elif self._scan is not None:
                if next(self._scan, self) is self:
                    self._scan = None
            else:
                self._look_around()

    def _keep(self, key: bytes, data: memoryview, data_sum: int) -> None:
        """Write one fragment, if there is room."""
        pages = pages_of(len(data))
        try:
            if self._clock() < self._writes_rest_until:
                self._count("dropped")
            elif not self._make_room(pages):
                self._count("no_room")
            else:
                self._files.write(key, data, data_sum)
                with self._lock:
                    self._counters["written"] += 1
                    self._order.use(key, pages)
        except OSError as exc:
            self._write_failed(exc)

    def _look_around(self) -> None:
        """Make room when others have filled the file system."""
        if self._clock() < self._writes_rest_until:
            return
        try:
            self._make_room(0)
        except OSError as exc:
            self._write_failed(exc)

    def _write_failed(self, exc: OSError) -> None:
        self._failed("write_errors", exc.strerror)
        with self._lock:
            self._writes_rest_until = self._clock() + RETRY_S
            some = surplus(len(self._order), 1, 0, LUMP_FILES)
        if exc.errno in FULL and self._scan is None:  # though there seemed to be room: a quota
            with suppress(OSError):
                self._evict(0, some)

    def _make_room(self, coming_pages: int) -> bool:
        """Evict what has to go before so much may be written; False where it may not."""
        self._move_in()
        spare = self._spare()
        if spare.holds(coming_pages):
            return True
        with self._lock:
            used, files = self._order.pages, len(self._order)
        for_space = surplus(used, coming_pages, spare.space, LUMP_PAGES)
        if self._scan is not None or (for_space and self._clock() < self._freed_until):
            return False
        for_quota = surplus(used, coming_pages, spare.quota, LUMP_PAGES)
        for_inodes = surplus(files, min(1, coming_pages), spare.inodes, LUMP_FILES)
        freed = self._evict(max(for_space, for_quota), for_inodes)
        after = self._spare()
        if for_space and after.space - spare.space < freed // 2:
            self._freed_until = self._clock() + FREED_WITHIN_S
        return after.holds(coming_pages)

    def _move_in(self) -> None:
        """List the files where the directory is another: at the start, or after a remount."""
        directory = self._files.directory
        try:
            found = os.stat(directory)
        except FileNotFoundError:
            os.makedirs(directory, 0o700, exist_ok=True)
            found = os.stat(directory)
        home = found.st_dev, found.st_ino
        if self._home != home:
            self._home = home
            with self._lock:
                self._order = Order()
            self._scan = self._listing()

    def _spare(self) -> Spare:
        system = os.statvfs(self._files.directory)
        free, total = system.f_bavail * system.f_frsize, system.f_blocks * system.f_frsize
        with self._lock:
            quota = self._max_pages - self._order.pages
        return Spare(
            quota,
            int(free - self._keep_free * total) // PAGE_BYTES,
            int(system.f_favail - self._keep_free * system.f_files) if system.f_files else 1,
        )

    def _evict(self, pages: int, files: int) -> int:
        """Remove the least recently used, at least so much of both; returns the pages freed."""
        freed = removed = 0
        while freed < pages or removed < files:
            with self._lock:
                if not self._order:
                    break
                key, size = self._order.take_oldest()
            try:
                os.unlink(self._files.path(key))
            except FileNotFoundError:
                pass
            except OSError:
                with self._lock:
                    self._order.add_oldest(key, size)
                raise
            freed += size
            removed += 1
        self._count("evicted", removed)
        return freed

    def _listing(self) -> Iterator[None]:
        """Learn what the files are, in steps; whatever was used meanwhile is younger than they."""
        found: list[tuple[float, bytes, int]] = []
        for number in range(DIRECTORIES):
            try:
                found.extend(self._shard(number))
            except OSError as exc:
                self._failed("scan_errors", exc.strerror)
            yield
        found.sort(reverse=True)
        for begin in range(0, len(found), MERGED_AT_ONCE):
            with self._lock:
                for _, key, pages in found[begin : begin + MERGED_AT_ONCE]:
                    self._order.add_oldest(key, pages)
            yield

    def _shard(self, number: int) -> Iterator[tuple[float, bytes, int]]:
        """Last use, key and pages of the files of a directory; what a crash has left goes."""
        for key, entry, leftover in self._files.listed(number):
            try:
                if leftover:
                    os.unlink(entry.path)
                    self._count("leftovers")
                else:
                    about = entry.stat(follow_symlinks=False)
                    yield about.st_mtime, key, pages_of(about.st_size - HEADER_BYTES)
            except FileNotFoundError:
                continue
            except OSError as exc:
                self._failed("scan_errors", exc.strerror)

    def _count(self, counter: str, by: int = 1) -> None:
        with self._lock:
            self._counters[counter] += by

    def _failed(self, counter: str, reason: str | None) -> None:
        """Count it, and say it if this kind was not said lately."""
        with self._lock:
            self._counters[counter] += 1
            now = self._clock()
            if now < self._quiet_until.get((counter, reason), now):
                return
            self._quiet_until[counter, reason] = now + LOG_EVERY_S
        about = counter.replace("_", " ")
        where = self._files.directory
        log.warning("fragment pool in %s: %s: %s; going on without", where, about, reason)

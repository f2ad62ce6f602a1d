"""Fragments of raw files on a fast local disk, so that a slow one is read once."""

from __future__ import annotations

import errno
import logging
import os
import struct
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TypeAlias

from dadafs.blocks import PAGE_BYTES, advanced, is_aligned, page_aligned
from dadafs.fragments import FRAGMENT_BYTES, checksum
from dadafs.scans.model import Identity
from dadafs.server.direct import Opener

log = logging.getLogger(__name__)

Buffer: TypeAlias = "bytes | bytearray | memoryview"

MAGIC, VERSION = b"ddaf", 2
FACTS = struct.Struct("<4sIIQ16s")  # magic, version, bytes of data, checksum of data, key
FACTS_SUM = struct.Struct("<Q")
HEADER_BYTES = PAGE_BYTES  # so that the data begin with a page
KEY_BYTES = 16
KEEP_FREE = 0.05  # of the space and of the inodes of the file system
LOWERED = 0.95  # of what is allowed: so far eviction goes at a time, but by no more than a lump
LUMP_PAGES = 256 * 257  # 256 fragments: 3 ms each on a busy ext4 disk, while nothing is written
LUMP_FILES = 256
QUEUE_BYTES = 64 << 20  # a tenth of a second of a SATA disk; what comes faster is dropped
CHECK_EVERY_S = 10.0  # others fill the file system too
RETRY_S = 10.0  # after trouble: a remount or somebody who tidies up takes longer
READ_FAILURES = 3  # in a row: one bad sector does not put the pool out of use
LOG_EVERY_S = 60.0  # for each kind of trouble
TOUCH_EVERY_S = 3600.0  # the order of use, to the hour, survives a restart
FREED_WITHIN_S = 30.0  # btrfs says only after a commit that an unlinked file is gone
CLOSE_WITHIN_S = 10.0  # a disk that hangs does not keep a server from stopping
MERGED_AT_ONCE = 1000  # files a scan found: 1 ms for which readers wait
READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
FULL = (errno.ENOSPC, errno.EDQUOT)


def fragment_key(path: bytes, identity: Identity, index: int) -> bytes:
    """What a fragment of one content of a raw file is found by. Pure."""
    facts = b"%d %d %d %d " % (identity.size, identity.mtime_ns, identity.inode, index)
    return blake2b(facts + path, digest_size=KEY_BYTES).digest()


def header(key: bytes, size: int, data_sum: int) -> bytes:
    """What stands before the data; its own checksum binds theirs to the key. Pure."""
    facts = FACTS.pack(MAGIC, VERSION, size, data_sum, key)
    return (facts + FACTS_SUM.pack(checksum(facts))).ljust(HEADER_BYTES, b"\0")


def stated_sum(head: Buffer, key: bytes, size: int) -> int | None:
    """The checksum that a header states, None unless it is that of `size` bytes of `key`. Pure."""
    if not 0 <= size <= FRAGMENT_BYTES:
        return None
    data_sum = FACTS.unpack_from(head)[3]
    return int(data_sum) if head == header(key, size, data_sum) else None


def surplus(used: int, coming: int, spare: int, lump: int) -> int:
    """How much of `used` has to go before `coming` fits, where there is room for `spare` more:
    when any has to, then up to a lump more, so that it is seldom. Pure."""
    if coming <= spare:
        return 0
    allowed = max(0, used + spare)
    return min(used, used + coming - max(int(LOWERED * allowed), allowed - lump))


@dataclass(frozen=True, slots=True)
class Spare:
    """What may still be written: pages within the quota, pages and inodes of the file system."""

    quota: int
    space: int
    inodes: int

    def holds(self, pages: int) -> bool:
        """Whether a file of so many pages may be written; of none, whether all is well."""
        return pages <= min(self.quota, self.space) and self.inodes >= min(1, pages)


class _File:
    """What a file of the pool is to hold."""

    def __init__(self, key: bytes, data: memoryview, data_sum: int) -> None:
        self.size = HEADER_BYTES + len(data)
        self.head = page_aligned(HEADER_BYTES)
        self.head[:] = header(key, len(data), data_sum)
        self.data = data
        self.data_sum = data_sum

    def whole_pages(self) -> list[memoryview]:
        """The content, to be cut to `size` once it is written."""
        if is_aligned(self.data):
            return [self.head, self.data]
        body = page_aligned(_pages(len(self.data)) * PAGE_BYTES)
        body[: len(self.data)] = self.data
        body[len(self.data) :] = bytes(len(body) - len(self.data))
        return [self.head, body]


class FragmentPool:
    """Keeps fragments as files, one each, for all threads; the least recently used go first.

    It only ever helps: reads hit or miss, writes are done by one thread or dropped, whatever the
    disk does. Counters say what happened, the log says it once a minute for each kind. What is
    found is what was put, or it is not found: header, length and checksum of every file are
    verified, so that nothing is ever synced, and a file torn by a crash is a miss.

    It may start on a directory of a million files: reads look at the files themselves, so they
    hit at once, while the writer's thread lists them between its writes. Until that is done
    nothing can be evicted, and what would not fit is dropped.

    Invariants: a key in `_pending` is found there until its file is written. `_used_pages` is the
    sum of `_order`, which holds what is known of the files, in the order of use; it may lag behind
    them (files of a scan that is under way, files that others removed), and every miss, hit or
    eviction mends it. Only files with names that the pool gives are ever removed, and only the
    writer's thread makes any.
    """

    def __init__(
        self,
        directory: Path,
        max_bytes: int,
        *,
        keep_free: float = KEEP_FREE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = os.fspath(directory)
        self._max_pages = max_bytes // PAGE_BYTES
        self._keep_free = keep_free
        self._clock = clock
        self._lock = threading.Condition()
        self._counters: Counter[str] = Counter()
        self._pending: dict[bytes, _File] = {}
        self._pending_bytes = 0
        self._order: OrderedDict[bytes, int] = OrderedDict()
        self._used_pages = 0
        self._home: tuple[int, int] | None = None
        self._scan: Iterator[None] | None = None
        self._freed_until = -float("inf")
        self._quiet_until: dict[tuple[str, str | None], float] = {}
        self._writes_rest_until = self._reads_rest_until = -float("inf")
        self._read_failures = 0
        self._closing = False
        self._opener = Opener()
        self._suffix = f".{os.getpid()}-{os.urandom(4).hex()}.tmp"
        self._looked = False
        self._writer = threading.Thread(
            target=self._work, name=f"fragment pool {directory.name}", daemon=True
        )
        self._writer.start()

    @property
    def counters(self) -> dict[str, int]:
        """Hits, misses, what was written and evicted, what went wrong; and what is held now."""
        with self._lock:
            held = {"held": len(self._order), "held_bytes": self._used_pages * PAGE_BYTES}
            return {**self._counters, **held, "pending_bytes": self._pending_bytes}

    def get(self, key: bytes) -> bytes | None:
        """The data of a fragment; None where there are none to be trusted."""
        found = self._find(key, None)
        return None if found is None else bytes(found[0])

    def read_into(self, key: bytes, buffer: memoryview) -> int | None:
        """The checksum of a fragment, whose data now fill `buffer`.

        None where there is none of just this size to be trusted; then `buffer` holds anything.
        The checksum was verified; handing it on with the data saves another pass over them.
        """
        found = self._find(key, buffer)
        return None if found is None else found[1]

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
            self._pending[key] = _File(key, data, data_sum)
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

    def _find(self, key: bytes, buffer: memoryview | None) -> tuple[Buffer, int] | None:
        with self._lock:
            pending = self._pending.get(key)
            resting = self._clock() < self._reads_rest_until
        found: tuple[Buffer, int] | None = None
        if pending is not None:
            found = pending.data, pending.data_sum
        if found is not None and buffer is not None:
            if len(buffer) == len(found[0]):
                buffer[:] = found[0]
            else:
                found = None
        elif found is None and not resting:
            found = self._load(key, buffer)
        self._count("misses" if found is None else "hits")
        return found

    def _load(self, key: bytes, buffer: memoryview | None) -> tuple[Buffer, int] | None:
        """From the file."""
        direct = buffer is not None and is_aligned(buffer)
        try:
            fd = self._opener.open(self._path(key), READ, direct=direct)
        except FileNotFoundError:
            self._forget(key)
            return None
        except OSError as exc:
            self._read_failed(exc)
            return None
        try:
            found = os.fstat(fd)
            size = found.st_size - HEADER_BYTES
            if buffer is None:
                buffer = memoryview(bytearray(min(max(0, size), FRAGMENT_BYTES)))
            head = page_aligned(HEADER_BYTES)
            got = os.preadv(fd, [head, buffer], 0)
            with suppress(OSError):  # of a read-only file system
                if abs(time.time() - found.st_mtime) > TOUCH_EVERY_S:
                    os.utime(fd)
        except OSError as exc:
            if direct and self._opener.gives_up(exc):
                return self._load(key, buffer)
            self._read_failed(exc)
            self._remove_bad(key)
            return None
        finally:
            os.close(fd)
        data_sum = stated_sum(head, key, size)
        complete = got == HEADER_BYTES + size and len(buffer) == size
        if data_sum is None or not complete or checksum(buffer) != data_sum:
            self._failed("bad_files", "checksum, size or header is wrong")
            self._remove_bad(key)
            return None
        with self._lock:
            self._read_failures = 0
            self._order.setdefault(key, 0)
            self._used_pages += _pages(found.st_size) - self._order[key]
            self._order[key] = _pages(found.st_size)
            self._order.move_to_end(key)
        return buffer, data_sum

    def _read_failed(self, exc: OSError) -> None:
        self._failed("read_errors", exc.strerror)
        with self._lock:
            self._read_failures += 1
            if self._read_failures >= READ_FAILURES:
                self._reads_rest_until = self._clock() + RETRY_S

    def _remove_bad(self, key: bytes) -> None:
        with suppress(OSError):
            os.unlink(self._path(key))
        self._forget(key)

    def _forget(self, key: bytes) -> None:
        with self._lock:
            self._used_pages -= self._order.pop(key, 0)

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
                key, file = item
                self._keep(key, file)
                with self._lock:
                    del self._pending[key]
                    self._pending_bytes -= len(file.data)
            elif self._scan is not None:
                if next(self._scan, self) is self:
                    self._scan = None
            else:
                self._look_around()

    def _keep(self, key: bytes, file: _File) -> None:
        """Write one fragment, if there is room."""
        pages = _pages(file.size)
        try:
            if self._clock() < self._writes_rest_until:
                self._count("dropped")
            elif not self._make_room(pages):
                self._count("no_room")
            else:
                self._write(key, file)
                with self._lock:
                    self._counters["written"] += 1
                    self._used_pages += pages - self._order.pop(key, 0)
                    self._order[key] = pages
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

    def _write(self, key: bytes, file: _File) -> None:
        path = self._path(key)
        temporary = path + self._suffix
        try:
            try:
                self._fill(temporary, file)
            except FileNotFoundError:
                os.mkdir(os.path.dirname(path), 0o700)
                self._fill(temporary, file)
            os.rename(temporary, path)
        except OSError:
            with suppress(OSError):
                os.unlink(temporary)
            raise

    def _fill(self, path: str, file: _File) -> None:
        fd = self._opener.open(path, WRITE, direct=True)
        try:
            rest = file.whole_pages()
            while rest:
                rest = advanced(rest, os.writev(fd, rest))
            os.ftruncate(fd, file.size)
        except OSError as exc:
            if not self._opener.gives_up(exc):
                raise
            self._fill(path, file)
        finally:
            os.close(fd)

    def _make_room(self, coming_pages: int) -> bool:
        """Evict what has to go before so much may be written; False where it may not."""
        try:
            home = os.stat(self._directory)
        except FileNotFoundError:
            os.makedirs(self._directory, 0o700, exist_ok=True)
            home = os.stat(self._directory)
        if self._home != (home.st_dev, home.st_ino):  # at the start, or after a remount
            self._home = home.st_dev, home.st_ino
            with self._lock:
                self._order.clear()
                self._used_pages = 0
            self._scan = self._listing()
        spare = self._spare()
        if spare.holds(coming_pages):
            return True
        with self._lock:
            used, files = self._used_pages, len(self._order)
        for_space = surplus(used, coming_pages, spare.space, LUMP_PAGES)
        pages = max(for_space, surplus(used, coming_pages, spare.quota, LUMP_PAGES))
        if self._scan is not None or (for_space and self._clock() < self._freed_until):
            return False
        by_inodes = surplus(files, min(1, coming_pages), spare.inodes, LUMP_FILES)
        freed = self._evict(pages, by_inodes)
        after = self._spare()
        if for_space and after.space - spare.space < freed // 2:
            self._freed_until = self._clock() + FREED_WITHIN_S
        return after.holds(coming_pages)

    def _spare(self) -> Spare:
        system = os.statvfs(self._directory)
        free, total = system.f_bavail * system.f_frsize, system.f_blocks * system.f_frsize
        with self._lock:
            quota = self._max_pages - self._used_pages
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
                key, size = self._order.popitem(last=False)
                self._used_pages -= size
            try:
                os.unlink(self._path(key))
            except FileNotFoundError:
                pass
            except OSError:
                with self._lock:
                    self._used_pages += size - self._order.pop(key, 0)
                    self._order[key] = size
                    self._order.move_to_end(key, last=False)
                raise
            freed += size
            removed += 1
        self._count("evicted", removed)
        return freed

    def _listing(self) -> Iterator[None]:
        """Learn what the files are, in steps; whatever was used meanwhile is younger than they."""
        found: list[tuple[float, bytes, int]] = []
        for number in range(256):
            try:
                found.extend(self._shard(os.path.join(self._directory, f"{number:02x}")))
            except FileNotFoundError:
                continue
            except OSError as exc:
                self._failed("scan_errors", exc.strerror)
            yield
        found.sort(reverse=True)
        for begin in range(0, len(found), MERGED_AT_ONCE):
            with self._lock:
                for _, key, pages in found[begin : begin + MERGED_AT_ONCE]:
                    if key not in self._order:
                        self._order[key] = pages
                        self._order.move_to_end(key, last=False)
                        self._used_pages += pages
            yield

    def _shard(self, directory: str) -> Iterator[tuple[float, bytes, int]]:
        """Last use, key and size of the files of a directory; what a crash has left goes."""
        with os.scandir(directory) as entries:
            for entry in entries:
                name, dot, suffix = entry.name.partition(".")
                try:
                    key = bytes.fromhex(name)
                except ValueError:
                    continue
                if len(key) != KEY_BYTES or entry.path[: len(self._path(key))] != self._path(key):
                    continue
                try:
                    if not dot:
                        about = entry.stat(follow_symlinks=False)
                        yield about.st_mtime, key, _pages(about.st_size)
                    elif suffix.endswith(".tmp") and "." + suffix != self._suffix:
                        os.unlink(entry.path)
                        self._count("leftovers")
                except FileNotFoundError:
                    continue
                except OSError as exc:
                    self._failed("scan_errors", exc.strerror)

    def _path(self, key: bytes) -> str:
        name = key.hex()
        return f"{self._directory}/{name[:2]}/{name}"

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
        log.warning("fragment pool in %s: %s: %s; going on without", self._directory, about, reason)


def _pages(size: int) -> int:
    return -(-size // PAGE_BYTES)

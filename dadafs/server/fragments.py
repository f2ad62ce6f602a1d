"""Fragments of raw files: from the pool, or else from the source."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from dadafs.blocks import Blocks, advanced
from dadafs.errors import BadData, DadaError, Stale
from dadafs.fragments import FRAGMENT_BYTES, checksum, fragment_sizes
from dadafs.scans.model import Identity
from dadafs.scans.names import show
from dadafs.scans.tree import RawTree, identity_of
from dadafs.server.pooling.files import fragment_key
from dadafs.server.pooling.pool import FragmentPool

MAX_COUNT = 16  # fragments of one read: what a reply may take of memory
DESCRIPTORS = 64
IDLE_S = 60.0  # a descriptor kept longer would only hold the space of a deleted file
SETTLED_NS = 2 * 10**9  # file systems tell times by 4 ms to 2 s: younger content may still change


@dataclass(frozen=True, slots=True, eq=False)
class FragmentRun:
    """Consecutive fragments of one content of a raw file."""

    pieces: tuple[memoryview, ...]
    """The bytes of each; not to be changed."""
    sums: tuple[int, ...]
    """Checksum of each."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Bytes of each; only the last of a file is shorter than FRAGMENT_BYTES."""
        return tuple(map(len, self.pieces))


@dataclass(slots=True, eq=False)
class _Flight:
    """Fragments that one thread gets and others wait for."""

    landed: threading.Event = field(default_factory=threading.Event)
    pieces: dict[int, tuple[memoryview, int]] = field(default_factory=dict)
    error: DadaError | None = None


class FragmentReader:
    """Reads fragments, for any number of threads.

    A fragment belongs to one content of a file (`Identity`). The file is looked at before anything
    is answered, and the open file before and after its bytes are read; so what is answered, or put
    into the pool, is of the content that was asked for. Two changes that leave size and inode
    alike, within one tick of the file system's clock, cannot be told apart; therefore what changed
    within the last two seconds is not put into the pool.

    It does not read ahead. The kernel does, on a descriptor that stays open, and clients ask for
    what follows before they need it; POSIX_FADV_WILLNEED on top took a third of 1.5 GB/s from a
    local disk, because it waits for the disk's queue, and gave a slow network source nothing.

    Invariant: at most one thread gets a fragment at a time, others that want it wait for that.
    A thread waits only after its own have landed, so that no two wait for each other.
    """

    def __init__(
        self,
        tree: RawTree,
        pool: FragmentPool | None,
        *,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._tree = tree
        self._pool = pool
        self._now_ns = now_ns
        self._descriptors = _Descriptors(tree)
        self._blocks = Blocks()
        self._lock = threading.Lock()
        self._flying: dict[tuple[bytes, Identity, int], _Flight] = {}
        self._counters: Counter[str] = Counter()

    @property
    def counters(self) -> dict[str, int]:
        """Fragments by where they came from. The pool has counters of its own."""
        with self._lock:
            return dict(self._counters)

    def read(self, path: bytes, identity: Identity, first: int, count: int) -> FragmentRun:
        """The fragments `[first, first + count)`, count up to MAX_COUNT, all of them within the
        file.

        NoSuchPath, NotPermitted; Stale when the content is another now; BadData when it cannot be
        read, or when the range is not one of fragments that the file has.
        """
        if not (0 < count <= MAX_COUNT and first >= 0):
            raise BadData(f"fragments {first} + {count} cannot be asked for")
        self._check(path, identity)
        sizes = fragment_sizes(identity.size, first, count)
        if len(sizes) < count:
            raise BadData(f"{show(path)} ends before fragment {first + count - 1}")
        wanted = dict(enumerate(sizes, first))
        got: dict[int, tuple[memoryview, int]] = {}
        while len(got) < count:
            self._get(path, identity, {i: n for i, n in wanted.items() if i not in got}, got)
        pieces, sums = zip(*(got[index] for index in wanted), strict=True)
        return FragmentRun(pieces, sums)

    def close(self) -> None:
        """Close the descriptors. The pool is its owner's to close."""
        self._descriptors.close()

    def _check(self, path: bytes, identity: Identity) -> None:
        """Whether the path leads to this content: an open file does not tell that."""
        self._descriptors.tidy()
        try:
            if self._tree.identity(path) != identity:
                raise _stale(path)
        except DadaError:
            self._descriptors.discard(path)
            raise

    def _get(
        self,
        path: bytes,
        identity: Identity,
        wanted: dict[int, int],
        got: dict[int, tuple[memoryview, int]],
    ) -> None:
        """Get those of these sizes that no other thread is getting, then wait for the others."""
        flight = _Flight()
        with self._lock:
            others = {i: self._flying.get((path, identity, i), flight) for i in wanted}
            own = [i for i in wanted if others[i] is flight]
            self._flying.update(((path, identity, i), flight) for i in own)
        try:
            if own:
                pieces = {i: self._blocks.take(wanted[i]) for i in own}
                sums = self._fill(path, identity, pieces)
                flight.pieces = {i: (pieces[i], sums[i]) for i in own}
                got.update(flight.pieces)
        except DadaError as exc:
            flight.error = exc
            raise
        finally:
            with self._lock:
                for i in own:
                    del self._flying[path, identity, i]
            flight.landed.set()
        for i in wanted.keys() - set(own):
            others[i].landed.wait()
            error = others[i].error
            if error is not None:
                raise type(error)(str(error)) from error
            if i in others[i].pieces:  # not there when that thread was interrupted
                got[i] = others[i].pieces[i]
                self._count("joined")

    def _fill(
        self, path: bytes, identity: Identity, pieces: dict[int, memoryview]
    ) -> dict[int, int]:
        """Fill them from the pool or the source; their checksums."""
        sums: dict[int, int] = {}
        if self._pool is not None:
            for index, piece in pieces.items():
                found = self._pool.read_into(fragment_key(path, identity, index), piece)
                if found is not None:
                    sums[index] = found
        self._count("from_pool", len(sums))
        missing = {index: piece for index, piece in pieces.items() if index not in sums}
        if not missing:
            return sums
        self._read_source(path, identity, missing)
        self._count("from_source", len(missing))
        settled = abs(self._now_ns() - identity.mtime_ns) >= SETTLED_NS
        for index, piece in missing.items():
            sums[index] = checksum(piece)
            if self._pool is not None and settled:
                self._pool.put(fragment_key(path, identity, index), piece, sums[index])
        return sums

    def _read_source(self, path: bytes, identity: Identity, pieces: dict[int, memoryview]) -> None:
        try:
            with self._descriptors.get(path, identity) as opened:
                for run in runs(list(pieces)):
                    offset = run[0] * FRAGMENT_BYTES
                    if not _read_exactly(opened.fd, [pieces[i] for i in run], offset):
                        raise _stale(path)
                if identity_of(os.fstat(opened.fd)) != identity:
                    raise _stale(path)
        except OSError as exc:
            self._descriptors.discard(path)
            if isinstance(exc, DadaError):
                raise
            if exc.errno == errno.ESTALE:  # removed behind the back of a network file system
                raise _stale(path) from exc
            raise BadData(f"{show(path)} cannot be read: {exc.strerror}") from exc

    def _count(self, counter: str, by: int = 1) -> None:
        with self._lock:
            self._counters[counter] += by


def runs(indices: Sequence[int]) -> list[list[int]]:
    """Ascending indices as runs of consecutive ones. Pure."""
    found: list[list[int]] = []
    for index in indices:
        if found and found[-1][-1] == index - 1:
            found[-1].append(index)
        else:
            found.append([index])
    return found


@dataclass(slots=True, eq=False)
class _Opened:
    """An open raw file."""

    fd: int
    identity: Identity
    used_s: float
    users: int = 0
    kept: bool = True


class _Descriptors:
    """Open raw files, a few of them kept for the next read.

    Invariant: a descriptor is closed once it is neither kept nor used by a thread.
    """

    def __init__(self, tree: RawTree) -> None:
        self._tree = tree
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, _Opened] = OrderedDict()

    @contextmanager
    def get(self, path: bytes, identity: Identity) -> Iterator[_Opened]:
        """The open file of just this content, else Stale; and what opening raises."""
        with self._lock:
            opened = self._kept.get(path)
            if opened is None or opened.identity != identity:
                opened = None
            else:
                opened.users += 1
        opened = opened or self._open(path, identity)
        try:
            if identity_of(os.fstat(opened.fd)) != identity:
                raise _stale(path)
            yield opened
        finally:
            self._release(path, opened)

    def tidy(self) -> None:
        """Close what was not used for long."""
        with self._lock:
            self._drop_oldest(time.monotonic())

    def discard(self, path: bytes) -> None:
        """Keep this one no longer."""
        with self._lock:
            self._drop(path)

    def close(self) -> None:
        """Keep none."""
        with self._lock:
            for path in list(self._kept):
                self._drop(path)

    def _open(self, path: bytes, identity: Identity) -> _Opened:
        opened = _Opened(self._tree.open(path), identity, time.monotonic(), users=1)
        with self._lock:
            self._drop(path)
            self._kept[path] = opened
        return opened

    def _release(self, path: bytes, opened: _Opened) -> None:
        with self._lock:
            opened.users -= 1
            opened.used_s = time.monotonic()
            if not opened.users and not opened.kept:
                os.close(opened.fd)
            if opened.kept:
                self._kept.move_to_end(path)
            self._drop_oldest(opened.used_s)

    def _drop_oldest(self, now_s: float) -> None:
        while self._kept:
            path, oldest = next(iter(self._kept.items()))
            if len(self._kept) <= DESCRIPTORS and now_s - oldest.used_s < IDLE_S:
                break
            self._drop(path)

    def _drop(self, path: bytes) -> None:
        opened = self._kept.pop(path, None)
        if opened is not None:
            opened.kept = False
            if not opened.users:
                os.close(opened.fd)


def _read_exactly(fd: int, rest: list[memoryview], offset: int) -> bool:
    """Fill these buffers from `offset` on; False where the file ends before."""
    while rest:
        got = os.preadv(fd, rest, offset)
        if not got:
            return False
        offset += got
        rest = advanced(rest, got)
    return True


def _stale(path: bytes) -> Stale:
    return Stale(f"{show(path)} has changed")

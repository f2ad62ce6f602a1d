"""Where a peer gets chunks from: raw files of its own, or fragments from the server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dadafs.client.upstream.fragments import FragmentCache, cut
from dadafs.errors import NoSuchPath, Stale
from dadafs.fragments import FRAGMENT_BYTES
from dadafs.scans.frames.slices import limited
from dadafs.scans.model import NO_CHUNK, ChunkRun, FrameSlice
from dadafs.scans.tree import RawTree, identity_of

BATCH_FRAMES = 64  # fetched before they are computed: 18 MB of Eiger 4M


class RunReader(Protocol):
    """The chunks of one run of frames."""

    def read(self, offset: int, size: int) -> bytes:
        """One chunk; OSError where it cannot be read."""


class Chunks(Protocol):
    """What has been made ready of a slice of frames. Used in a thread."""

    def run(self, run: ChunkRun) -> AbstractContextManager[RunReader]:
        """A context in which the chunks of a run can be read; Stale when its file has changed."""


class FrameSource(Protocol):
    """A way to chunks."""

    def batches(self, frames: FrameSlice) -> Iterator[FrameSlice]:
        """The parts in which a slice is made ready."""

    async def gather(self, frames: FrameSlice) -> Chunks:
        """Make a part ready."""


class LocalSource:
    """Raw files that this machine can open."""

    def __init__(self, tree: RawTree) -> None:
        self._tree = tree

    def batches(self, frames: FrameSlice) -> Iterator[FrameSlice]:
        """All at once: nothing is held."""
        yield frames

    async def gather(self, frames: FrameSlice) -> LocalSource:
        """Nothing to do."""
        return self

    @contextmanager
    def run(self, run: ChunkRun) -> Iterator[RunReader]:
        """An open file, the same from begin to end."""
        try:
            fd = self._tree.open(run.path)
        except NoSuchPath as exc:
            raise Stale(f"{os.fsdecode(run.path)} has vanished") from exc
        try:
            _check_identity(fd, run)
            yield _File(fd)
            _check_identity(fd, run)
        finally:
            os.close(fd)


class _File:
    def __init__(self, fd: int) -> None:
        self._fd = fd

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self._fd, size, offset)


def _check_identity(fd: int, run: ChunkRun) -> None:
    if identity_of(os.fstat(fd)) != run.identity:
        raise Stale(f"{os.fsdecode(run.path)} has changed")


class RemoteSource:
    """Fragments from the server, which vouches for the identity of each."""

    def __init__(self, fragments: FragmentCache) -> None:
        self._fragments = fragments

    def batches(self, frames: FrameSlice) -> Iterator[FrameSlice]:
        """A few frames at a time, so that a peer holds little of a large portion."""
        return limited(frames, BATCH_FRAMES)

    async def gather(self, frames: FrameSlice) -> FetchedChunks:
        """Fetch all fragments that the chunks of these frames lie in."""
        found = {}
        for run in frames.runs:
            needed = fragments_of(run)
            found[run.path, run.first] = await self._fragments.fetch(run.path, run.identity, needed)
        return FetchedChunks(found)


class FetchedChunks:
    """Fragments in memory."""

    def __init__(self, found: dict[tuple[bytes, int], dict[int, memoryview]]) -> None:
        self._found = found

    @contextmanager
    def run(self, run: ChunkRun) -> Iterator[RunReader]:
        """The fragments of a run."""
        yield _Pieces(self._found[run.path, run.first])


class _Pieces:
    def __init__(self, pieces: dict[int, memoryview]) -> None:
        self._pieces = pieces

    def read(self, offset: int, size: int) -> bytes:
        first, last = offset // FRAGMENT_BYTES, -(-(offset + size) // FRAGMENT_BYTES)
        pieces = [self._pieces[index] for index in range(first, last)]
        return bytes(cut(pieces, first, offset, size))


def fragments_of(run: ChunkRun) -> list[int]:
    """Indices of the fragments that hold the chunks of a run, sorted. Pure."""
    offsets: NDArray[np.uint64] = np.frombuffer(run.offsets, "<u8")
    lengths = np.frombuffer(run.lengths, "<u4")[offsets != NO_CHUNK].astype(np.int64)
    begins = offsets[offsets != NO_CHUNK].astype(np.int64)
    ends = np.minimum(begins + lengths, run.identity.size)
    needed: set[int] = set()
    for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
        needed.update(range(begin // FRAGMENT_BYTES, -(-end // FRAGMENT_BYTES)))
    return sorted(needed)

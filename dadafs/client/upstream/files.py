"""Virtual files: everything that can be opened, whoever asks. Knows nothing of FUSE."""

from __future__ import annotations

import os
from typing import Protocol

import numpy as np
import trio

from dadafs.client.upstream.fragments import FragmentCache
from dadafs.errors import BadData
from dadafs.fragments import FRAGMENT_BYTES
from dadafs.scans.model import Attributes, Identity
from dadafs.scans.tree import RawTree

READ_AHEAD_BYTES = 16 << 20  # four calls of four fragments, on their way while others are read


class VirtualFile(Protocol):
    """An open file."""

    async def at_hand(self, offset: int, size: int) -> bool:
        """Whether this range can be read without computing."""

    async def read(self, offset: int, size: int) -> bytes | memoryview:
        """At most `size` bytes from `offset`; fewer only at the end of the file."""

    async def ahead(self, offset: int) -> None:
        """What lies behind `offset` will be read: have it computed."""

    def close(self) -> None:
        """Let go of what the file holds."""


class TextFile:
    """A text, made when the file was opened."""

    def __init__(self, text: bytes) -> None:
        self._text = text

    async def at_hand(self, offset: int, size: int) -> bool:
        """Always."""
        return True

    async def read(self, offset: int, size: int) -> bytes | memoryview:
        """A piece of the text."""
        return self._text[offset : offset + size]

    async def ahead(self, offset: int) -> None:
        """Nothing is ever computed."""

    def close(self) -> None:
        """Nothing is held."""


class RawFiles(Protocol):
    """How this machine gets at raw files."""

    def open(self, path: bytes, attributes: Attributes) -> VirtualFile:
        """The raw file at `path` of the raw tree. NoSuchPath, NotPermitted."""


class LocalRawFiles:
    """A raw tree on this machine."""

    def __init__(self, tree: RawTree) -> None:
        self._tree = tree

    def open(self, path: bytes, attributes: Attributes) -> VirtualFile:
        """The file as it is now."""
        return LocalRawFile(self._tree.open(path))


class RemoteRawFiles:
    """A raw tree that only the server sees."""

    def __init__(self, fragments: FragmentCache) -> None:
        self._fragments = fragments

    def open(self, path: bytes, attributes: Attributes) -> VirtualFile:
        """The file with the content that `attributes` tell of."""
        return RemoteRawFile(path, attributes.identity, self._fragments)


class RemoteRawFile:
    """A raw file, fragment by fragment from the server; reads fail with Stale once it changes."""

    def __init__(self, path: bytes, identity: Identity, fragments: FragmentCache) -> None:
        self._path = path
        self._identity = identity
        self._fragments = fragments
        self._run_end = 0
        self._ahead_of = 0
        """Where the next look ahead is due: not at every read."""

    async def at_hand(self, offset: int, size: int) -> bool:
        """Nothing is ever computed."""
        return True

    async def read(self, offset: int, size: int) -> bytes | memoryview:
        """A piece of the file; who reads on gets what follows fetched with it."""
        goes_on = offset == self._run_end and offset > 0
        self._run_end = offset + size
        if goes_on and self._run_end > self._ahead_of:
            ahead = self._run_end, READ_AHEAD_BYTES
            self._fragments.prefetch(self._path, self._identity, *ahead)
            self._ahead_of = self._run_end + FRAGMENT_BYTES
        return await self._fragments.read(self._path, self._identity, offset, size)

    async def ahead(self, offset: int) -> None:
        """Reading does it."""

    def close(self) -> None:
        """Nothing is held."""


class LocalRawFile:
    """A raw file that this machine can open itself."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    async def at_hand(self, offset: int, size: int) -> bool:
        """Nothing is ever computed."""
        return True

    async def read(self, offset: int, size: int) -> bytes | memoryview:
        """A piece of the file: at once from the page cache, else in a thread."""
        data = self._read_cached(offset, size)
        if len(data) == size:
            return data
        return await trio.to_thread.run_sync(self._read, offset, size)

    def _read_cached(self, offset: int, size: int) -> memoryview:
        """What of the range is in the page cache: a thread's detour would halve the speed."""
        buffer = np.empty(size, np.uint8).data  # a bytearray would be zeroed first
        try:
            return buffer[: os.preadv(self._fd, [buffer], offset, os.RWF_NOWAIT)]
        except OSError:  # not cached, or a file system that cannot say: the thread will see
            return buffer[:0]

    def _read(self, offset: int, size: int) -> bytes:
        try:
            return os.pread(self._fd, size, offset)
        except OSError as exc:
            raise BadData(f"a raw file cannot be read: {exc.strerror}") from exc

    async def ahead(self, offset: int) -> None:
        """The kernel reads ahead."""

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._fd)

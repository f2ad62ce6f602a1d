"""The files of a pool: one for each fragment, behind a header that says whose it is."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from hashlib import blake2b
from typing import TypeAlias

from dadafs.blocks import PAGE_BYTES, advanced, is_aligned, page_aligned
from dadafs.fragments import FRAGMENT_BYTES, checksum
from dadafs.scans.model import Identity
from dadafs.server.pooling.direct import Opener

Buffer: TypeAlias = "bytes | bytearray | memoryview"

MAGIC, VERSION = b"ddaf", 2
FACTS = struct.Struct("<4sIIQ16s")  # magic, version, bytes of data, checksum of data, key
FACTS_SUM = struct.Struct("<Q")
HEADER_BYTES = PAGE_BYTES  # so that the data begin with a page
KEY_BYTES = 16
DIRECTORIES = 256
TOUCH_EVERY_S = 3600.0  # the order of use, to the hour, survives a restart
READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW


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


def pages_of(size: int) -> int:
    """What the file of a fragment of so many bytes takes. Pure."""
    return -(-(HEADER_BYTES + size) // PAGE_BYTES)


class Files:
    """Reads and writes files of fragments, for any number of threads, in directories by the first
    byte of their keys.

    What is read is what was written: header, length and checksum are verified, so nothing is ever
    synced, and a file torn by a crash is none. Only files with names that are given here are ever
    removed.
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._opener = Opener()
        self._suffix = f".{os.getpid()}-{os.urandom(4).hex()}.tmp"

    def path(self, key: bytes) -> str:
        """Where the fragment of this key lies."""
        name = key.hex()
        return f"{self.directory}/{name[:2]}/{name}"

    def read(self, key: bytes, buffer: memoryview) -> int | None:
        """Fill `buffer` with the data of a fragment; their checksum.

        None where its file holds anything else. That is removed, as one that cannot be read.
        OSError.
        """
        direct = is_aligned(buffer)
        fd = self._opener.open(self.path(key), READ, direct=direct)
        try:
            found = os.fstat(fd)
            size = found.st_size - HEADER_BYTES
            head = page_aligned(HEADER_BYTES)
            got = os.preadv(fd, [head, buffer], 0)
            with suppress(OSError):  # of a read-only file system
                if abs(time.time() - found.st_mtime) > TOUCH_EVERY_S:
                    os.utime(fd)
        except OSError as exc:
            if direct and self._opener.gives_up(exc):
                return self.read(key, buffer)
            self._remove(key)
            raise
        finally:
            os.close(fd)
        data_sum = stated_sum(head, key, size)
        complete = got == HEADER_BYTES + size and len(buffer) == size
        if data_sum is None or not complete or checksum(buffer) != data_sum:
            self._remove(key)
            return None
        return data_sum

    def write(self, key: bytes, data: memoryview, data_sum: int) -> None:
        """Make the file of a fragment. OSError; then nothing is left of it."""
        head = memoryview(header(key, len(data), data_sum))
        pages = [_in_pages(head), _in_pages(data)]
        size = len(head) + len(data)
        path = self.path(key)
        temporary = path + self._suffix
        try:
            try:
                self._fill(temporary, pages, size)
            except FileNotFoundError:
                os.mkdir(os.path.dirname(path), 0o700)
                self._fill(temporary, pages, size)
            os.rename(temporary, path)
        except OSError:
            with suppress(OSError):
                os.unlink(temporary)
            raise

    def listed(self, number: int) -> Iterator[tuple[bytes, os.DirEntry[str], bool]]:
        """Key and entry of the files in a directory, and whether a crash left them half written.

        OSError.
        """
        with suppress(FileNotFoundError), os.scandir(f"{self.directory}/{number:02x}") as entries:
            for entry in entries:
                name, dot, suffix = entry.name.partition(".")
                try:
                    key = bytes.fromhex(name)
                except ValueError:
                    continue
                if len(key) != KEY_BYTES or not entry.path.startswith(self.path(key)):
                    continue
                leftover = suffix.endswith(".tmp") and dot + suffix != self._suffix
                if leftover or not dot:
                    yield key, entry, leftover

    def _fill(self, path: str, pages: list[memoryview], size: int) -> None:
        fd = self._opener.open(path, WRITE, direct=True)
        try:
            rest = pages
            while rest:
                rest = advanced(rest, os.writev(fd, rest))
            os.ftruncate(fd, size)
        except OSError as exc:
            if not self._opener.gives_up(exc):
                raise
            self._fill(path, pages, size)
        finally:
            os.close(fd)

    def _remove(self, key: bytes) -> None:
        with suppress(OSError):
            os.unlink(self.path(key))


def _in_pages(data: memoryview) -> memoryview:
    """The same in whole pages; what is behind it will be cut off."""
    if is_aligned(data):
        return data
    pages = page_aligned(-(-len(data) // PAGE_BYTES) * PAGE_BYTES)
    pages[: len(data)] = data
    pages[len(data) :] = bytes(len(pages) - len(data))
    return pages

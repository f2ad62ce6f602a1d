"""Inode numbers: stable across mounts, remembered as long as the kernel does."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

ROOT_INODE = 1


@dataclass(slots=True)
class Inode:
    """What an inode number stands for while the kernel knows it."""

    path: bytes
    """Relative to the mount, the root is b""."""
    identity: bytes
    """What its number is made of: equal requests written differently are one file."""
    lookups: int = 0
    version: str | None = None
    """Of the content the kernel may have cached, as of the last open."""


class InodeTable:
    """Numbers and paths of what the kernel has looked up.

    Invariants: a number stands for one identity; an entry exists exactly while its lookup count
    is positive, the root's always.
    """

    def __init__(self) -> None:
        self._by_number = {ROOT_INODE: Inode(b"", b"", 1)}
        self._by_identity = {b"": ROOT_INODE}

    def __len__(self) -> int:
        return len(self._by_number)

    def __getitem__(self, number: int) -> Inode:
        """KeyError for a number the kernel should have forgotten."""
        return self._by_number[number]

    def number(self, identity: bytes) -> int:
        """The number of what has this identity, without remembering anything.

        A hash of the identity; if another identity has taken that number, the next free one.
        """
        known = self._by_identity.get(identity)
        if known is not None:
            return known
        number = int.from_bytes(blake2b(identity, digest_size=8).digest(), "little") >> 1
        while number <= ROOT_INODE or number in self._by_number:
            number += 1
        return number

    def remember(self, path: bytes, identity: bytes) -> int:
        """Count one lookup by the kernel; the number."""
        number = self.number(identity)
        entry = self._by_number.get(number)
        if entry is None:
            entry = self._by_number[number] = Inode(path, identity)
            self._by_identity[identity] = number
        entry.lookups += 1
        return number

    def forget(self, number: int, lookups: int) -> None:
        """The kernel drops so many of its lookups."""
        entry = self._by_number.get(number)
        if entry is None or number == ROOT_INODE:
            return
        entry.lookups -= lookups
        if entry.lookups <= 0:
            del self._by_number[number]
            del self._by_identity[entry.identity]

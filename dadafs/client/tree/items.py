"""What a path leads to, as a look at it tells."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, overload

from msgspec import structs

from dadafs.corrections import Supplies
from dadafs.paths import README, Request, format_node
from dadafs.scans.model import Attributes, Entry, Scan
from dadafs.scans.names import join
from dadafs.scans.owners import common_mode

DIRECTORY_BYTES = 4096  # what directories say of their size


@dataclass(frozen=True, slots=True)
class Item:
    """What is at a path."""

    attributes: Attributes
    identity: bytes
    """Equal for all ways to write the same file's path; inode numbers are made of it."""
    version: str = ""
    """Of the content: when it is another, what was cached of it is wrong."""
    live: bool = False
    """A text that may be longer at the next look: neither it nor its size is to be cached."""


class FrameListing(Sequence[tuple[bytes, Item]]):
    """The entries of a directory of frames, made as they are looked at: there may be a million."""

    def __init__(self, readme: Item, first: Item, request: Request, scan: Scan) -> None:
        self._readme = readme
        self._first = first
        self._request = request
        self._scan = scan

    def __len__(self) -> int:
        return 1 + self._scan.frames

    @overload
    def __getitem__(self, index: int) -> tuple[bytes, Item]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[tuple[bytes, Item]]: ...
    def __getitem__(self, index: int | slice) -> tuple[bytes, Item] | Sequence[tuple[bytes, Item]]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if index == 0:
            return README.encode(), self._readme
        if index >= len(self):
            raise IndexError(index)
        names = format_node(replace(self._request, frame=index - 1))
        return names[-1], replace(self._first, identity=b"/".join((self._scan.path, *names)))


def attributes_like(
    of: Attributes, kind: Literal["directory", "file"], size: int, mode: int
) -> Attributes:
    """Owner and time of `of` for something else."""
    return Attributes(kind, size, of.mtime_ns, mode, of.uid, of.gid, 0)


def raw_item(attributes: Attributes, identity: bytes) -> Item:
    """What is in the raw tree."""
    version = f"{attributes.size} {attributes.mtime_ns} {attributes.inode}"
    return Item(attributes, identity, version)


def raw_items(directory: bytes, entries: Iterable[Entry]) -> list[tuple[bytes, Item]]:
    """What a listing of the raw tree tells, as the children of `directory`."""
    return [
        (entry.name, raw_item(entry.attributes, join(directory, entry.name))) for entry in entries
    ]


def directory_attributes(scan: Scan) -> Attributes:
    """Of a directory that is made for a scan."""
    return attributes_like(scan.attributes, "directory", DIRECTORY_BYTES, scan.attributes.mode)


def text_attributes(scan: Scan, size: int) -> Attributes:
    """Of a text about a scan."""
    return attributes_like(scan.attributes, "file", size, scan.attributes.mode & 0o444)


def result_attributes(scan: Scan, supplies: Supplies, size: int) -> Attributes:
    """Of a result: as new as the newest of all that it is made of, and for who may read it all."""
    files = [scan.attributes, *supplies.sources()]
    readable = attributes_like(scan.attributes, "file", size, common_mode(files) & 0o444)
    return structs.replace(readable, mtime_ns=max(one.mtime_ns for one in files))

"""What a container is: an array that is not there yet, and the bytes around it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from analysis.plan import Plan
from dadafs.scans.model import SourceFile

LONGEST_SCALE = 1 << 14  # 128 KiB; a longer axis has no scale
UNUSED = 255
"""Of a frame that a result is not made of; of others `analysis.reductions.Status`."""
MAX_WHOLE = 1 << 25  # numbers, 256 MB: of what has to be held in memory before its first byte


@dataclass(frozen=True, slots=True)
class Scale:
    """Coordinates along one axis of a result; axes longer than `LONGEST_SCALE` have none."""

    axis: str
    """The axis: one of `Content.axes`."""
    name: str
    """What is counted along it: the axis itself, or q, r, phi of a bin."""
    unit: str
    """Empty where points are counted, or where nothing says it."""
    count: int
    first: float = 0.0
    step: float = 1.0
    label: str = ""
    """What a person calls it, e.g. the motor; empty where that is `name`."""
    listed: bytes = b""
    """The coordinates, float64 little endian, where they do not follow from first and step."""

    def numbers(self) -> NDArray[np.float64]:
        """The coordinates (count,)."""
        if self.listed:
            return np.frombuffer(self.listed, "<f8")
        return self.first + self.step * np.arange(self.count, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that is known about a result."""

    name: str
    value: str | int | float
    unit: str = ""
    source: str = ""
    """Where it comes from: a file, the path, a default; empty where that is no question."""


@dataclass(frozen=True, slots=True)
class FileTable:
    """The files of a scan by name and identity, as columns one after another.

    How large it is, is known; what is in it is asked for when it is read.
    """

    count: int
    name_bytes: int
    """Of the longest name."""

    def columns(self) -> Iterator[tuple[str, np.dtype[Any], int]]:
        """Name, type and first byte of each column."""
        at = 0
        for name, kind in (
            ("name", f"S{self.name_bytes}"),
            ("size_bytes", "<i8"),
            ("mtime_ns", "<i8"),
            ("inode", "<u8"),
        ):
            dtype = np.dtype(kind)
            yield name, dtype, at
            at += self.count * dtype.itemsize
            at += -at % 8

    @property
    def size(self) -> int:
        """Bytes of all columns."""
        *_, (_, dtype, begin) = self.columns()
        return begin + self.count * dtype.itemsize

    def encode(self, files: Sequence[SourceFile]) -> bytes:
        """The columns of these files, `count` of them."""
        assert len(files) == self.count
        told = {
            "name": [plain(os.fsdecode(file.name)).encode() for file in files],
            "size_bytes": [file.identity.size for file in files],
            "mtime_ns": [file.identity.mtime_ns for file in files],
            "inode": [file.identity.inode for file in files],
        }
        data = bytearray(self.size)
        for name, dtype, begin in self.columns():
            column = np.array(told[name], dtype).tobytes()
            data[begin : begin + len(column)] = column
        return bytes(data)


@dataclass(frozen=True, slots=True)
class FrameRun:
    """Consecutive frames of a scan, with those in it that a result is made of."""

    first: int
    count: int


@dataclass(frozen=True, slots=True)
class Provenance:
    """How a result came about."""

    facts: tuple[Fact, ...] = ()
    """Program, version, scan, analysis, definition, pass."""
    parameters: tuple[Fact, ...] = ()
    """All of them, defaults of scan and analysis filled in."""
    files: FileTable | None = None
    """Of the scan; None where nobody knows them."""
    frames: tuple[FrameRun, ...] = ()
    """Of the result itself, then of its background where it has one."""


@dataclass(frozen=True, slots=True)
class View:
    """How numbers become colours."""

    cmap: str = "viridis"
    log: bool = False
    vmin: float | None = None
    """Number of the lowest colour; None: the 1st percentile."""
    vmax: float | None = None
    """Number of the highest colour; None: the 99th percentile."""
    blank: int | None = None
    """A number that means none, beside NaN."""
    plane: Plan | None = None
    """Of a picture of the detector: pixels that are invalid there mean none either."""


@dataclass(frozen=True, slots=True)
class Content:
    """What a result holds, known before it is computed."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    axes: tuple[str, ...]
    """A name for each axis: channel, line, point, bin, row, column."""
    channels: tuple[str, ...]
    """Names along the channel axis; one where that axis is dropped, none for a frame."""
    title: str
    unit: str
    """Of the numbers, the first channel's where they differ."""
    units: tuple[str, ...] = ()
    """Of each channel; empty where there are no channels."""
    scales: tuple[Scale, ...] = ()
    """Of the axes that have one, in their order. Only for containers that have them."""
    provenance: Provenance = field(default_factory=Provenance)
    """Only for containers that tell it."""
    view: View | None = None
    """Only for containers that are pictures."""

    @property
    def count(self) -> int:
        """Numbers in the array."""
        return prod(self.shape)

    @property
    def blocks(self) -> tuple[tuple[str, str], ...]:
        """Name and unit of each channel; what has no channels is `data`."""
        names = self.channels or ("data",)
        return tuple(zip(names, self.units or (self.unit,) * len(names), strict=True))

    @property
    def block_axes(self) -> tuple[str, ...]:
        """Axes of one channel."""
        return self.axes[1:] if self.axes[0] == "channel" else self.axes

    @property
    def block_shape(self) -> tuple[int, ...]:
        """Shape of one channel."""
        return self.shape[1:] if self.axes[0] == "channel" else self.shape


class Encode(Protocol):
    """Consecutive numbers to their items."""

    def __call__(self, numbers: NDArray[Any], start: int = 0, /) -> bytes:
        """The items from number `start` on, of numbers flat in the order of the file."""


@dataclass(frozen=True, slots=True)
class Items:
    """Bytes of a file that are made of numbers."""

    start: int
    """First item."""
    stop: int
    skip: int
    """Bytes of the first item that lie before."""
    size: int
    """How many bytes."""


@dataclass(frozen=True, slots=True)
class Annex:
    """Bytes behind the items that are made when they are read."""

    frames: int | None
    """What became of the frames of that run of the provenance, a byte each, see `UNUSED`; None:
    the table of files."""
    size: int
    """How many bytes."""


@dataclass(frozen=True, slots=True)
class Extract:
    """Bytes of an annex."""

    annex: Annex
    start: int
    stop: int


Part: TypeAlias = bytes | Items | Extract


@dataclass(frozen=True, slots=True)
class Shell:
    """A container around an array that is not there yet.

    The file is blocks of equally many items, each behind its head, then `suffix`, then `tail`.
    Most have one block. Items are numbers, each encoded by itself, in C order or in `order`.
    """

    heads: tuple[bytes, ...]
    count: int
    """Items in all blocks."""
    item_bytes: int
    suffix: bytes
    encode: Encode
    order: Callable[[int, int], NDArray[np.int64]] | None = None
    """Where, in C order, the items `[start, stop)` stand in the array; None: right there."""
    whole: bool = False
    """The items are single bytes, and each depends on all numbers of the array: `encode` takes
    them all, in C order, and returns all items."""
    tail: tuple[bytes | Annex, ...] = ()

    @property
    def prefix(self) -> bytes:
        """What stands before the first item."""
        return self.heads[0]

    @property
    def array_bytes(self) -> int:
        """Size of all items."""
        return self.count * self.item_bytes

    @property
    def size(self) -> int:
        """Of the whole file."""
        around = (*self.heads, self.suffix, *self.tail)
        return self.array_bytes + sum(map(_size, around))

    def parts(self, offset: int, stop: int) -> Iterator[Part]:
        """What the bytes `[offset, stop)` of the file are, in order; nothing beyond its end."""
        at = 0
        block = self.count // len(self.heads)
        for number, head in enumerate(self.heads):
            if offset < at + len(head) and at < stop:
                yield head[max(offset - at, 0) : stop - at]
            at += len(head)
            begin, end = max(offset - at, 0), min(stop - at, block * self.item_bytes)
            if begin < end:
                first, last = begin // self.item_bytes, -(-end // self.item_bytes)
                skip = begin - first * self.item_bytes
                yield Items(number * block + first, number * block + last, skip, end - begin)
            at += block * self.item_bytes
        for piece in (self.suffix, *self.tail):
            begin, end = max(offset - at, 0), min(stop - at, _size(piece))
            if begin < end:
                yield Extract(piece, begin, end) if isinstance(piece, Annex) else piece[begin:end]
            at += _size(piece)

    def items(self, offset: int, stop: int) -> tuple[int, int]:
        """The items, from first to last, that the bytes `[offset, stop)` are made of."""
        found = [part for part in self.parts(offset, stop) if isinstance(part, Items)]
        return (found[0].start, found[-1].stop) if found else (0, 0)


def _size(piece: bytes | Annex) -> int:
    return piece.size if isinstance(piece, Annex) else len(piece)


def _anything(content: Content) -> str | None:
    return None


@dataclass(frozen=True, slots=True)
class Container:
    """A file format of results."""

    extension: str
    shell: Callable[[Content], Shell]
    """Of a content. Pure; the size depends on the number of coordinates, not on themselves."""
    refuses: Callable[[Content], str | None] = _anything
    """Why a content makes no sense in it; None where it does."""
    scales: bool = False
    """Whether it has the coordinates along the axes."""
    provenance: bool = False
    """Whether it tells how the result came about."""
    picture: bool = False
    """Whether it has colours instead of numbers: one channel, and a `View`."""


def plain(text: str) -> str:
    """Without what is no Unicode: names of raw files are bytes."""
    return text.encode(errors="replace").decode()


def plain_bytes(dtype: np.dtype[Any]) -> Encode:
    """Items that are the numbers themselves, in `dtype`."""

    def encode(numbers: NDArray[Any], start: int = 0, /) -> bytes:
        return numbers.astype(dtype, copy=False).tobytes()

    return encode

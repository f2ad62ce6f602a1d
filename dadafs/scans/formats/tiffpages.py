"""Where the pixels of each page of a TIFF file lie: classic TIFF and BigTIFF.

Pages are a chain that leads through the file, so it is walked with small reads, and nothing in it
is believed: a page outside the file, or one that was there before, ends it.
"""

from __future__ import annotations

import json
import math
import os
import re
import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dadafs.errors import BadData
from dadafs.scans.formats.images import MAX_PIXELS
from dadafs.scans.formats.segments import (
    DEFLATE,
    DIFFERENCES,
    MAX_FRAMES,
    MAX_SEGMENTS,
    NONE,
    Stored,
    check,
)
from dadafs.scans.model import NO_CHUNK

WIDTH, HEIGHT, BITS, COMPRESSION, COLOURS, DESCRIPTION = 256, 257, 258, 259, 262, 270
STRIPS, SAMPLES, ROWS, STRIP_BYTES, PREDICTOR = 273, 277, 278, 279, 317
TILE_WIDTH, TILE_HEIGHT, TILES, TILE_BYTES, KIND, BIT_ORDER, SAMPLE = (
    322,
    323,
    324,
    325,
    254,
    266,
    339,
)
LAID_OUT_BY = (
    *(WIDTH, HEIGHT, BITS, COMPRESSION, COLOURS, SAMPLES, ROWS, PREDICTOR),
    *(TILE_WIDTH, TILE_HEIGHT, KIND, BIT_ORDER, SAMPLE),
)
"""Tags that say what a page is like; pages alike in all of them are read by one look."""

INTEGERS = {1: 1, 3: 2, 4: 4, 13: 4, 16: 8, 18: 8}  # bytes of the types that are whole numbers
COMPRESSIONS = {
    2: "CCITT",
    3: "CCITT",
    4: "CCITT",
    5: "LZW",
    6: "JPEG",
    7: "JPEG",
    32773: "PackBits",
    34712: "JPEG 2000",
    34925: "LZMA",
    50000: "Zstandard",
}
DARK_IS_ZERO, LIGHT_IS_ZERO = 1, 0
REDUCED_OR_MASK = 0b101  # of tag 254: a smaller copy of another page, a mask of one
MAX_ENTRIES = 4096  # of a page; detectors write 10 to 30
MAX_DESCRIPTION = 1 << 16
MOST_ANNOUNCED = 1 << 53  # frames: a description may say any number
GUESSED_ENTRIES = 40  # that are read with a page's number of them

Entry: TypeAlias = tuple[int, int, bytes]
"""Type, count, and the value or where it is."""
Entries: TypeAlias = Mapping[int, Entry]


class Cut(Exception):
    """Something lies beyond the end of the file. Stays in this module."""


class Page(NamedTuple):
    """A page that may be a frame."""

    stored: Stored
    offset: int
    """NO_CHUNK where its tables are cut."""
    length: int


class Tiff:
    """The pages of the TIFF file behind a descriptor, which stays the caller's."""

    def __init__(self, fd: int, size_bytes: int) -> None:
        """BadData where it is no TIFF file."""
        self._fd = fd
        self._size = size_bytes
        self.note = ""
        """Why the chain ended before its end, one line, once it was walked."""
        start = os.pread(fd, 16, 0)
        order = {b"II": "<", b"MM": ">"}.get(start[:2], "")
        version = struct.unpack(order + "H", start[2:4])[0] if order and len(start) == 16 else 0
        if version not in (42, 43):
            raise BadData("is not a whole TIF file")
        self.big = version == 43
        """BigTIFF."""
        self._order = order
        self._count = struct.Struct(order + ("Q" if self.big else "H"))
        self._entry = struct.Struct(order + ("HHQ8s" if self.big else "HHI4s"))
        self._place = struct.Struct(order + ("Q" if self.big else "I"))
        (self._first,) = self._place.unpack_from(start, 8 if self.big else 4)
        self._read_bytes = self._bytes_of(GUESSED_ENTRIES)
        self._layouts: dict[tuple[Entry | None, ...], Stored] = {}

    def several(self) -> bool:
        """Whether there is, or seems to be, more than one page, or one with many frames.

        BadData where there is none.
        """
        try:
            entries, following = self._directory(self._first)
            return following != 0 or self._announced(entries) > 1
        except Cut:
            raise BadData("is not a whole TIF file") from None

    def series(self, most: int) -> bool:
        """Whether the first pages, `most` at most, are frames of a detector, and several.

        Pictures are coloured, or of 8 bits, or not alike; what was computed is floating point.
        """
        found: list[Stored] = []
        try:
            for number, entries in enumerate(self._directories()):
                if number == most:
                    break
                colours = entries.get(COLOURS)
                if colours is None or self._number(colours) != DARK_IS_ZERO:
                    return False
                found.append(self._stored(entries, number))
                if number == 0 and self._announced(entries) > 1:
                    found.append(found[0])
        except (BadData, Cut):
            return False
        if len(found) < 2 or len(set(found)) > 1:
            return False
        dtype = np.dtype(found[0].dtype)
        return dtype.kind in "ui" and dtype.itemsize in (2, 4)

    def pages(self) -> Iterator[Page]:
        """Every page, all alike. BadData, one line, where one is no frame or unlike the first."""
        first: Stored | None = None
        for number, entries in enumerate(self._directories()):
            stored = self._stored(entries, number)
            if first is None:
                first = stored
            elif stored is not first and stored != first:
                raise BadData(
                    f"page {number + 1} is {stored.shown}, the first {first.shown}:"
                    " frames of a scan are alike"
                )
            try:
                offset, length = self._chunk(entries, stored)
            except BadData as exc:
                raise BadData(f"page {number + 1} {exc}") from None
            except Cut:
                offset, length = NO_CHUNK, 0
            yield Page(stored, offset, length)

    def announced_frames(self) -> int:
        """How many frames lie one after the other behind the only directory, by its description.

        ImageJ writes stacks of more than 4 GiB in this way, tifffile truncated ones.
        """
        try:
            entries, following = self._directory(self._first)
            return 1 if following else max(1, self._announced(entries))
        except Cut:
            return 1

    def _directories(self) -> Iterator[Entries]:
        seen: set[int] = set()
        at = self._first
        while at:
            if at in seen:
                self.note = f"has pages that go in a circle, after frame {len(seen) - 1}"
                return
            if len(seen) == MAX_FRAMES:
                raise BadData(f"has more than {MAX_FRAMES} pages")
            seen.add(at)
            try:
                entries, at = self._directory(at)
            except Cut:
                self.note = f"ends in frame {len(seen) - 1}"
                return
            yield entries

    def _directory(self, at: int) -> tuple[Entries, int]:
        """The entries of a page, and where the next one is; 0 for none. Cut."""
        data = self._bytes(at, self._read_bytes, at_most=True)
        if len(data) < self._count.size:
            raise Cut
        (count,) = self._count.unpack_from(data)
        if not 0 < count <= MAX_ENTRIES:
            raise Cut
        size = self._bytes_of(count)
        if len(data) < size:
            data = self._bytes(at, size)
        end = size - self._place.size
        entries = {
            tag: (kind, number, value)
            for tag, kind, number, value in self._entry.iter_unpack(data[self._count.size : end])
        }
        return entries, self._place.unpack_from(data, end)[0]

    def _bytes_of(self, entries: int) -> int:
        return self._count.size + entries * self._entry.size + self._place.size

    def _bytes(self, at: int, size: int, at_most: bool = False) -> bytes:
        if at >= self._size or (at + size > self._size and not at_most):
            raise Cut
        data = os.pread(self._fd, size, at)
        if len(data) < size and not at_most:
            raise Cut
        return data

    def _numbers(self, entry: Entry) -> NDArray[np.uint64]:
        """The whole numbers of an entry. BadData, Cut."""
        kind, count, value = entry
        size = INTEGERS.get(kind)
        if size is None or not 0 < count <= MAX_SEGMENTS:
            raise BadData(f"has {count} values of type {kind} where whole numbers are needed")
        if size * count > len(value):
            value = self._bytes(self._place.unpack(value)[0], size * count)
        found = np.frombuffer(value, f"{self._order}u{size}", count)
        return found.astype(np.uint64)

    def _number(self, entry: Entry) -> int:
        """The only number of an entry. BadData, Cut."""
        kind, count, value = entry
        if count == 1 and (size := INTEGERS.get(kind)) and size <= len(value):
            return int.from_bytes(value[:size], "big" if self._order == ">" else "little")
        numbers = self._numbers(entry)
        if (numbers != numbers[0]).any():
            raise BadData("holds colours of different depths: frames are grey")
        return int(numbers[0])

    def _stored(self, entries: Entries, number: int) -> Stored:
        """How the pixels of a page are stored. BadData, naming the page, where it is no frame."""
        key = tuple(map(entries.get, LAID_OUT_BY))
        known = self._layouts.get(key)
        if known is None:
            try:
                known = self._layouts[key] = self._laid_out(entries)
                check(known)
                known.codec()
            except Cut:
                raise BadData(f"page {number + 1} is not whole") from None
            except BadData as exc:
                raise BadData(f"page {number + 1} {exc}") from None
        return known

    def _laid_out(self, entries: Entries) -> Stored:
        def stated(tag: int, otherwise: int) -> int:
            return self._number(entries[tag]) if tag in entries else otherwise

        height, width = stated(HEIGHT, 0), stated(WIDTH, 0)
        if not 0 < height * width <= MAX_PIXELS:
            raise BadData(f"of {height} x {width} pixels is no frame")
        if stated(SAMPLES, 1) != 1 or stated(COLOURS, 1) not in (DARK_IS_ZERO, LIGHT_IS_ZERO):
            raise BadData("is a coloured picture: frames are grey, one number a pixel")
        if stated(KIND, 0) & REDUCED_OR_MASK:
            raise BadData("is a smaller copy or a mask of another: frames are alike")
        bits, sample = stated(BITS, 1), stated(SAMPLE, 1)
        kind = {1: "u", 2: "i", 3: "f", 4: "u"}.get(sample)
        if kind is None or bits not in (8, 16, 32, 64) or (kind == "f" and bits == 8):
            raise BadData(f"has pixels of {bits} bits, kind {sample}, which are not supported")
        if stated(BIT_ORDER, 1) != 1:
            raise BadData("has its bits in reverse order, which is not supported")
        compression, predictor = stated(COMPRESSION, NONE), stated(PREDICTOR, 1)
        if compression == 32946:  # deflate by its older number
            compression = DEFLATE
        if compression not in (NONE, DEFLATE):
            by = COMPRESSIONS.get(compression, f"method {compression}")
            raise BadData(
                f"is compressed by {by}, which is not supported: write the file uncompressed or"
                " with deflate (zlib)"
            )
        if compression == NONE:
            predictor = 1  # belongs to the compression
        if predictor not in (1, DIFFERENCES) or (predictor == DIFFERENCES and kind == "f"):
            raise BadData(
                f"has predictor {predictor}, which is not supported: write the file without one"
            )
        dtype = np.dtype(f"{self._order}{kind}{bits // 8}").str
        if TILES in entries:
            rows, columns = stated(TILE_HEIGHT, 0), stated(TILE_WIDTH, 0)
            if rows <= 0 or columns <= 0:
                raise BadData("has tiles without a size")
        else:
            rows, columns = min(stated(ROWS, height), height), 0
        return Stored(height, width, dtype, rows, columns, compression, predictor)

    def _chunk(self, entries: Entries, stored: Stored) -> tuple[int, int]:
        """Offset and length of the segments of a page together. BadData, Cut."""
        where, sizes = (TILES, TILE_BYTES) if stored.columns else (STRIPS, STRIP_BYTES)
        if where not in entries:
            raise BadData("does not say where its pixels are")
        count, needed = entries[where][1], stored.down * stored.across
        if count != needed:
            raise BadData(f"has {count} strips or tiles instead of {needed}")
        if count == 1 and stored.plain:
            return self._number(entries[where]), stored.bytes_of(0)
        begins = self._numbers(entries[where])
        if stored.compression == NONE:
            of_rows = [stored.bytes_of(row) for row in range(stored.down)]
            lengths = np.repeat(np.array(of_rows, np.uint64), stored.across)
            slack = np.uint64(0)
        elif sizes in entries and entries[sizes][1] == count:
            lengths = self._numbers(entries[sizes])
            slack = np.uint64(1)  # where each begins at an even place
        else:
            raise BadData("does not say how long its strips or tiles are")
        ends = begins + lengths
        if (begins[1:] < ends[:-1]).any() or (begins[1:] > ends[:-1] + slack).any():
            raise BadData(
                "is in pieces that do not follow each other: write the file anew, e.g. by tifffile"
            )
        length = int(ends[-1]) - int(begins[0])
        return (int(begins[0]), length) if 0 < length < 1 << 32 else (NO_CHUNK, 0)

    def _announced(self, entries: Entries) -> int:
        """Frames that the description of the only page says there are; 0 where it says nothing."""
        entry = entries.get(DESCRIPTION)
        if entry is None or entry[0] != 2 or not 0 < entry[1] <= MAX_DESCRIPTION:
            return 0
        _, count, value = entry
        if count > len(value):
            value = self._bytes(self._place.unpack(value)[0], count)
        text = value[:count].rstrip(b"\0")
        if text.startswith(b"ImageJ="):
            found = re.search(rb"^images=([0-9]{1,9})\s*$", text, re.MULTILINE)
            return int(found[1]) if found else 0
        if text.startswith(b'{"shape"') and b'"truncated": true' in text:
            try:
                shape = json.loads(text)["shape"]
                leading = [int(length) for length in shape[:-2]]
            except (ValueError, TypeError, LookupError, OverflowError, RecursionError):
                return 0
            return min(math.prod(leading), MOST_ANNOUNCED) if leading else 0
        return 0

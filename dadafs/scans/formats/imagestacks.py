"""Image files with several frames: pages of TIFF, blocks of EDF."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import islice

import msgspec
import numpy as np

from analysis.codec import Codec
from dadafs.errors import BadData
from dadafs.scans.formats.images import GZIP, HEADER_BYTES, MAX_PIXELS, edf_dtype, edf_stated
from dadafs.scans.formats.segments import MAX_FRAMES, Stored
from dadafs.scans.formats.tiffpages import Tiff
from dadafs.scans.model import NO_CHUNK

LOOKED_AT = 8  # first pages of an image that is alone, until it is taken for a series
FIRST_HEADER_BYTES = 1024  # most are 512 or 1024
PADDING = b"\0 \r\n"
MAX_GENERAL = 16  # headers in front without a frame
PACKED = "is packed by gzip: unpack a file of several frames"


class Stack(msgspec.Struct, frozen=True):
    """Where the frames of one file lie."""

    codec: Codec
    offsets: bytes
    """uint64 little endian; NO_CHUNK where the file says nothing."""
    lengths: bytes
    """uint32 little endian."""
    note: str = ""
    """What is wrong behind the last of them, one line."""


def holds_several(fd: int, size_bytes: int, kind: str) -> bool:
    """Whether an image file, `tif`, `edf` or `cbf`, is to be read as a stack. BadData.

    Cheap: its first header, and whether another follows.
    """
    if kind == "cbf" or os.pread(fd, 2, 0) == GZIP:
        return False
    if kind == "tif":
        tiff = Tiff(fd, size_bytes)
        return tiff.big or tiff.several()
    return _several_blocks(fd)


def is_series(fd: int, size_bytes: int, kind: str) -> bool:
    """Whether a file that is alone is, by its first headers, certainly a series of frames."""
    try:
        if kind == "tif":
            return Tiff(fd, size_bytes).series(LOOKED_AT)
        return kind == "edf" and _several_blocks(fd)
    except (BadData, OSError):
        return False


def read_stack(fd: int, size_bytes: int, kind: str) -> Stack:
    """Where the frames of a file are, whatever their number. BadData, one line.

    A file that is cut has the frames whose headers are in it.
    """
    if os.pread(fd, 2, 0) == GZIP:
        raise BadData(PACKED)
    tiff = None
    found: list[tuple[Stored, int, int]]
    if kind == "tif":
        tiff = Tiff(fd, size_bytes)
        found = list(tiff.pages())
        note = tiff.note
    else:
        blocks = Blocks(fd)
        found = list(blocks.frames())
        note = blocks.note
    if not found:
        raise BadData(f"is not a whole {kind.upper()} file")
    stored, begin, length = found[0]
    offsets = np.array([offset for _, offset, _ in found], "<u8")
    lengths = np.array([length for _, _, length in found], "<u4")
    if tiff is not None and len(found) == 1 and begin != NO_CHUNK and stored.plain:
        announced = tiff.announced_frames()
        there = max(1, min(announced, (size_bytes - begin) // length, MAX_FRAMES))
        if there < announced:
            note = f"says that it holds {announced} frames; there are {there}"
        offsets = begin + length * np.arange(there, dtype="<u8")
        lengths = np.full(there, length, "<u4")
    return Stack(stored.codec(), offsets.tobytes(), lengths.tobytes(), note)


class Blocks:
    """The frames of an EDF file, each a header in braces and plain pixels behind it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._header_bytes = FIRST_HEADER_BYTES
        self.note = ""
        """Why there are no more frames than were found, if that is odd."""

    def frames(self) -> Iterator[tuple[Stored, int, int]]:
        """How each is stored, all alike, where its pixels begin, and their size. BadData."""
        at = number = general = 0
        first: Stored | None = None
        while (found := self._header(at, number)) is not None:
            header, begin = found
            stated = edf_stated(header)
            size = _whole(stated, b"edf_binarysize") or _whole(stated, b"size") or 0
            if b"dim_1" not in stated and not number and general < MAX_GENERAL:
                general += 1
                at = begin + size
                continue
            stored = _block(stated, number)
            if first is None:
                first = stored
            elif stored != first:
                raise BadData(
                    f"frame {number} is {stored.shown}, the first {first.shown}:"
                    " frames of a scan are alike"
                )
            if number == MAX_FRAMES:
                raise BadData(f"has more than {MAX_FRAMES} frames")
            yield first, begin, first.frame_bytes
            at = begin + max(first.frame_bytes, size if size < 2 * first.frame_bytes else 0)
            number += 1

    def _header(self, at: int, number: int) -> tuple[bytes, int] | None:
        """The header at `at`, behind some padding, and where the pixels begin; None at the end."""
        for size in (self._header_bytes, HEADER_BYTES):
            data = os.pread(self._fd, size, at)
            header = data.lstrip(PADDING)
            if not header:
                return None
            if not header.startswith(b"{"):
                self.note = f"what follows after {number} frames is no header" if number else ""
                return None
            end = header.find(b"}\n") + 2
            if end >= 2:
                begin = len(data) - len(header) + end
                self._header_bytes = max(FIRST_HEADER_BYTES, begin)
                return header[:end], at + begin
            if len(data) < size:
                break
        self.note = f"ends in frame {number}"
        return None


def _several_blocks(fd: int) -> bool:
    return len(list(islice(Blocks(fd).frames(), 2))) > 1


def _block(stated: dict[bytes, bytes], number: int) -> Stored:
    """How the frame of a header is stored. BadData, naming it."""
    try:
        height, width = _whole(stated, b"dim_2") or 0, _whole(stated, b"dim_1") or 0
        if not 0 < height * width <= MAX_PIXELS:
            raise BadData(f"of {height} x {width} pixels is no frame")
        if (_whole(stated, b"dim_3") or 1) != 1:
            raise BadData("has three dimensions: write each frame with a header of its own")
        stored = Stored(height, width, edf_dtype(stated).str, height)
        stored.codec()
        return stored
    except BadData as exc:
        raise BadData(f"frame {number} {exc}") from None


def _whole(stated: dict[bytes, bytes], name: bytes) -> int | None:
    """A whole number of a header; None where there is none."""
    value = stated.get(name, b"")
    return int(value) if re.fullmatch(rb"[0-9]{1,12}", value) else None

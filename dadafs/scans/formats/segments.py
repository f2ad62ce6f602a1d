"""Pixels of frames that lie beside others in one file: plain ones of any type, strips and tiles."""

from __future__ import annotations

import zlib
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from analysis.codec import Codec, Filter
from dadafs.errors import BadData
from dadafs.scans.formats.counts import counts_dtype

SEGMENTS = 0x10004
"""Number of the stage; behind those of single images."""
NONE, DEFLATE = 1, 8  # TIFF's numbers of compressions
DIFFERENCES = 2  # TIFF's number of a predictor
MAX_SEGMENTS = 1 << 16  # of a frame
MAX_FRAMES = 1 << 20  # of a file: 10 s to find them
SPARE_BYTES = 1 << 22  # by which tiles at the edges may exceed four frames
WINDOW_BYTES = 1 << 16  # given to zlib at a time: what it leaves of that is copied


class Stored(msgspec.Struct, frozen=True):
    """How a file stores the pixels of its frames: in segments, row by row, one after the other.

    Uncompressed strips are just rows.
    """

    height: int
    width: int
    dtype: str
    """Numpy's name with byte order, of the pixels in the file."""
    rows: int
    """Of a segment. Strips are as wide as the frame, and the last may be shorter."""
    columns: int = 0
    """Of a tile; 0 for strips."""
    compression: int = NONE
    predictor: int = 1

    @property
    def frame_bytes(self) -> int:
        """Of a frame's pixels."""
        return self.height * self.width * np.dtype(self.dtype).itemsize

    @property
    def down(self) -> int:
        """Segments in a column."""
        return -(-self.height // self.rows)

    @property
    def across(self) -> int:
        """Segments in a row."""
        return -(-self.width // self.columns) if self.columns else 1

    @property
    def plain(self) -> bool:
        """Just the pixels, row by row."""
        return not self.columns and self.compression == NONE

    @property
    def shown(self) -> str:
        """What a frame is like, for people."""
        return f"{self.height} x {self.width} {np.dtype(self.dtype).name}"

    def shape_of(self, row: int) -> tuple[int, int]:
        """Rows and columns of the segments in a row of them."""
        if self.columns:
            return self.rows, self.columns
        return min(self.rows, self.height - row * self.rows), self.width

    def bytes_of(self, row: int) -> int:
        """Unpacked size of a segment in a row of them."""
        height, width = self.shape_of(row)
        return height * width * np.dtype(self.dtype).itemsize

    def codec(self) -> Codec:
        """For `decode`. Plain pixels need no stage, so kernels take counts as they are.

        BadData for pixels that are no numbers of a size that counts are made of.
        """
        counts_dtype(np.dtype(self.dtype))
        how = (self.rows, self.columns, self.compression, self.predictor)
        stages = () if self.plain else (Filter(SEGMENTS, how),)
        return Codec(self.height, self.width, self.dtype, stages)


def decode_segments(data: bytes, codec: Codec) -> NDArray[Any]:
    """The frame whose segments `data` is. BadData where they are not the codec's."""
    try:
        stored = Stored(*codec.shape, codec.dtype, *codec.filters[0].options)
    except TypeError as exc:
        raise BadData("a stage with impossible options") from exc
    check(stored)
    return _assembled(memoryview(data), stored, np.dtype(codec.dtype))


def check(stored: Stored) -> None:
    """BadData for segments that nobody would write."""
    if stored.rows <= 0 or stored.columns < 0 or stored.down * stored.across > MAX_SEGMENTS:
        raise BadData(f"segments of {stored.rows} x {stored.columns} pixels are not supported")
    padded = stored.down * stored.across * stored.rows * (stored.columns or stored.width)
    if stored.columns and padded > 4 * stored.height * stored.width + SPARE_BYTES:
        raise BadData(f"tiles of {stored.rows} x {stored.columns} pixels are larger than frames")


def _assembled(data: memoryview, stored: Stored, dtype: np.dtype[Any]) -> NDArray[Any]:
    pixels = np.empty((stored.height, stored.width), dtype)
    at = 0
    for row in range(stored.down):
        size = stored.bytes_of(row)
        for column in range(stored.across):
            if stored.compression == NONE:
                plain = bytes(data[at : at + size])
                at += size
            else:
                plain, at = _inflated(data, at, size)
            if len(plain) != size:
                raise BadData("segments end too soon")
            segment = np.frombuffer(plain, dtype).reshape(stored.shape_of(row))
            if stored.predictor == DIFFERENCES:
                native = dtype.newbyteorder("=")
                segment = np.add.accumulate(segment.astype(native), axis=1, dtype=native)
            x, y = column * stored.columns, row * stored.rows
            place = pixels[y : y + segment.shape[0], x : x + segment.shape[1]]
            place[...] = segment[: place.shape[0], : place.shape[1]]
    return pixels


def _inflated(data: memoryview, at: int, size: int) -> tuple[bytes, int]:
    """The content of the zlib stream at `at`, and where the next begins. BadData."""
    stream = zlib.decompressobj()
    pieces: list[bytes] = []
    room = size + 1
    if at < len(data) and data[at] == 0:
        at += 1  # they may begin at even places; no stream begins with zero
    try:
        while not stream.eof and room > 0:
            window = data[at : at + WINDOW_BYTES]
            if not window:
                raise BadData("segments end too soon")
            pieces.append(stream.decompress(window, room))
            room -= len(pieces[-1])
            at += len(window) - len(stream.unused_data) - len(stream.unconsumed_tail)
    except zlib.error as exc:
        raise BadData(f"cannot be unpacked: {exc}") from exc
    return b"".join(pieces), at

"""mat, Level 5 as Matlab 5 to 7, Octave and scipy load it: channels and scales by name.

One variable for each channel, `axis_NAME` for each scale, `about` with the provenance in words.
Maps and pictures are matrices (line, point) and (row, column); a stack is (bin, point, line), so
that a profile is a column: `plot(axis_q, intensity(:, 3, 1))`.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dadafs.containers.base import (
    MAX_WHOLE,
    Container,
    Content,
    Encode,
    Fact,
    Scale,
    Shell,
    plain_bytes,
)
from dadafs.containers.names import distinct

MAX_VARIABLE_BYTES = (1 << 31) - 4096  # sizes are 32 bits, and signed in Octave
_INT8, _INT32, _UINT32, _MATRIX = 1, 5, 6, 14
_CHARACTERS = 4
_KINDS = {  # class of the matrix, type of its numbers
    "<f8": (6, 9),
    "<f4": (7, 7),
    "|u1": (9, 2),
    "<u2": (11, 4),
    "<u4": (13, 6),
    "<u8": (15, 13),
}
_HEADER = b"MATLAB 5.0 MAT-file, written by dadafs".ljust(116) + bytes(8) + b"\x00\x01IM"


@lru_cache(128)
def shell(content: Content) -> Shell:
    """Scales and provenance, then each channel in column-major order behind its head."""
    dtype = content.dtype.newbyteorder("<")
    start = bytearray(_HEADER)
    for scale in content.scales:
        numbers = scale.numbers().astype("<f8")
        head = _head(f"axis_{scale.name}", (1, scale.count), numbers.dtype)
        start += head + numbers.tobytes()
    start += _text("about", _about(content))
    shape = _matlab_shape(content)
    block_bytes = prod(shape) * dtype.itemsize
    padding = bytes(-block_bytes % 8)
    scales = [f"axis_{scale.name}" for scale in content.scales]
    names = distinct([name for name, _ in content.blocks], ["about", *scales])
    heads = [_head(name, shape, dtype) for name in names]
    heads = [bytes(start) + heads[0], *(padding + head for head in heads[1:])]
    rows, columns = content.block_shape[-2:]
    if content.block_axes == ("row", "column"):
        encode = _turned(content.shape, dtype)
        return Shell(tuple(heads), content.count * dtype.itemsize, 1, padding, encode, whole=True)
    order = None if "bin" in content.axes else _column_major(rows, columns)
    encode = plain_bytes(dtype)
    return Shell(tuple(heads), content.count, dtype.itemsize, padding, encode, order)


def refuses(content: Content) -> str | None:
    """What no program would load, or could not be made piece by piece."""
    if prod(content.block_shape) * content.dtype.itemsize > MAX_VARIABLE_BYTES:
        return "a variable in a mat has at most 2 GiB; h5 and npy have no limit"
    if content.block_axes == ("row", "column") and content.count > MAX_WHOLE:
        return f"a picture in a mat has at most {MAX_WHOLE} pixels; h5 and npy have no limit"
    return None


def _matlab_shape(content: Content) -> tuple[int, ...]:
    return content.block_shape[::-1] if "bin" in content.axes else content.block_shape


def _column_major(rows: int, columns: int) -> Any:
    def order(start: int, stop: int) -> NDArray[np.int64]:
        block, within = np.divmod(np.arange(start, stop, dtype=np.int64), rows * columns)
        column, row = np.divmod(within, rows)
        return np.asarray(block * (rows * columns) + row * columns + column)

    return order


def _turned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Encode:
    """All bytes of pictures of this shape, column after column."""

    def encode(numbers: NDArray[Any], start: int = 0, /) -> bytes:
        pictures = numbers.astype(dtype, copy=False).reshape(shape)
        return np.swapaxes(pictures, -1, -2).tobytes()

    return encode


def _head(name: str, shape: tuple[int, ...], dtype: np.dtype[Any], kind: int = 0) -> bytes:
    """What stands before the numbers of a variable, which end on 8 bytes or are padded to that."""
    matrix, number = _KINDS[dtype.str]
    size = prod(shape) * dtype.itemsize
    body = _element(_UINT32, struct.pack("<II", kind or matrix, 0))
    body += _element(_INT32, struct.pack(f"<{len(shape)}i", *shape))
    body += _element(_INT8, name.encode())
    body += struct.pack("<II", number, size)
    return struct.pack("<II", _MATRIX, len(body) + size + -size % 8) + body


def _element(kind: int, data: bytes) -> bytes:
    return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)


def _text(name: str, text: str) -> bytes:
    """A variable of characters."""
    codes = np.frombuffer(text.encode("utf-16-le"), "<u2")
    data = codes.tobytes()
    return _head(name, (1, codes.size), codes.dtype, _CHARACTERS) + data + bytes(-len(data) % 8)


def _about(content: Content) -> str:
    lines = [content.title]
    lines += [f"{name}: {unit}" for name, unit in content.blocks if unit]
    lines += [f"axis_{scale.name}: {_coordinate(scale)}" for scale in content.scales]
    lines += [_line(fact) for fact in content.provenance.facts]
    lines += [_line(fact) for fact in content.provenance.parameters]
    return "\n".join(lines) + "\n"


def _coordinate(scale: Scale) -> str:
    return " ".join(filter(None, (scale.label, scale.unit))) or "counted"


def _line(fact: Fact) -> str:
    unit = f" {fact.unit}" if fact.unit else ""
    return f"{fact.name}: {fact.value}{unit}{f' ({fact.source})' if fact.source else ''}"


MAT = Container("mat", shell, refuses, scales=True, provenance=True)

"""csv, for spreadsheets and everything else: cells of fixed width, so that sizes are known.

Three lines that begin with `#`, then the array row by row: its last axis along a row, all others
in C order downwards, so that `np.loadtxt(path, delimiter=",").reshape(shape)` is the array.
Numbers are the shortest that mean the same float64, NaN is `nan`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dadafs.containers.base import Container, Content, Encode, Shell

FLOAT_CELL = 24  # -2.2250738585072014e-308
HEADER_LINES = 3


@lru_cache(128)
def shell(content: Content) -> Shell:
    """The header, then each number right-aligned in its cell behind which a comma or line ends."""
    width = _width(content.dtype)
    encode = _cells(width, content.shape[-1])
    return Shell((_header(content, width),), content.count, width + 1, b"", encode)


def _width(dtype: np.dtype[Any]) -> int:
    return FLOAT_CELL if dtype.kind == "f" else len(str(np.iinfo(dtype).max))


def _cells(width: int, columns: int) -> Encode:
    def encode(numbers: NDArray[Any], start: int = 0, /) -> bytes:
        count = len(numbers)
        text = bytearray((f"%{width}r," * count % tuple(numbers.tolist())).encode())
        end = width + (width + 1) * (-(start + 1) % columns)
        ends = range(end, len(text), (width + 1) * columns)
        text[end :: (width + 1) * columns] = b"\n" * len(ends)
        return bytes(text)

    return encode


def _header(content: Content, width: int) -> bytes:
    axes = [
        f"{number} {axis}s" if axis != "channel" else f"{number} channels {_names(content)}"
        for axis, number in zip(content.axes, content.shape, strict=True)
    ]
    what = (
        f"# {content.title}, {content.unit}\n# rows: {' x '.join(axes[:-1])}, columns: {axes[-1]}"
    )
    scale = next((one for one in content.scales if one.axis == content.axes[-1]), None)
    if scale is None:
        return f"{what}, counted from 0\n#\n".encode()
    name = scale.label or scale.name
    unit = f" in {scale.unit}" if scale.unit else ""
    cells = f"%{FLOAT_CELL - 1}.15g," * scale.count % tuple(scale.numbers().tolist())
    return f"{what}, of these {name}{unit}:\n#{cells[:-1]}\n".encode()


def _names(content: Content) -> str:
    return "(" + " ".join(f"{name} {unit}".strip() for name, unit in content.blocks) + ")"


CSV = Container("csv", shell, scales=True)

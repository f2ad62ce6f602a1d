"""What a container is: bytes before an array, the array, bytes after it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray


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

    @property
    def count(self) -> int:
        """Numbers in the array."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class Shell:
    """A container around an array that is not there yet.

    The file is `prefix`, then `count` items of `item_bytes` each, then `suffix`.
    """

    prefix: bytes
    count: int
    item_bytes: int
    suffix: bytes
    encode: Callable[[NDArray[Any]], bytes]
    """Consecutive numbers of the array, flat in C order, to their items."""

    @property
    def array_bytes(self) -> int:
        """Size of the part between prefix and suffix."""
        return self.count * self.item_bytes

    @property
    def size(self) -> int:
        """Of the whole file."""
        return len(self.prefix) + self.array_bytes + len(self.suffix)


@dataclass(frozen=True, slots=True)
class Container:
    """A file format of results."""

    extension: str
    shell: Callable[[Content], Shell]
    """Of a content. Pure."""


def plain_bytes(dtype: np.dtype[Any]) -> Callable[[NDArray[Any]], bytes]:
    """Items that are the numbers themselves, in `dtype`."""

    def encode(numbers: NDArray[Any]) -> bytes:
        return numbers.astype(dtype, copy=False).tobytes()

    return encode

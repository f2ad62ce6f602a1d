"""How the pixels of a frame are stored in its chunk."""

from __future__ import annotations

import msgspec
import numpy as np

BITSHUFFLE = 32008  # HDF5's registered filter numbers
LZ4 = 32004


class Filter(msgspec.Struct, frozen=True, array_like=True):
    """One stage of an HDF5 filter pipeline, as the dataset's creation properties give it."""

    number: int
    """HDF5's registered filter number: 32008 bitshuffle, 32004 LZ4, 1 deflate, ..."""
    options: tuple[int, ...] = ()
    """The filter's `cd_values`."""


class Codec(msgspec.Struct, frozen=True, array_like=True):
    """How the pixels of a frame are stored in its chunk: one value for a whole dataset."""

    height: int
    width: int
    dtype: str
    """Numpy's name with byte order, e.g. `<u2`."""
    filters: tuple[Filter, ...] = ()
    """The pipeline in the order in which it was applied when writing; empty: plain pixels."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of a frame."""
        return self.height, self.width

    @property
    def frame_bytes(self) -> int:
        """Size of a decoded frame."""
        return self.height * self.width * np.dtype(self.dtype).itemsize

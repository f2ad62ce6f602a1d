"""Any pass whose values add up, with masked pixels healed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.codec import Codec
from analysis.reductions.base import Prepared


class Healed:
    """A pass over S, and the same over the pixels that stand in for masked ones of S.

    The fused kernels run twice over a chunk; sums of integers stay exact.
    """

    def __init__(
        self,
        own: Prepared,
        other: Prepared,
        add: Callable[[NDArray[Any], NDArray[Any]], None],
    ) -> None:
        """`add` adds values of the opposite pixels, as of those they stand in for, in place."""
        self._own = own
        self._other = other
        self._add = add

    @property
    def value_shape(self) -> tuple[int, ...]:
        """Of the pass."""
        return self._own.value_shape

    @property
    def value_dtype(self) -> np.dtype[Any]:
        """Of the pass."""
        return self._own.value_dtype

    def frame(self, frame: NDArray[Any], out: NDArray[Any]) -> None:
        """Both passes over a decoded frame, into `out`."""
        more = np.zeros_like(out)
        self._own.frame(frame, out)
        self._other.frame(frame, more)
        self._add(out, more)

    def fuses(self, codec: Codec) -> bool:
        """As the pass."""
        return self._own.fuses(codec)

    def chunk(self, chunk: bytes, codec: Codec, out: NDArray[Any]) -> bool:
        """Both passes over a chunk, into `out`; False, `out` zero, when corrupt."""
        more = np.zeros_like(out)
        if not (self._own.chunk(chunk, codec, out) and self._other.chunk(chunk, codec, more)):
            out[...] = 0
            return False
        self._add(out, more)
        return True

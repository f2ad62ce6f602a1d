"""A pass whose kernels take chunks of every form: how it finds the one to call."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.codec import Codec
from analysis.kernels.codecs import (
    Blocks,
    Stream,
    bytes_of,
    form_of,
    pack_selection,
    pixels_of,
    plain_pixels,
)
from analysis.plan import Plan


class PreparedFused:
    """Three kernels with the same arguments behind those that tell them the frame.

    These arguments are the number of pixels, the selection, what else the pass brings, and `out`.
    """

    def __init__(
        self,
        plan: Plan,
        chosen: NDArray[np.bool_],
        kernels: tuple[Any, Any, Any],
        tables: tuple[Any, ...],
        value_shape: tuple[int, ...],
        value_dtype: np.dtype[Any],
    ) -> None:
        """Over the `chosen` pixels; `kernels` are those of bitshuffle chunks, of LZ4 chunks, and of
        decoded pixels."""
        self._plan = plan
        self._of_blocks, self._of_stream, self._of_pixels = kernels
        self._arguments = (plan.height * plan.width, pack_selection(chosen), *tables)
        self._like = np.empty(0, np.dtype(plan.dtype).newbyteorder("="))
        self.value_shape = value_shape
        self.value_dtype = value_dtype

    def frame(self, frame: NDArray[Any], out: NDArray[Any]) -> None:
        """Reduce a decoded frame (height, width) into `out`."""
        out[...] = 0
        self._of_pixels(pixels_of(frame, self._plan), *self._arguments, out)

    def fuses(self, codec: Codec) -> bool:
        """Bitshuffle with LZ4 or alone, LZ4, and no filter, of the plan's shape and dtype."""
        return form_of(codec, self._plan) is not None

    def chunk(self, chunk: bytes, codec: Codec, out: NDArray[Any]) -> bool:
        """Reduce a chunk of such a codec into `out`; False, `out` zero, when corrupt."""
        form = form_of(codec, self._plan)
        if form is None:
            raise NotImplementedError(f"no fused {self._plan.reduction} for {codec}")
        out[...] = 0
        good: bool
        if isinstance(form, Blocks):
            itemsize = self._like.itemsize
            good = self._of_blocks(
                bytes_of(chunk), form.layout, form.block, itemsize, *self._arguments, out
            )
        elif isinstance(form, Stream):
            good = self._of_stream(bytes_of(chunk), self._like, *self._arguments, out)
        else:
            pixels = plain_pixels(chunk, codec)
            good = pixels is not None
            if good:
                self._of_pixels(pixels, *self._arguments, out)
        if not good:
            out[...] = 0
        return good


def added(values: NDArray[Any], more: NDArray[Any]) -> None:
    """Add the values of other pixels, in place."""
    values += more

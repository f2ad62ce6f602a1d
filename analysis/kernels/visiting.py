"""Every chosen pixel with counts, shown to a function that a user wrote.

The function is compiled into the loops, so these kernels are compiled anew for each plug-in, and
not kept on disk.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.kernels.blocks import groups_of, load_block, loose_pixel, open_chunk, scratch_words
from analysis.kernels.jit import inlined
from analysis.kernels.lz4 import CORRUPT
from analysis.kernels.memory import load8, lowest
from analysis.plan import Plan

_0, _1 = np.uint64(0), np.uint64(1)


class Visiting:
    """A visitor compiled for the frames of one plan."""

    def __init__(self, visit: Callable[..., None], plan: Plan, params: NDArray[np.float64]) -> None:
        self._blocks, self._pixels = _loops(visit)
        self._size = plan.height * plan.width
        self._itemsize = np.dtype(plan.dtype).itemsize
        self._where = plan.width, plan.cx or 0.0, plan.cy or 0.0, params

    def blocks(
        self,
        chunk: NDArray[np.uint8],
        layout: int,
        block: int,
        selection: NDArray[np.uint64],
        totals: NDArray[np.float64],
    ) -> bool:
        """Visit a bitshuffle chunk; False when it is damaged, then `totals` mean nothing."""
        return bool(
            self._blocks(
                chunk, layout, block, self._size, self._itemsize, selection, totals, *self._where
            )
        )

    def pixels(
        self, pixels: NDArray[Any], selection: NDArray[np.uint64], totals: NDArray[np.float64]
    ) -> None:
        """Visit the pixels of a decoded frame, flat."""
        self._pixels(pixels, selection, totals, *self._where)


@lru_cache(64)
def _loops(visit: Callable[..., None]) -> tuple[Any, Any]:
    """The loops over blocks and over pixels, with `visit` inside."""
    seen: Any = inlined(visit)

    @inlined
    def over_blocks(  # type: ignore[no-untyped-def]
        chunk, layout, block, pixels, itemsize, selection, totals, width, cx, cy, params
    ):
        base, length = np.uint64(chunk.ctypes.data), len(chunk)
        at, block = open_chunk(base, length, layout, block, pixels, itemsize)
        if at == CORRUPT:
            return False
        size, per_plane = scratch_words(block, pixels, itemsize)
        words, spare = np.empty(size, np.uint64), np.empty(size, np.uint64)
        chosen = np.empty(per_plane, np.uint64)
        planes = np.uint64(8 * itemsize)
        largest = (_1 << planes) - _1
        whole = pixels & ~7
        start = 0
        while start < whole:
            count = min(block, whole - start)
            at, used, bits, _ = load_block(
                base, length, layout, at, start, count, itemsize, selection, words, spare, chosen
            )
            if at == CORRUPT:
                return False
            stride = 8 * groups_of(count)
            for w in range(stride if used else 0):
                some = _0
                for k in range(used):
                    some |= words[k * stride + w]
                some &= load8(bits + np.uint64(8 * w))
                while some != _0:
                    u = lowest(some)
                    some &= some - _1
                    value = _0
                    for k in range(used):
                        value |= (words[k * stride + w] >> u & _1) << np.uint64(k)
                    if value >> np.uint64(used - 1):  # the last plane stands for those above, too
                        value |= largest & ~((_1 << np.uint64(used)) - _1)
                    place = start + 64 * w + np.int64(u)
                    seen(totals, np.float64(value), place % width - cx, place // width - cy, params)
            start += count
        if length - at < (pixels - whole) * itemsize:
            return False
        for i in range(pixels - whole):
            place = whole + i
            value = loose_pixel(base, length, at, itemsize, i)
            chosen_here = selection[place >> 6] >> np.uint64(place & 63) & _1
            if value != _0 and value != largest and chosen_here:
                seen(totals, np.float64(value), place % width - cx, place // width - cy, params)
        return True

    @inlined
    def over_pixels(pixels, selection, totals, width, cx, cy, params):  # type: ignore[no-untyped-def]
        largest = np.iinfo(pixels.dtype).max
        for place in range(pixels.size):
            value = pixels[place]
            if value == 0 or value == largest:
                continue
            if selection[place >> 6] >> np.uint64(place & 63) & _1:
                seen(totals, np.float64(value), place % width - cx, place // width - cy, params)

    return over_blocks, over_pixels

"""Counts, and their first and second moments, in one pass."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.codec import Codec
from analysis.healing import mirror, opposite, pixels
from analysis.kernels import COMMON
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
from analysis.reductions.base import Prepared
from analysis.reductions.healed import Healed
from analysis.selection import selected
from analysis.version import code_version

COLUMNS = ("sum", "x", "y", "xx", "xy", "yy")
"""Columns of the values: sum_S I times 1, x, y, x^2, x y, y^2, x and y the pixel's indices."""


class PreparedMoments:
    """Moments of the pixels in one selection, uint64 (6,), exact modulo 2^64.

    They are taken about pixel (0, 0) in integers, so that the beam centre is no part of the pass:
    moving the origin by integers stays exact modulo 2^64, hence the centred moments are exact
    whenever they themselves fit 64 bits.
    """

    value_shape = (len(COLUMNS),)
    value_dtype = np.dtype(np.uint64)

    def __init__(self, plan: Plan, chosen: NDArray[np.bool_] | None = None) -> None:
        """Over the pixels `chosen`, else over S."""
        from analysis.kernels import moments  # loads numba, which only those who compute need

        self._kernels = moments
        self._plan = plan
        self._selection = pack_selection(selected(plan) if chosen is None else chosen)
        self._like = np.empty(0, np.dtype(plan.dtype).newbyteorder("="))

    def frame(self, frame: NDArray[Any], out: NDArray[Any]) -> None:
        """Reduce a decoded frame (height, width) into `out` (6,)."""
        pixels = pixels_of(frame, self._plan)
        self._kernels.moments_of_pixels(pixels, self._plan.width, self._selection, out)

    def fuses(self, codec: Codec) -> bool:
        """Bitshuffle with LZ4 or alone, LZ4, and no filter, of the plan's shape and dtype."""
        return form_of(codec, self._plan) is not None

    def chunk(self, chunk: bytes, codec: Codec, out: NDArray[Any]) -> bool:
        """Reduce a chunk of such a codec into `out` (6,); False, `out` untouched, when corrupt."""
        plan, selection, kernels = self._plan, self._selection, self._kernels
        size = plan.height * plan.width
        form = form_of(codec, plan)
        good: bool
        if isinstance(form, Blocks):
            good = kernels.moments_of_blocks(
                bytes_of(chunk),
                form.layout,
                form.block,
                size,
                plan.width,
                self._like.itemsize,
                selection,
                out,
            )
            return good
        if isinstance(form, Stream):
            good = kernels.moments_of_stream(
                bytes_of(chunk), self._like, size, plan.width, selection, out
            )
            return good
        if form is None:
            raise NotImplementedError(f"no fused moments for {codec}")
        pixels = plain_pixels(chunk, codec)
        if pixels is None:
            return False
        kernels.moments_of_pixels(pixels, plan.width, selection, out)
        return True


class PreparedCounts:
    """Sum of the counts in one selection, uint64 (1,): the first of the moments, and no more.

    Twice as fast as all six; for who needs nothing else of a scan.
    """

    value_shape = (1,)
    value_dtype = np.dtype(np.uint64)

    def __init__(self, plan: Plan, chosen: NDArray[np.bool_] | None = None) -> None:
        """Over the pixels `chosen`, else over S."""
        from analysis.kernels import sums

        self._kernels = sums
        self._plan = plan
        self._selection = pack_selection(selected(plan) if chosen is None else chosen)
        self._like = np.empty(0, np.dtype(plan.dtype).newbyteorder("="))

    def frame(self, frame: NDArray[Any], out: NDArray[Any]) -> None:
        """Reduce a decoded frame (height, width) into `out` (1,)."""
        self._kernels.sum_of_pixels(pixels_of(frame, self._plan), self._selection, out)

    def fuses(self, codec: Codec) -> bool:
        """Bitshuffle with LZ4 or alone, LZ4, and no filter, of the plan's shape and dtype."""
        return form_of(codec, self._plan) is not None

    def chunk(self, chunk: bytes, codec: Codec, out: NDArray[Any]) -> bool:
        """Reduce a chunk of such a codec into `out` (1,); False, `out` untouched, when corrupt."""
        size, selection, kernels = (
            self._plan.height * self._plan.width,
            self._selection,
            self._kernels,
        )
        form = form_of(codec, self._plan)
        good: bool
        if isinstance(form, Blocks):
            itemsize = self._like.itemsize
            good = kernels.sum_of_blocks(
                bytes_of(chunk), form.layout, form.block, size, itemsize, selection, out
            )
            return good
        if isinstance(form, Stream):
            good = kernels.sum_of_stream(bytes_of(chunk), self._like, size, selection, out)
            return good
        if form is None:
            raise NotImplementedError(f"no fused sum for {codec}")
        pixels = plain_pixels(chunk, codec)
        if pixels is None:
            return False
        kernels.sum_of_pixels(pixels, selection, out)
        return True


def _add(values: NDArray[np.uint64], more: NDArray[np.uint64]) -> None:
    values += more


def _add_mirrored(
    mirrors: tuple[int, int], values: NDArray[np.uint64], more: NDArray[np.uint64]
) -> None:
    """Add moments (6,) of pixels as if they were at a - x and b - y. Exact modulo 2^64."""
    a, b = (np.uint64(one % 2**64) for one in mirrors)
    two = np.uint64(2)
    with np.errstate(over="ignore"):  # that is what modulo means
        total, x, y, xx, xy, yy = more
        values[0] += total
        values[1] += a * total - x
        values[2] += b * total - y
        values[3] += a * a * total - two * a * x + xx
        values[4] += a * b * total - a * y - b * x + xy
        values[5] += b * b * total - two * b * y + yy


class Moments:
    """The pass that serves darkfield, dpc and orientation."""

    name = "moments"
    version = code_version(
        "analysis.reductions.moments",
        "analysis.selection",
        "analysis.healing",
        "analysis.reductions.healed",
        "analysis.reductions.flattened",
        "analysis.kernels.moments",
        *COMMON,
    )
    uses: frozenset[str] = frozenset()

    def prepare(self, plan: Plan) -> Prepared:
        """Build the selection of `plan`."""
        _, sources = opposite(plan)
        if not sources.size:
            return PreparedMoments(plan)
        other = PreparedMoments(plan, pixels(plan, sources))
        return Healed(PreparedMoments(plan), other, partial(_add_mirrored, mirror(plan)))


class Counts:
    """The pass for the sum of counts alone."""

    name = "counts"
    version = code_version(
        "analysis.reductions.moments",
        "analysis.selection",
        "analysis.healing",
        "analysis.reductions.healed",
        "analysis.reductions.flattened",
        "analysis.kernels.sums",
        *COMMON,
    )
    uses: frozenset[str] = frozenset()

    def prepare(self, plan: Plan) -> Prepared:
        """Build the selection of `plan`."""
        _, sources = opposite(plan)
        if not sources.size:
            return PreparedCounts(plan)
        return Healed(PreparedCounts(plan), PreparedCounts(plan, pixels(plan, sources)), _add)

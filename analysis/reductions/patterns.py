"""Patterns: sum and maximum over frames, pixel by pixel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.codec import Codec
from analysis.healing import Healing
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
from analysis.plan import Plan, Roi
from analysis.version import code_version

LAYERS = ("sum", "max", "valid")
"""Layers of the values: sum and maximum of the counts, number of frames that have the pixel."""


@dataclass(slots=True)
class Pattern:
    """What frames have added up to so far. Owned by one thread; plain numbers for each pixel."""

    sums: NDArray[np.uint64]
    largest: NDArray[np.uint32]
    missing: NDArray[np.uint32]
    """Frames in which the pixel is selected but holds the sentinel."""
    stacks: NDArray[np.uint64]
    """What is to be added to `sums` and compared with `largest`, as bit planes."""
    heights: NDArray[np.uint8]
    frames: int = 0


class PreparedPattern:
    """Frames accumulated over the pixels of one selection.

    Not one value for each frame but one `Pattern` for many: make it with `new`, add frames with
    `accumulate` or `accumulate_frame`, read it with `values`. The values of disjoint sets of frames
    are put together by `merge`, exactly and in any order, modulo 2^64.

    It is a `Prepared` as well, whose values are those of a single frame.
    """

    value_dtype = np.dtype(np.uint64)

    def __init__(self, plan: Plan) -> None:
        from analysis.kernels import patterns  # loads numba, which only those who compute need

        self._kernels = patterns
        self._plan = plan
        self._healing = Healing(plan)
        self._selection = pack_selection(self._healing.counted)
        self._roi = plan.roi or Roi(0, 0, plan.width, plan.height)
        self._like = np.empty(0, np.dtype(plan.dtype).newbyteorder("="))

    @property
    def value_shape(self) -> tuple[int, ...]:
        """Layers, rows and columns: those of the roi."""
        return len(LAYERS), self._roi.h, self._roi.w

    def new(self) -> Pattern:
        """A pattern of no frame. Memory is taken where counts are added, not before."""
        size = self._plan.height * self._plan.width
        return Pattern(
            np.zeros(size, np.uint64),
            np.zeros(size, "u4"),
            np.zeros(size, "u4"),
            *self._kernels.new_stacks(size),
        )

    def accumulate_frame(self, frame: NDArray[Any], pattern: Pattern) -> None:
        """Add a decoded frame (height, width)."""
        pixels = pixels_of(frame, self._plan)
        self._kernels.add_pixels(pixels, self._selection, *_arrays(pattern))
        pattern.frames += 1

    def accumulate(self, chunk: bytes, codec: Codec, pattern: Pattern) -> bool:
        """Add the frame in a chunk of a codec that `fuses`; False, nothing added, when corrupt."""
        arrays = _arrays(pattern)
        form = form_of(codec, self._plan)
        if form is None:
            raise NotImplementedError(f"no fused patterns for {codec}")
        good: bool
        if isinstance(form, Blocks):
            good = self._kernels.add_blocks(
                bytes_of(chunk),
                form.layout,
                form.block,
                self._like.itemsize,
                self._selection,
                *arrays,
                pattern.stacks,
                pattern.heights,
            )
        elif isinstance(form, Stream):
            good = self._kernels.add_stream(bytes_of(chunk), self._like, self._selection, *arrays)
        else:
            pixels = plain_pixels(chunk, codec)
            good = pixels is not None
            if good:
                self._kernels.add_pixels(pixels, self._selection, *arrays)
        pattern.frames += good
        return good

    def values(self, pattern: Pattern) -> NDArray[np.uint64]:
        """Sum, max and number of valid frames in the roi, uint64 (3, rows, columns).

        All are 0 where a pixel is not selected.
        """
        out = np.empty(self.value_shape, np.uint64)
        for number, layer in enumerate(self._windows(pattern)):
            out[number] = layer
        return out

    def layers(self, pattern: Pattern) -> tuple[NDArray[Any], ...]:
        """The same, each layer in the smallest dtype that holds it, made one after another.

        As uint64 a 4M pattern takes 107 MB; like this it is sent and kept in 18 to 36 MB.
        """
        return tuple(narrowed(layer) for layer in self._windows(pattern))

    def _windows(self, pattern: Pattern) -> Iterator[NDArray[Any]]:
        """Sum, max and number of valid frames in the roi, one after another."""
        self._kernels.unfold(pattern.stacks, pattern.heights, pattern.sums, pattern.largest)
        yield self._window(pattern.sums)
        yield self._window(pattern.largest)
        missing = self._window(pattern.missing)
        chosen = self._cut(self._healing.covered)
        yield np.where(chosen, np.uint32(pattern.frames) - missing, np.uint32(0))

    def _window(self, layer: NDArray[Any]) -> NDArray[Any]:
        """A layer in the roi, what is healed of it taken from the opposite pixels."""
        plane = layer.reshape(self._plan.shape)
        if self._healing.targets.size:
            healed = self._healing.plane(plane)
            plane = np.where(self._healing.covered, healed, plane.dtype.type(0))
        return self._cut(plane)

    def _cut(self, plane: NDArray[Any]) -> NDArray[Any]:
        roi = self._roi
        return plane[roi.y : roi.y + roi.h, roi.x : roi.x + roi.w]

    def frame(self, frame: NDArray[Any], out: NDArray[Any]) -> None:
        """The values of a single decoded frame, into `out` (3, rows, columns)."""
        pattern = self.new()
        self.accumulate_frame(frame, pattern)
        out[...] = self.values(pattern)

    def fuses(self, codec: Codec) -> bool:
        """Bitshuffle with LZ4 or alone, LZ4, and no filter, of the plan's shape and dtype."""
        return form_of(codec, self._plan) is not None

    def chunk(self, chunk: bytes, codec: Codec, out: NDArray[Any]) -> bool:
        """The values of a single chunk, into `out`; False, `out` untouched, when corrupt."""
        pattern = self.new()
        good = self.accumulate(chunk, codec, pattern)
        if good:
            out[...] = self.values(pattern)
        return good


def narrowed(numbers: NDArray[Any]) -> NDArray[Any]:
    """Unsigned numbers in the smallest dtype that holds them, a copy."""
    return numbers.astype(np.min_scalar_type(int(numbers.max(initial=0))))


def merge(values: NDArray[np.uint64], more: Sequence[NDArray[Any]]) -> None:
    """Add the layers of other frames, three of (rows, columns), to `values`, uint64, in place."""
    values[0] += more[0]
    np.maximum(values[1], more[1], out=values[1])
    values[2] += more[2]


def _arrays(
    pattern: Pattern,
) -> tuple[NDArray[np.uint64], NDArray[np.uint32], NDArray[np.uint32]]:
    return pattern.sums, pattern.largest, pattern.missing


class Patterns:
    """The pass behind `sum`, `max` and `average`."""

    name = "patterns"
    version = code_version(
        "analysis.reductions.patterns",
        "analysis.selection",
        "analysis.healing",
        "analysis.kernels.patterns",
        "analysis.kernels.planes",
        *COMMON,
    )
    uses: frozenset[str] = frozenset()

    def prepare(self, plan: Plan) -> PreparedPattern:
        """Build the selection of `plan`."""
        return PreparedPattern(plan)

"""From ranges of bytes to patches of frames. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.plan import Roi

PATCH_FRAMES = 64  # 60 ms of a core at 1 100 frames/s: long against a call, short against a retry
NO_FRAME = -1


@dataclass(frozen=True, slots=True)
class Patch:
    """A run of consecutive frames of one scan, farmed and cached as a unit."""

    first: int
    """Index of the first frame."""
    count: int
    """Number of frames; less than the patch size only at the end of a scan."""


def frames_in(patches: Sequence[Patch]) -> NDArray[np.int64]:
    """The number of every frame of some patches, patch after patch."""
    runs = [np.arange(one.first, one.first + one.count) for one in patches]
    return np.concatenate(runs) if runs else np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class Layout:
    """How the frames of a scan lie in the array of a result.

    The array is C-ordered (channel, line, point, *cell), the channel axis dropped where there is
    one channel. A cell is what one channel holds of one frame: a number for a map, a profile for
    a stack, the pixels for a frame.
    """

    frames: int
    """Of the scan; points beyond them have no frame."""
    horz: int
    """Points per line."""
    vert: int
    """Lines."""
    first: int = 0
    """Frame of the first point."""
    snake: bool = False
    """Every second line was recorded backwards."""
    channels: tuple[int, ...] = (0,)
    """Which of the analysis's channels, in the order of the array."""
    cell: tuple[int, ...] = ()
    patch_frames: int = PATCH_FRAMES
    flat: bool = False
    """Leave out the axes of line and point: the array of a single frame."""
    region: Roi | None = None
    """Only these points of the raster: columns and rows of the result."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""
        channel = (len(self.channels),) if len(self.channels) > 1 else ()
        raster = () if self.flat else self.window[2:][::-1]
        return (*channel, *raster, *self.cell)

    @property
    def cell_size(self) -> int:
        """Numbers in a cell."""
        return prod(self.cell)

    @property
    def window(self) -> tuple[int, int, int, int]:
        """First point and line, points per line and lines of the result."""
        if self.region is None:
            return 0, 0, self.horz, self.vert
        return self.region.x, self.region.y, self.region.w, self.region.h

    @property
    def points(self) -> int:
        """Points of the result."""
        return self.window[2] * self.window[3]

    @property
    def span(self) -> range:
        """The frames of the lines of the result, as they were recorded one after another."""
        _, top, _, height = self.window
        begin = min(self.first + top * self.horz, self.frames)
        return range(begin, min(begin + height * self.horz, self.frames))

    @property
    def used(self) -> NDArray[np.int64]:
        """The frames of its points, sorted; those beyond the scan are none."""
        frames = self.frames_of(np.arange(self.points, dtype=np.int64))
        return np.unique(frames[frames != NO_FRAME])

    def frames_of(self, points: NDArray[np.int64]) -> NDArray[np.int64]:
        """The frame of each of these points (counted in C order); NO_FRAME beyond the scan."""
        left, top, width, _ = self.window
        line, point = np.divmod(points, width)
        line, point = line + top, point + left
        if self.snake:
            point = np.where(line % 2 == 1, self.horz - 1 - point, point)
        frame = self.first + line * self.horz + point
        return np.where(frame < self.frames, frame, NO_FRAME)

    def patches_of(self, frames: NDArray[np.int64]) -> list[Patch]:
        """The aligned patches that contain these frames, in order, each once."""
        numbers = np.unique(frames[frames != NO_FRAME] // self.patch_frames)
        return [self.patch(number) for number in numbers.tolist()]

    def patch(self, number: int) -> Patch:
        """The patch of that number."""
        first = number * self.patch_frames
        return Patch(first, min(self.patch_frames, self.frames - first))


@dataclass(frozen=True, slots=True)
class Piece:
    """The part of a result that a range of its elements needs."""

    start: int
    """First element, in C order."""
    stop: int
    channel: NDArray[np.int64]
    """Index into the analysis's channels, of each cell that the range touches."""
    frame: NDArray[np.int64]
    """Frame of each such cell; NO_FRAME where there is none."""
    skip: int
    """Elements of the first cell that lie before `start`."""
    patches: list[Patch]


def piece(layout: Layout, start: int, stop: int) -> Piece:
    """Which cells, frames and patches the elements `[start, stop)` of the array need."""
    size = layout.cell_size
    cells = np.arange(start // size, -(-stop // size), dtype=np.int64)
    channel, point = np.divmod(cells, layout.points)
    frame = layout.frames_of(point)
    return Piece(
        start,
        stop,
        np.asarray(layout.channels, np.int64)[channel],
        frame,
        start - (start // size) * size,
        layout.patches_of(frame),
    )


def piece_of(layout: Layout, elements: NDArray[np.int64]) -> Piece:
    """As `piece`, for elements in any order, of a map: where cells are single numbers."""
    assert layout.cell_size == 1
    channel, point = np.divmod(elements, layout.points)
    frame = layout.frames_of(point)
    return Piece(
        0,
        len(elements),
        np.asarray(layout.channels, np.int64)[channel],
        frame,
        0,
        layout.patches_of(frame),
    )


def stitch(need: Piece, finished: NDArray[Any]) -> NDArray[Any]:
    """The elements `[start, stop)` as a flat array.

    `finished` holds (channel, frame, *cell) of the frames of `need.patches`, patch after patch.
    Cells without a frame are NaN (0 where the dtype has no NaN).
    """
    there = need.frame != NO_FRAME
    row = _rows(need.patches, need.frame[there])
    window = slice(need.skip, need.skip + need.stop - need.start)
    if len(need.frame) == len(row) == 1:  # within one frame or profile: a view, nothing copied
        one: NDArray[Any] = finished[need.channel[0], row[0]]
        return one.reshape(-1)[window]
    blank = np.nan if finished.dtype.kind == "f" else 0
    cells = np.full((len(need.frame), *finished.shape[2:]), blank, finished.dtype)
    cells[there] = finished[need.channel[there], row]
    return cells.reshape(-1)[window]


def _rows(patches: list[Patch], frames: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each of `frames` stands when the frames of `patches` stand one after another."""
    firsts = np.array([patch.first for patch in patches], np.int64)
    ends = np.cumsum(np.array([patch.count for patch in patches], np.int64))
    patch = np.searchsorted(firsts, frames, side="right") - 1
    begins = np.concatenate([np.zeros(1, np.int64), ends])[patch]
    return begins + frames - firsts[patch] if len(frames) else frames


PORTIONS = 16  # of a pattern, at least: keeps a few peers busy
SMALLEST_PORTION = 256  # frames; sending and merging a 4M pattern takes as long as 100 frames
LARGEST_PORTION = 4096  # frames: 4 s of a core, far below the deadline of a patch


def portions(layout: Layout, usable: NDArray[np.bool_] | None = None) -> list[list[Patch]]:
    """The frames of a pattern, shared out; each portion is runs of consecutive frames, in order.

    Of the frames of the scan only the `usable` ones, where these are given.
    """
    frames = layout.used
    if usable is not None:
        frames = frames[usable[frames]]
    share = -(-len(frames) // (PORTIONS * PATCH_FRAMES)) * PATCH_FRAMES
    size = min(max(share, SMALLEST_PORTION), LARGEST_PORTION)
    return [runs(frames[begin : begin + size]) for begin in range(0, len(frames), size)]


def runs(frames: NDArray[np.int64]) -> list[Patch]:
    """Sorted frames as runs of consecutive ones. Pure."""
    if not len(frames):
        return []
    gaps = np.flatnonzero(np.diff(frames) != 1) + 1
    firsts = frames[np.concatenate([[0], gaps])].tolist()
    lasts = frames[np.concatenate([gaps, [len(frames)]]) - 1].tolist()
    return [Patch(a, b - a + 1) for a, b in zip(firsts, lasts, strict=True)]

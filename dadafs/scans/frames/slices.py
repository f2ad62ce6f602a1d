"""Cutting frame slices into the pieces that patches need. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray

from dadafs.scans.model import NO_CHUNK, ChunkRun, FrameSlice

OFFSET_BYTES = 8
LENGTH_BYTES = 4


def cut(frames: FrameSlice, first: int, count: int) -> FrameSlice:
    """The part `[first, first + count)` of `frames`, which must contain it."""
    if first < frames.first or first + count > frames.first + frames.count:
        raise ValueError(
            f"[{first}, {first + count}) is not within"
            f" [{frames.first}, {frames.first + frames.count})"
        )
    stop = first + count
    begin = bisect_right(frames.runs, first, key=lambda run: run.first) - 1
    near = takewhile(lambda run: run.first < stop, frames.runs[max(begin, 0) :])
    runs = (_cut_run(run, first, stop) for run in near)
    return FrameSlice(first, count, tuple(run for run in runs if run is not None))


def concatenated(slices: Sequence[FrameSlice]) -> FrameSlice:
    """Slices in order as one, from the first frame to the last; what lies between is in no run."""
    first, last = slices[0], slices[-1]
    runs = tuple(run for one in slices for run in one.runs)
    return FrameSlice(first.first, last.first + last.count - first.first, runs)


def limited(frames: FrameSlice, most: int) -> Iterator[FrameSlice]:
    """The listed frames of a slice, in slices that list at most `most` each; none is left out."""
    runs: list[ChunkRun] = []
    room = most
    for run in frames.runs:
        begin, end = run.first, run.first + len(run.lengths) // LENGTH_BYTES
        while begin < end:
            stop = min(end, begin + room)
            part = _cut_run(run, begin, stop)
            assert part is not None
            runs.append(part)
            room -= stop - begin
            begin = stop
            if not room:
                yield FrameSlice(frames.first, frames.count, tuple(runs))
                runs, room = [], most
    if runs:
        yield FrameSlice(frames.first, frames.count, tuple(runs))


def _cut_run(run: ChunkRun, start: int, stop: int) -> ChunkRun | None:
    length = len(run.lengths) // LENGTH_BYTES
    low = max(start - run.first, 0)
    high = min(stop - run.first, length)
    if low >= high:
        return None
    return ChunkRun(
        run.path,
        run.identity,
        run.codec,
        run.first + low,
        run.offsets[low * OFFSET_BYTES : high * OFFSET_BYTES],
        run.lengths[low * LENGTH_BYTES : high * LENGTH_BYTES],
    )


def listed(frames: FrameSlice) -> int:
    """How many frames of a slice are in its runs."""
    return sum(len(run.lengths) // LENGTH_BYTES for run in frames.runs)


def chunks(run: ChunkRun) -> Iterator[tuple[int, int, int]]:
    """(frame number, offset, length) of every frame of `run` that has a chunk."""
    offsets: NDArray[np.uint64] = np.frombuffer(run.offsets, "<u8")
    lengths: NDArray[np.uint32] = np.frombuffer(run.lengths, "<u4")
    if len(offsets) != len(lengths):
        raise ValueError(f"run with {len(offsets)} offsets and {len(lengths)} lengths")
    for number, (offset, length) in enumerate(zip(offsets.tolist(), lengths.tolist(), strict=True)):
        if offset != NO_CHUNK:
            yield run.first + number, offset, length

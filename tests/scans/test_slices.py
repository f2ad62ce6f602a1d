"""Cutting slices: every frame stays at its place, whatever the runs."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from analysis.codec import Codec
from dadafs.scans.frames.slices import chunks, cut
from dadafs.scans.model import ChunkRun, FrameSlice, Identity

CODEC = Codec(1, 1, "<u2")


def places(found: FrameSlice) -> dict[int, tuple[bytes, int, int]]:
    return {
        number: (run.path, offset, length)
        for run in found.runs
        for number, offset, length in chunks(run)
    }


def built(lengths: list[tuple[int, int]], start: int) -> FrameSlice:
    """Runs of so many frames, each behind a gap."""
    runs, at = [], start
    for number, (gap, length) in enumerate(lengths):
        at += gap
        frames = np.arange(at, at + length)
        runs.append(
            ChunkRun(
                b"%d" % number,
                Identity(1, 2, 3),
                CODEC,
                at,
                (10 * frames).astype("<u8").tobytes(),
                (frames % 7 + 1).astype("<u4").tobytes(),
            )
        )
        at += length
    return FrameSlice(start, at - start + 2, tuple(runs))


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5)), max_size=12),
    st.integers(0, 9),
    st.data(),
)
def test_a_part_has_the_frames_of_the_whole(
    lengths: list[tuple[int, int]], start: int, data: st.DataObject
) -> None:
    whole = built(lengths, start)
    first = data.draw(st.integers(start, start + whole.count))
    count = data.draw(st.integers(0, start + whole.count - first))
    part = cut(whole, first, count)
    assert (part.first, part.count) == (first, count)
    wanted = range(first, first + count)
    assert places(part) == {n: place for n, place in places(whole).items() if n in wanted}
    assert all(run.lengths for run in part.runs)

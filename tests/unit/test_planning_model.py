"""Planning and stitching against an array that is simply built and sliced."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from analysis.plan import Roi
from dadafs import planning
from dadafs.planning import NO_FRAME, Layout, Patch, Piece, piece, portions, stitch


@dataclass(frozen=True)
class Case:
    layout: Layout
    start: int
    stop: int
    floats: bool
    """NaN where there is no frame; else 0."""


@st.composite
def regions(draw: st.DrawFn, horz: int, vert: int) -> Roi:
    x, y = draw(st.integers(0, horz - 1)), draw(st.integers(0, vert - 1))
    return Roi(x, y, draw(st.integers(1, horz - x)), draw(st.integers(1, vert - y)))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    frames = draw(st.integers(1, 60))
    flat = draw(st.booleans()) and draw(st.booleans())
    layout = Layout(
        frames=frames,
        horz=1 if flat else draw(st.integers(1, 9)),
        vert=1 if flat else draw(st.integers(1, 9)),
        first=draw(st.integers(0, frames - 1)),
        snake=draw(st.booleans()),
        channels=tuple(draw(st.permutations(range(draw(st.integers(1, 4)))))),
        cell=tuple(draw(st.lists(st.integers(1, 4), max_size=2))),
        patch_frames=draw(st.sampled_from([1, 4, 7, 64])),
        flat=flat,
    )
    if not flat and draw(st.booleans()):
        layout = replace(layout, region=draw(regions(layout.horz, layout.vert)))
    total = int(np.prod(layout.shape))
    start, stop = sorted(draw(st.tuples(st.integers(0, total), st.integers(0, total))))
    return Case(layout, start, stop, floats=draw(st.booleans()))


def numbers(channel: int, frame: int, cell: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """What channel and frame hold: no two cells alike."""
    size = int(np.prod(cell))
    return (np.arange(size) + 1 + 100 * frame + 10_000 * channel).astype(dtype).reshape(cell)


def whole_array(layout: Layout, dtype: Any) -> NDArray[Any]:
    """The result as a person would build it, point by point."""
    blank = np.nan if np.dtype(dtype).kind == "f" else 0
    raster = np.full((len(layout.channels), layout.vert, layout.horz, *layout.cell), blank, dtype)
    frame = layout.first
    for line in range(layout.vert):
        along = range(layout.horz)
        for point in reversed(along) if layout.snake and line % 2 else along:
            if frame < layout.frames:
                for position, channel in enumerate(layout.channels):
                    raster[position, line, point] = numbers(channel, frame, layout.cell, dtype)
            frame += 1
    if layout.region is not None:
        x, y, w, h = layout.region.x, layout.region.y, layout.region.w, layout.region.h
        raster = raster[:, y : y + h, x : x + w]
    return raster.reshape(layout.shape)


def finished(layout: Layout, patches: list[Patch], dtype: Any) -> NDArray[Any]:
    """Finished values of these patches, (channel, frame, *cell)."""
    frames = [frame for one in patches for frame in range(one.first, one.first + one.count)]
    made = np.zeros((max(layout.channels) + 1, len(frames), *layout.cell), dtype)
    for channel in range(len(made)):
        for row, frame in enumerate(frames):
            made[channel, row] = numbers(channel, frame, layout.cell, dtype)
    return made


@settings(deadline=None, derandomize=True, max_examples=200)
@given(cases())
def test_piece_and_stitch_are_a_slice_of_the_array(case: Case) -> None:
    layout = case.layout
    dtype = np.float64 if case.floats else np.uint32
    need = piece(layout, case.start, case.stop)
    got = stitch(need, finished(layout, need.patches, dtype))
    expected = whole_array(layout, dtype).reshape(-1)[case.start : case.stop]
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, expected)


def frames_within(need: Piece) -> set[int]:
    return set(need.frame[need.frame != NO_FRAME].tolist())


@settings(deadline=None, derandomize=True, max_examples=200)
@given(cases())
def test_patches_are_minimal_aligned_and_in_order(case: Case) -> None:
    layout = case.layout
    assume(case.start < case.stop)
    need = piece(layout, case.start, case.stop)
    firsts = [one.first for one in need.patches]
    assert firsts == sorted(set(firsts))
    for one in need.patches:
        assert one.first % layout.patch_frames == 0
        assert one.count == min(layout.patch_frames, layout.frames - one.first) > 0
    touched = {
        frame - frame % layout.patch_frames for frame in whole_frames(layout, case.start, case.stop)
    }
    assert set(firsts) == touched


def whole_frames(layout: Layout, start: int, stop: int) -> set[int]:
    """The frames that the elements `[start, stop)` come from, read off an array of frames."""
    plain = Layout(
        layout.frames,
        layout.horz,
        layout.vert,
        layout.first,
        layout.snake,
        channels=tuple(range(len(layout.channels))),
        region=layout.region,
    )
    one = whole_array(plain, np.float64)[..., None]
    of_element = np.broadcast_to(one, (*one.shape[:-1], layout.cell_size)).reshape(-1)
    found = of_element[start:stop]
    return {int(number) % 10_000 // 100 for number in found[~np.isnan(found)]}


@settings(deadline=None, derandomize=True)
@given(cases(), st.data())
def test_pieces_in_a_row_are_the_whole(case: Case, data: st.DataObject) -> None:
    layout = case.layout
    total = int(np.prod(layout.shape))
    cuts = sorted(data.draw(st.lists(st.integers(0, total), max_size=4)))
    ranges = list(zip([0, *cuts], [*cuts, total], strict=True))
    pieces = [piece(layout, start, stop) for start, stop in ranges]
    parts = [stitch(need, finished(layout, need.patches, np.float64)) for need in pieces]
    expected = whole_array(layout, np.float64).reshape(-1)
    np.testing.assert_array_equal(np.concatenate(parts), expected)


def test_two_lines_of_a_large_map_need_two_lines() -> None:
    layout = Layout(frames=1_000_000, horz=1000, vert=1000)
    need = piece(layout, 10_000, 12_000)
    assert need.patches[0] == Patch(9984, 64)
    assert need.patches[-1] == Patch(11_968, 64)
    assert len(need.patches) == 32


def test_last_patch_ends_with_the_scan() -> None:
    layout = Layout(frames=130, horz=200, vert=1)
    assert piece(layout, 0, 200).patches == [Patch(0, 64), Patch(64, 64), Patch(128, 2)]
    assert frames_within(piece(layout, 128, 200)) == {128, 129}


def test_points_beyond_the_scan_need_nothing() -> None:
    layout = Layout(frames=10, horz=5, vert=4)
    need = piece(layout, 10, 20)
    assert need.patches == []
    assert np.isnan(stitch(need, np.zeros((1, 0)))).all()


def test_range_within_one_cell_is_a_view() -> None:
    layout = Layout(frames=3, horz=1, vert=1, first=1, cell=(4, 5), patch_frames=1, flat=True)
    values = np.arange(20.0).reshape(1, 1, 4, 5)
    need = piece(layout, 7, 13)
    assert need.patches == [Patch(1, 1)]
    got = stitch(need, values)
    assert np.shares_memory(got, values)
    assert got.tolist() == list(range(7, 13))


@pytest.mark.parametrize(
    ("more", "shape"),
    [
        ({}, (3, 2)),
        ({"channels": (0, 1)}, (2, 3, 2)),
        ({"channels": (1,)}, (3, 2)),
        ({"channels": (0, 1), "cell": (7,)}, (2, 3, 2, 7)),
        ({"cell": (7, 8), "flat": True}, (7, 8)),
        ({"channels": (0, 1), "cell": (7,), "region": Roi(1, 0, 1, 2)}, (2, 2, 1, 7)),
    ],
)
def test_shapes(more: dict[str, Any], shape: tuple[int, ...]) -> None:
    assert Layout(frames=6, horz=2, vert=3, **more).shape == shape


@settings(deadline=None, derandomize=True)
@given(cases())
def test_portions_share_out_every_frame_once(case: Case) -> None:
    layout = replace(case.layout, cell=(), channels=(0,))
    wanted = sorted(whole_frames(layout, 0, layout.points))
    with pytest.MonkeyPatch.context() as patching:
        patching.setattr(planning, "SMALLEST_PORTION", 5)
        patching.setattr(planning, "LARGEST_PORTION", 8)
        shared = portions(layout)
    found = [list(range(run.first, run.first + run.count)) for one in shared for run in one]
    assert [frame for run in found for frame in run] == wanted
    for portion in shared:
        assert 0 < sum(run.count for run in portion) <= 8
        ends = [run.first + run.count for run in portion]
        assert all(end < run.first for end, run in zip(ends, portion[1:], strict=False))


def test_portions_of_a_large_scan_keep_peers_busy() -> None:
    sizes = [sum(run.count for run in portion) for portion in portions(Layout(100_000, 1000, 100))]
    assert sum(sizes) == 100_000
    assert max(sizes) <= planning.LARGEST_PORTION
    assert len(sizes) >= planning.PORTIONS


@settings(deadline=None, derandomize=True)
@given(cases())
def test_frames_of_a_result_lie_in_its_span(case: Case) -> None:
    layout = case.layout
    frames = layout.frames_of(np.arange(layout.points))
    used = np.unique(frames[frames != NO_FRAME])
    span = np.arange(layout.span.start, layout.span.stop)
    if layout.window[2] == layout.horz:
        assert np.array_equal(used, span)
    else:
        assert np.isin(used, span).all()
        assert len(span) <= layout.window[3] * layout.horz

"""Frames are ascribed to files by arithmetic where that is safe, else by counting."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dadafs.scans.metadata.layout import Count, Part, counted, regular


def test_regular_layout() -> None:
    layout = regular(3, 10, 4)
    assert layout is not None
    assert list(layout.parts(0, 10)) == [Part(0, 0, 4), Part(1, 4, 4), Part(2, 8, 2)]
    assert list(layout.parts(3, 3)) == [Part(0, 3, 1, 3), Part(1, 4, 2)]
    assert list(layout.parts(9, 1)) == [Part(2, 9, 1, 1)]
    assert list(layout.parts(4, 0)) == []


def test_layouts_that_do_not_go_with_the_announcement() -> None:
    assert regular(2, 10, 4) is None
    assert regular(4, 10, 4) is None
    assert regular(0, 10, 4) is None
    assert regular(1, 0, 4) is None
    assert regular(1, 10, 0) is None


@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 60), st.integers(0, 60))
def test_regular_layouts_cover_every_frame(
    announced: int, per_file: int, first: int, count: int
) -> None:
    layout = regular(-(-announced // per_file), announced, per_file)
    assert layout is not None
    found = [
        (part.first + n, part.link, part.skip + n)
        for part in layout.parts(first, count)
        for n in range(part.count)
    ]
    frames = range(first, min(first + count, announced))
    assert found == [(frame, *divmod(frame, per_file)) for frame in frames]


def test_files_lie_where_they_say_or_one_after_another() -> None:
    layout = counted(0, [Count(3), Count(2, 10), Count(1), None, Count(1)])
    assert layout.ordered == (Part(0, 0, 3), Part(1, 10, 2), Part(2, 12, 1), Part(4, 16, 1))
    assert layout.frames == 17
    assert layout.part(3) == Part(3, 13, 3)


def test_total_is_what_was_announced_or_recorded() -> None:
    assert counted(100, [Count(4)]).frames == 100
    assert counted(3, [Count(4)]).frames == 4
    assert counted(10, [Count(4), None, None]).frames == 10  # assumed 12: too many to be true
    assert counted(0, [Count(4), None, None]).frames == 12
    assert counted(7, []).frames == 7


counts = st.lists(
    st.none() | st.builds(Count, st.integers(0, 9), st.none() | st.integers(0, 30)), max_size=8
)


@given(st.integers(0, 50), counts, st.integers(0, 40), st.integers(0, 40))
def test_counted_layouts_against_a_table(
    announced: int, files: list[Count | None], first: int, count: int
) -> None:
    layout = counted(announced, files)
    usual = next((one.frames for one in files if one is not None), 0)
    claims: dict[int, list[tuple[int, int]]] = {}
    position = 0
    for link, one in enumerate(files):
        begin = position if one is None or one.start is None else one.start
        frames = usual if one is None else one.frames
        position = begin + frames
        for n in range(0 if one is None else frames):
            claims.setdefault(begin + n, []).append((link, n))
    expected = [
        (frame, *claims[frame][0])
        for frame in range(first, first + count)
        if len(claims.get(frame, [])) == 1
    ]
    found = [
        (part.first + n, part.link, part.skip + n)
        for part in layout.parts(first, count)
        for n in range(part.count)
    ]
    assert found == expected
    twice = {frame for frame, owners in claims.items() if len(owners) > 1}
    assert {frame for low, high in layout.overlaps for frame in range(low, high)} == twice
    assert layout.frames >= max([announced, *(frame + 1 for frame in claims)])


def test_ten_thousand_overlapping_files_take_no_square_of_time() -> None:
    starts = np.random.default_rng(1).permutation(10_000)
    layout = counted(0, [Count(150, int(start) * 100) for start in starts])
    assert len(layout.ordered) == 10_000
    assert len(layout.overlaps) == 9_999

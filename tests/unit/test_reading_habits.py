"""Read-ahead is declined until its reader has shown that he reads everything."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dadafs.client.fuse.demand import PAGE_BYTES, STEADY_BYTES, WINDOW_BYTES, Demand

OFFSETS = st.integers(0, 1 << 24).map(lambda page: page * PAGE_BYTES)


def pages(demand: Demand, start: int, stop: int) -> None:
    """Read page after page."""
    for offset in range(start, stop, PAGE_BYTES):
        assert not demand.declines(offset, PAGE_BYTES)


@settings(deadline=None, derandomize=True)
@given(st.lists(st.tuples(OFFSETS, st.integers(1, WINDOW_BYTES))))
def test_single_pages_and_repetitions_are_never_declined(steps: list[tuple[int, int]]) -> None:
    demand = Demand()
    for offset, size in steps:
        assert not demand.declines(offset, min(size, PAGE_BYTES))
        if demand.declines(offset, size):
            assert size > PAGE_BYTES
            assert not demand.declines(offset, size)


@pytest.mark.parametrize("offset", [0, 1 << 20])
def test_first_window_is_declined_once(offset: int) -> None:
    demand = Demand()
    assert demand.declines(offset, WINDOW_BYTES)
    assert not demand.declines(offset, WINDOW_BYTES)


def test_other_windows_are_declined_each() -> None:
    demand = Demand()
    for number in range(1, 50):
        assert demand.declines(number * 10 * WINDOW_BYTES, 2 * PAGE_BYTES)


def test_two_lines_of_a_mapped_map_cost_their_pages() -> None:
    demand = Demand()
    assert demand.declines(1 << 20, 32 * PAGE_BYTES)  # read-ahead around the fault
    pages(demand, (1 << 20) + 16 * PAGE_BYTES, (1 << 20) + 20 * PAGE_BYTES)
    assert demand.declines((1 << 20) + 20 * PAGE_BYTES, WINDOW_BYTES)
    assert not demand.goes_on


@pytest.mark.parametrize("start", [0, 4096, 1 << 30])
def test_who_reads_a_window_page_after_page_gets_windows(start: int) -> None:
    demand = Demand()
    assert demand.declines(start, WINDOW_BYTES)
    pages(demand, start, start + WINDOW_BYTES)
    for number in range(1, 20):
        assert not demand.declines(start + number * WINDOW_BYTES, WINDOW_BYTES)
    assert demand.goes_on


def test_what_is_far_off_begins_anew() -> None:
    demand = Demand()
    pages(demand, 0, WINDOW_BYTES)
    assert demand.declines(1 << 30, WINDOW_BYTES)
    assert not demand.declines(WINDOW_BYTES, WINDOW_BYTES)  # the run is still remembered
    pages(demand, 1 << 30, (1 << 30) + PAGE_BYTES)
    assert demand.declines(2 * WINDOW_BYTES, WINDOW_BYTES)


def test_reader_goes_on_after_some_pages() -> None:
    demand = Demand()
    pages(demand, 0, STEADY_BYTES - PAGE_BYTES)
    assert not demand.goes_on
    pages(demand, STEADY_BYTES - PAGE_BYTES, STEADY_BYTES)
    assert demand.goes_on
    pages(demand, 1 << 30, (1 << 30) + PAGE_BYTES)
    assert not demand.goes_on

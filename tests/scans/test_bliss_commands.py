"""Titles of BLISS's scans, and what its motors did."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from dadafs.scans.beside.blisscommands import command_of
from dadafs.scans.beside.travel import Travel, axes_of, order_of

UNTOLD: dict[str, Any] = dict.fromkeys(
    ("fast_npoints", "slow_npoints", "fast_motor_mode", "npoints", "dim0", "dim1")
)


@pytest.mark.parametrize(
    ("title", "told", "fast", "slow", "shape"),
    [
        ("amesh nnp2 0 10 254 nnp3 0 4 9 0.02", {}, ["nnp2"], ["nnp3"], (255, 10)),
        ("dmesh nnp2 -1 1 4 nnp3 -1 1 2 0.02", {}, ["nnp2"], ["nnp3"], (5, 3)),
        ("ascan ndetx 0 10 100 0.1", {}, ["ndetx"], [], (101, 1)),
        ("d2scan x 0 1 y 0 2 9 0.1", {}, ["x", "y"], [], (10, 1)),
        ("fscan rot 0 0.5 360 0.1 0.1", {"npoints": 360.0}, ["rot"], [], (360, 1)),
        ("fscan2d dty -300 1 3 rot -90 0.05 3620 0.002 0.002", {}, ["rot"], ["dty"], (3620, 3)),
        ("kmap.dkmap(nnp2, -5, 5, 51, nnp3, 0, 4, 9, 0.01)", {}, ["nnp2"], ["nnp3"], (51, 9)),
        ("akmap_lut( nnp2, 0, 10, 50, nnp3, 0, 4, 9, 0.02", {}, ["nnp2"], ["nnp3"], (50, 9)),
        ("sxdm( pix, 0, 1, 20, piy, 0, 1, 10, 0.01)", {"dim0": 20.0}, ["pix"], ["piy"], (20, 10)),
        ("loopscan 7 0.1", {}, [""], [], (7, 1)),
    ],
)
def test_a_title(
    title: str, told: Mapping[str, Any], fast: list[str], slow: list[str], shape: tuple[int, int]
) -> None:
    command = command_of(title, UNTOLD | told)
    assert command is not None
    assert [one.motor for one in command.fast] == fast
    assert [one.motor for one in command.slow] == slow
    assert (command.horz, command.vert) == command.shape_for(shape[0] * shape[1]) == shape
    assert not command.snake


def test_a_zigzag_is_a_snake() -> None:
    title = "fscan2d y 0 1 3 x 0 1 4 0.1"
    for mode, snake in (("ZIGZAG", True), ("REWIND", False), (None, False)):
        command = command_of(title, UNTOLD | {"fast_motor_mode": mode})
        assert command is not None
        assert command.snake is snake


@pytest.mark.parametrize(
    "title", ["", "timescan 0.1", "f2scan x 0 1 y 0 1 9 0.1", "lookupscan 1 on x", "a3mesh x 0 1 9"]
)
def test_a_title_that_makes_no_raster(title: str) -> None:
    assert command_of(title, UNTOLD) is None


@pytest.mark.parametrize(
    ("title", "told", "line"),
    [
        ("amesh x 0 10", {}, "amesh takes two motors"),
        ("fscan2d y 0 1 3 x 0 1", {}, "fscan2d takes a motor with start, end and points"),
        ("fscan x 0 1 n", {}, "'0 1 n' are no three numbers"),
        ("fscan x 0 1 2.5", {}, "2.5 is no number of points"),
        ("fscan x 0 1 0", {}, "'0 1 0' is no range"),
        ("loopscan", {}, "'0 0' are no three numbers"),
        ("akmap x 0 1 99999 y 0 1 99999 1", {}, "99999 x 99999 points are not believed"),
        ("akmap x 0 1 5 y 0 1 4 1", {"dim0": 6.0}, "x has 5 points by 'akmap x"),
        ("fscan2d y 0 1 3 x 0 1 4 1", {"slow_npoints": "many"}, "y has 3 points by 'fscan2d y"),
    ],
)
def test_a_title_that_does_not_make_sense(title: str, told: Mapping[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(line)}"):
        command_of(title, UNTOLD | told)


def grid(horz: int, vert: int, snake: bool = False) -> tuple[NDArray[Any], NDArray[Any]]:
    """Where motors are that go from 10 by 0.5 and from -2 by -0.25, never quite."""
    noise = np.random.default_rng(0).normal(0, 0.01, (2, vert, horz))
    fast = np.tile(10 + 0.5 * np.arange(horz), (vert, 1))
    if snake:
        fast[1::2] = fast[1::2, ::-1].copy()
    slow = np.repeat(-2 - 0.25 * np.arange(vert), horz).reshape(vert, horz)
    return (fast + noise[0]).ravel(), (slow + noise[1]).ravel()


@given(st.integers(2, 9), st.integers(2, 6), st.booleans(), st.integers(0, 54))
def test_the_order_is_seen(horz: int, vert: int, snake: bool, points: int) -> None:
    """From the second point of the second line on, whenever the scan is aborted or goes on."""
    fast, _ = grid(horz, vert, snake)
    expected = ("snake" if snake else "raster") if points >= horz + 2 else ""
    assert order_of(Travel(fast[:points]), horz, vert) == expected


def test_a_line_that_has_just_begun_tells_nothing() -> None:
    """A motor that trembles is not taken to turn."""
    positions = np.r_[np.tile(np.arange(4.0), 2), 0.0, -0.1]
    assert order_of(Travel(positions), 4, 3) == "raster"
    assert order_of(Travel(np.arange(12.0)), 1, 12) == ""


@pytest.mark.parametrize(
    "positions",
    [
        np.arange(12.0),  # on and on
        np.repeat(np.arange(3.0), 4),  # not along lines
        np.tile(np.arange(3.0), 4),  # along lines of three
        np.r_[0, 1, 2, 3, 0, 1, 2, 3, 3, 2, 1, 0],  # turned once
    ],
)
def test_a_motor_that_goes_another_way(positions: NDArray[Any]) -> None:
    with pytest.raises(ValueError, match="does not run along lines of 4 points"):
        order_of(Travel(positions), 4, 3)


def axes(title: str, points: int, snake: bool = False) -> list[tuple[Any, ...]]:
    command = command_of(title, UNTOLD)
    assert command is not None
    fast, slow = grid(4, 3, snake)
    travels = {"x": Travel(fast[:points], "um"), "y": Travel(slow[:points])}
    found = axes_of(command, travels, snake)
    return [(one.motor, one.direction, one.unit, one.start, one.end) for one in found]


@pytest.mark.parametrize("snake", [False, True])
@pytest.mark.parametrize("points", [12, 9])
def test_axes_are_where_the_motors_were(snake: bool, points: int) -> None:
    """Of an aborted scan too: the lines that are lacking would have followed in equal steps."""
    (*horz, x0, x1), (*vert, y0, y1) = axes("dmesh x 0 1 3 y 0 1 2 1", points, snake)
    assert (horz, vert) == (["x", "horz", "um"], ["y", "vert", ""])
    assert_allclose([x0, x1, y0, y1], [10, 11.5, -2, -2.5], atol=0.05)


def test_axes_that_are_not_known() -> None:
    assert axes("amesh x 0 1 3 y 0 1 2 1", 3) == []
    assert [one[0] for one in axes("amesh x 0 1 3 y 0 1 2 1", 7)] == ["x"]
    assert [one[0] for one in axes("amesh x 0 1 3 z 0 1 2 1", 12)] == ["x"]
    assert axes("loopscan 12 1", 12) == []
    command = command_of("amesh x 0 1 3 y 0 1 2 1", UNTOLD)
    assert command is not None
    bent = {"x": Travel(np.tile([0.0, 0.1, 0.2, 3.0], 3))}
    assert axes_of(command, bent, False) == ()

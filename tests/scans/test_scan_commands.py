"""Scan commands are understood, or refused with a line."""

from __future__ import annotations

import pytest

from dadafs.scans.beside.commands import parse
from dadafs.scans.model import Axis


@pytest.mark.parametrize(
    ("text", "horz", "vert", "snake"),
    [
        ("mesh x 0 10 254 y 0 4 9 0.02", 255, 10, False),
        ("mesh  x 0 10 254  y 0 4 9 0.02 True", 255, 10, True),
        ("mesh x 0 10 254 y 0 4 9 0.02 False", 255, 10, False),
        ("mesh x 0 10 254 y 0 4 9 1 1", 255, 10, True),
        ("mesh x 0 10 254 y 0 4 9 1", 255, 10, False),
        ("dmesh stx -1 1 20 sty -.5 .5 10 0.1 snake", 21, 11, True),
        ("cmesh piy 0 1e1 50 piz 0 1 3 0.01", 51, 4, False),
        ("ascan phi 0 90 180 1", 181, 1, False),
        ("dscan phi -1 1 0 1", 1, 1, False),
        ("a2scan x 0 1 y 2 3 10 0.1", 11, 1, False),
    ],
)
def test_rasters(text: str, horz: int, vert: int, snake: bool) -> None:
    command = parse(text)
    assert command is not None
    assert (command.horz, command.vert, command.snake) == (horz, vert, snake)


@pytest.mark.parametrize(
    "text", ["", "ct 1", "timescan 1 0", "loopscan 10 1", "meshing about", "?"]
)
def test_what_makes_no_raster(text: str) -> None:
    assert parse(text) is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("mesh x 0 10 254", "mesh takes two motors"),
        ("ascan phi 0 90", "ascan takes motor, start, end and intervals"),
        ("mesh x 0 ten 254 y 0 4 9 0.02", "no three numbers"),
        ("mesh x 0 10 2.5 y 0 4 9 0.02", "no number of intervals"),
        ("mesh x 0 10 -1 y 0 4 9 0.02", "is no range"),
        ("mesh x 0 nan 2 y 0 4 9 0.02", "is no range"),
        ("mesh x 0 1 9999 y 0 4 9999 0.02", "not believed"),
    ],
)
def test_what_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse(text)


def test_axes() -> None:
    command = parse("mesh x 0 10 254 y 4 0 9 0.02")
    assert command is not None
    assert command.axes({"x": 100.0}) == (Axis("x", 0, 10), Axis("y", 4, 0, direction="vert"))
    command = parse("dmesh x -1 1 2 y 0 4 9 0.02")
    assert command is not None
    assert command.axes({"x": 100.0}) == (
        Axis("x", 99, 101),
        Axis("y", 0, 4, direction="vert", relative=True),
    )


@pytest.mark.parametrize(("frames", "horz"), [(40, 10), (44, 11), (30, 11), (45, 11)])
def test_continuous_scans_have_a_frame_more_or_less(frames: int, horz: int) -> None:
    command = parse("cmesh x 0 10 10 y 0 4 3 0.02")
    assert command is not None
    assert command.shape_for(frames) == (horz, 4)
    command = parse("mesh x 0 10 10 y 0 4 3 0.02")
    assert command is not None
    assert command.shape_for(frames) == (11, 4)

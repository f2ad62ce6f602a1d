"""What a raster's motors did, from where they were at each point. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dadafs.scans.beside.commands import Command, Moved
from dadafs.scans.model import Axis

ASTRAY = 0.5  # of a step, or of a line, by which a motor may be elsewhere


class Travel(NamedTuple):
    """Where a motor was."""

    positions: NDArray[np.float64]
    """(points,), finite, in the order of time, as far as it was recorded."""
    unit: str = ""


def order_of(fast: Travel, horz: int, vert: int) -> Literal["raster", "snake", ""]:
    """Which way the lines run; empty where too little was recorded to tell.

    ValueError where the motor does not run along lines of so many points.
    """
    positions = fast.positions[: horz * vert]
    ways = _ways(positions, horz)
    if horz == 1 or len(ways) < 2:
        return ""
    forth = np.sign(ways) == np.sign(ways[0])
    snake = not forth.all()
    turned = np.arange(len(ways)) % 2 == 1
    strays = np.ptp(_lines(positions, horz, snake)[:, 0]) > ASTRAY * abs(ways[0])
    if not ways.all() or (snake and (forth == turned).any()) or strays:
        raise ValueError(
            f"its motor does not run along lines of {horz} points: the raster is not used; give"
            " horz= and vert=, or [raster] in geometry.toml"
        )
    return "snake" if snake else "raster"


def axes_of(command: Command, travels: Mapping[str, Travel], snake: bool) -> tuple[Axis, ...]:
    """The axes of the motors that were recorded and went in equal steps, as a command has them."""
    axes = []
    horz, vert = command.horz, command.vert
    for one in command.fast:
        if (travel := travels.get(one.motor)) is not None:
            lines = _lines(travel.positions[: horz * vert], horz, snake)
            if len(lines):
                axes += _axis(one, lines.mean(0), horz, travel.unit, "horz")
    for one in command.slow:
        if (travel := travels.get(one.motor)) is not None:
            lines = _lines(travel.positions[: horz * vert], horz, snake)
            axes += _axis(one, lines.mean(1), vert, travel.unit, "vert")
    return tuple(axes)


def _ways(positions: NDArray[np.float64], horz: int) -> NDArray[np.float64]:
    """How far each line goes, and which way. A last one that has just begun tells nothing."""
    whole = _lines(positions, horz, snake=False)
    ways = whole[:, -1] - whole[:, 0]
    rest = positions[whole.size :]
    if len(whole) and len(rest) > 1:
        way = rest[-1] - rest[0]
        if abs(way) > ASTRAY * abs(ways[0]) * (len(rest) - 1) / (horz - 1):
            return np.append(ways, way)
    return ways


def _lines(positions: NDArray[np.float64], horz: int, snake: bool) -> NDArray[np.float64]:
    """The complete lines (lines, points), all in the same way."""
    count = len(positions) // horz
    lines = positions[: count * horz].reshape(count, horz).copy()
    if snake:
        lines[1::2] = lines[1::2, ::-1].copy()
    return lines


def _axis(
    moved: Moved,
    positions: NDArray[np.float64],
    count: int,
    unit: str,
    direction: Literal["horz", "vert"],
) -> list[Axis]:
    """An axis of `count` points through the positions; none where they are not in equal steps."""
    if len(positions) < min(count, 2):
        return []
    numbers = np.arange(len(positions))
    step = (positions[-1] - positions[0]) / max(len(positions) - 1, 1)
    if (np.abs(positions - positions[0] - step * numbers) > ASTRAY * abs(step)).any():
        return []
    start = float(positions[0])
    end = float(positions[-1] + step * (count - len(positions)))
    return [Axis(moved.motor, start, end, unit, direction)]

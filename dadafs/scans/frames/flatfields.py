"""Flat fields: planes whose tiles are read as if they were frames of a small detector. Pure."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from analysis.plan import Plan
from analysis.reductions import REDUCTIONS, Status
from dadafs.errors import ComputationFailed
from dadafs.scans.frames.slices import LENGTH_BYTES
from dadafs.scans.model import ChunkRun, FrameSlice

TILES = "tiles"
"""The pass that leaves them as they are stored."""


def as_frames(tiles: ChunkRun, shape: tuple[int, int]) -> tuple[Plan, FrameSlice]:
    """What to compute for the tiles of a plane. ComputationFailed where they make no `shape`."""
    height, width = tiles.codec.shape
    count = len(tiles.lengths) // LENGTH_BYTES
    if count != -(-shape[0] // height) * -(-shape[1] // width):
        raise ComputationFailed("a flat field of another shape than the frames")
    plan = Plan(TILES, REDUCTIONS[TILES].version, height, width, tiles.codec.dtype)
    return plan, FrameSlice(0, count, (tiles,))


def plane_of(
    tiles: ChunkRun,
    status: NDArray[np.uint8],
    values: NDArray[np.floating],
    shape: tuple[int, int],
) -> NDArray[np.float64]:
    """The factors, (height, width), of the tiles (n, rows, columns) and what became of them.

    ComputationFailed where not all could be read.
    """
    bad = np.flatnonzero(status != Status.OK)
    if bad.size:
        said = f"tile {bad[0]} is {Status(status[bad[0]]).name.lower()}"
        raise ComputationFailed(f"flat field in {os.fsdecode(tiles.path)}: {said}")
    height, width = tiles.codec.shape
    across = -(-shape[1] // width)
    down = len(values) // across
    lines = values.reshape(down, across, height, width).swapaxes(1, 2)
    whole = lines.reshape(down * height, across * width)
    return whole[: shape[0], : shape[1]].astype(np.float64)

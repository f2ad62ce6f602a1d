"""Flat fields as peers read them: chunks of a plane, fetched like those of frames."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dadafs.client.computing.sources import Chunks
from dadafs.errors import BadData, ComputationFailed, Stale
from dadafs.scans.formats.decode import decode
from dadafs.scans.frames.slices import LENGTH_BYTES
from dadafs.scans.frames.slices import chunks as places
from dadafs.scans.model import ChunkRun


@dataclass(frozen=True, slots=True, eq=False)
class Flatfield:
    """What counts are multiplied with."""

    key: bytes
    """Names its content."""
    factors: NDArray[np.float64]
    """(height, width)."""


def tiles_in(tiles: ChunkRun) -> int:
    """How many chunks a plane has."""
    return len(tiles.lengths) // LENGTH_BYTES


def read_flatfield(
    chunks: Chunks, tiles: ChunkRun, shape: tuple[int, int], key: bytes
) -> Flatfield:
    """Put the chunks of a flat field together. ComputationFailed where they do not make `shape`."""
    height, width = tiles.codec.shape
    across = -(-shape[1] // width)
    if tiles_in(tiles) != -(-shape[0] // height) * across:
        raise ComputationFailed("a flat field of another shape than the frames")
    plane = np.zeros(shape, np.float64)
    try:
        with chunks.run(tiles) as reader:
            for number, offset, length in places(tiles):
                row, column = number // across * height, number % across * width
                part = plane[row : row + height, column : column + width]
                decoded = decode(reader.read(offset, length), tiles.codec)
                part[...] = decoded[: part.shape[0], : part.shape[1]]
    except Stale:
        raise
    except (OSError, BadData) as exc:
        raise ComputationFailed(f"flat field in {os.fsdecode(tiles.path)}: {exc}") from exc
    return Flatfield(key, plane)

"""Composite: the frames themselves, small, side by side."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.definition import Additive, Analysis, Channel, Settings
from analysis.parameters import PLANE


def finish(values: NDArray[Any], settings: Settings) -> NDArray[np.float64]:
    """Binned frames, float64 (n, rows, columns), to tiles, float64 (1, n, rows, columns).

    The plan of a composite always has a `bin`, 1 where none is asked for, so that invalid
    pixels come as NaN and not as the sentinel.
    """
    del settings
    return values.astype(np.float64)[None]


def parts(values: NDArray[Any], settings: Settings) -> NDArray[np.float64]:
    """Binned frames, float64 (n, rows, columns), as the only part, (n, 1, rows, columns)."""
    del settings
    return values.astype(np.float64)[:, None]


def of_parts(parts: NDArray[np.float64], settings: Settings) -> NDArray[np.float64]:
    """The only part as the only channel."""
    del settings
    return parts.swapaxes(0, 1)


def reference(frame: NDArray[Any], valid: NDArray[np.bool_], edge: int) -> NDArray[np.float64]:
    """The tile of one decoded frame: sums over the valid pixels of squares of `edge` pixels.

    Both arrays are cut to the roi already, `valid` is S without the sentinel. float64
    (rows // edge, columns // edge), what fills no square left out; NaN where no pixel is valid.
    """
    rows, columns = frame.shape[0] // edge, frame.shape[1] // edge
    out = np.full((rows, columns), np.nan)
    for row in range(rows):
        for column in range(columns):
            square = np.s_[row * edge : (row + 1) * edge, column * edge : (column + 1) * edge]
            if valid[square].any():
                out[row, column] = frame[square][valid[square]].sum(dtype=np.uint64)
    return out


COMPOSITE = Analysis(
    name="composite",
    result="image",
    title="frames side by side",
    definition=(
        "every frame cut to roi and summed over the valid pixels of squares of bin x bin pixels,"
        " tiled in raster order; NaN where no pixel of a square is valid"
    ),
    channels=(Channel("counts", "counts", "sum over the valid pixels of a square"),),
    parameters=(*PLANE, "bin"),
    reduction="frame",
    finish=finish,
    additive=Additive(("counts",), parts, of_parts),
)

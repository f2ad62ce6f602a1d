"""The frame itself as a pass: cut to a roi, binned."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.codec import Codec
from analysis.healing import Healing
from analysis.plan import Plan
from analysis.version import code_version


def frame_values(plan: Plan) -> tuple[tuple[int, int], np.dtype[Any]]:
    """Shape (rows, columns) and dtype of the frame that `plan` asks for.

    Without `bin` raw values in the detector's dtype; with it float64, each axis of the roi
    divided by `bin` and what does not fill a square left out.
    """
    height, width = plan.shape if plan.roi is None else (plan.roi.h, plan.roi.w)
    if plan.bin is None:
        return (height, width), np.dtype(plan.dtype)
    return (height // plan.bin, width // plan.bin), np.dtype(np.float64)


class PreparedFrame:
    """One frame: raw values, sentinel included, or sums over the valid pixels of squares."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._shape, self._dtype = frame_values(plan)
        self._healing = None if plan.bin is None else Healing(plan)

    @property
    def value_shape(self) -> tuple[int, ...]:
        """Rows and columns."""
        return self._shape

    @property
    def value_dtype(self) -> np.dtype[Any]:
        """The detector's, or float64 when binned."""
        return self._dtype

    def frame(self, frame: NDArray[Any], out: NDArray[Any]) -> None:
        """Cut and bin a decoded frame into `out`; a square without valid pixel is NaN."""
        roi = self._plan.roi
        window = (
            (slice(None), slice(None))
            if roi is None
            else (slice(roi.y, roi.y + roi.h), slice(roi.x, roi.x + roi.w))
        )
        if self._healing is None:
            out[...] = frame[window]
            return
        edge = self._plan.bin
        assert edge is not None
        rows, columns = self._shape
        squares = (slice(rows * edge), slice(columns * edge))
        frame, good = self._healing.frame(frame)
        valid = good[window][squares]
        counts = np.where(valid, frame[window][squares], 0)
        split = (rows, edge, columns, edge)
        sums = counts.reshape(split).sum(axis=(1, 3), dtype=np.uint64)
        some = valid.reshape(split).any(axis=(1, 3))
        out[...] = np.where(some, sums.astype(np.float64), np.nan)

    def fuses(self, codec: Codec) -> bool:
        """A frame is what decoding gives."""
        return False

    def chunk(self, chunk: bytes, codec: Codec, out: NDArray[Any]) -> bool:
        """Not reached: `fuses` is False."""
        raise NotImplementedError(f"no fused frame for {codec}")


class Frames:
    """The pass behind `frames/`."""

    name = "frame"
    version = code_version(
        "analysis.reductions.frames",
        "analysis.selection",
        "analysis.healing",
        "analysis.reductions.flattened",
    )
    uses: frozenset[str] = frozenset({"bin"})

    def prepare(self, plan: Plan) -> PreparedFrame:
        """Nothing to build but the selection, and that only when binning."""
        return PreparedFrame(plan)


class Tiles:
    """The pass that reads a flat field, whose tiles lie in their file as frames do. Their numbers
    are no counts: they are taken as they are stored."""

    name = "tiles"
    version = Frames.version
    uses: frozenset[str] = frozenset()

    def prepare(self, plan: Plan) -> PreparedFrame:
        """Nothing to build. ValueError for a plan that bins."""
        if plan.bin is not None:
            raise ValueError("tiles are not binned")
        return PreparedFrame(plan)

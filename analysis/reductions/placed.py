"""The radial profile together with where its bins are: for what is fitted to it."""

from __future__ import annotations

from typing import Any

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from analysis.codec import Codec
from analysis.kernels import COMMON
from analysis.plan import Plan
from analysis.reductions.profiles import RADIAL, centres
from analysis.version import code_version

ROWS = ("sum", "pixels", "centre")
"""Of the values: sum of the counts and number of pixels by bin, and its q (or r) at the centre."""


class PreparedPlaced:
    """The profile of a plan, float64 (3, bins).

    The ends of the bins may follow from the pixels, which only who has the plan can tell. Counts
    are exact up to 2^53 in a bin.
    """

    value_dtype = np.dtype(np.float64)

    def __init__(self, plan: Plan) -> None:
        self._profile = RADIAL.prepare(replace(plan, reduction=RADIAL.name))
        self._centres = centres(plan)
        self.value_shape = (len(ROWS), self._centres.size)
        self.fuses = self._profile.fuses

    def frame(self, frame: NDArray[Any], out: NDArray[Any]) -> None:
        """Reduce a decoded frame (height, width) into `out` (3, bins)."""
        binned = self._new()
        self._profile.frame(frame, binned)
        out[:2], out[2] = binned, self._centres

    def chunk(self, chunk: bytes, codec: Codec, out: NDArray[Any]) -> bool:
        """Reduce a chunk of a codec that `fuses`; False, `out` untouched, when corrupt."""
        binned = self._new()
        good = self._profile.chunk(chunk, codec, binned)
        if good:
            out[:2], out[2] = binned, self._centres
        return good

    def _new(self) -> NDArray[np.uint64]:
        return np.zeros(self._profile.value_shape, np.uint64)


class Placed:
    """The pass behind `exponent`."""

    name = "placed"
    version = code_version(
        "analysis.reductions.placed",
        "analysis.reductions.profiles",
        "analysis.selection",
        "analysis.healing",
        "analysis.reductions.healed",
        "analysis.reductions.flattened",
        "analysis.kernels.profiles",
        *COMMON,
    )
    uses: frozenset[str] = frozenset({"cx", "cy", "geometry", "bins"})

    def prepare(self, plan: Plan) -> PreparedPlaced:
        """Build the selection and the table of bins of `plan`."""
        return PreparedPlaced(plan)

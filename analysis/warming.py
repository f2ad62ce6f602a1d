"""Have every kernel compiled, for each type of pixel, table and chunk."""

from __future__ import annotations

import numpy as np

from analysis.codec import BITSHUFFLE, LZ4, Codec, Filter
from analysis.plan import Plan
from analysis.reductions import REDUCTIONS

_TABLES = (1, 257)
"""Numbers of bins that have tables of 1 and of 2 bytes."""

_WITH_BINS = ("radial", "azimuthal", "placed")
_OWN = {"above": (("threshold", 1.0),)}


def warm() -> None:
    """Compile every kernel for pixels of 1, 2 and 4 bytes, or load it from the cache on disk.

    Takes 30 s the first time and half a second afterwards. For set-up, and for a peer that wants
    to answer its first request at full speed. Calls each with an empty chunk and an empty frame.
    """
    for dtype in ("|u1", "<u2", "<u4"):
        size = np.dtype(dtype).itemsize
        for name in REDUCTIONS:
            for bins in _TABLES if name in _WITH_BINS else (None,):
                plan = Plan(
                    name, "", 1, 8, dtype, cx=0.0, cy=0.0, bins=bins, extra=_OWN.get(name, ())
                )
                prepared = REDUCTIONS[name].prepare(plan)
                out = np.zeros(prepared.value_shape, prepared.value_dtype)
                prepared.frame(np.zeros((1, 8), dtype), out)
                for stage in (Filter(BITSHUFFLE, (0, 4, size, 0, 2)), Filter(LZ4)):
                    codec = Codec(1, 8, dtype, (stage,))
                    if prepared.fuses(codec):
                        prepared.chunk(b"", codec, out)

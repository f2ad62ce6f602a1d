"""Frames for hypothesis, as awkward as detectors and users make them."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from analysis.plan import Roi

SHAPE = (30, 70)


@st.composite
def scenes(
    draw: st.DrawFn, dtypes: tuple[str, ...]
) -> tuple[NDArray[Any], NDArray[np.bool_], dict[str, Any]]:
    """A frame with sentinels, a mask of gaps and pixels; a centre anywhere, and limits."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    frame = rng.poisson(2, SHAPE).astype(draw(st.sampled_from(dtypes)))
    frame[rng.random(SHAPE) < 0.03] = np.iinfo(frame.dtype).max
    mask = rng.random(SHAPE) < 0.05
    mask[:, 20:26] = mask[12:15] = True
    halves = st.integers(-10, 160).map(lambda number: number / 2)
    centre = draw(st.one_of(st.tuples(halves, halves), st.tuples(*[st.floats(-5, 75)] * 2)))
    more: dict[str, Any] = {"cx": centre[0], "cy": centre[1]}
    if draw(st.booleans()):
        more["roi"] = Roi(5, 3, 50, 20)
    if draw(st.booleans()):
        more |= {"rmin": 2.0, "rmax": 40.0}
    return frame, mask, more

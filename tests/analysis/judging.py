"""Analyses of single frames, the whole way from pixels to channels; and errors by brute force."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.analyses import ANALYSES
from analysis.definition import Settings
from analysis.plan import pack_mask
from analysis.planning import plan_for
from analysis.reductions import REDUCTIONS, Prepared
from analysis.reductions.flattened import PreparedFlat


def judged(
    name: str,
    frame: NDArray[Any],
    invalid: NDArray[np.bool_] | None = None,
    factors: NDArray[np.float64] | None = None,
    **settings: Any,
) -> dict[str, float]:
    """Every channel of a map, errors too, of one frame, after a flat field where `factors` are one.
    Own parameters are among `settings`."""
    analysis = ANALYSES[name]
    own = {one.name for one in analysis.own}
    given = dict(analysis.defaults) | settings
    fields = {key: value for key, value in given.items() if key not in own}
    extra = tuple((key, float(given[key])) for key in sorted(own))
    height, width = frame.shape
    flat = None if factors is None else 1
    wanted = Settings(height=height, width=width, extra=extra, flat=flat, **fields)
    mask = b"" if invalid is None else pack_mask(invalid)
    found: dict[str, float] = {}
    for one in (analysis, analysis.errors):
        if one is None:
            continue
        plan = plan_for(one, wanted, height, width, frame.dtype.str, mask)
        prepared: Prepared = REDUCTIONS[plan.reduction].prepare(plan)
        if factors is not None:
            prepared = PreparedFlat(plan, factors)
        values = np.zeros((1, *prepared.value_shape), prepared.value_dtype)
        prepared.frame(frame, values[0])
        finished = one.finish(values, wanted)
        assert finished.shape == (len(one.channels), 1)
        found |= dict(zip((c.name for c in one.channels), finished[:, 0].tolist(), strict=True))
    return found


def propagated(
    formula: Callable[[NDArray[np.float64]], NDArray[np.float64]], counts: NDArray[Any]
) -> NDArray[np.float64]:
    """sqrt(sum I (df/dI)^2) of each number that `formula` makes of counts, differentiated by
    steps: the error to first order where every count is Poisson."""
    start = counts.astype(np.float64)
    total = np.zeros_like(formula(start))
    for index in zip(*np.nonzero(start), strict=True):
        step = 1e-4 * start[index]
        up, down = start.copy(), start.copy()
        up[index] += step
        down[index] -= step
        total += start[index] * ((formula(up) - formula(down)) / (2 * step)) ** 2
    return np.asarray(np.sqrt(total))

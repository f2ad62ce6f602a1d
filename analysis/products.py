"""Values of passes over products: counts that were multiplied with a flat field.

A pass that sums I w over the counts I of pixels, with some weights w, leaves of the products
J = f I the sums of J w, then those of f^2 I w, the variance of J being f^2 I, and then sum I.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

MOMENTS, DIRECTIONS = 6, 13
"""Weights of the passes of these names."""


class Sums(NamedTuple):
    """What a pass has summed of n frames, float64."""

    sums: NDArray[np.float64]
    """Of counts or products, with each weight (n, weights)."""
    variances: NDArray[np.float64]
    """Of the variance of the same, which of counts is the counts (n, weights)."""
    counts: NDArray[np.float64]
    """As they were counted (n,)."""


def length(weights: int) -> int:
    """How many numbers the values of products have."""
    return 2 * weights + 1


def sums_of(values: NDArray[Any], weights: int) -> Sums:
    """Values of a pass with so many weights, the first of which is 1: of counts (n, weights), or
    of products (n, length(weights))."""
    numbers = values.astype(np.float64, copy=False)
    if numbers.shape[1] == weights:
        return Sums(numbers, numbers, numbers[:, 0])
    return Sums(numbers[:, :weights], numbers[:, weights : 2 * weights], numbers[:, -1])

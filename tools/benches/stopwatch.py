"""Compare rates on a machine that others use too: in turns, and by the median of ratios."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import perf_counter

Pass = Callable[[], int]
"""Does a piece of work and returns how many frames that was."""

ROUNDS = 7
_THREADS = (
    "NUMBA_NUM_THREADS",
    "OMP_NUM_THREADS",
    "BLOSC_NTHREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
)


def one_thread() -> None:
    """Hold every library to one thread. They look when they are imported: call this before."""
    late = sorted({"numpy", "numba", "h5py"} & sys.modules.keys())
    if late:
        raise RuntimeError(f"too late: {late[0]} is imported")
    for name in _THREADS:
        os.environ[name] = "1"


@dataclass(frozen=True, slots=True)
class Rate:
    """How fast something is."""

    name: str
    frames_per_s: float
    """Median of the rounds."""
    best_per_s: float
    """Of the fastest round."""
    ratio: float
    """To the first of those measured with it: median of the ratios within a round."""


def compare(passes: dict[str, Pass], seconds: float, rounds: int = ROUNDS) -> list[Rate]:
    """Rates of `passes`, each measured for about `seconds` in all, after one pass to warm up.

    Each round gives every one a turn of at least one pass, so that a load that comes and goes
    slows all of them and cancels in the ratios.
    """
    for work in passes.values():
        work()
    rates: dict[str, list[float]] = {name: [] for name in passes}
    for _ in range(rounds):
        for name, work in passes.items():
            frames, began = 0, perf_counter()
            while True:
                frames += work()
                took = perf_counter() - began
                if took >= seconds / rounds:
                    break
            rates[name].append(frames / took)
    base = next(iter(rates.values()))
    return [
        Rate(
            name,
            median(found),
            max(found),
            median(one / other for one, other in zip(found, base, strict=True)),
        )
        for name, found in rates.items()
    ]

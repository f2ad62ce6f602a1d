"""The command line of a benchmark that gives figures by name."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

Measure = Callable[[Path, int], dict[str, float]]
"""Figures by a name that carries the unit, from a directory to work in and a number of rounds."""


def told(
    name: str, about: str | None, measure: Measure, arguments: Sequence[str], rounds: int, form: str
) -> int:
    """Measure and print; `rounds` if the command line names no other, each figure in `form`."""
    parser = argparse.ArgumentParser(prog=f"bench {name}", description=about)
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    parser.add_argument(
        "--rounds", type=int, default=rounds, help=f"of which the median counts ({rounds})"
    )
    options = parser.parse_args(arguments)
    with TemporaryDirectory(prefix="dadafs-bench-") as place:
        figures = measure(Path(place), options.rounds)
    if options.json:
        print(json.dumps(figures, indent=2))
    else:
        for figure, value in figures.items():
            print(f"{figure:<58} {value:{form}}")
    return 0

"""Titles of BLISS's scans: the commands that make a raster, as far as their arguments are known.

Positions in them are not used: those of a relative mesh are wrong in some versions of BLISS, and a
title has rounded ones. The positions that were recorded are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TypeAlias

from msgspec.structs import replace

from dadafs.scans.beside.commands import Command, Moved, believed, moved, parse
from dadafs.scans.formats.hdf5 import Value

STEPS = re.compile(r"[ad](mesh|scan|[2-5]scan)")
MAPS = re.compile(r"([ad]?kmap(_lut)?|sxdm)")  # of points, not intervals
ZIGZAG = "zigzag"

Parameters: TypeAlias = Mapping[str, Value]
"""What a scan's parameters say beside its title, by name; None where they do not."""


def command_of(title: str, told: Parameters) -> Command | None:
    """The command of a title such as `amesh x 0 10 254 y 0 4 9 0.02`.

    None where it is none that makes a raster. ValueError, one line, for one that is known and does
    not make sense, or that the parameters contradict.
    """
    words = re.sub(r"[(),\[\]]", " ", title).split()
    if not words:
        return None
    name = words[0].rpartition(".")[2].lower()
    text = " ".join([name, *words[1:]])
    if STEPS.fullmatch(name):
        command = parse(text)
        return None if command is None else replace(command, snake=False)
    if name == "fscan2d":
        # The slow motor first, steps instead of ends, points instead of intervals.
        slow, fast = _points(words, 1, text), _points(words, 5, text)
        _agree(text, (fast, slow), (told.get("fast_npoints"), told.get("slow_npoints")))
        command = Command(text, name, (fast,), (slow,))
        command = replace(command, snake=str(told.get("fast_motor_mode")).lower() == ZIGZAG)
    elif name == "fscan":
        fast = _points(words, 1, text)
        _agree(text, (fast,), (told.get("npoints"),))
        command = Command(text, name, (fast,))
    elif MAPS.fullmatch(name):
        fast, slow = _points(words, 1, text), _points(words, 5, text)
        _agree(text, (fast, slow), (told.get("dim0"), told.get("dim1")))
        command = Command(text, name, (fast,), (slow,))
    elif name == "loopscan":
        command = Command(text, name, (moved("", ["0", "0", *words[1:2]], text, points=True),))
    else:
        return None
    return believed(command, text)


def _points(words: list[str], at: int, text: str) -> Moved:
    """A motor, two numbers of where it goes, and how many points it makes."""
    if len(words) < at + 4:
        raise ValueError(f"{words[0]} takes a motor with start, end and points: {text!r}")
    return moved(words[at], words[at + 1 : at + 4], text, points=True)


def _agree(text: str, moved: tuple[Moved, ...], told: tuple[Value, ...]) -> None:
    """ValueError where parameters give another number of points than the title."""
    for one, value in zip(moved, told, strict=True):
        try:
            other = one.intervals + 1 if value is None else float(value)
        except ValueError:
            other = math.nan
        if other != one.intervals + 1:
            raise ValueError(
                f"{one.motor} has {one.intervals + 1} points by {text!r}, but {value} by the"
                " parameters of the scan"
            )

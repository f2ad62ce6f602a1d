"""Columns of logs: what counters and motors read at each point of a scan."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator

import msgspec
import numpy as np
from numpy.typing import NDArray

from dadafs.errors import BadData

MAX_BYTES = 1 << 28  # of the rows of one scan: a million with 40 columns
_GAP = re.compile(r"\s{2,}|\t")


class Column(msgspec.Struct, frozen=True):
    """One column of what a log recorded."""

    source: str
    """The log's path and place, for people."""
    names: tuple[str, ...]
    """Of all columns."""
    values: bytes | None = None
    """float64, little endian, one for each row, NaN where it holds no number; None where there is
    no such column."""

    def array(self) -> NDArray[np.float64]:
        """The values (rows,)."""
        return np.frombuffer(self.values or b"", "<f8")


def spec_column(fd: int, begin: int, end: int, source: str, name: str) -> Column:
    """A column of the scan that lies at `[begin, end)` of a SPEC file: named in `#L`."""
    names: tuple[str, ...] = ()
    rows: list[str] = []
    for line in _lines(fd, begin, end, source):
        if line.startswith("#L"):
            names = tuple(one.strip() for one in _GAP.split(line[2:].strip()) if one.strip())
        elif line.strip() and line[0] not in "#@":
            rows.append(line)
    return _column(source, names, rows, name)


def fio_column(fd: int, source: str, name: str) -> Column:
    """A column of a FIO file: named in `%d`, as ` Col 3 NAME DOUBLE`."""
    names: list[str] = []
    rows: list[str] = []
    data = False
    for raw in _lines(fd, 0, os.fstat(fd).st_size, source):
        line = raw.strip()
        if line[:2] in ("%c", "%p", "%d"):
            data = line[1] == "d"
        elif data and line.startswith("Col "):
            names.append(" ".join(line.split()[2:-1]))
        elif data and line and not line.startswith("!"):
            rows.append(line)
    return _column(source, tuple(names), rows, name)


def _lines(fd: int, begin: int, end: int, source: str) -> Iterator[str]:
    if end - begin > MAX_BYTES:
        raise BadData(f"{source} has {end - begin} bytes for one scan, more than can be read")
    text = os.pread(fd, end - begin, begin).decode("utf-8", "replace")
    lines = text.split("\n")
    yield from lines[:-1]  # what has no end yet is still being written


def _column(source: str, names: tuple[str, ...], rows: Iterable[str], name: str) -> Column:
    if name not in names:
        return Column(source, names)
    at = names.index(name)
    return Column(source, names, np.array([_number(row, at) for row in rows], "<f8").tobytes())


def _number(row: str, at: int) -> float:
    words = row.split()
    try:
        return float(words[at])
    except (ValueError, IndexError):
        return np.nan

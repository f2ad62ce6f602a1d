"""FIO files, which the online programs of PETRA III write: one for each scan. Pure."""

from __future__ import annotations

import math

import msgspec

from dadafs.scans.beside.commands import Command, parse
from dadafs.scans.model import Axis

READ_BYTES = 1 << 18  # comments and parameters are at the top


class Recorded(msgspec.Struct, frozen=True, array_like=True):
    """The scan that a log tells of."""

    source: str
    """The log's path and place, for people."""
    command: Command | None = None
    axes: tuple[Axis, ...] = ()
    snake: bool = False
    problems: tuple[str, ...] = ()


def read_fio(text: str, source: str) -> Recorded:
    """What the top of a FIO file says: the command in its comment `%c`, positions in `%p`."""
    section = ""
    commands: list[str] = []
    positions: dict[str, float] = {}
    for raw in text.splitlines():
        line = raw.strip()
        if line.startswith("!") or not line:
            continue
        if line[:2] in ("%c", "%p", "%d"):
            section = line[1]
            line = line[2:].strip()
            if not line:
                continue
        if section == "c":
            commands.append(line)
        elif section == "p":
            name, found, value = line.partition("=")
            number = _number(value) if found else None
            if number is not None:
                positions[name.strip()] = number
        elif section == "d":
            break
    for line in commands:
        try:
            command = parse(line)
        except ValueError as exc:
            return Recorded(source, problems=(f"{source}: {exc}",))
        if command is not None:
            return Recorded(source, command, command.axes(positions), command.snake)
    return Recorded(source)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None

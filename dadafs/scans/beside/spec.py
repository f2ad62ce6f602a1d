"""SPEC files: one log for all scans of a sample, often long, which grows at its end.

A file is searched once for where its scans begin, in pieces; what was found is kept, and only
what the file has grown by is searched later. Of one scan only its header is read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from hashlib import blake2b

import msgspec
import numpy as np

from dadafs.cache.store import Store
from dadafs.scans.beside.commands import Command, parse
from dadafs.scans.beside.fio import Recorded
from dadafs.scans.model import Identity

PIECE_BYTES = 1 << 20
HEADER_BYTES = 1 << 16  # of one scan: some hundred motors make 10 kB
GUARD_BYTES = 4096
MAX_SCANS = 1_000_000
SNAKE = re.compile(r"\b(snake|bidirectional)\b(?!\s*[:=]?\s*(false|off|no|0)\b)", re.IGNORECASE)


class SpecIndex(msgspec.Struct, frozen=True, array_like=True):
    """Where the scans of a SPEC file begin, as far as it was searched."""

    searched: int = 0
    """Bytes; the search goes on there."""
    guard: bytes = b""
    """Digest of the beginning, and of the bytes before `searched`: another one, another file."""
    numbers: bytes = b""
    """int64, of the `#S` lines in order."""
    offsets: bytes = b""
    """uint64, of these lines."""
    motors: bytes = b""
    """uint64, of the lines `#O0`, which begin a list of motor names."""

    def places(self, number: int) -> list[int]:
        """Where scans of that number begin: several when SPEC was begun anew."""
        found = np.frombuffer(self.numbers, "<i8") == number
        return [int(at) for at in np.frombuffer(self.offsets, "<u8")[found]]

    def motors_before(self, offset: int) -> int | None:
        """Where the names begin that hold for a scan at `offset`."""
        starts = np.frombuffer(self.motors, "<u8")
        at = int(np.searchsorted(starts, offset))
        return int(starts[at - 1]) if at else None


def read_spec(
    fd: int, path: bytes, identity: Identity, number: int, source: str, store: Store
) -> Recorded | None:
    """What a SPEC file says of one scan; None where it is no SPEC file, or has no such scan."""
    index = indexed(fd, path, identity, store)
    places = index.places(number)
    if not places:
        return None
    header = list(_header(fd, places[-1], ("#S",)))
    source = f"{source} #S {number}"
    problems = []
    try:
        command = _command(header)
    except ValueError as exc:
        return Recorded(source, problems=(f"{source}: {exc}",))
    if len(places) > 1:
        others = {_command_or_none(fd, place) for place in places[:-1]}
        if others != {command}:
            problems.append(f"{source} is there {len(places)} times: the last one is used")
    if command is None:
        return Recorded(source, problems=tuple(problems))
    start = index.motors_before(places[-1])
    names: list[str] = []
    if start is not None:
        for line in _header(fd, start, ("#O0",)):
            if line.startswith("#O"):
                names += re.split(r"\s{2,}", line.partition(" ")[2].strip())
    values = [
        value
        for line in header
        if re.match(r"#P\d", line)
        for value in line.partition(" ")[2].split()
    ]
    positions = {}
    for name, value in zip(names, values, strict=False):
        try:
            positions[name] = float(value)
        except ValueError:
            continue
    comments = [line for line in header if line.startswith(("#C", "#U"))]
    snake = command.snake or any(SNAKE.search(line) for line in comments)
    return Recorded(source, command, command.axes(positions), snake, tuple(problems))


def place_of(
    fd: int, path: bytes, identity: Identity, number: int, store: Store
) -> tuple[int, int] | None:
    """Where the last scan of that number begins and ends in a SPEC file; None without one."""
    index = indexed(fd, path, identity, store)
    places = index.places(number)
    if not places:
        return None
    later = [int(at) for at in np.frombuffer(index.offsets, "<u8") if at > places[-1]]
    return places[-1], min(later, default=identity.size)


def indexed(fd: int, path: bytes, identity: Identity, store: Store) -> SpecIndex:
    """Where the scans begin. Searches what was not yet searched, and keeps what it finds."""
    key = blake2b(b"spec\0%d\0" % identity.inode + path, digest_size=16).digest()
    known = SpecIndex()
    stored = store.get(key)
    if stored is not None:
        try:
            known = _decoder.decode(stored)
        except msgspec.MsgspecError:  # of another version of this program
            known = SpecIndex()
        if known.searched > identity.size or known.guard != _guard(fd, known.searched):
            known = SpecIndex()
    if known.searched + 1 >= identity.size and known.searched:
        return known
    found = _search(fd, known, identity.size)
    if found.searched != known.searched:
        store.put(key, msgspec.msgpack.encode(found))
    return found


_decoder = msgspec.msgpack.Decoder(SpecIndex)


def _guard(fd: int, searched: int) -> bytes:
    head = os.pread(fd, min(GUARD_BYTES, searched), 0)
    begin = max(0, searched - GUARD_BYTES)
    return blake2b(head + os.pread(fd, searched - begin, begin), digest_size=16).digest()


def _search(fd: int, known: SpecIndex, size: int) -> SpecIndex:
    """Search from where `known` ends to the last whole line."""
    position = known.searched
    numbers: list[int] = []
    offsets: list[int] = []
    motors: list[int] = []
    while position < size and len(offsets) < MAX_SCANS:
        piece = os.pread(fd, min(PIECE_BYTES, size - position), position)
        if not piece:
            break
        shift = 0
        if position == 0:
            piece, shift = b"\n" + piece, 1
        end = piece.rfind(b"\n")
        if end <= 0:
            if position + len(piece) - shift >= size:
                break
            position += len(piece) - shift  # a line longer than a piece is no header
            continue
        for at in _all(piece, b"\n#S ", end):
            word = piece[at + 4 : at + 24].split(maxsplit=1)[:1]
            if word and word[0].isdigit():
                numbers.append(int(word[0]))
                offsets.append(position + at + 1 - shift)
        motors += [position + at + 1 - shift for at in _all(piece, b"\n#O0 ", end)]
        position += end - shift
        if position + 1 >= size:
            break
    return SpecIndex(
        position,
        _guard(fd, position),
        known.numbers + np.array(numbers, "<i8").tobytes(),
        known.offsets + np.array(offsets, "<u8").tobytes(),
        known.motors + np.array(motors, "<u8").tobytes(),
    )


def _all(text: bytes, what: bytes, end: int) -> Iterator[int]:
    at = text.find(what, 0, end)
    while at >= 0:
        yield at
        at = text.find(what, at + 1, end)


def _header(fd: int, offset: int, begins: tuple[str, ...]) -> Iterator[str]:
    """The lines that begin with `#` from `offset` on, up to the data or what begins next."""
    text = os.pread(fd, HEADER_BYTES, offset).decode("utf-8", "replace")
    for number, line in enumerate(text.splitlines()):
        if not line.startswith("#") or (number and line.startswith((*begins, "#S "))):
            return
        yield line


def _command(header: list[str]) -> Command | None:
    """Of the line `#S 42 mesh x 0 10 254 y 0 4 9 0.02`."""
    words = header[0].split(maxsplit=2) if header else []
    return parse(words[2]) if len(words) == 3 else None


def _command_or_none(fd: int, offset: int) -> Command | None:
    try:
        return _command(list(_header(fd, offset, ("#S",))))
    except ValueError:
        return None

"""The files beside a scan that tell about it: geometry.toml, PONI, SPEC, FIO and BLISS files."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from functools import partial
from hashlib import blake2b
from posixpath import relpath
from typing import TypeAlias, TypeVar

import msgspec

from dadafs.cache.store import Store
from dadafs.errors import DadaError, NoSuchPath
from dadafs.scans.beside import overrides
from dadafs.scans.beside.bliss import Wanted, bliss_column, read_bliss, wanted
from dadafs.scans.beside.columns import Column, fio_column, spec_column
from dadafs.scans.beside.fio import READ_BYTES, Recorded, read_fio
from dadafs.scans.beside.overrides import Given, Section
from dadafs.scans.beside.poni import READ_BYTES as PONI_BYTES
from dadafs.scans.beside.poni import Poni, read_poni
from dadafs.scans.beside.spec import place_of, read_spec
from dadafs.scans.directories import Directories
from dadafs.scans.kept import Kept
from dadafs.scans.model import Identity, SourceFile
from dadafs.scans.names import join, show, split
from dadafs.scans.tree import RawTree

KEPT = 2000  # of parsed files: about 1 kB each
KEPT_COLUMNS = 32  # of a million rows: 8 MB each
LOG_LEVELS = 4  # directories above a scan's in which its log is looked for: P10 has three
NUMBERED = re.compile(rb"(.*?)_*([0-9]{1,9})", re.DOTALL)
SPEC_ENDINGS = (b".dat", b".spec", b"")
HDF5 = b".h5"
BLISS_MASTER = b"bliss_master.h5"  # of one scan, where BLISS is told to separate them

T = TypeVar("T")
Used: TypeAlias = tuple[bytes, Identity]
"""A file by its path, as it was read."""


class Notes(msgspec.Struct, frozen=True):
    """What the files beside a scan say about it."""

    given: dict[str, Given] = {}
    """By a user, in geometry.toml: the last word."""
    refused: tuple[str, ...] = ()
    """Of each geometry.toml that is not used, why."""
    poni: Poni | None = None
    recorded: tuple[Recorded, ...] = ()
    problems: tuple[str, ...] = ()
    mtime_ns: int = 0
    """The newest of geometry.toml and PONI; logs grow with other scans and do not count."""
    files: tuple[SourceFile, ...] = ()
    """Each geometry.toml, the PONI file and the FIO file, but no SPEC or BLISS file: that grows
    with other scans, and is named by the place in it."""

    @property
    def dataset(self) -> bytes:
        """Where in HDF5 files the frames are; b"" where nobody says so."""
        found = self.given.get("dataset")
        return str(found.value).encode("utf-8", "surrogateescape") if found else b""

    def fingerprint(self) -> bytes:
        """Of what they say: the same as long as the scan's part of a growing log is.

        The names of the files count, their identities do not: one may change for other scans.
        """
        if self == Notes():
            return b""
        said = msgspec.structs.replace(self, mtime_ns=0, files=())
        names = [file.name for file in self.files]
        return blake2b(msgspec.msgpack.encode((said, names)), digest_size=8).digest()


class Sidecars:
    """Finds and reads the files beside scans; keeps what they say by their identity.

    Safe for threads. Only read when a scan is described, and never for a listing.
    """

    def __init__(self, tree: RawTree, store: Store, directories: Directories) -> None:
        self._tree = tree
        self._store = store
        self._directories = directories
        self._kept = Kept(KEPT)
        self._columns = Kept(KEPT_COLUMNS)

    def read(self, scan: bytes) -> Notes:
        """All that is said beside the scan of that path. What is wrong is in the result."""
        directory, name = split(scan)
        above = list(upwards(directory))
        refused: list[str] = []
        problems: list[str] = []
        settings: list[Used] = []
        logs: list[Used] = []
        files = []
        for place in above:
            path = join(place, overrides.NAME)
            try:
                sections = self._file(path, _sections, overrides.READ_BYTES + 1, settings)
            except NoSuchPath:
                continue
            except (DadaError, ValueError) as exc:
                refused.append(f"{show(path)} is not used: {exc}")
                continue
            files.append((place, show(path), sections))
        given = overrides.merged(files, scan)
        return Notes(
            given,
            tuple(refused),
            self._poni(given, above, name, settings, problems),
            tuple(self._recorded(above[: LOG_LEVELS + 1], name, logs, problems)),
            tuple(problems),
            max((identity.mtime_ns for _, identity in settings), default=0),
            tuple(
                SourceFile(relpath(b"/" + path, b"/" + directory), identity)
                for path, identity in (*settings, *logs)
            ),
        )

    def _poni(
        self,
        given: dict[str, Given],
        above: list[bytes],
        name: bytes,
        used: list[Used],
        problems: list[str],
    ) -> Poni | None:
        """The calibration that geometry.toml names, else that of the nearest directory with any."""
        path: bytes | None
        named = given.get("poni")
        if named is not None:
            path = _beside(named.directory, str(named.value))
        else:
            path = self._nearest_poni(above, name, problems)
        if path is None:
            return None
        try:
            return self._file(
                path,
                lambda data: read_poni(data.decode("utf-8", "replace"), show(path)),
                PONI_BYTES,
                used,
            )
        except (DadaError, ValueError) as exc:
            origin = f" (from {named.source})" if named else ""
            problems.append(f"{exc}{origin}")
            return None

    def _nearest_poni(self, above: list[bytes], name: bytes, problems: list[str]) -> bytes | None:
        for place in above:
            try:
                names = self._directories.get(place).ponis
            except DadaError:
                continue
            if not names:
                continue
            own = [one for one in names if one[: -len(b".poni")] in (name, _stem(name)[0])]
            chosen = own or names
            if len(chosen) == 1:
                return join(place, chosen[0])
            some = ", ".join(map(show, names[:3])) + (", ..." if len(names) > 3 else "")
            problems.append(
                f"{len(names)} PONI files in {show(place)} ({some}): none is used; name one in"
                f' geometry.toml, [geometry] poni = "{show(names[0])}"'
            )
            return None
        return None

    def _recorded(
        self, above: list[bytes], name: bytes, used: list[Used], problems: list[str]
    ) -> Iterator[Recorded]:
        """What logs say of the scan: its FIO file, the nearest SPEC file, its BLISS file."""
        fio = partial(self._fio, used=used)
        for level in self._logs(above, name, fio, self._spec, self._bliss):
            for read in level:
                try:
                    found = read()
                except NoSuchPath:
                    continue
                except DadaError as exc:
                    problems.append(str(exc))
                    continue
                if found is not None:
                    yield found
                    break

    def columns(self, scan: bytes, name: str) -> Iterator[Column]:
        """What the logs that tell of a scan have as column `name`: its FIO, SPEC, BLISS file."""
        directory, scan_name = split(scan)
        above = list(upwards(directory))[: LOG_LEVELS + 1]

        def fio(path: bytes) -> Column:
            with self._tree.opened(path) as (fd, identity):
                return self._columns.once(
                    (path, identity, name), lambda: fio_column(fd, show(path), name)
                )

        def spec(path: bytes, number: int) -> Column | None:
            with self._tree.opened(path) as (fd, identity):
                place = place_of(fd, path, identity, number, self._store)
                if place is None:
                    return None
                source = f"{show(path)} #S {number}"
                return self._columns.once(
                    (path, identity, place, name), lambda: spec_column(fd, *place, source, name)
                )

        def bliss(path: bytes, sought: Wanted) -> Column | None:
            with self._tree.opened(path) as (fd, identity):
                return self._columns.once(
                    (path, identity, sought, name),
                    lambda: bliss_column(fd, split(path)[0], show(path), sought, name),
                )

        for level in self._logs(above, scan_name, fio, spec, bliss):
            for read in level:
                try:
                    found = read()
                except NoSuchPath:
                    continue
                if found is not None:
                    yield found
                    break

    def _logs(
        self,
        above: list[bytes],
        name: bytes,
        fio: Callable[[bytes], T | None],
        spec: Callable[[bytes, int], T | None],
        bliss: Callable[[bytes, Wanted], T | None],
    ) -> Iterator[Iterator[Callable[[], T | None]]]:
        """Ways to read what may tell of a scan: its FIO, SPEC and BLISS files, nearest first."""
        try:
            files = self._directories.get(above[0]).scans.get(name)
        except DadaError:
            files = None
        if files is None or not files.lima:  # a camera's name has no number of a scan
            yield (partial(fio, join(place, name + b".fio")) for place in above[:2])
            yield (partial(spec, path, number) for path, number in self._spec_of(above, name))
        sought = wanted(above[0], files) if files is not None else None
        if sought is not None:
            yield (partial(bliss, path, sought) for path in self._datasets(above))

    def _spec_of(self, above: list[bytes], name: bytes) -> Iterator[tuple[bytes, int]]:
        stem, number = _stem(name)
        if number is None:
            return
        paths = [join(place, stem + ending) for place in above for ending in SPEC_ENDINGS if stem]
        try:
            logs = self._directories.get(above[0]).logs
        except DadaError:
            logs = ()
        if len(logs) == 1:
            paths.append(join(above[0], logs[0]))
        for path in dict.fromkeys(paths):
            yield path, number

    def _datasets(self, above: list[bytes]) -> Iterator[bytes]:
        """The file of the dataset that a directory of frames is in: named like it, or the only."""
        yield join(above[0], BLISS_MASTER)
        if len(above) > 1:
            yield join(above[1], split(above[1])[1] + HDF5)
            try:
                names = self._directories.get(above[1]).names
            except DadaError:
                return
            found = [name for name in names if name.endswith(HDF5)]
            if len(found) == 1:
                yield join(above[1], found[0])

    def _bliss(self, path: bytes, sought: Wanted) -> Recorded | None:
        with self._tree.opened(path) as (fd, identity):
            return self._kept.once(
                (path, identity, sought),
                lambda: read_bliss(fd, split(path)[0], show(path), sought),
            )

    def _spec(self, path: bytes, number: int) -> Recorded | None:
        with self._tree.opened(path) as (fd, identity):
            return self._kept.once(
                (path, identity, number),
                lambda: read_spec(fd, path, identity, number, show(path), self._store),
            )

    def _fio(self, path: bytes, used: list[Used]) -> Recorded | None:
        mine: list[Used] = []
        found = self._file(
            path,
            lambda data: read_fio(data.decode("utf-8", "replace"), show(path)),
            READ_BYTES,
            mine,
        )
        if found.command is None and not found.problems:
            return None
        used += mine
        return found

    def _file(
        self,
        path: bytes,
        parse: Callable[[bytes], T],
        most: int,
        used: list[Used],
    ) -> T:
        """What `parse` makes of the beginning of a file. NoSuchPath; ValueError of `parse`."""
        with self._tree.opened(path) as (fd, identity):
            used.append((path, identity))
            return self._kept.once((path, identity), lambda: parse(os.pread(fd, most, 0)))


def _sections(data: bytes) -> list[Section]:
    return overrides.read_overrides(data)


def upwards(directory: bytes) -> Iterator[bytes]:
    """A directory and those above it, up to the root."""
    while directory:
        yield directory
        directory = split(directory)[0]
    yield b""


def _stem(name: bytes) -> tuple[bytes, int | None]:
    """What a scan's name begins with, and the number at its end."""
    match = NUMBERED.fullmatch(name)
    return (match[1], int(match[2])) if match else (name, None)


def _beside(directory: bytes, name: str) -> bytes:
    """A path that is given relative to a directory; it may lead up, as far as the root."""
    parts = directory.split(b"/") if directory else []
    for part in name.encode("utf-8", "surrogateescape").split(b"/"):
        if part == b"..":
            del parts[-1:]
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/".join(parts)

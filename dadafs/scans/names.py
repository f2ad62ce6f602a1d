"""Which files make a scan, told from their names alone. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

MASTER = re.compile(rb"(.+)_master\.h5", re.DOTALL)
DATA = re.compile(rb"(.+)_data_([0-9]+)\.h5", re.DOTALL)
SUFFIX = b".scan"  # of a scan whose own name is taken


class ScanFiles(msgspec.Struct, frozen=True):
    """The names of the files of one scan, all in one directory."""

    master: bytes | None
    data: tuple[bytes, ...]
    """By number."""

    @property
    def all(self) -> tuple[bytes, ...]:
        """Every file, the master first."""
        return self.data if self.master is None else (self.master, *self.data)


def scan_of(name: bytes) -> bytes | None:
    """The scan that a file of this name belongs to; None for a loose file.

    Hidden files never belong to one: they are other programs' temporary files, or what macOS
    leaves beside every file.
    """
    if name.startswith(b"."):
        return None
    match = MASTER.fullmatch(name) or DATA.fullmatch(name)
    return match[1] if match else None


def number_of(name: bytes) -> int | None:
    """The number in the name of a data file; None for another file."""
    match = DATA.fullmatch(name)
    return int(match[2]) if match and len(match[2]) <= 18 else None


def group(
    files: Iterable[bytes], others: Iterable[bytes] = ()
) -> tuple[dict[bytes, ScanFiles], list[bytes]]:
    """Sort the names of a directory's files into scans, by the name each is shown under, and loose.

    A data file without a master makes a scan too. A scan whose own name is that of a loose file or
    of one of `others`, the directory's names that are no files, is shown as `NAME.scan`. Every
    file lies in exactly one scan or is loose; shown names are unique; loose files keep their order.
    """
    masters: dict[bytes, bytes] = {}
    data: dict[bytes, list[tuple[tuple[int, bytes], bytes]]] = {}
    loose = []
    for name in files:
        if name.startswith(b"."):
            loose.append(name)
        elif match := DATA.fullmatch(name):
            data.setdefault(match[1], []).append((_order(match[2]), name))
        elif match := MASTER.fullmatch(name):
            masters[match[1]] = name
        else:
            loose.append(name)
    scans = {
        scan: ScanFiles(masters.get(scan), tuple(name for _, name in sorted(data.get(scan, ()))))
        for scan in sorted(masters.keys() | data.keys())
    }
    return _shown(scans, {*loose, *others}), loose


def _order(digits: bytes) -> tuple[int, bytes]:
    """Sorts as the number does, however long it is."""
    significant = digits.lstrip(b"0")
    return len(significant), significant


def _shown(scans: dict[bytes, ScanFiles], taken: set[bytes]) -> dict[bytes, ScanFiles]:
    """The scans by names that collide with nothing; a scan's own name goes before a made one."""
    shown = {scan: files for scan, files in scans.items() if scan not in taken}
    for scan, files in scans.items():
        if scan in taken:
            name = scan + SUFFIX
            while name in taken or name in shown:
                name += SUFFIX
            shown[name] = files
    return shown


def join(directory: bytes, name: bytes) -> bytes:
    """The path of `name` in `directory`."""
    return directory + b"/" + name if directory else name


def split(path: bytes) -> tuple[bytes, bytes]:
    """The directory of a path, and its last name."""
    directory, _, name = path.rpartition(b"/")
    return directory, name


def show(path: bytes) -> str:
    """A raw name for people: one line of valid text, whatever bytes it has."""
    if not path:
        return "the raw root"
    text = path.decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)

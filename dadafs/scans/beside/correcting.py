"""What corrects a scan and lies beside it: masks, monitors. Found, read, and remembered."""

from __future__ import annotations

import os
from hashlib import blake2b

import numpy as np

from analysis.plan import pack_mask, unpack_mask
from dadafs.errors import NoSuchPath
from dadafs.paths import INSIDE, nearest
from dadafs.scans.beside.columns import Column
from dadafs.scans.beside.masks import read_mask
from dadafs.scans.beside.sidecars import Sidecars, upwards
from dadafs.scans.kept import Kept
from dadafs.scans.model import Mask, Monitor, Scan
from dadafs.scans.names import MASKS, join, show, split
from dadafs.scans.tree import RawTree, identity_of

KEPT = 256  # a mask packs to some kB
NAMES_SHOWN = 12


class FileNotHere(NoSuchPath):
    """There is no file of that name in one of the places where it may be."""


class Corrections:
    """Reads what requests name: `mask=gaps.npy`, `norm=ic1`.

    What was read is kept by the identity of its file. Safe for threads.
    """

    def __init__(self, tree: RawTree, sidecars: Sidecars) -> None:
        self._tree = tree
        self._sidecars = sidecars
        self._kept = Kept(KEPT)

    def mask(self, scan: Scan, name: str) -> Mask:
        """The mask of that name, in the scan's directory or the nearest one above. NoSuchPath."""
        places = list(upwards(split(scan.path)[0]))
        file = name.partition(INSIDE)[0]
        if "/" in file or "\0" in file or file in ("", ".", ".."):
            raise NoSuchPath(f"mask={name}: {file!r} is no file name")
        for place in places:
            try:
                return self._mask(scan, join(place, os.fsencode(file)), name)
            except FileNotHere:
                continue
        raise NoSuchPath(
            f"mask={name}: there is no such file beside the scan or above{self._near(places, file)}"
        )

    def _mask(self, scan: Scan, path: bytes, name: str) -> Mask:
        try:
            fd = self._tree.open(path)
        except NoSuchPath as exc:
            raise FileNotHere(str(exc)) from exc
        shape = (scan.height, scan.width)
        try:
            key = (path, identity_of(os.fstat(fd)), name, shape)
            own = self._kept.once(key, lambda: pack_mask(read_mask(fd, name, shape)))
        finally:
            os.close(fd)
        both = self._kept.once(
            (own, scan.mask, shape),
            lambda: pack_mask(unpack_mask(own, shape) | unpack_mask(scan.mask, shape)),
        )
        digest = blake2b(own, digest_size=8).hexdigest()
        return Mask(show(path), both, digest, self._tree.attributes(path))

    def _near(self, places: list[bytes], file: str) -> str:
        names = [os.fsdecode(one) for place in places for one, _, _ in self._tree.kinds(place)]
        return nearest(file, [one for one in names if one.rpartition(".")[2].lower() in MASKS])

    def monitor(self, scan: Scan, name: str) -> Monitor:
        """What the column of that name in the scan's SPEC, FIO or BLISS file says of each frame.

        Row k belongs to the k-th frame of the raster. NoSuchPath where there is no such column,
        or where it is not known which row belongs to which frame.
        """
        logs = list(self._sidecars.columns(scan.path, name))
        found = next((one for one in logs if one.values is not None), None)
        if found is None:
            raise NoSuchPath(f"norm={name}: {_no_column(scan, name, logs)}")
        reason = scan.withheld.get("raster")
        if reason is not None:
            raise NoSuchPath(f"norm={name}: which row belongs to which frame is unknown: {reason}")
        values = np.full(scan.frames, np.nan)
        first = scan.raster.first if scan.raster is not None else 0
        there = values[first:]
        rows = found.array()[: len(there)]
        there[: len(rows)] = np.where(np.isfinite(rows) & (rows > 0), rows, np.nan)
        if np.isnan(values).all():
            raise NoSuchPath(f"norm={name}: {found.source} has no positive value in this column")
        return Monitor(name, found.source, values.astype("<f8").tobytes())


def _no_column(scan: Scan, name: str, logs: list[Column]) -> str:
    if not logs:
        return f"no SPEC, FIO or BLISS file tells of {show(scan.path)}"
    names = list(dict.fromkeys(one for log in logs for one in log.names))
    if not names:
        return f"{logs[0].source} has no columns"
    more = ", ..." if len(names) > NAMES_SHOWN else ""
    return (
        f"{' and '.join(log.source for log in logs)} have no such column{nearest(name, names)}"
        f"; there are {', '.join(names[:NAMES_SHOWN])}{more}"
    ).replace(" have ", " has " if len(logs) == 1 else " have ")

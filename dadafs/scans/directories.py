"""Which names a raw directory shows, remembered as long as its mtime says that it is the same."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Sequence
from difflib import get_close_matches

import msgspec

from dadafs.errors import NoSuchPath
from dadafs.scans.lone import LoneImages
from dadafs.scans.names import ScanFiles, group, scan_of, show
from dadafs.scans.tree import RawTree

SETTLED_NS = 2_000_000_000  # older than the tick of the coarsest clock of a file system
SHARE = 20  # at most a twentieth of the time goes into asking for news
KEPT_NAMES = 1_000_000  # of all directories: about 150 bytes each
PONI = b".poni"
LOGS = (b".spec", b".dat")
LOOK_AGAIN_S = 1.0  # files are not asked for news more often
NEIGHBOURS = 40  # names looked at for a typo, in sorted order: 0.5 ms


class Directory(msgspec.Struct, frozen=True):
    """The names in a raw directory, sorted into scans and others."""

    path: bytes
    stamp: tuple[int, int]
    """Inode and mtime of the directory when it was read."""
    scans: dict[bytes, ScanFiles]
    """By the name that is shown."""
    names: tuple[bytes, ...]
    """All that is shown, sorted."""
    owners: dict[bytes, bytes]
    """The shown name of a scan by its key, where these differ."""
    settled: bool
    """The same stamp means the same names; else only until `until_s`."""
    until_s: float
    ponis: tuple[bytes, ...] = ()
    """Calibrations among the names."""
    logs: tuple[bytes, ...] = ()
    """What may be SPEC files among the names."""
    alone: tuple[bytes, ...] = ()
    """Images that are no part of a series; what they hold may change without a trace here."""
    stacks: frozenset[bytes] = frozenset()
    """Those of them that are scans."""
    look_s: float = 0.0
    """When to look at them again."""

    def owner(self, name: bytes) -> bytes | None:
        """The shown name of the scan that the file of that name belongs to; None when loose."""
        key = scan_of(name, self.path)
        if key is None or (b"\0" in key and key not in self.owners):
            return None
        return self.owners.get(key, key)


class Directories:
    """Directories by path, read again when their mtime has changed.

    As long as the mtime is recent another change may hide behind the same one, hence the
    directory is read again and again, but not for more than a part of the time. The same goes for
    a directory with symlinks among its scans, whose targets come and go without a trace in it.
    Images that are alone are looked at again, and the directory is read again when one has become
    a scan or is none any more.
    """

    def __init__(self, tree: RawTree, lone: LoneImages, clock: Callable[[], float]) -> None:
        self._tree = tree
        self._lone = lone
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, Directory] = OrderedDict()
        self._kept_names = 0

    def get(self, path: bytes) -> Directory:
        """The names in the directory at `path`. NoSuchPath, NotPermitted."""
        about = self._tree.attributes(path)
        if about.kind != "directory":  # the mtime of a symlink would say nothing
            raise NoSuchPath(f"{show(path)} is a {about.kind}: nothing is below it")
        stamp = (about.inode, about.mtime_ns)
        with self._lock:
            known = self._kept.get(path)
            if known is not None:
                self._kept.move_to_end(path)
        if (
            known is not None
            and known.stamp == stamp
            and (known.settled or self._clock() < known.until_s)
            and self._still(path, known)
        ):
            return known
        fresh = self._read(path, stamp)
        with self._lock:
            old = self._kept.pop(path, None)
            self._kept[path] = fresh
            self._kept_names += len(fresh.names) - (len(old.names) if old else 0)
            while self._kept_names > KEPT_NAMES and len(self._kept) > 1:
                self._kept_names -= len(self._kept.popitem(last=False)[1].names)
        return fresh

    def _still(self, path: bytes, known: Directory) -> bool:
        """Whether the images that are alone are scans, or none, as they were."""
        began = self._clock()
        if not known.alone or began < known.look_s:
            return True
        if self._lone.stacks(path, known.alone) != known.stacks:
            return False
        now = self._clock()
        with self._lock:
            if self._kept.get(path) is known:
                look_s = look_again_s(began, now)
                self._kept[path] = msgspec.structs.replace(known, look_s=look_s)
        return True

    def _read(self, path: bytes, stamp: tuple[int, int]) -> Directory:
        began = self._clock()
        alone: tuple[bytes, ...] = ()
        stacks: frozenset[bytes] = frozenset()

        def pick(names: Sequence[bytes]) -> frozenset[bytes]:
            nonlocal alone, stacks
            alone, stacks = tuple(names), self._lone.stacks(path, names)
            return stacks

        settled = stamp[1] < time.time_ns() - SETTLED_NS
        files: list[bytes] = []
        others: list[bytes] = []
        for name, kind, linked in self._tree.kinds(path):
            (files if kind == "file" else others).append(name)
            if linked and scan_of(name, path) is not None:
                settled = False
        scans, loose = group(files, others, path, pick)
        owners = {
            own: shown
            for shown, members in scans.items()
            if (own := scan_of(members.all[0], path)) is not None and own != shown
        }
        now = self._clock()
        return Directory(
            path,
            stamp,
            scans,
            tuple(sorted([*scans, *loose, *others])),
            owners,
            settled,
            now + SHARE * (now - began),
            tuple(sorted(name for name in loose if name.endswith(PONI))),
            tuple(sorted(name for name in loose if name.endswith(LOGS))),
            alone,
            stacks,
            look_again_s(began, now),
        )


def instead(name: bytes, names: Sequence[bytes]) -> str:
    """`; did you mean ...?` with those of the sorted `names` that are like `name`, if any is."""
    at = bisect_left(names, name)
    near = names[max(0, at - NEIGHBOURS) : at + NEIGHBOURS]
    close = get_close_matches(name, near)
    return f"; did you mean {' or '.join(map(show, close))}?" if close else ""


def look_again_s(began_s: float, now_s: float) -> float:
    """When to ask files for news again that were asked between `began_s` and `now_s`. Pure."""
    return now_s + max(LOOK_AGAIN_S, SHARE * (now_s - began_s))

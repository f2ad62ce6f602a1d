"""The catalog: what the mount shows of the raw tree, and what its scans are."""

from __future__ import annotations

import builtins
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from hashlib import blake2b
from posixpath import relpath
from typing import TypeVar

import msgspec

from dadafs.cache.store import Store
from dadafs.errors import DadaError, NoSuchPath, NoSuchScan, Stale
from dadafs.scans.beside.correcting import Corrections
from dadafs.scans.beside.sidecars import Notes, Sidecars
from dadafs.scans.describing import AnySeries, Contents, describe, read_contents
from dadafs.scans.directories import SHARE, Directories, instead, look_again_s
from dadafs.scans.frames.index import FrameIndexer
from dadafs.scans.lone import MOST, LoneImages
from dadafs.scans.model import (
    Attributes,
    DataFile,
    Entry,
    FrameSlice,
    Mask,
    Monitor,
    Resolved,
    Scan,
    SourceFile,
)
from dadafs.scans.names import ScanFiles, group, join, scan_of, show, split
from dadafs.scans.owners import common_mode
from dadafs.scans.tree import RawTree

DIRECTORY_BYTES = 4096
KEPT_SCANS = 256
KEPT_FILES = 50_000  # of all scans kept: about 1 kB each
ATTEMPTS = 3

T = TypeVar("T")


class State(msgspec.Struct, frozen=True):
    """The files of a scan at one time."""

    files: ScanFiles
    attributes: Attributes
    """Of the scan's directory."""
    members: tuple[SourceFile, ...]
    """All files, those included that only the master names."""
    digest: str
    """Of their names and identities."""


class Known:
    """What is known of one scan.

    Invariants: `state`, `elsewhere` and `look_again_s` are touched under `lock` only, the others
    under `reading`, which is taken first. `contents` were read after `contents_digest` was the
    digest of the files, so a change meanwhile shows as another digest.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.state: State | None = None
        self.elsewhere: tuple[bytes, ...] = ()
        self.look_again_s = 0.0
        self.reading = threading.Lock()
        self.contents: Contents | None = None
        self.contents_of = ("", b"")
        """Digest of the files, and the dataset that they were read for."""
        self.notes = Notes()
        self.fingerprint = b""
        """Of the notes."""
        self.notes_until_s = 0.0
        self.scan: Scan | None = None
        self.scan_of: tuple[object, ...] = ()
        """What `scan` was made of."""
        self.dated = ("", b"", 0)
        """The digest, fingerprint and mtime that were last told."""


class Catalog:
    """Answers what is where in the raw tree as the mount shows it. Safe for threads.

    A directory is read again when its mtime says so. The files of a scan are asked for news at
    most once in a second, so what is said of a scan may be that much late; a frame slice names
    the identities of the files it was made from, whatever else is known of them.
    """

    def __init__(
        self, tree: RawTree, store: Store, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._tree = tree
        self._indexer = FrameIndexer(tree, store)
        self._clock = clock
        self._lone = LoneImages(tree)
        self._directories = Directories(tree, self._lone, clock)
        self._sidecars = Sidecars(tree, store, self._directories)
        self._corrections = Corrections(tree, self._sidecars)
        self._lock = threading.Lock()
        self._known: OrderedDict[bytes, Known] = OrderedDict()

    def list(self, path: bytes) -> tuple[Entry, ...]:
        """The entries of a raw directory, scans as directories. No file is opened but images that
        are alone."""
        entries = self._tree.listing(path)
        files = {entry.name: entry for entry in entries if entry.attributes.kind == "file"}
        others = [entry for entry in entries if entry.attributes.kind != "file"]

        def stacks(names: Sequence[bytes]) -> frozenset[bytes]:
            return self._lone.among(path, [files[name] for name in names[:MOST]])

        scans, loose = group(files, [entry.name for entry in others], path, stacks)
        shown = [
            Entry(name, _of_scan([files[one].attributes for one in members.all]), True)
            for name, members in scans.items()
        ]
        return tuple(
            sorted([*others, *(files[name] for name in loose), *shown], key=lambda one: one.name)
        )

    def resolve(self, path: bytes) -> Resolved:
        """What a path of the mount leads to, as far as the raw tree or a scan. NoSuchPath."""
        here = b""
        parts = path.split(b"/") if path else []
        for number, name in enumerate(parts):
            at = join(here, name)
            rest = tuple(parts[number + 1 :])
            try:
                attributes = self._tree.attributes(at)
            except NoSuchPath as exc:
                directory = self._directories.get(here)
                if name not in directory.scans:
                    raise NoSuchPath(f"{exc}{instead(name, directory.names)}") from exc
                return Resolved("scan", at, self._state(at, self._keep(at)).attributes, rest)
            if attributes.kind == "directory":
                here = at
                continue
            owner = None
            if attributes.kind == "file" and scan_of(name, here) is not None:
                owner = self._directories.get(here).owner(name)
            if owner is not None:
                scan = show(owner)
                raise NoSuchPath(f"{show(at)} is part of scan {scan}: {scan}/raw/{show(name)}")
            if rest:
                to = f" to {show(attributes.target)}" if attributes.target else ""
                raise NoSuchPath(f"{show(at)} is a {attributes.kind}{to}: nothing is below it")
            return Resolved(attributes.kind, at, attributes)
        return Resolved("directory", here, self._tree.attributes(here))

    def raw_files(self, path: bytes) -> tuple[Entry, ...]:
        """The files of a scan, for its `raw/`. NoSuchScan."""
        return tuple(self._entries(path, self._files(path)))

    def scan(self, path: bytes) -> Scan:
        """All there is to know about a scan. NoSuchScan."""
        return self._read(path, lambda known, state: self._describe(path, known, state))

    def slice(self, path: bytes, first: int, count: int, version: str = "") -> FrameSlice:
        """Where the frames `[first, first + count)` of a scan lie. NoSuchScan, Stale.

        Where a version is given, the files are looked at now, and are still those of it.
        """

        def answer(known: Known, _: State) -> FrameSlice:
            found = _series(known).slice(first, count)
            if version:
                with known.lock:
                    known.look_again_s = 0.0
                self._read_notes(path, known)
                if version != _version(known, self._state(path, known)):
                    raise Stale(f"{show(path)} has changed since it was opened")
            return found

        return self._read(path, answer)

    def mask(self, path: bytes, name: str) -> Mask:
        """A mask beside a scan or above it, with the detector's own. NoSuchPath."""
        return self._corrections.mask(self.scan(path), name)

    def monitor(self, path: bytes, name: str) -> Monitor:
        """What a column of the scan's log counted for each frame. NoSuchPath."""
        return self._corrections.monitor(self.scan(path), name)

    def data_files(self, path: bytes) -> builtins.list[DataFile]:
        """The data files of a scan and how complete they are. NoSuchScan."""
        return self._read(path, lambda known, _: _series(known).data_files())

    def files(self, path: bytes, version: str) -> tuple[SourceFile, ...]:
        """The files that this version of a scan is made of, and those beside it that it was told
        by. NoSuchScan, Stale."""

        def answer(known: Known, state: State) -> tuple[SourceFile, ...]:
            if version != _version(known, state):
                raise Stale(f"{show(path)} has changed since it was opened")
            return (*state.members, *known.notes.files)

        return self._read(path, answer)

    def _files(self, path: bytes) -> ScanFiles:
        """The names of the files of a scan. NoSuchScan."""
        parent, name = split(path)
        directory = self._directories.get(parent)
        if name not in directory.scans:
            near = instead(name, directory.names)
            raise NoSuchScan(f"{show(path)} is no scan{near}")
        return directory.scans[name]

    def _entries(self, path: bytes, files: ScanFiles) -> builtins.list[Entry]:
        entries = self._tree.entries(split(path)[0], files.all)
        return [entry for entry in entries if entry.attributes.kind == "file"]

    def _keep(self, path: bytes) -> Known:
        """What is known of a scan; the least used are forgotten."""
        with self._lock:
            known = self._known.get(path)
            if known is not None:
                self._known.move_to_end(path)
                return known
            known = self._known[path] = Known()
            weight = sum(map(_weight, self._known.values()))
            while len(self._known) > KEPT_SCANS or (weight > KEPT_FILES and len(self._known) > 1):
                _, old = self._known.popitem(last=False)
                weight -= _weight(old)
        return known

    def _state(self, path: bytes, known: Known) -> State:
        """The files of a scan as they are, or were a short while ago. NoSuchScan."""
        files = self._files(path)
        with known.lock:
            began = self._clock()
            if known.state is not None and began < known.look_again_s:
                return known.state
            entries = self._entries(path, files)
            if not entries:
                raise NoSuchScan(f"the files of {show(path)} are gone")
            every = [*entries, *self._linked(split(path)[0], known.elsewhere)]
            members = tuple(SourceFile(one.name, one.attributes.identity) for one in every)
            digest = _digest(members)
            attributes = _of_scan([one.attributes for one in every])
            if known.state is None or (known.state.digest, known.state.attributes) != (
                digest,
                attributes,
            ):
                known.state = State(files, attributes, members, digest)
            now = self._clock()
            known.look_again_s = look_again_s(began, now)
            return known.state

    def _linked(self, directory: bytes, paths: Sequence[bytes]) -> builtins.list[Entry]:
        """The files that only the master of a scan in that directory names."""
        found = []
        for path in paths:
            try:
                attributes = self._tree.attributes(path)
            except DadaError:
                continue
            if attributes.kind == "file":
                found.append(Entry(relpath(b"/" + path, b"/" + directory), attributes))
        return found

    def _read(self, path: bytes, answer: Callable[[Known, State], T]) -> T:
        """Let `answer` see the contents of a scan, alone, read anew if its files have changed."""
        known = self._keep(path)
        with known.reading:
            if self._clock() >= known.notes_until_s:
                self._read_notes(path, known)
            for _ in range(ATTEMPTS):
                state = self._state(path, known)
                of = (state.digest, known.notes.dataset)
                if known.contents is not None and known.contents_of == of:
                    break
                self._read_contents(path, known, state)
            return answer(known, state)

    def _read_notes(self, path: bytes, known: Known) -> None:
        """What is said beside a scan; files that are as they were are not read again."""
        began = self._clock()
        notes = self._sidecars.read(path)
        fingerprint = notes.fingerprint()
        if fingerprint == known.fingerprint:  # of one version, as they were at first
            notes = msgspec.structs.replace(notes, files=known.notes.files)
        known.notes, known.fingerprint = notes, fingerprint
        now = self._clock()
        known.notes_until_s = look_again_s(began, now)

    def _read_contents(self, path: bytes, known: Known, state: State) -> None:
        began = self._clock()
        dataset = known.notes.dataset
        contents = read_contents(self._tree, self._indexer, split(path)[0], state.files, dataset)
        known.contents, known.contents_of, known.scan = contents, (state.digest, dataset), None
        with known.lock:
            known.look_again_s += SHARE * (self._clock() - began)
            if known.elsewhere != contents.elsewhere:  # these count in the digest too
                known.elsewhere, known.look_again_s = contents.elsewhere, 0.0

    def _describe(self, path: bytes, known: Known, state: State) -> Scan:
        assert known.contents is not None
        series = known.contents.series
        version = _version(known, state)
        found = (version, state.attributes, len(series.problems), known.notes.mtime_ns)
        if known.scan is None or known.scan_of != found:
            scan = describe(
                path, version, state.attributes, state.members, known.contents, known.notes
            )
            known.scan, known.scan_of = _dated(scan, known, state.digest), found
        return known.scan


def _dated(scan: Scan, known: Known, digest: str) -> Scan:
    """`scan` with an mtime that is later than that of what it held before.

    A file may appear that is older than the others, or vanish: rsync and make go by the mtime.
    """
    *before, last_ns = known.dated
    attributes = scan.attributes
    if last_ns and attributes.mtime_ns <= last_ns:
        changed = before != [digest, known.fingerprint]
        mtime_ns = max(last_ns + 1, time.time_ns()) if changed else last_ns
        attributes = msgspec.structs.replace(attributes, mtime_ns=mtime_ns)
    known.dated = digest, known.fingerprint, attributes.mtime_ns
    return msgspec.structs.replace(scan, attributes=attributes)


def _series(known: Known) -> AnySeries:
    assert known.contents is not None
    return known.contents.series


def _version(known: Known, state: State) -> str:
    parts = [state.digest]
    if known.fingerprint:
        parts.append(known.fingerprint.hex())
    if _series(known).recounted:
        parts.append("counted")
    return "-".join(parts)


def _digest(members: Sequence[SourceFile]) -> str:
    hasher = blake2b(digest_size=16)
    for one in members:
        of = one.identity
        hasher.update(b"%b\0%d %d %d\0" % (one.name, of.size, of.mtime_ns, of.inode))
    return hasher.hexdigest()


def _weight(known: Known) -> int:
    state = known.state
    return 1 if state is None else 1 + len(state.files.data)


def _of_scan(files: Sequence[Attributes]) -> Attributes:
    """Of the directory that stands for a scan with these files, the master first.

    Its results may be read by whoever may read every one of the files, and by nobody else.
    """
    mode = common_mode(files)
    newest = max(one.mtime_ns for one in files)
    return Attributes(
        "directory",
        DIRECTORY_BYTES,
        newest,
        mode | (mode & 0o444) >> 2,
        files[0].uid,
        files[0].gid,
        0,
    )

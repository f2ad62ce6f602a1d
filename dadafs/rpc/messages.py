"""The requests that dadafs processes send each other."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from analysis.plan import Plan
from dadafs.rpc.calls import Request
from dadafs.scans.model import (
    DataFile,
    Entry,
    FrameSlice,
    Identity,
    Mask,
    Monitor,
    Resolved,
    Scan,
    SourceFile,
)


class Resolve(Request[Resolved], frozen=True):
    """To the server: what a path of the mount leads to."""

    path: bytes
    reply: ClassVar[type] = Resolved


class List(Request[tuple[Entry, ...]], frozen=True):
    """To the server: the entries of a raw directory, scans among them."""

    path: bytes
    reply: ClassVar[type] = tuple[Entry, ...]


class ListRaw(Request[tuple[Entry, ...]], frozen=True):
    """To the server: the files a scan consists of."""

    path: bytes
    reply: ClassVar[type] = tuple[Entry, ...]


class Identify(Request[tuple[SourceFile, ...]], frozen=True):
    """To the server: the files that a scan is made of. Stale where it is of another version."""

    path: bytes
    version: str
    reply: ClassVar[type] = tuple[SourceFile, ...]


class Describe(Request[Scan], frozen=True):
    """To the server: all there is to know about a scan."""

    path: bytes
    reply: ClassVar[type] = Scan


class ReadMask(Request[Mask], frozen=True):
    """To the server: a mask beside a scan, or above it."""

    path: bytes
    """Of the scan."""
    name: str
    reply: ClassVar[type] = Mask


class ReadMonitor(Request[Monitor], frozen=True):
    """To the server: a column of a scan's log."""

    path: bytes
    """Of the scan."""
    name: str
    reply: ClassVar[type] = Monitor


class ListDataFiles(Request[tuple[DataFile, ...]], frozen=True):
    """To the server: the data files of a scan and how complete they are."""

    path: bytes
    version: str = ""
    """Of the scan as the caller knows it: what is remembered of another one answers nothing."""
    reply: ClassVar[type] = tuple[DataFile, ...]


class Locate(Request[FrameSlice], frozen=True):
    """To the server: where the frames `[first, first + count)` of a scan lie. Stale where it is
    of another version."""

    path: bytes
    first: int
    count: int
    version: str
    reply: ClassVar[type] = FrameSlice


class Fragments(msgspec.Struct, frozen=True):
    """What goes with the bytes of consecutive fragments, which are the payload."""

    sizes: tuple[int, ...]
    """Bytes of each; only the last of a file is shorter than FRAGMENT_BYTES."""
    sums: tuple[int, ...]
    """Checksum of each, for whoever uses it to verify."""


class ReadFragments(Request[Fragments], frozen=True):
    """To the server: consecutive fragments of a raw file of just this content."""

    path: bytes
    identity: Identity
    first: int
    """Index of the first fragment."""
    count: int
    reply: ClassVar[type] = Fragments


class FindResults(Request[tuple[int, ...]], frozen=True):
    """To the server: shared results by key; their sizes, -1 for none, payload is their bytes."""

    keys: tuple[bytes, ...]
    reply: ClassVar[type] = tuple[int, ...]


class KeepResults(Request[None], frozen=True):
    """To the server, by peers: results for everybody."""

    pairs: tuple[tuple[bytes, bytes], ...]
    reply: ClassVar[type] = type(None)


class Announce(Request[None], frozen=True):
    """To the server, by peers, every so often: I am here and answer on this port."""

    name: str
    port: int
    threads: int
    reply: ClassVar[type] = type(None)


class PeerEntry(msgspec.Struct, frozen=True):
    """A peer that the server knows."""

    name: str
    host: str
    port: int
    threads: int


class ListPeers(Request[tuple[PeerEntry, ...]], frozen=True):
    """To the server: who computes."""

    reply: ClassVar[type] = tuple[PeerEntry, ...]


class Compute(Request[None], frozen=True):
    """To a peer: the values of one patch; the payload of the reply is `PatchValues.encode`."""

    plan: Plan
    frames: FrameSlice
    reply: ClassVar[type] = type(None)


class Report(msgspec.Struct, frozen=True):
    """What a process says of itself."""

    pid: int
    threads: int
    counters: dict[str, int]
    facts: dict[str, str] = {}
    """Of the process: which decoder it uses, and the like."""


class AskReport(Request[Report], frozen=True):
    """To any process: its pid, its threads, its counters."""

    reply: ClassVar[type] = Report


class Explain(Request[str], frozen=True):
    """To a mount: what a path means, or why it is refused."""

    path: bytes
    reply: ClassVar[type] = str


class AskPeers(Request[str], frozen=True):
    """To a mount: who computes for it, as JSON."""

    reply: ClassVar[type] = str


class AskStatus(Request[str], frozen=True):
    """To a mount: its counters and gauges, as JSON."""

    reply: ClassVar[type] = str


class AskJobs(Request[str], frozen=True):
    """To a mount: what is read and has to be computed, as JSON."""

    reply: ClassVar[type] = str


class AskErrors(Request[str], frozen=True):
    """To a mount: its last warnings and errors, a line each."""

    reply: ClassVar[type] = str


class FileFacts(msgspec.Struct, frozen=True):
    """What is known of a file of a mount without computing it."""

    size: int
    mtime_ns: int
    version: str
    """Of the content: when it is another, the file is another."""
    live: bool
    """A text that is made when it is read: its size is not known before."""


class AskFile(Request[FileFacts], frozen=True):
    """To a mount: what is known of the file at a path."""

    path: bytes
    reply: ClassVar[type] = FileFacts


class ReadPart(Request[None], frozen=True):
    """To a mount: bytes of a file, computed if need be; they are the payload."""

    path: bytes
    offset: int
    size: int
    reply: ClassVar[type] = type(None)


class PartFacts(msgspec.Struct, frozen=True):
    """What it takes to compute a part of a result once more."""

    parts: int
    """Of the result."""
    key: bytes
    """Of the values, which are the payload, as `PatchValues` or `PatternValues` encode them."""
    plan: Plan
    frames: tuple[FrameSlice, ...]
    """Where the frames of the part lie: one slice of a patch, or all portions of a pattern."""
    statuses: int
    """Frames that the values tell the status of."""
    whole: bool
    """The part is a pattern over all these frames."""


class AskPart(Request[PartFacts], frozen=True):
    """To a mount: the values of a part of the result at a path, as a reader gets them."""

    path: bytes
    number: int
    reply: ClassVar[type] = PartFacts


class ReadRaw(Request[None], frozen=True):
    """To a mount: bytes of a raw file of just this content; they are the payload."""

    path: bytes
    """Relative to the raw root."""
    identity: Identity
    offset: int
    size: int
    reply: ClassVar[type] = type(None)

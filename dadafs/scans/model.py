"""Values that describe raw files and scans: what the server knows and clients ask for.

Names and paths of raw files are bytes, because a file system's names are. A path is relative to
the raw root, its components joined by `/`, without leading slash; the root itself is b"".
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Literal

import msgspec

from analysis.codec import Codec
from analysis.plan import Geometry

NO_CHUNK = 2**64 - 1  # HDF5's HADDR_UNDEF: the dataset has this frame, the file no chunk of it


class Identity(msgspec.Struct, frozen=True, array_like=True):
    """What tells one content of a raw file from another."""

    size: int
    mtime_ns: int
    inode: int


class SourceFile(msgspec.Struct, frozen=True, array_like=True):
    """A file that a scan is made of."""

    name: bytes
    """Relative to the directory of the scan."""
    identity: Identity


class Attributes(msgspec.Struct, frozen=True, array_like=True):
    """What `stat` says of an entry."""

    kind: Literal["directory", "file", "symlink"]
    size: int
    mtime_ns: int
    mode: int
    """Permission bits only."""
    uid: int
    gid: int
    inode: int
    """Of the raw file; 0 for what has none."""
    target: bytes = b""
    """Where a symlink points, relative to its own directory."""

    @property
    def identity(self) -> Identity:
        """Of the content of a file."""
        return Identity(self.size, self.mtime_ns, self.inode)


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One name in a directory of the raw tree, as the mount shows it."""

    name: bytes
    attributes: Attributes
    scan: bool = False
    """A directory that stands for a scan; its mtime is the newest of its files'."""


class Raster(msgspec.Struct, frozen=True):
    """How the frames of a scan lie in space."""

    horz: int
    """Points per line."""
    vert: int
    """Lines."""
    order: Literal["raster", "snake"] = "raster"
    source: str = ""
    """Where it comes from, for scan.json."""
    first: int = 0
    """Frame of the first point."""


class Axis(msgspec.Struct, frozen=True):
    """A motor that a scan moved, from its first point to its last."""

    motor: str
    start: float | None = None
    end: float | None = None
    unit: str = ""
    """Empty where nothing says it."""
    direction: Literal["horz", "vert"] = "horz"
    """Along a line, or from line to line."""
    relative: bool = False
    """Counted from where the motor was before the scan, which is unknown."""


class Scan(msgspec.Struct, frozen=True):
    """A series of detector frames: all that is needed to understand requests about it."""

    path: bytes
    """Of the scan in the mount, relative to the raw root."""
    version: str
    """Of its files' identities and of what metadata beside them says: changes when these do."""
    attributes: Attributes
    """Of the scan's directory; mtime the newest of its files'."""
    files: int = 0
    """How many files it is made of, with those beside it that tell of it."""
    name_bytes: int = 0
    """Of the longest of their names."""
    frames: int = 0
    """Frames recorded or announced, whichever is more; 0 where the scan is unreadable."""
    height: int = 0
    """Rows of a frame."""
    width: int = 0
    """Columns of a frame."""
    dtype: str = ""
    """Of the pixels, e.g. `<u2`."""
    raster: Raster | None = None
    axes: tuple[Axis, ...] = ()
    """The motors, those along a line first; empty where no scan command is known."""
    cx: float | None = None
    """Beam centre, column, pixels."""
    cy: float | None = None
    """Beam centre, row, pixels."""
    geometry: Geometry | None = None
    """Only where distance, wavelength and pixel size are all known and sensible."""
    mask: bytes = b""
    """Invalid pixels of the detector, `analysis.plan.pack_mask`."""
    metadata: dict[str, str | int | float | None] = {}
    """Further facts for scan.json: exposure_s, photon_energy_ev, detector, ..."""
    sources: dict[str, str] = {}
    """Where each value came from, by its name, e.g. `cx` -> an HDF5 path."""
    problems: tuple[str, ...] = ()
    """One line each: dangling links, unreadable files, contradictions."""
    withheld: dict[str, str] = {}
    """Why `geometry`, `centre` or `raster` is not used although something gives it."""
    flat: Flat | None = None
    """Where the master has a flat field."""


class Mask(msgspec.Struct, frozen=True):
    """A user's mask for a scan, together with the detector's own."""

    source: str
    """The path of its file, for people."""
    pixels: bytes
    """Invalid pixels by either, `analysis.plan.pack_mask`."""
    digest: str
    """Of the pixels that the file masks."""
    attributes: Attributes
    """Of the file."""


class Monitor(msgspec.Struct, frozen=True):
    """What a monitor counted while each frame of a scan was recorded."""

    column: str
    source: str
    """The log's path and place, for people."""
    values: bytes
    """float64, little endian, one for each frame; NaN where nothing positive was recorded."""

    def digest(self) -> str:
        """Of the values."""
        return blake2b(self.values, digest_size=8).hexdigest()


class ChunkRun(msgspec.Struct, frozen=True, array_like=True):
    """Consecutive frames that lie in one data file."""

    path: bytes
    """Of the data file."""
    identity: Identity
    """Of the content that was indexed."""
    codec: Codec
    first: int
    """Number, in the scan, of the first frame of the run."""
    offsets: bytes
    """Where each frame's chunk begins, uint64 little endian; NO_CHUNK where there is none."""
    lengths: bytes
    """Bytes of each chunk, uint32 little endian."""


class FrameSlice(msgspec.Struct, frozen=True, array_like=True):
    """Where the frames `[first, first + count)` of a scan lie. Frames in no run are missing."""

    first: int
    count: int
    runs: tuple[ChunkRun, ...]
    """In order, disjoint."""
    flat: ChunkRun | None = None
    """What the counts are to be multiplied with, where that is asked for: the tiles of a plane."""


class Flat(msgspec.Struct, frozen=True):
    """The flat field of a detector: what counts are multiplied with, pixel by pixel."""

    source: str
    """Where in the master it is."""
    height: int
    width: int
    applied: bool | None = None
    """The detector has done so already; None where nothing says."""
    tiles: ChunkRun | None = None
    """Its chunks in raster order, as if they were frames."""
    problem: str = ""
    """Why it cannot be used, where there are no tiles."""

    def refusal(self, shape: tuple[int, int]) -> str:
        """Why frames of `shape` are not to be multiplied with it; empty where they may be."""
        if self.applied is None:
            return f"whether the detector has applied {self.source} is not said in the master"
        if self.applied:
            return f"the detector has applied {self.source} already: these are corrected counts"
        if self.tiles is None:
            return f"{self.source} {self.problem}"
        if (self.height, self.width) != shape:
            sides = f"{self.height} x {self.width}, frames {shape[0]} x {shape[1]}"
            return f"{self.source} does not fit: it is {sides}"
        return ""


class DataFile(msgspec.Struct, frozen=True):
    """A data file of a scan, for scan.json."""

    name: str
    first: int
    """Number, in the scan, of its first frame."""
    frames: int
    state: str
    """`present`, `missing`, or one line saying why it cannot be read."""


class Resolved(msgspec.Struct, frozen=True):
    """What a path of the mount leads to."""

    kind: Literal["directory", "file", "symlink", "scan"]
    path: bytes
    """Of the directory, file, symlink or scan."""
    attributes: Attributes
    rest: tuple[bytes, ...] = ()
    """What follows after a scan; only there may anything follow."""

"""Result files over values that are simply there: no peer, no server, no mount."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import scipy.io
import trio
from numpy.typing import NDArray

from analysis.analyses import ANALYSES
from analysis.plan import Geometry
from dadafs.cache.store import Store
from dadafs.cache.values import PatchValues, PatternValues
from dadafs.client.farming.farm import Farm
from dadafs.client.farming.tickets import Job, Wanted
from dadafs.client.tree.mapfile import CompositeFile, MapFile
from dadafs.client.tree.patternfile import PatternFile
from dadafs.client.tree.resultfile import ResultFile
from dadafs.client.upstream.locator import Locator
from dadafs.planning import Patch
from dadafs.requests import Result, concrete, grammar, shell_of
from dadafs.scans.model import Attributes, FrameSlice, Identity, Raster, Scan, SourceFile

GRAMMAR = grammar()
HEIGHT, WIDTH = 11, 9


def scan_of(frames: int = 12, horz: int = 4, vert: int = 3, **other: Any) -> Scan:
    """A scan that is known and nowhere."""
    about = Attributes("directory", 0, 0, 0o755, 0, 0, 0)
    fields: dict[str, Any] = {
        "path": b"dir/scan42",
        "files": 7,
        "name_bytes": 13,
        "frames": frames,
        "height": HEIGHT,
        "width": WIDTH,
        "dtype": "<u2",
        "raster": Raster(horz, vert),
        "cx": 4.25,
        "cy": 5.5,
        "geometry": Geometry(1.5, 0.1, 75e-6),
    }
    return Scan(version="v1", attributes=about, **(fields | other))


def result_of(path: str, scan: Scan) -> Result:
    """What a path within the scan means."""
    node = GRAMMAR.parse([part.encode() for part in path.split("/")])
    return concrete(cast(Any, node), scan)


def files_of(scan: Scan) -> tuple[SourceFile, ...]:
    """As many as it says, with names of different lengths."""
    return tuple(
        SourceFile(b"n" * max(scan.name_bytes - number, 1), Identity(number, -number, 2**64 - 1))
        for number in range(scan.files)
    )


@dataclass
class FakeFarm:
    """Values of each frame follow from its number; says which frames were asked for."""

    asked: set[int] = field(default_factory=set)

    def at_hand(self, wanted: Wanted) -> None:
        return None

    def ahead(self, job: Job, wanted: Sequence[Wanted]) -> None: ...

    def drop(self, job: Job) -> None: ...

    async def values(self, job: Job, wanted: Sequence[Wanted]) -> list[PatchValues | PatternValues]:
        await trio.lowlevel.checkpoint()
        return [self._value(one) for one in wanted]

    def _value(self, one: Wanted) -> PatchValues | PatternValues:
        frames = range(one.frames.first, one.frames.first + one.frames.count)
        self.asked.update(frames)
        status = np.zeros(len(frames), np.uint8)
        if not one.per_frame:
            layer = np.arange(math.prod(one.shape[1:])).reshape(one.shape[1:]) + frames[0]
            return PatternValues(status, tuple(layer.astype(np.uint16) for _ in range(3)))
        values = [values_of(frame, one.shape[1:], one.dtype) for frame in frames]
        return PatchValues(status, np.stack(values))


def values_of(frame: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Of one frame: different for each, and fit for every `finish`."""
    size = math.prod(shape)
    numbers = np.arange(size) % 50 + 7 * frame + 1
    if shape == (6,):  # moments, of a few pixels
        numbers = np.array([10, 30 + frame, 40, 100 + 3 * frame, 120 + frame, 170]) + frame % 3
    return numbers.astype(dtype).reshape(shape)


class FakeLocator:
    """Every frame is somewhere."""

    async def slices(self, scan: Scan, patches: list[Patch]) -> list[FrameSlice]:
        return [FrameSlice(patch.first, patch.count, ()) for patch in patches]

    async def portion(self, scan: Scan, runs: list[Patch]) -> FrameSlice:
        return FrameSlice(runs[0].first, runs[-1].first + runs[-1].count - runs[0].first, ())

    async def files(self, scan: Scan) -> tuple[SourceFile, ...]:
        return files_of(scan)

    def forget(self, scan: Scan) -> None: ...


class FakeStore:
    """Keeps nothing."""

    def get(self, key: bytes) -> None: ...

    def put(self, key: bytes, value: bytes) -> None: ...


def file_of(result: Result, farm: FakeFarm) -> ResultFile:
    """The result as a file."""
    shell = shell_of(result)
    parts = cast(Farm, farm), cast(Locator, FakeLocator())
    kind = "frame" if result.analysis is None else result.analysis.result
    if kind == "pattern":
        return PatternFile("a path", result, shell, *parts, cast(Store, FakeStore()))
    made = CompositeFile if kind == "image" else MapFile
    return made("a path", result, shell, *parts)


async def read_all(path: str, scan: Scan) -> bytes:
    """All of a file, which is as long as it says."""
    result = result_of(path, scan)
    data = await file_of(result, FakeFarm()).read(0, 1 << 40)
    assert len(data) == shell_of(result).size
    return data


async def array_in(path: str, scan: Scan) -> NDArray[Any]:
    """The array of a npy."""
    array: NDArray[Any] = np.load(io.BytesIO(await read_all(path, scan)))
    return array


def matlab(data: bytes) -> dict[str, NDArray[Any]]:
    """The variables in a mat."""
    found: dict[str, NDArray[Any]] = scipy.io.loadmat(io.BytesIO(data))
    return {name: value for name, value in found.items() if not name.startswith("__")}


RESULTS = tuple(ANALYSES)

"""Files of frames to measure with: generated ones, and real ones where they are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import hdf5plugin  # noqa: F401  registers its filters
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from analysis.analyses import ANALYSES
from analysis.codec import Codec, Filter
from analysis.definition import Settings
from analysis.plan import Geometry, Plan, pack_mask
from analysis.planning import plan_for
from tools.eiger_files import DATASET
from tools.scan_maker import make_scan

REAL_FILE = Path(__file__).resolve().parents[3] / "shared" / "data" / "vac_007_data_000001.h5"
"""Two frames of an Eiger2 XE 9M; its geometry was published with it."""
REAL_SETTINGS = Settings(
    cx=2449.94,
    cy=823.25,
    geometry=Geometry(distance_m=3.66869, wavelength_nm=0.10332, pixel_m=75e-6),
)


TITLES = {"bitshuffle": "bitshuffle-LZ4", "lz4": "LZ4", "none": "no filter"}


@dataclass(frozen=True, slots=True)
class Source:
    """A data file, opened for reading chunks as a peer does: by offset and length."""

    title: str
    path: Path
    codec: Codec
    chunks: tuple[tuple[int, int], ...]
    """Of each frame: offset in the file and length, bytes."""
    fd: int
    invalid: NDArray[np.bool_]
    """The detector's mask (height, width), True where a pixel does not count."""
    settings: Settings
    """Beam centre and geometry."""

    @property
    def chunk_bytes(self) -> float:
        """Mean size of a chunk."""
        return sum(length for _, length in self.chunks) / len(self.chunks)

    def plan(self, analysis: str) -> Plan:
        """The pass that an analysis of all of the detector needs."""
        mask = pack_mask(self.invalid)
        codec, chosen = self.codec, ANALYSES[analysis]
        defaults = dict(chosen.defaults)
        own = tuple((one.name, float(defaults[one.name])) for one in chosen.own)
        settings = replace(self.settings, extra=own)
        return plan_for(chosen, settings, codec.height, codec.width, codec.dtype, mask)


@contextmanager
def opened(
    title: str, path: Path, invalid: NDArray[np.bool_] | None, settings: Settings
) -> Iterator[Source]:
    """The frames of the dataset of a data file, read once so that they are in the page cache."""
    with h5py.File(path, "r") as file:
        dataset = file[DATASET]
        stages = dataset.id.get_create_plist()
        filters = [stages.get_filter(i) for i in range(stages.get_nfilters())]
        used = tuple(Filter(number, tuple(options)) for number, _, options, _ in filters)
        codec = Codec(dataset.shape[1], dataset.shape[2], dataset.dtype.str, used)
        infos: list[Any] = []
        dataset.id.chunk_iter(infos.append)
    infos.sort(key=lambda info: info.chunk_offset)
    chunks = tuple((int(info.byte_offset), int(info.size)) for info in infos)
    fd = os.open(path, os.O_RDONLY)
    try:
        for offset, length in chunks:
            os.pread(fd, length, offset)
        nothing = np.zeros(codec.shape, np.bool_)
        yield Source(
            title, path, codec, chunks, fd, nothing if invalid is None else invalid, settings
        )
    finally:
        os.close(fd)


@contextmanager
def generated(
    directory: Path, dtype: Literal["uint16", "uint32"], codec: str, *, frames: int = 64
) -> Iterator[Source]:
    """A scan of an Eiger 4M as `make_scan` makes it, in a single data file."""
    name = f"{dtype}_{codec}"
    made = make_scan(
        directory, name=name, frames=frames, detector="eiger4m", dtype=dtype, codec=codec
    )
    beam = made.geometry
    settings = Settings(
        cx=beam.cx,
        cy=beam.cy,
        geometry=Geometry(beam.distance_m, beam.wavelength_nm, beam.pixel_m),
    )
    try:
        title = f"Eiger 4M, generated, {dtype}, {TITLES[codec]}"
        with opened(title, made.data_files[0], made.mask, settings) as source:
            yield source
    finally:
        for path in made.data_files:
            path.unlink()


@contextmanager
def real() -> Iterator[Source]:
    """The real frames. FileNotFoundError where they are not."""
    with opened(
        "Eiger2 9M, real, uint32, bitshuffle-LZ4", REAL_FILE, None, REAL_SETTINGS
    ) as source:
        yield source

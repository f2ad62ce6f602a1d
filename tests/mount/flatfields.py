"""Masters with a flat field."""

from __future__ import annotations

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import NDArray

from tools.scan_maker import ScanMade

PLACE = "/entry/instrument/detector/detectorSpecific/flatfield"


def give_flatfield(
    made: ScanMade, *, applied: int | None = 0, chunks: tuple[int, int] | None = None
) -> NDArray[np.float64]:
    """Write one, a few of its factors of no use, into the master of a scan; the factors."""
    factors = np.random.default_rng(1).uniform(0.8, 1.2, made.detector.shape).astype("<f4")
    factors[100, 100:110] = np.nan
    factors[101, 100:110] = 0
    assert made.master is not None
    with h5py.File(made.master, "r+") as file:
        filters = {} if chunks is None else {"chunks": chunks, **hdf5plugin.Bitshuffle()}
        file.create_dataset(PLACE, data=factors, **filters)
        detector = file["entry/instrument/detector"]
        if applied is not None:
            detector.pop("flatfield_correction_applied", None)
            detector["flatfield_correction_applied"] = np.int32(applied)
    return factors.astype(np.float64)


def damage_tile(made: ScanMade) -> None:
    """Overwrite the middle of the first chunk of the flat field."""
    assert made.master is not None
    with h5py.File(made.master) as file:
        info = file[PLACE].id.get_chunk_info(0)
    with made.master.open("r+b") as raw:
        raw.seek(info.byte_offset + info.size // 3)
        raw.write(b"\xff" * (info.size // 2))


def usable(factors: NDArray[np.float64]) -> NDArray[np.float64]:
    """The factors, 0 where they are of no use."""
    return np.where(np.isfinite(factors) & (factors > 0), factors, 0)

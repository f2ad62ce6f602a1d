"""Small raw files for the tests of scans, sound or odd in one way."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import NDArray

from dadafs.scans.catalog import Catalog
from dadafs.scans.formats.decode import decode
from dadafs.scans.frames.slices import chunks
from dadafs.scans.model import FrameSlice
from dadafs.scans.tree import RawTree

SHAPE = (6, 5)
DATASET = "/entry/data/data"
DETECTOR = "/entry/instrument/detector/"
SPECIFIC = DETECTOR + "detectorSpecific/"
BITSHUFFLE: Mapping[str, Any] = hdf5plugin.Bitshuffle(cname="lz4")
DEFAULTS: Mapping[str, Any] = {
    SPECIFIC + "nimages": 10,
    SPECIFIC + "ntrigger": 1,
    SPECIFIC + "x_pixels_in_detector": SHAPE[1],
    SPECIFIC + "y_pixels_in_detector": SHAPE[0],
    SPECIFIC + "photon_energy": 12398.4198,
    DETECTOR + "bit_depth_image": 16,
    DETECTOR + "beam_center_x": 2.25,
    DETECTOR + "beam_center_y": 3.5,
    DETECTOR + "detector_distance": 2.0,
    DETECTOR + "x_pixel_size": 75e-6,
    DETECTOR + "y_pixel_size": 75e-6,
    DETECTOR + "count_time": 0.02,
    DETECTOR + "description": "Eiger of 5 x 6",
}


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def frames_from(first: int, count: int, shape: tuple[int, int] = SHAPE) -> NDArray[np.uint16]:
    """Frames `[first, first + count)` of a scan in which every pixel tells its frame."""
    pixels = np.arange(shape[0] * shape[1], dtype=np.uint16).reshape(shape)
    return (pixels + 100 * np.arange(first, first + count, dtype=np.uint16)[:, None, None]).astype(
        np.uint16
    )


def write_data(
    path: Path,
    frames: NDArray[Any],
    *,
    low: int | None = None,
    dataset: str = DATASET,
    options: Mapping[str, Any] = BITSHUFFLE,
    missing: Sequence[int] = (),
    **file_options: Any,
) -> None:
    """A data file; the chunks of the frames `missing` are never written."""
    with h5py.File(path, "w", **file_options) as file:
        made = file.create_dataset(
            dataset,
            frames.shape,
            frames.dtype,
            chunks=(1, *frames.shape[1:]),
            maxshape=(None, *frames.shape[1:]),
            **options,
        )
        for number, frame in enumerate(frames):
            if number not in missing:
                made[number] = frame
        if low is not None:
            made.attrs["image_nr_low"] = np.int64(low)
            made.attrs["image_nr_high"] = np.int64(low + len(frames) - 1)


def write_master(
    path: Path, links: Sequence[str] = (), mask: NDArray[Any] | None = None, **facts: Any
) -> None:
    """A master with `DEFAULTS`, changed by `facts`, last names of paths; None leaves one out."""
    by_name = {key.rsplit("/", 1)[1]: key for key in DEFAULTS}
    values = {**DEFAULTS, **{by_name[name]: value for name, value in facts.items()}}
    with h5py.File(path, "w") as file:
        group = file.create_group("/entry/data")
        for number, link in enumerate(links, 1):
            group[f"data_{number:06}"] = h5py.ExternalLink(link, DATASET)
        for key, value in values.items():
            if isinstance(value, tuple):
                file[key] = value[0]
                file[key].attrs["units"] = value[1]
            elif value is not None:
                file[key] = value
        if mask is not None:
            file.create_dataset(SPECIFIC + "pixel_mask", data=mask, **BITSHUFFLE)


def write_scan(
    directory: Path,
    name: str = "scan42",
    *,
    counts: Sequence[int | None] = (4, 4, 2),
    low: bool = True,
    announced: int = 10,
    **facts: Any,
) -> None:
    """A master and data files with so many frames each; None for a file that is missing."""
    links = [f"{name}_data_{number:06}.h5" for number in range(1, len(counts) + 1)]
    first = 0
    usual = next((count for count in counts if count), 0)
    for link, count in zip(links, counts, strict=True):
        if count is not None:
            start = first + 1 if low else None
            write_data(directory / link, frames_from(first, count), low=start)
        first += usual if count is None else count
    write_master(directory / f"{name}_master.h5", links, nimages=announced, **facts)


def rewrite(path: Path, **how: Any) -> None:
    """Put other content in place of a file, with another identity."""
    before = path.stat()
    write_data(path, **how)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000_000))


def read_slice(tree: RawTree, found: FrameSlice) -> dict[int, NDArray[Any]]:
    """Every frame that a slice leads to."""
    frames = {}
    for run in found.runs:
        fd = tree.open(run.path)
        try:
            for number, offset, length in chunks(run):
                assert number not in frames
                frames[number] = decode(os.pread(fd, length, offset), run.codec)
        finally:
            os.close(fd)
    return frames


def assert_frames(
    tree: RawTree, catalog: Catalog, path: bytes, expected: Sequence[int], total: int
) -> None:
    """The scan has `total` frames; exactly the `expected` are there, each in its place."""
    assert catalog.scan(path).frames == total
    frames = read_slice(tree, catalog.slice(path, 0, total))
    assert sorted(frames) == sorted(expected)
    for number, frame in frames.items():
        np.testing.assert_array_equal(frame, frames_from(number, 1)[0])

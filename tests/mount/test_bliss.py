"""Datasets of BLISS, mounted: frames that LImA wrote, the raster that the dataset's file tells."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from blissfiles import write_camera, write_entry, write_lima
from mounting import Site, contents, until
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from scanfiles import SHAPE

pytestmark = pytest.mark.mount

HORZ, VERT, PER_FILE = 5, 4, 6
POINTS = HORZ * VERT
TITLE = f"amesh nnp2 10 12 {HORZ - 1} nnp3 -2 -0.5 {VERT - 1} 0.02"
EMPTY = 65535


def counts() -> NDArray[np.uint16]:
    """Frames with a pixel that was not measured in every second one."""
    frames = np.random.default_rng(5).poisson(9.0, (POINTS, *SHAPE)).astype(np.uint16)
    frames[1::2, 2, 3] = EMPTY
    return frames


def sums(frames: NDArray[np.uint16]) -> NDArray[np.int64]:
    """Of the valid pixels of each frame."""
    valid: NDArray[np.int64] = np.where(frames != EMPTY, frames, 0).sum((1, 2), dtype=np.int64)
    return valid


def folded(values: NDArray[Any]) -> NDArray[np.float64]:
    """Values of points, in the order of time, as (line, point, ...): every second line turns."""
    out = values.reshape(VERT, HORZ, *values.shape[1:]).astype(np.float64)
    out[1::2] = out[1::2, ::-1].copy()
    return out


def positions(points: int = POINTS) -> dict[str, NDArray[Any]]:
    """Of motors that go back and forth."""
    fast = np.tile(10 + 0.5 * np.arange(HORZ), (VERT, 1))
    fast[1::2] = fast[1::2, ::-1].copy()
    slow = np.repeat(-2 + 0.5 * np.arange(VERT), HORZ)
    return {"nnp2": fast.ravel()[:points], "nnp3": slow[:points]}


def told(site: Site, scan: str) -> Any:
    return json.loads(contents(site.mnt / scan / "scan.json"))


def test_a_dataset(shared: Site) -> None:
    """Numbers are those that h5py reads through the virtual dataset of the dataset's file."""
    dataset = shared.raw / "bliss/s_0001/s_0001.h5"
    files = write_camera(dataset.parent / "scan0002", counts(), PER_FILE)
    ct34 = np.random.default_rng(6).uniform(900, 1100, POINTS)
    write_entry(dataset, "1.1", "ct 1")
    write_entry(
        dataset,
        "2.1",
        TITLE,
        frames=files,
        positions=positions(),
        units="um",
        counters={"ct34": ct34},
    )
    scan = "bliss/s_0001/scan0002/eiger"
    with h5py.File(dataset) as file:
        frames = file["2.1/measurement/eiger"][:POINTS]
    assert_array_equal(frames, counts())

    assert sorted(os.listdir(shared.mnt / "bliss/s_0001")) == ["s_0001.h5", "scan0002"]
    assert os.listdir(shared.mnt / "bliss/s_0001/scan0002") == ["eiger"]
    darkfield = shared.load(f"{scan}/darkfield/full.npy")
    assert_array_equal(darkfield, folded(sums(frames)))

    rows, columns = np.indices(SHAPE)
    sector = np.degrees(np.arctan2(2.25 - rows, columns - 1.75)) % 360 // 90
    valid = frames != EMPTY
    each = np.where(valid, frames, 0).astype(np.int64)
    total = np.stack([each[:, sector == one].sum(1) for one in range(4)], axis=1)
    pixels = np.stack([valid[:, sector == one].sum(1) for one in range(4)], axis=1)
    profiles = [folded(one) for one in (total / pixels, np.sqrt(total) / pixels, pixels)]
    found = shared.load(f"{scan}/azimuthal/cx=1.75/cy=2.25/bins=4.npy")
    assert_array_equal(found, np.stack(profiles))

    normed = shared.load(f"{scan}/darkfield/norm=ct34.npy")
    assert_allclose(normed, folded(sums(frames) * (ct34.mean() / ct34)), rtol=1e-14)

    said = told(shared, scan)
    source = f"bliss/s_0001/s_0001.h5 /2.1: {TITLE}"
    raster = {"horz": HORZ, "vert": VERT, "order": "snake", "source": source}
    assert said["raster"].items() >= raster.items()
    assert said["sources"]["raster"] == source
    assert said["sources"]["command"] == "bliss/s_0001/s_0001.h5 /2.1"
    detector = "/entry_0000/ESRF-ID13/eiger/detector_information/"
    assert said["sources"]["pixel_m"] == f"{detector}pixel_size/xsize"
    assert [(one["motor"], one["start"], one["end"], one["unit"]) for one in said["axes"]] == [
        ("nnp2", 10.0, 12.0, "um"),
        ("nnp3", -2.0, -0.5, "um"),
    ]
    assert (said["problems"], said["complete"]) == ([], True)
    with h5py.File(shared.mnt / scan / "darkfield/full.h5") as file:
        point = file["entry/result/point"]
        assert point.attrs["long_name"] == "nnp2 (um)"
        assert_allclose(point[()], 10 + 0.5 * np.arange(HORZ))

    assert sorted(os.listdir(shared.mnt / scan / "raw")) == [one.name for one in files]
    for one in files:
        assert contents(shared.mnt / scan / "raw" / one.name) == one.read_bytes()
    assert contents(shared.mnt / "bliss/s_0001/s_0001.h5") == dataset.read_bytes()


def test_an_aborted_scan(shared: Site) -> None:
    """The raster is that of the command; what was not recorded is NaN."""
    dataset = shared.raw / "aborted/s_0001/s_0001.h5"
    done = 13
    files = write_camera(dataset.parent / "scan0001", counts()[:done], PER_FILE, announced=POINTS)
    ct34 = np.full(done, 1000.0)
    write_entry(
        dataset, "1.1", TITLE, frames=files, positions=positions(done), counters={"ct34": ct34}
    )
    scan = "aborted/s_0001/scan0001/eiger"
    expected = np.full(POINTS, np.nan)
    expected[:done] = sums(counts()[:done])
    assert_array_equal(shared.load(f"{scan}/darkfield/full.npy"), folded(expected))
    assert_allclose(shared.load(f"{scan}/darkfield/norm=ct34.npy"), folded(expected))
    said = told(shared, scan)
    assert (said["raster"]["horz"], said["raster"]["vert"]) == (HORZ, VERT)
    assert [(one["motor"], one["end"]) for one in said["axes"]] == [("nnp2", 12.0), ("nnp3", -0.5)]
    assert said["complete"] is False
    assert said["problems"] == ["1 of 4 data files are missing: eiger_0003.h5"]


def test_a_scan_that_grows(own: Site) -> None:
    """Every reader sees NaN or what is right, in the raster of the command from the beginning."""
    dataset = own.raw / "s_0001/s_0001.h5"
    directory = dataset.parent / "scan0001"
    directory.mkdir(parents=True)
    expected = folded(sums(counts()))
    path = own.mnt / "s_0001/scan0001/eiger/darkfield/full.npy"

    def record(number: int) -> Path:
        first = number * PER_FILE
        file = directory / f"eiger_{number:04}.h5"
        part = counts()[first : first + PER_FILE]
        write_lima(own.base / file.name, part, announced=POINTS, allocated=PER_FILE)
        os.rename(own.base / file.name, file)
        return file

    def shown(points: int) -> bool:
        """Whether just the first of the points are there; those that are, are right."""
        try:
            found = own.load("s_0001/scan0001/eiger/darkfield/full.npy")
        except OSError:  # ESTALE: another version of the scan is there
            return False
        there = ~np.isnan(found)
        return found.shape == (VERT, HORZ) and bool(
            (found[there] == expected[there]).all() and there.sum() == points
        )

    write_entry(dataset, "1.1", TITLE, positions=positions(PER_FILE + 2), ended=False)
    record(0)
    until(path.exists, "the scan appears")
    until(lambda: shown(PER_FILE), "the first file is there")
    before = path.stat().st_mtime_ns
    record(1)
    until(lambda: shown(2 * PER_FILE), "the second file is there")
    until(lambda: path.stat().st_mtime_ns > before, "its mtime is later", 2.0)
    files = [directory / "eiger_0000.h5", directory / "eiger_0001.h5", record(2), record(3)]
    dataset.unlink()
    write_entry(dataset, "1.1", TITLE, frames=files, positions=positions())
    until(lambda: shown(POINTS), "all files are there")
    assert_array_equal(own.load("s_0001/scan0001/eiger/darkfield/full.npy"), expected)

    def ended() -> bool:
        said = told(own, "s_0001/scan0001/eiger")
        return bool(said["complete"]) and len(said["axes"]) == 2 and said["problems"] == []

    until(ended, "the scan has ended")

"""Metadata beside scans, single images and growing scans, through a real mount."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import plain
import pytest
import tifffile
from mounting import Site, forget_pages, half_recorded, load, until
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from tools.eiger_files import write_data_file
from tools.scan_maker import make_scan

pytestmark = pytest.mark.mount

MESH = "#F x\n\n#S 42 mesh stx 0 10 9 sty 0 4 4 0.02\n#L stx\n0\n"


def about(site: Site, scan: str) -> dict[str, object]:
    found: dict[str, object] = json.loads((site.mnt / scan / "scan.json").read_text())
    return found


def refused(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        path.stat()


def known(path: Path, count: int) -> NDArray[Any]:
    """The map, when so many of its points are known."""

    def look() -> list[NDArray[Any]]:
        found = load(path)
        return [found] if np.count_nonzero(~np.isnan(found)) == count else []

    return until(look, f"{count} frames are seen")[0]


def test_spec_file_gives_the_raster(shared: Site) -> None:
    base = shared.raw / "p10/detectors/eiger/new"
    made = make_scan(base, name="new_00042", horz=10, vert=5, frames=43)
    (shared.raw / "p10/new.dat").write_text(MESH)
    scan = "p10/detectors/eiger/new/new_00042"
    found = shared.load(f"{scan}/darkfield/full.npy")
    assert_array_equal(found, plain.folded(plain.counts(made), 10, 5))
    raster = about(shared, scan)["raster"]
    assert raster == {
        "horz": 10,
        "vert": 5,
        "order": "raster",
        "first": 0,
        "source": "p10/new.dat #S 42: mesh stx 0 10 9 sty 0 4 4 0.02",
    }
    axes = about(shared, scan)["axes"]
    assert [axis["motor"] for axis in axes] == ["stx", "sty"]  # type: ignore[attr-defined]


def test_geometry_toml_is_followed(shared: Site) -> None:
    directory = shared.raw / "geo"
    made = make_scan(directory, name="g", horz=6, vert=4)
    toml = directory / "geometry.toml"
    before = shared.load("geo/g/dpc/full.npy")
    assert before.shape == (2, 1, 24)
    toml.write_text("[raster]\nhorz = 6\n[geometry]\ncx = 10.0\ncy = 12.0\n")

    def changed() -> bool:
        return about(shared, "geo/g")["beam_centre"] == {"column": 10.0, "row": 12.0}

    until(changed, "the beam centre is the user's")
    after = until(
        lambda: [a for a in [load(shared.mnt / "geo/g/dpc/full.npy")] if a.shape == (2, 4, 6)],
        "the raster is the user's",
    )[0]
    shift = made.geometry.cx - 10.0
    np.testing.assert_allclose(after[0].ravel() - before[0].ravel(), shift, atol=1e-4)
    assert (shared.mnt / "geo/g/dpc/full.npy").stat().st_mtime_ns >= toml.stat().st_mtime_ns

    toml.write_text("[geometry]\ncx = 10.0\ncentre_y = 12.0\n")
    until(lambda: about(shared, "geo/g")["problems"], "the refusal is told")
    line = "geo/geometry.toml is not used: unknown key centre_y in [geometry]"
    assert line in (shared.mnt / "geo/g/README.txt").read_text()
    path = shared.mnt / "geo/g/darkfield/qmin=0.1.npy"
    until(lambda: not path.exists(), "q is not known")
    refused(path)
    refused(shared.mnt / "geo/g/dpc/full.npy")
    assert line in shared.run("explain", path).stdout + shared.run("explain", path).stderr
    assert shared.load("geo/g/darkfield/horz=6.npy").shape == (4, 6)  # needs neither


def test_a_contradiction_gives_no_axis(shared: Site) -> None:
    made = make_scan(shared.raw / "odd", name="o", horz=4, vert=2)
    assert made.master is not None
    with h5py.File(made.master, "a") as file:
        wavelength = file["/entry/instrument/beam/incident_wavelength"]
        wavelength[...] = 2 * wavelength[()]
    path = shared.mnt / "odd/o/radial/qmin=0.01/bins=4.npy"
    refused(path)
    said = shared.run("explain", path)
    assert "contradict each other" in said.stdout + said.stderr
    assert shared.load("odd/o/radial/rmin=2/bins=4.npy").shape[-1] == 4


def test_single_images(shared: Site) -> None:
    made = make_scan(shared.raw / "source", name="s", horz=5, vert=4)
    directory = shared.raw / "single"
    directory.mkdir()
    for number, which in enumerate(made.which):
        tifffile.imwrite(directory / f"t_{number:05}.tif", made.frames[which])
    assert os.listdir(shared.mnt / "single") == ["t"]
    (directory / "geometry.toml").write_text("[raster]\nhorz = 5")

    def settled() -> bool:
        return shared.load("single/t/darkfield/full.npy").shape == (4, 5)

    until(settled, "the raster is known")
    good = made.frames != np.iinfo(made.frames.dtype).max  # there is no mask here
    sums = np.where(good, made.frames, 0).sum((1, 2), dtype=np.int64)[made.which]
    assert_array_equal(shared.load("single/t/darkfield/full.npy"), sums.reshape(4, 5))
    assert_array_equal(shared.load("single/t/frames/000007.npy"), made.frames[made.which[7]])
    assert len(os.listdir(shared.mnt / "single/t/raw")) == 20


def test_frames_that_appear_in_one_file(own: Site) -> None:
    truth = make_scan(own.base / "made", name="f", horz=8, vert=4, unique=32, master=False)
    frames = truth.frames[truth.which]
    target = own.raw / "f_data_000001.h5"
    for count in (5, 17, 32):
        write_data_file(own.base / "part.h5", frames[:count])
        os.replace(own.base / "part.h5", target)
        found = known(own.mnt / "f/darkfield/horz=8/vert=4.npy", count)
        values = np.where(frames == np.iinfo(frames.dtype).max, 0, frames)[:count]
        sums = values.sum((1, 2), dtype=np.int64)
        assert_array_equal(found.ravel()[:count], sums)


def test_nothing_old_is_read_once_somebody_has_seen_the_new(own: Site) -> None:
    """All readers share the kernel's cache. Texts are not cached and stay readable."""
    truth, target = half_recorded(own)
    path = own.mnt / "s/s/darkfield/horz=8.npy"
    known(path, 16)
    with path.open("rb", buffering=0) as old, (own.mnt / "s/s/scan.json").open("rb", 0) as text:
        os.link(truth.data_files[1], target / truth.data_files[1].name)
        known(path, 32)
        until(lambda: about(own, "s/s")["complete"], "scan.json follows")
        forget_pages(path)
        with pytest.raises(OSError, match="Stale"):
            os.pread(old.fileno(), 1 << 16, 0)
        assert json.loads(text.read())["complete"] is False
    assert "has changed since it was opened" in own.errors()
    assert_array_equal(own.load("s/s/darkfield/horz=8.npy"), truth.sums.reshape(4, 8))

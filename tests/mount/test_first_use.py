"""A first look at a mount: every kind of file says what numpy says."""

from __future__ import annotations

import io
import json
import subprocess
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  registers its filters
import numpy as np
import plain
import pytest
import tifffile
from mounting import Site, contents, load
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from analysis.analyses import (
    ANALYSES,
    average,
    azimuthal,
    composite,
    dpc,
    max,
    orientation,
    radial,
    sum,
)
from analysis.definition import Settings
from analysis.plan import Geometry, Roi
from tools.scan_maker import CODECS, ScanMade, make_scan

pytestmark = pytest.mark.mount

EXACT = 1e-12


def pages(data: bytes) -> NDArray[Any]:
    array: NDArray[Any] = tifffile.imread(io.BytesIO(data))
    return array


def test_ls_shows_scans_as_directories_of_analyses(shared: Site, raster: ScanMade) -> None:
    top = subprocess.run(["ls", "-l", shared.mnt], capture_output=True, text=True, check=True)
    kinds = {line.split()[-1]: line[0] for line in top.stdout.splitlines()[1:]}
    assert (kinds["raster"], kinds["README.txt"]) == ("d", "-")
    inside = subprocess.run(
        ["ls", "-l", shared.mnt / "raster"], capture_output=True, text=True, check=True
    )
    listed = {line.split()[-1] for line in inside.stdout.splitlines()[1:]}
    assert listed == {"README.txt", "scan.json", "raw", "frames", *ANALYSES}


def test_readme_at_every_level(shared: Site, raster: ScanMade) -> None:
    scan = shared.mnt / "raster"
    below = [scan / name / "README.txt" for name in ("frames", *ANALYSES)]
    deep = scan / "darkfield/horz=13/vert=11/roi=0,0,9,9/README.txt"
    for path in (shared.mnt / "README.txt", scan / "README.txt", *below, deep):
        text = contents(path).decode()
        assert text.strip(), path
        if path.parent.name in ANALYSES:
            assert ANALYSES[path.parent.name].definition in text
    assert "143 frames of 120 x 128 pixels" in contents(scan / "README.txt").decode()


def test_scan_json_tells_what_the_master_says(shared: Site, raster: ScanMade) -> None:
    about = json.loads(contents(shared.mnt / "raster/scan.json"))
    assert about["frames"] == about["frames_present"] == 143
    assert about["complete"] is True
    assert about["detector"] == {"height": 128, "width": 120, "dtype": "<u2"}
    assert [file["frames"] for file in about["files"]] == [50, 50, 43]
    truth = raster.geometry
    assert about["beam_centre"] == {"column": truth.cx, "row": truth.cy}
    assert_allclose(about["geometry"]["distance_m"], truth.distance_m, rtol=1e-6)
    assert_allclose(about["geometry"]["wavelength_nm"], truth.wavelength_nm, rtol=1e-6)
    assert about["problems"] == []


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("dtype", ["uint16", "uint32"])
def test_darkfield_is_exact_for_every_codec(shared: Site, codec: str, dtype: Any) -> None:
    name = f"{codec}_{dtype}"  # 61 x 53 pixels end in the middle of a block
    made = make_scan(
        shared.raw, name=name, horz=4, vert=3, detector="61x53", dtype=dtype, codec=codec
    )
    result = shared.load(f"{name}/darkfield/horz=4/vert=3.npy")
    assert result.dtype == np.float64
    assert_array_equal(result, plain.folded(made.sums, 4, 3))


def test_darkfield_of_a_whole_eiger(shared: Site) -> None:
    made = make_scan(
        shared.raw, name="eiger", horz=3, vert=2, unique=3, detector="eiger4m", keep_frames=False
    )
    result = shared.load("eiger/darkfield/vert=2.npy")
    assert_array_equal(result, plain.folded(made.sums, 3, 2))


def test_snake_shows_space(shared: Site) -> None:
    made = make_scan(shared.raw, name="snake", horz=9, vert=8, order="snake")
    time = plain.folded(made.sums, 9, 8)
    space = time.copy()
    space[1::2] = time[1::2, ::-1]
    assert_array_equal(shared.load("snake/darkfield/horz=9/vert=8/order=snake.npy"), space)
    assert_array_equal(shared.load("snake/darkfield/horz=9/vert=8/order=raster.npy"), time)


@pytest.mark.parametrize(
    ("path", "horz", "vert", "first"),
    [
        ("full.npy", 143, 1, 0),
        ("horz=13.npy", 13, 11, 0),
        ("vert=11.npy", 13, 11, 0),
        ("horz=10.npy", 10, 15, 0),
        ("horz=5/vert=4.npy", 5, 4, 0),
        ("first=60/horz=7/vert=3.npy", 7, 3, 60),
        ("first=140/horz=2/vert=3.npy", 2, 3, 140),
    ],
)
def test_raster_parameters_reshape(
    shared: Site, raster: ScanMade, path: str, horz: int, vert: int, first: int
) -> None:
    result = shared.load(f"raster/darkfield/{path}")
    assert_array_equal(result, plain.folded(raster.sums, horz, vert, first))


@pytest.mark.parametrize(
    ("path", "chosen"),
    [
        ("roi=30,20,50,70/full.npy", {"roi": (30, 20, 50, 70)}),
        ("rmin=5/rmax=30.5.npy", {"rmin": 5.0, "rmax": 30.5}),
        ("rmax=20/cx=40/cy=71.25.npy", {"rmax": 20.0, "cx": 40.0, "cy": 71.25}),
        ("roi=0,0,60,60/rmin=12.5.npy", {"roi": (0, 0, 60, 60), "rmin": 12.5}),
    ],
)
def test_selections_of_pixels(
    shared: Site, raster: ScanMade, path: str, chosen: dict[str, Any]
) -> None:
    expected = plain.counts(raster, plain.selection(raster, **chosen))
    assert_array_equal(shared.load(f"raster/darkfield/{path}"), expected[None])


@pytest.mark.parametrize("name", ["darkfield", "dpc", "orientation", "radial", "sum", "average"])
def test_tif_holds_the_same_as_npy(shared: Site, raster: ScanMade, name: str) -> None:
    numbers = shared.load(f"raster/{name}/horz=13.npy")
    image = pages(contents(shared.mnt / f"raster/{name}/horz=13.tif"))
    assert image.dtype == np.float32
    assert_array_equal(image.squeeze(), numbers.astype(np.float32).squeeze())


def test_dpc(shared: Site, raster: ScanMade) -> None:
    centre = raster.geometry.cx, raster.geometry.cy
    each = plain.each(raster, lambda frame, good: dpc.reference(frame, good, *centre))
    expected = np.moveaxis(plain.folded(each, 13, 11), -1, 0)
    assert_allclose(shared.load("raster/dpc/horz=13/vert=11.npy"), expected, EXACT, EXACT)
    only = shared.load("raster/dpc/channel=y/horz=13.npy")
    assert_allclose(only, expected[1], EXACT, EXACT)


def test_orientation(shared: Site, raster: ScanMade) -> None:
    chosen = plain.selection(raster, rmin=4)
    centre = raster.geometry.cx, raster.geometry.cy
    each = plain.each(raster, lambda f, good: orientation.reference(f, good, *centre), chosen)
    expected = np.moveaxis(plain.folded(each, 13, 11), -1, 0)
    result = shared.load("raster/orientation/rmin=4/horz=13.npy")
    assert_allclose(result[1:], expected[1:], 1e-10)
    turned = (result[0] - expected[0] + 90) % 180 - 90
    assert_allclose(turned, 0, atol=1e-7)


def test_radial_in_q(shared: Site, raster: ScanMade) -> None:
    about = json.loads(contents(shared.mnt / "raster/scan.json"))["geometry"]
    settings = Settings(
        cx=raster.geometry.cx, cy=raster.geometry.cy, geometry=Geometry(**about), bins=24
    )
    each = plain.each(raster, lambda f, good: radial.reference(f, good, settings, 0.05, 0.6))
    expected = np.moveaxis(plain.folded(each, 13, 11), 2, 0)
    result = shared.load("raster/radial/qmin=0.05/qmax=0.6/bins=24/horz=13.npy")
    assert result.shape == (3, 11, 13, 24)
    assert_allclose(result, expected, EXACT)


def test_azimuthal(shared: Site, raster: ScanMade) -> None:
    chosen = plain.selection(raster, rmin=3, rmax=40)
    settings = Settings(cx=raster.geometry.cx, cy=raster.geometry.cy, bins=36)
    each = plain.each(raster, lambda f, good: azimuthal.reference(f, good, settings), chosen)
    expected = np.moveaxis(plain.folded(each, 13, 11), 2, 0)
    result = shared.load("raster/azimuthal/rmin=3/rmax=40/bins=36/horz=13.npy")
    assert_allclose(result, expected, EXACT)


@pytest.mark.parametrize("region", [None, (3, 2, 6, 5), (12, 10, 1, 1)])
def test_patterns(shared: Site, raster: ScanMade, region: Any) -> None:
    numbers = np.arange(143).reshape(11, 13)
    if region is not None:
        x, y, w, h = region
        numbers = numbers[y : y + h, x : x + w]
    which = raster.which[numbers.ravel()]
    frames, good = raster.frames[which], plain.valid(raster)[which]
    path = "horz=13" if region is None else "horz=13/region={},{},{},{}".format(*region)
    total = np.asarray(sum.reference(frames, good))
    assert_array_equal(shared.load(f"raster/sum/{path}.npy"), total)
    assert_array_equal(shared.load(f"raster/max/{path}.npy"), max.reference(frames, good))
    mean = shared.load(f"raster/average/{path}.npy")
    assert_allclose(mean, average.reference(frames, good), EXACT)
    roi = Roi(20, 50, 33, 44)
    there = shared.load(f"raster/sum/roi=20,50,33,44/{path}.npy")
    assert_array_equal(there, plain.cut(total, roi))


@pytest.mark.parametrize(
    ("path", "region", "roi", "edge"),
    [
        ("bin=8/horz=13.npy", (0, 0, 13, 11), (0, 0, 120, 128), 8),
        ("roi=40,30,50,61/bin=5/horz=13/region=2,3,4,5.npy", (2, 3, 4, 5), (40, 30, 50, 61), 5),
        ("roi=60,50,7,9/horz=13.npy", (0, 0, 13, 11), (60, 50, 7, 9), 1),
    ],
)
def test_composite(
    shared: Site, raster: ScanMade, path: str, region: Any, roi: Any, edge: int
) -> None:
    x, y, w, h = region
    area = Roi(*roi)
    tiles = [
        composite.reference(plain.cut(frame, area), plain.cut(good, area), edge)
        for frame, good in zip(raster.frames, plain.valid(raster), strict=True)
    ]
    which = raster.which.reshape(11, 13)[y : y + h, x : x + w]
    expected = np.block([[tiles[one] for one in line] for line in which])
    assert_array_equal(shared.load(f"raster/composite/{path}"), expected)


def test_frames_are_the_detectors_numbers(shared: Site, raster: ScanMade) -> None:
    for number in (0, 63, 64, 142):
        frame = raster.frames[raster.which[number]]
        stored = shared.load(f"raster/frames/{number:06}.npy")
        assert stored.dtype == np.uint16
        assert_array_equal(stored, frame)
        assert_array_equal(pages(contents(shared.mnt / f"raster/frames/{number:06}.tif")), frame)
    assert_array_equal(shared.load("raster/frames/7.npy"), raster.frames[raster.which[7]])


def test_frames_cut_and_binned(shared: Site, raster: ScanMade) -> None:
    one = raster.which[77]
    area = Roi(11, 40, 60, 50)
    frame = plain.cut(raster.frames[one], area)
    good = plain.cut(plain.valid(raster)[one], area)
    assert_array_equal(shared.load("raster/frames/roi=11,40,60,50/000077.npy"), frame)
    binned = composite.reference(frame, good, 7)
    assert_array_equal(shared.load("raster/frames/bin=7/roi=11,40,60,50/000077.npy"), binned)
    image = contents(shared.mnt / "raster/frames/roi=11,40,60,50/bin=7/000077.tif")
    assert_array_equal(pages(image), binned.astype(np.float32))


def test_raw_files_are_byte_for_byte(shared: Site, raster: ScanMade) -> None:
    assert raster.master is not None
    raw = shared.mnt / "raster/raw"
    assert sorted(p.name for p in raw.iterdir()) == sorted(
        path.name for path in (raster.master, *raster.data_files)
    )
    for path in (raster.master, *raster.data_files):
        assert contents(raw / path.name) == path.read_bytes()


def test_h5py_reads_the_mounted_master_and_its_links(shared: Site, raster: ScanMade) -> None:
    assert raster.master is not None
    with h5py.File(shared.mnt / "raster/raw" / raster.master.name, "r") as file:
        for number, first in ((1, 0), (2, 50), (3, 100)):
            frame = file[f"/entry/data/data_{number:06}"][7]
            assert_array_equal(frame, raster.frames[raster.which[first + 7]])


def test_a_lone_data_file_is_a_scan(shared: Site) -> None:
    made = make_scan(shared.raw, name="masterless", horz=5, vert=4, master=False)
    expected = [frame[frame != 65535].sum(dtype=np.int64) for frame in made.frames]
    result = load(shared.mnt / "masterless/darkfield/full.npy")
    assert_array_equal(result, np.array(expected, float)[made.which][None])

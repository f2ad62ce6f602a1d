"""What programs' own libraries read from each container is the array of the npy."""

from __future__ import annotations

import io
from typing import Any

import h5py
import numpy as np
import pytest
import trio
from fakefarm import array_in, files_of, matlab, read_all, result_of, scan_of
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from dadafs.containers.base import Content
from dadafs.containers.csv import HEADER_LINES, shell
from dadafs.requests import concrete
from dadafs.scans.model import Axis

SCAN = scan_of(10, 4, 3)  # two points beyond the last frame: NaN
STEMS = [
    "darkfield/full",
    "dpc/full",
    "orientation/channel=angle/full",
    "radial/bins=3/full",
    "azimuthal/bins=5/channel=intensity/full",
    "sum/full",
    "average/roi=1,2,5,3/full",
    "composite/bin=2/full",
    "frames/000003",
    "frames/bin=3/000007",
]


def both(stem: str, extension: str) -> tuple[NDArray[Any], bytes, Content]:
    """The array of the npy, the file, and its content."""

    async def read() -> tuple[NDArray[Any], bytes]:
        return await array_in(f"{stem}.npy", SCAN), await read_all(f"{stem}.{extension}", SCAN)

    return *trio.run(read), result_of(f"{stem}.{extension}", SCAN).content


@pytest.mark.parametrize("stem", STEMS)
def test_h5py_finds_the_default_plot(stem: str) -> None:
    array, data, content = both(stem, "h5")
    with h5py.File(io.BytesIO(data), "r") as file:
        entry = file[file.attrs["default"]]
        result = entry[entry.attrs["default"]]
        assert result.attrs["NX_class"] == "NXdata"
        names = [result.attrs["signal"], *result.attrs.get("auxiliary_signals", [])]
        read = np.array([result[name][()] for name in names])
        assert_array_equal(read.reshape(content.shape), array)
        assert read.dtype == array.dtype
        for axis, length in zip(result.attrs["axes"], read.shape[1:], strict=True):
            assert result[axis].shape == (length,)
        assert result[names[0]].attrs["units"] == content.unit


def test_h5_tells_where_it_comes_from() -> None:
    _, data, _ = both("radial/bins=4/qmin=0.01/rmax=5/roi=0,0,8,9/full", "h5")
    with h5py.File(io.BytesIO(data), "r") as file:
        process = file["entry/process"]
        assert process.attrs["NX_class"] == "NXprocess"
        assert process["program"][()] == b"dadafs"
        assert process["scan"][()] == b"dir/scan42"
        assert process["analysis"][()] == b"radial"
        assert b"mean of the counts" in process["definition"][()]
        found = {name: one[()] for name, one in process["parameters"].items()}
        assert found == {
            "horz": 4,
            "vert": 3,
            "first": 0,
            "order": b"raster",
            "roi": b"0,0,8,9",
            "cx": 4.25,
            "cy": 5.5,
            "rmax": 5.0,
            "qmin": 0.01,
            "bins": 4,
            "distance_m": 1.5,
            "wavelength_nm": 0.1,
            "pixel_m": 75e-6,
        }
        assert process["parameters/qmin"].attrs["units"] == "1/nm"


def test_h5_tells_files_and_frames() -> None:
    scan = scan_of(10, 4, 3, files=3, name_bytes=5)
    data = trio.run(read_all, "sum/region=1,1,2,2.h5", scan)
    with h5py.File(io.BytesIO(data), "r") as file:
        process = file["entry/process"]
        files = {name: column[()].tolist() for name, column in process["files"].items()}
        of = files_of(scan)
        assert files == {
            "name": [one.name for one in of],
            "size_bytes": [one.identity.size for one in of],
            "mtime_ns": [one.identity.mtime_ns for one in of],
            "inode": [one.identity.inode for one in of],
        }
        status = process["frame_status"]
        assert status.attrs["first_frame"] == 4  # of the second line
        assert status[()].tolist() == [255, 0, 0, 255, 255, 0]
        assert "background_frame_status" not in process
    data = trio.run(read_all, "composite/horz=4/vert=4/region=0,3,4,1.h5", scan)
    with h5py.File(io.BytesIO(data), "r") as file:  # beyond the last frame
        assert file["entry/process/frame_status"][()].tolist() == []


def test_equal_results_are_equal_files() -> None:
    for extension in ("h5", "mat", "csv", "png"):
        _, first, _ = both("dpc/channel=x/full", extension)
        _, again, _ = both("dpc/channel=x/full", extension)
        assert first == again


@pytest.mark.parametrize("geometry", [True, False])
def test_bins_without_limits_get_their_places_when_read(geometry: bool) -> None:
    scan = SCAN if geometry else scan_of(10, 4, 3, geometry=None)
    with h5py.File(io.BytesIO(trio.run(read_all, "radial/bins=3.h5", scan)), "r") as file:
        axis = file["entry/result/q" if geometry else "entry/result/r"]
        assert axis.attrs["units"] == ("1/nm" if geometry else "px")
        assert np.all(np.diff(axis[()]) > 0)
        places = axis[()]
    assert_array_equal(
        matlab(trio.run(read_all, "radial/bins=3.mat", scan))["axis_q" if geometry else "axis_r"],
        places[None],
    )


@pytest.mark.parametrize("stem", STEMS)
def test_scipy_loads_a_mat(stem: str) -> None:
    array, data, content = both(stem, "mat")
    found = matlab(data)
    blocks = array.reshape(-1, *content.block_shape)
    for (name, _), block in zip(content.blocks, blocks, strict=True):
        turned = block.transpose() if "bin" in content.axes else block
        assert_array_equal(found[name], turned)
        assert found[name].dtype == array.dtype
    for scale in content.scales:
        assert found[f"axis_{scale.name}"].size == scale.count
    assert "program: dadafs" in str(found["about"])


@pytest.mark.parametrize("stem", STEMS)
def test_loadtxt_reads_a_csv(stem: str) -> None:
    array, data, content = both(stem, "csv")
    lines = data.decode().splitlines()
    assert [line[0] == "#" for line in lines].index(False) == HEADER_LINES
    read = np.loadtxt(io.StringIO(data.decode()), delimiter=",", dtype=array.dtype, ndmin=2)
    assert_array_equal(read.reshape(content.shape), array)
    assert len({len(line) for line in lines[HEADER_LINES:]}) == 1


def test_csv_heads_its_columns() -> None:
    _, data, _ = both("azimuthal/bins=4/full", "csv")
    first, second, third = data.decode().splitlines()[:3]
    assert first.startswith("# azimuthal profile, counts/px")
    assert (
        "3 channels (intensity counts/px sigma counts/px pixels px) x 3 lines x 4 points" in second
    )
    assert second.endswith("columns: 4 bins, of these phi in degrees:")
    assert [float(cell) for cell in third.lstrip("#").split(",")] == [45, 135, 225, 315]


FLOATS = st.floats(width=64)
COLUMNS = st.integers(1, 5)


@settings(deadline=None, derandomize=True)
@given(arrays(np.float64, st.tuples(COLUMNS, COLUMNS), elements=FLOATS))
def test_csv_holds_every_float(array: NDArray[np.float64]) -> None:
    made = shell(Content(array.shape, array.dtype, ("line", "point"), ("a",), "t", "u"))
    text = made.prefix + made.encode(array.reshape(-1), 0)
    assert len(text) == made.size
    read = np.loadtxt(io.BytesIO(text), delimiter=",", ndmin=2)
    assert_array_equal(read, array)


def test_frames_and_patterns_are_placed_on_the_detector() -> None:
    for stem in ("frames/roi=2,3,6,4/bin=2/000001", "sum/roi=2,3,6,4/full"):
        scales = {one.name: one.numbers().tolist() for one in both(stem, "h5")[2].scales}
        if "bin" in stem:
            assert scales == {"row": [3.5, 5.5], "column": [2.5, 4.5, 6.5]}
        else:
            assert scales == {"row": [3, 4, 5, 6], "column": [2, 3, 4, 5, 6, 7]}


MOTORS = (Axis("piy", 1.0, 2.5, "mm"), Axis("piz", -0.5, 0.5, direction="vert", relative=True))


def test_lines_and_points_of_the_recorded_raster_are_places_of_motors() -> None:
    scan = scan_of(10, 4, 3, axes=MOTORS)
    with h5py.File(io.BytesIO(trio.run(read_all, "dpc/full.h5", scan)), "r") as file:
        result = file["entry/result"]
        assert result["point"][()].tolist() == [1, 1.5, 2, 2.5]
        assert dict(result["point"].attrs) == {"units": "mm", "long_name": "piy (mm)"}
        assert result["line"][()].tolist() == [-0.5, 0, 0.5]
        assert dict(result["line"].attrs) == {"long_name": "piz, relative"}
    about = str(matlab(trio.run(read_all, "dpc/full.mat", scan))["about"][0])
    assert "axis_line: piz, relative\naxis_point: piy mm\n" in about
    header = trio.run(read_all, "darkfield/full.csv", scan).decode().splitlines()
    assert header[1].endswith("columns: 4 points, of these piy in mm:")


def test_another_raster_is_counted() -> None:
    scan = scan_of(10, 4, 3, axes=MOTORS)
    for stem in ("darkfield/horz=5", "darkfield/first=1"):
        scales = result_of(f"{stem}.h5", scan).content.scales
        assert all((one.first, one.step, one.unit, one.label) == (0, 1, "", "") for one in scales)


def test_a_long_axis_has_no_scale() -> None:
    scan = scan_of(20_000, 20_000, 1)
    for extension in ("h5", "mat", "csv"):
        content = result_of(f"darkfield/full.{extension}", scan).content
        assert [scale.name for scale in content.scales] == ["line"]
    with h5py.File(io.BytesIO(trio.run(read_all, "darkfield/full.h5", scan)), "r") as file:
        assert list(file["entry/result"].attrs["axes"]) == ["line", "."]


def test_containers_that_tell_nothing_share_their_shells() -> None:
    """A million frames, one shell: sizes of frames must cost nothing."""
    one, other = (result_of(f"frames/{number}.tif", SCAN).content for number in (1, 2))
    assert one == other
    assert concrete(result_of("frames/1.tif", SCAN).request, SCAN).content == one


def test_names_that_are_no_text_are_told_as_far_as_they_are() -> None:
    scan = scan_of(10, 4, 3, path=b"sp\xe4t/sc\xffn", problems=("sp\udce4t is lost",))
    with h5py.File(io.BytesIO(trio.run(read_all, "darkfield/full.h5", scan)), "r") as file:
        assert file["entry/process/scan"][()] == b"sp?t/sc?n"
        assert file["entry/process/problems"][()] == b"sp?t is lost"
    assert "sp?t/sc?n" in str(matlab(trio.run(read_all, "darkfield/full.mat", scan))["about"])

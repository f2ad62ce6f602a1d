"""What an h5 tells of how it came about is what NAME.json tells."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from metadatafiles import fio, poni, spec
from mounting import Site, contents, forget_pages, half_recorded, until
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from test_provenance import account

from dadafs.client.tree.accounts import spans
from tools.scan_maker import ScanMade, damage_chunk, make_scan

pytestmark = pytest.mark.mount

USED, MISSING, CORRUPT, UNUSED = 0, 1, 2, 255


def told_inside(path: Path) -> dict[str, Any]:
    """The fields of NAME.json, made of what stands in an h5 and of nothing else."""
    with h5py.File(path, "r") as file:
        process = file["entry/process"]
        told: dict[str, Any] = {"problems": []}
        for name, item in process.items():
            if isinstance(item, h5py.Dataset) and not name.endswith("frame_status"):
                told[name] = text_or_number(item)
        told["parameters"] = {
            name: {"value": text_or_number(item)}
            | {"unit" if of == "units" else of: text for of, text in item.attrs.items()}
            for name, item in process["parameters"].items()
        }
        columns = {name: column[()] for name, column in process["files"].items()}
        told["files"] = [
            {
                "name": columns["name"][row].decode(),
                **{name: int(columns[name][row]) for name in ("size_bytes", "mtime_ns", "inode")},
            }
            for row in range(len(columns["name"]))
        ]
        told |= frames_told(process["frame_status"])
        if "background_frame_status" in process:
            told["background_frames"] = frames_told(process["background_frame_status"])
    return told


def text_or_number(item: h5py.Dataset) -> Any:
    return item.asstr()[()] if h5py.check_string_dtype(item.dtype) else item[()]


def frames_told(item: h5py.Dataset) -> dict[str, Any]:
    """As NAME.json has them, but for points beyond the last frame."""
    status: NDArray[np.uint8] = item[()]
    assert set(np.unique(status)) <= {USED, MISSING, CORRUPT, UNUSED}
    first = item.attrs["first_frame"]
    missing, corrupt = (first + np.flatnonzero(status == kind) for kind in (MISSING, CORRUPT))
    used = np.count_nonzero(status != UNUSED)
    return {
        "frames": {
            "used": used,
            "computed": used,
            "missing": len(missing),
            "corrupt": len(corrupt),
        },
        "missing": spans(missing),
        "corrupt": spans(corrupt),
    }


def told_beside(path: Path) -> dict[str, Any]:
    """NAME.json, in the words of an h5."""
    told = account(path.with_suffix(".json"))
    if told["problems"]:
        told["problems"] = "; ".join(told["problems"])
    for one in (told, told.get("background_frames")):
        if one is not None:
            del one["frames"]["points_beyond_the_last"]
    return told


@pytest.fixture(scope="module")
def faulty(shared: Site) -> ScanMade:
    """Of its 143 frames, 50 to 74 are missing, 3, 4 and 80 corrupt."""
    made = make_scan(shared.raw, name="faulty", horz=13, vert=11, images_per_file=25, leave_out=[3])
    for file, number in ((0, 3), (0, 4), (2, 5)):
        damage_chunk(made.data_files[file], number)
    return made


@pytest.mark.parametrize("scan", ["raster", "faulty"])
@pytest.mark.parametrize(
    "name",
    [
        "orientation/rmax=9/order=snake",
        "darkfield/horz=10/first=30",
        "darkfield/first=2/background=0..6",
        "radial/bins=20",
        "sum/full",
        "average/horz=13/region=3,2,4,5",
        "average/roi=1,1,9,9/background=64..88",
        "max/horz=13/order=snake/region=0,3,2,7",
        "frames/000110",
    ],
)
def test_h5_and_json_tell_the_same(
    shared: Site, raster: ScanMade, faulty: ScanMade, scan: str, name: str
) -> None:
    path = shared.mnt / scan / f"{name}.h5"
    contents(path)
    inside, beside = told_inside(path), told_beside(path)
    if name.startswith("frames"):
        beside["frames"]["computed"] = 1  # nothing of frames is kept, so NAME.json cannot know
    assert inside == beside


def test_frames_found_bad_are_told_whoever_asks_first(shared: Site, faulty: ScanMade) -> None:
    path = shared.mnt / "faulty/dpc/rmin=2/full.h5"
    with h5py.File(path, "r") as file:
        status = file["entry/process/frame_status"]
        with shared.computing(frames=143 - 25 - 3):
            assert_array_equal(np.flatnonzero(status[()] == CORRUPT), [3, 4, 80])
        with shared.computing(frames=0):
            bad = np.isnan(file["entry/result/x"][()].ravel())
            assert_array_equal(bad, status[()] != USED)
    composite = shared.mnt / "faulty/composite/bin=32/horz=13/region=0,0,13,4.h5"
    contents(composite)
    inside = told_inside(composite)
    assert inside["frames"] == {"used": 52, "computed": 52, "missing": 2, "corrupt": 2}
    assert inside["missing"] == [[50, 51]]


def test_files_are_told_and_nothing_is_computed(shared: Site, raster: ScanMade) -> None:
    path = shared.mnt / "raster/dpc/rmin=7/full.h5"
    with shared.computing(frames=0), h5py.File(path, "r") as file:
        files = file["entry/process/files"]
        names, inodes = files["name"][()], files["inode"][()]
    told = {name.decode(): inode for name, inode in zip(names, inodes, strict=True)}
    assert told == {
        file.name: file.stat().st_ino for file in [*raster.data_files, raster.master] if file
    }


def test_files_beside_the_scan_are_told(shared: Site) -> None:
    """But for the SPEC file, which grows with other scans."""
    directory = shared.raw / "sided/new_00042/e4m"
    made = make_scan(directory, name="new_00042", horz=5, vert=2, detector="40x36")
    (directory.parent / "new_00042.fio").write_text(fio("mesh stx 0 1 4 sty 0 1 1 0.02"))
    (directory.parent / "new.dat").write_text(spec((42, "mesh stx 0 1 4 sty 0 1 1 0.02")))
    geometry = made.geometry
    calibration = poni(
        Distance=f"{geometry.distance_m}",
        Poni1=f"{(geometry.cy + 0.5) * geometry.pixel_m}",
        Poni2=f"{(geometry.cx + 0.5) * geometry.pixel_m}",
        Wavelength=f"{geometry.wavelength_nm * 1e-9}",
    )
    (directory / "agbh.poni").write_text(calibration)
    toml = shared.raw / "sided/geometry.toml"
    toml.write_text('[scan."other".raster]\nhorz = 3\n')
    path = shared.mnt / "sided/new_00042/e4m/new_00042/dpc/rmin=1/full.h5"

    def beside() -> dict[str, tuple[int, int, int]]:
        told = account(path.with_suffix(".json"))
        assert told["problems"] == []
        return {
            file["name"]: (file["size_bytes"], file["mtime_ns"], file["inode"])
            for file in told["files"]
        }

    def on_disk(*names: str) -> dict[str, tuple[int, int, int]]:
        stats = {name: (directory / name).stat() for name in names}
        return {name: (of.st_size, of.st_mtime_ns, of.st_ino) for name, of in stats.items()}

    contents(path)
    assert made.master is not None
    own = [file.name for file in [*made.data_files, made.master]]
    notes = ["agbh.poni", "../new_00042.fio", "../../geometry.toml"]
    before = beside()
    assert before == on_disk(*own, *notes)
    assert told_inside(path) == told_beside(path)

    whole, version = contents(path), told_inside(path)["scan_version"]
    toml.write_text('[scan."other".raster]\nhorz = 44\n')  # of another scan
    until(lambda: path.stat().st_mtime_ns >= toml.stat().st_mtime_ns, "the mtime follows")
    assert told_inside(path)["scan_version"] == version
    assert (beside(), contents(path)) == (before, whole)
    assert before != on_disk(*own, *notes)

    toml.write_text('[scan."*".raster]\nhorz = 10\n')

    def follows() -> bool:
        try:
            return bool(told_inside(path)["scan_version"] != version)
        except OSError as exc:  # it became another between opening and reading
            if exc.errno != errno.ESTALE:
                raise
            return False

    until(follows, "the version follows")
    contents(path)
    assert beside() == on_disk(*own, *notes)
    assert told_inside(path) == told_beside(path)


def test_the_last_numbers_alone_cost_their_patch_alone(shared: Site, raster: ScanMade) -> None:
    path = shared.mnt / "raster/radial/rmin=8/horz=13.h5"
    with h5py.File(path, "r") as file, shared.computing(frames=143 - 128):
        assert (file["entry/result/pixels"][10, 12] >= 0).all()


def test_a_scan_that_grows_is_told_as_it_was_or_as_it_is(own: Site) -> None:
    truth, target = half_recorded(own)
    path = own.mnt / "s/s/darkfield/horz=8.h5"
    contents(path)
    before, mtime_ns = told_inside(path), path.stat().st_mtime_ns
    assert (before["missing"], len(before["files"])) == ([[16, 31]], 2)
    assert before == told_beside(path)
    with path.open("rb", buffering=0) as old:
        os.link(truth.data_files[1], target / truth.data_files[1].name)
        until(lambda: path.stat().st_mtime_ns > mtime_ns, "the mtime follows")
        contents(path)
        after = told_inside(path)
        assert (after["missing"], len(after["files"])) == ([], 3)
        assert after["scan_version"] != before["scan_version"]
        assert after == told_beside(path)
        forget_pages(path)
        with pytest.raises(OSError, match="Stale"):
            os.pread(old.fileno(), 1 << 16, 0)

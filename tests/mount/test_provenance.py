"""How a result came about: in NAME.json and in attributes."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from mounting import Site, contents

from analysis.reductions import REDUCTIONS
from tools.scan_maker import ScanMade, damage_chunk, make_scan

pytestmark = pytest.mark.mount

NAMES = {"user.dadafs.state", "user.dadafs.progress", "user.dadafs.provenance"}


def account(path: Path) -> dict[str, Any]:
    """A NAME.json, which is as long as it says."""
    found: dict[str, Any] = json.loads(contents(path))
    return found


def test_json_names_files_parameters_and_their_sources(shared: Site, raster: ScanMade) -> None:
    with shared.computing(frames=0):
        told = account(shared.mnt / "raster/radial/rmin=2/vert=11.json")
    assert told["analysis"] == "radial"
    assert told["scan"] == "raster"
    assert told["pass"] == f"radial {REDUCTIONS['radial'].version}"
    parameters = told["parameters"]
    assert parameters["rmin"] == {"value": 2, "unit": "px", "source": "path"}
    assert parameters["vert"] == {"value": 11, "unit": "lines", "source": "path"}
    assert parameters["bins"] == {"value": 200, "source": "default"}
    assert parameters["cx"]["value"] == raster.geometry.cx
    assert parameters["cx"]["source"].endswith("beam_center_x")
    assert parameters["distance_m"]["value"] == raster.geometry.distance_m
    assert parameters["wavelength_nm"]["source"]
    assert told["mask_digest"]
    files = {file["name"]: file for file in told["files"]}
    assert set(files) == {path.name for path in [*raster.data_files, raster.master] if path}
    for path in raster.data_files:
        of = path.stat()
        told_of = files[path.name]
        assert (told_of["size_bytes"], told_of["mtime_ns"]) == (of.st_size, of.st_mtime_ns)
        assert told_of["inode"] == of.st_ino
    assert told["frames"]["used"] == 143
    assert (told["missing"], told["corrupt"]) == ([], [])


def test_frames_that_are_missing_or_corrupt_are_listed(shared: Site) -> None:
    made = make_scan(shared.raw, name="gaps", horz=10, vert=10, images_per_file=25, leave_out=[2])
    for file, number in (
        (0, 3),
        (0, 4),
        (1, 10),
    ):  # frames 3, 4, 60
        damage_chunk(made.data_files[file], number)
    path = shared.mnt / "gaps/darkfield/horz=10/vert=11.npy"
    before = account(path.with_suffix(".json"))
    assert before["missing"] == [[25, 49]]
    assert before["frames"]["computed"] == 0
    assert before["frames"]["points_beyond_the_last"] == 10
    shared.load("gaps/darkfield/horz=10/vert=11.npy")
    after = account(path.with_suffix(".json"))
    assert after["missing"] == [[25, 49]]
    assert after["corrupt"] == [[3, 4], [60, 60]]
    assert after["frames"] == before["frames"] | {"computed": 100, "corrupt": 3}
    contents(shared.mnt / "gaps/max/full.npy")
    assert account(shared.mnt / "gaps/max/full.json")["corrupt"] == [[3, 4], [60, 60]]
    region = account(shared.mnt / "gaps/max/horz=10/region=0,0,10,1.json")
    assert region["frames"]["used"] == 10


def test_frames_of_a_background_are_told_too(shared: Site, raster: ScanMade) -> None:
    path = shared.mnt / "raster/darkfield/rmin=1/background=64..70.npy"
    assert account(path.with_suffix(".json"))["background_frames"]["frames"]["used"] == 7
    told = shared.run("explain", path).stdout
    assert "143 frames in 3 patches, 0 of them cached" in told  # some serve for both
    contents(path)
    after = account(path.with_suffix(".json"))
    assert after["background_frames"]["frames"]["computed"] == 7
    assert after["parameters"]["background"]["value"] == "64..70"
    assert os.getxattr(path, "user.dadafs.state") == b"cached"
    pattern = shared.mnt / "raster/average/roi=1,1,99,99/background=64..70.npy"
    assert os.getxattr(pattern, "user.dadafs.state") == b"absent"
    contents(pattern)
    assert os.getxattr(pattern, "user.dadafs.state") == b"cached"
    assert account(pattern.with_suffix(".json"))["background_frames"]["frames"]["computed"] == 7


def test_attributes_of_results_and_of_nothing_else(shared: Site, raster: ScanMade) -> None:
    path = shared.mnt / "raster/darkfield/rmin=4/rmax=11.npy"
    with shared.computing(frames=0):
        assert set(os.listxattr(path)) == NAMES
        assert os.getxattr(path, "user.dadafs.state") == b"absent"
        assert os.getxattr(path, "user.dadafs.progress") == b"0 %, absent"
        told = json.loads(os.getxattr(path, "user.dadafs.provenance"))
        assert told == account(path.with_suffix(".json"))
        for other in (
            "raster",
            "raster/README.txt",
            "raster/scan.json",
            "raster/darkfield/full.json",
            "raster/raw/raster_master.h5",
            "raster/darkfield/full.npy.progress",
            "README.txt",
            ".dadafs/jobs.json",
        ):
            assert os.listxattr(shared.mnt / other) == []
            with pytest.raises(OSError, match=r".") as caught:
                os.getxattr(shared.mnt / other, "user.dadafs.state")
            assert caught.value.errno == errno.ENODATA
    with pytest.raises(OSError, match=r".") as caught:
        os.getxattr(path, "user.other")
    assert caught.value.errno == errno.ENODATA
    with pytest.raises(OSError, match=r".") as caught:
        os.getxattr(path, "security.selinux")
    assert caught.value.errno == errno.ENOTSUP
    with pytest.raises(OSError, match="Read-only"):
        os.setxattr(path, "user.dadafs.state", b"cached")
    contents(path)
    assert os.getxattr(path, "user.dadafs.state") == b"cached"
    assert os.getxattr(path, "user.dadafs.progress") == b"100 %, cached"
    assert os.getxattr(path.with_suffix(".tif"), "user.dadafs.state") == b"cached"


def test_accounts_of_every_result_exist_and_are_not_listed(shared: Site, raster: ScanMade) -> None:
    top = shared.mnt / "raster"
    for name in (
        "frames/000007",
        "frames/bin=2/7",
        "composite/bin=8/full",
        "darkfield/cmap=gray/full",
        "dpc/channel=x",
        "darkfield/qmin=0.05",
        "sum/full",
    ):
        assert account(top / f"{name}.json")["scan"] == "raster"
    assert account(top / "frames/bin=2/7.json")["frame"] == 7
    assert not [name for name in os.listdir(top / "darkfield") if "json" in name or "prog" in name]
    assert "NAME.json" in (top / "darkfield/README.txt").read_text()
    assert "NAME.json" in (top / "frames/README.txt").read_text()
    inodes = {
        os.stat(top / f"darkfield/{name}").st_ino
        for name in ("full.json", "full.npy", "full.npy.progress")
    }
    assert len(inodes) == 3


def test_a_thousand_files_fit_no_attribute(shared: Site) -> None:
    make_scan(
        shared.raw, name="many", frames=1500, detector="8x8", images_per_file=1, keep_frames=False
    )
    path = shared.mnt / "many/darkfield/full.npy"
    value = os.getxattr(path, "user.dadafs.provenance")
    assert len(value) <= 65536
    told = json.loads(value)
    assert told["left_out"] == ["files"]
    assert len(account(path.with_suffix(".json"))["files"]) >= 1500

"""What is seen of a scan whose logs, or log and triggers, contradict each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from metadatafiles import fio, spec
from mounting import Site, contents, until
from numpy.testing import assert_array_equal
from scanfiles import SHAPE, frames_from, write_scan

pytestmark = pytest.mark.mount

FRAMES = 10
MESH = "mesh stx 0 10 4 sty 0 4 1 0.02"  # 5 x 2
OTHER = "mesh stx 0 10 1 sty 0 4 4 0.02"  # 2 x 5
SUMS = frames_from(0, FRAMES, SHAPE).sum((1, 2), dtype=np.int64).astype(float)


def laid(site: Site, name: str, *, by_spec: str, by_fio: str = "", **facts: Any) -> Path:
    """A scan of ten frames with its logs; its directory in the mount."""
    directory = site.raw / name
    directory.mkdir()
    write_scan(directory, "scan_42", **facts)
    (directory / "scan.dat").write_text(spec((42, by_spec)))
    if by_fio:
        (directory / "scan_42.fio").write_text(fio(by_fio))
    return site.mnt / name / "scan_42"


def about(scan: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(contents(scan / "scan.json"))
    return found


def tells(site: Site, scan: Path, line: str) -> None:
    """Once in each of the places where a user looks."""
    assert about(scan)["problems"] == [line]
    assert contents(scan / "README.txt").decode().count(line) == 1
    said = site.run("explain", scan / "darkfield/full.npy")
    assert (said.returncode, said.stdout.count(line)) == (0, 1)
    assert json.loads(contents(scan / "darkfield/full.json"))["problems"] == [line]


def motors(scan: Path) -> list[str | None]:
    """What lines and points are called in the map of a scan; None where they are counted."""
    with h5py.File(scan / "darkfield/full.h5") as file:
        result = file["entry/result"]
        for axis in ("line", "point"):
            numbers = result[axis][()]
            if "long_name" not in result[axis].attrs:
                assert_array_equal(numbers, np.arange(len(numbers)))
        return [result[axis].attrs.get("long_name") for axis in ("line", "point")]


def test_two_logs_and_two_rasters(shared: Site) -> None:
    scan = laid(shared, "disagreeing", by_spec=MESH, by_fio=OTHER)
    line = (
        "the raster is 2 x 5 in disagreeing/scan_42.fio and 5 x 2 in disagreeing/scan.dat #S 42:"
        " none is used; give horz= and vert=, or [raster] in geometry.toml"
    )
    tells(shared, scan, line)
    assert (about(scan)["axes"], motors(scan)) == ([], [None, None])
    assert_array_equal(shared.load("disagreeing/scan_42/darkfield/full.npy"), SUMS[None])
    assert_array_equal(shared.load("disagreeing/scan_42/darkfield/horz=5.npy"), SUMS.reshape(2, 5))

    path = scan / "sum/region=0,0,2,2.npy"
    with pytest.raises(FileNotFoundError):
        path.stat()
    reason = f"reaches beyond the raster (10 points per line, 1 lines) ({line})"
    assert reason in shared.errors()
    assert reason in shared.run("explain", path).stderr
    with pytest.raises(FileNotFoundError):  # by a raster of the path's own: another reason
        (scan / "sum/horz=5/region=0,0,2,9.npy").stat()
    assert "(5 points per line, 2 lines) (ENOENT)\n" in shared.errors()

    (shared.raw / "disagreeing/geometry.toml").write_text("[raster]\nhorz = 5\n")
    until(lambda: not about(scan)["problems"], "the user's word is the last")
    assert motors(scan) == ["sty", "stx"]  # of the log that has this raster
    assert (
        about(scan)["axes"][0] | {"motor": "stx", "start": 0, "end": 10} == about(scan)["axes"][0]
    )


def test_two_logs_and_two_ways_of_the_motors(shared: Site) -> None:
    scan = laid(shared, "ways", by_spec=MESH.replace("10 4", "20 4"), by_fio=MESH)
    tells(
        shared,
        scan,
        "the motors are stx 0 to 10, sty 0 to 4 in ways/scan_42.fio and stx 0 to 20, sty 0 to 4 in"
        " ways/scan.dat #S 42: lines and points are counted",
    )
    assert (about(scan)["axes"], motors(scan)) == ([], [None, None])
    assert_array_equal(shared.load("ways/scan_42/darkfield/full.npy"), SUMS.reshape(2, 5))


@pytest.mark.parametrize("snake", ["spec", "fio"])
def test_two_logs_and_two_orders(shared: Site, snake: str) -> None:
    commands = {"by_spec": MESH, "by_fio": MESH}
    commands[f"by_{snake}"] += " True"
    scan = laid(shared, f"orders_{snake}", **commands)
    logs = [f"orders_{snake}/scan_42.fio", f"orders_{snake}/scan.dat #S 42"]
    ran, silent = logs if snake == "fio" else reversed(logs)
    tells(
        shared,
        scan,
        f"the order is snake in {ran}, but not in {silent}: snake is used; give order=, or [raster]"
        " in geometry.toml",
    )
    expected = SUMS.reshape(2, 5).copy()
    expected[1] = expected[1, ::-1].copy()
    found = shared.load(f"orders_{snake}/scan_42/darkfield/full.npy")
    assert_array_equal(found, expected)
    found = shared.load(f"orders_{snake}/scan_42/darkfield/order=raster.npy")
    assert_array_equal(found, SUMS.reshape(2, 5))
    (shared.raw / f"orders_{snake}/geometry.toml").write_text('[raster]\norder = "raster"\n')
    until(lambda: not about(scan)["problems"], "the user's word is the last")
    assert about(scan)["raster"]["order"] == "raster"


def test_a_log_and_triggers(shared: Site) -> None:
    """The log says where the motors went, and is believed; triggers may be wired otherwise."""
    scan = laid(shared, "triggers", by_spec=MESH, announced=2, ntrigger=5)
    tells(
        shared,
        scan,
        f"the raster is 5 x 2 by triggers/scan.dat #S 42: {MESH}, but the detector had 5 triggers"
        " of 2 images",
    )
    assert motors(scan) == ["sty", "stx"]
    assert_array_equal(shared.load("triggers/scan_42/darkfield/full.npy"), SUMS.reshape(2, 5))
    (shared.raw / "triggers/geometry.toml").write_text("[raster]\nhorz = 2\nvert = 5\n")
    until(lambda: not about(scan)["problems"], "the user's word is the last")
    assert (about(scan)["axes"], motors(scan)) == ([], [None, None])  # of no raster that was used

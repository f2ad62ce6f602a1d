"""What the file of a BLISS dataset tells of the frames beside it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from blissfiles import write_camera, write_entry
from metadatafiles import spec
from numpy.testing import assert_array_equal
from scanfiles import Clock, frames_from

from dadafs.errors import BadData, NoSuchPath
from dadafs.scans.catalog import Catalog
from dadafs.scans.model import Axis, Raster, Scan

SCAN = b"s_0001/scan0003/eiger"
TITLE = "amesh nnp2 10 11.5 3 nnp3 -2 -1 2 0.02"
HORZ, VERT = 4, 3
POINTS = HORZ * VERT


def positions(snake: bool = False, points: int = POINTS) -> dict[str, Any]:
    fast = np.tile(10 + 0.5 * np.arange(HORZ), (VERT, 1))
    if snake:
        fast[1::2] = fast[1::2, ::-1].copy()
    slow = np.repeat(-2 + 0.5 * np.arange(VERT), HORZ)
    return {"nnp2": fast.ravel()[:points], "nnp3": slow[:points]}


@pytest.fixture
def dataset(root: Path) -> Path:
    """The file of the dataset; the camera's files of scan 3 are there."""
    write_camera(root / "s_0001/scan0003", frames_from(0, POINTS), 5)
    return root / "s_0001/s_0001.h5"


def frames(dataset: Path) -> list[Path]:
    return sorted((dataset.parent / "scan0003").glob("eiger_*.h5"))


def raster(scan: Scan) -> tuple[int, int, str] | None:
    return None if scan.raster is None else (scan.raster.horz, scan.raster.vert, scan.raster.order)


@pytest.mark.parametrize("link", ["virtual", "absolute", "external"])
@pytest.mark.parametrize("snake", [False, True])
def test_a_mesh(dataset: Path, catalog: Catalog, link: str, snake: bool) -> None:
    write_entry(dataset, "1.1", "ct 1")
    write_entry(
        dataset, "3.1", TITLE, frames=frames(dataset), link=link, positions=positions(snake)
    )
    scan = catalog.scan(SCAN)
    order = "snake" if snake else "raster"
    source = f"s_0001/s_0001.h5 /3.1: {TITLE}"
    assert scan.raster == Raster(HORZ, VERT, order, source)  # type: ignore[arg-type]
    assert scan.axes == (
        Axis("nnp2", 10.0, 11.5, "mm", "horz"),
        Axis("nnp3", -2.0, -1.0, "mm", "vert"),
    )
    assert (scan.metadata["command"], scan.sources["command"]) == (TITLE, "s_0001/s_0001.h5 /3.1")
    assert (scan.problems, scan.withheld) == ((), {})


def test_the_number_of_the_directory_misleads(dataset: Path, catalog: Catalog) -> None:
    """The link counts: scan 3 has other frames, a subscan of scan 7 has these."""
    write_camera(dataset.parent / "scan0007", frames_from(0, 2), 5)
    other = [dataset.parent / "scan0007/eiger_0000.h5"]
    write_entry(dataset, "3.1", "loopscan 2 1", frames=other)
    write_entry(dataset, "7.1", "loopscan 2 1", frames=other)
    write_entry(dataset, "7.2", TITLE, frames=frames(dataset), positions=positions())
    assert catalog.scan(SCAN).sources["command"] == "s_0001/s_0001.h5 /7.2"


def test_subscans_of_one_number(dataset: Path, catalog: Catalog) -> None:
    write_camera(dataset.parent / "scan0003", frames_from(0, 2), 5, camera="basler")
    basler = [dataset.parent / "scan0003/basler_0000.h5"]
    write_entry(dataset, "3.1", "loopscan 2 1", frames=basler, link="external", camera="basler")
    write_entry(dataset, "3.2", TITLE, frames=frames(dataset), positions=positions())
    assert catalog.scan(SCAN).sources["command"] == "s_0001/s_0001.h5 /3.2"
    assert catalog.scan(b"s_0001/scan0003/basler").sources["command"] == "s_0001/s_0001.h5 /3.1"


def test_a_detector_of_another_name(dataset: Path, catalog: Catalog) -> None:
    """Found in the entries of the directory's number."""
    write_entry(dataset, "3.1", TITLE, frames=frames(dataset), camera="detector")
    assert catalog.scan(SCAN).sources["command"] == "s_0001/s_0001.h5 /3.1"


def test_two_scans_with_the_same_frames(dataset: Path, catalog: Catalog) -> None:
    for name in ("3.1", "3.2"):
        write_entry(dataset, name, TITLE, frames=frames(dataset))
    scan = catalog.scan(SCAN)
    line = "s_0001/s_0001.h5: 3.1 and 3.2 have the same frames: none is used"
    assert (scan.raster, scan.problems) == (None, (line,))
    with pytest.raises(BadData, match="have the same frames"):
        catalog.monitor(SCAN, "ct34")


@pytest.mark.parametrize("ended", [True, False])
def test_a_scan_without_links(dataset: Path, catalog: Catalog, ended: bool) -> None:
    """Until it ends its number is believed: links are made at the end."""
    write_entry(dataset, "3.1", TITLE, positions=positions(True, 6), ended=ended)
    scan = catalog.scan(SCAN)
    assert raster(scan) == (None if ended else (HORZ, VERT, "snake"))
    assert scan.axes == ()


def test_a_scan_that_runs_and_ends(dataset: Path, catalog: Catalog, clock: Clock) -> None:
    write_entry(dataset, "3.1", TITLE, ended=False)
    first = catalog.scan(SCAN)
    assert raster(first) == (HORZ, VERT, "raster")
    clock.now += 10
    dataset.unlink()
    write_entry(dataset, "3.1", TITLE, ended=False, positions=positions(points=3))
    assert catalog.scan(SCAN).version == first.version
    clock.now += 10
    dataset.unlink()
    write_entry(dataset, "3.1", TITLE, frames=frames(dataset), positions=positions())
    scan = catalog.scan(SCAN)
    assert scan.version != first.version
    assert (raster(scan), len(scan.axes)) == ((HORZ, VERT, "raster"), 2)
    clock.now += 10
    write_entry(dataset, "4.1", "ct 1")  # the file grows by other scans
    assert catalog.scan(SCAN).version == scan.version


def test_the_only_file_beside(root: Path, dataset: Path, catalog: Catalog) -> None:
    write_entry(dataset, "3.1", TITLE, frames=frames(dataset), positions=positions())
    dataset.rename(dataset.with_name("data.h5"))
    assert catalog.scan(SCAN).sources["command"] == "s_0001/data.h5 /3.1"


def test_a_root_that_is_the_dataset(root: Path, catalog: Catalog) -> None:
    write_camera(root / "scan0003", frames_from(0, POINTS), 5)
    files = sorted((root / "scan0003").iterdir())
    write_entry(root / "s.h5", "3.1", TITLE, frames=files, link="absolute", positions=positions())
    assert catalog.scan(b"scan0003/eiger").sources["command"] == "s.h5 /3.1"


def test_a_file_of_each_scan(dataset: Path, catalog: Catalog) -> None:
    own = dataset.parent / "scan0003/bliss_master.h5"
    with h5py.File(own, "w") as file:
        file["3.1/title"] = TITLE
        file["3.1/end_time"] = "2026"
        target = h5py.ExternalLink("eiger_0000.h5", "/entry_0000/measurement/data")
        file.create_group("3.1/measurement")["eiger"] = target
    assert raster(catalog.scan(SCAN)) == (HORZ, VERT, "raster")


@pytest.mark.parametrize(
    "link", ["../../other/eiger_0000.h5", "/etc/eiger_0000.h5", "scan0003", "/"]
)
def test_links_elsewhere(dataset: Path, catalog: Catalog, link: str) -> None:
    with h5py.File(dataset, "w") as file:
        file["3.1/title"] = TITLE
        file["3.1/end_time"] = "2026"
        file.create_group("3.1/measurement")["eiger"] = h5py.ExternalLink(link, "/x")
    scan = catalog.scan(SCAN)
    assert (scan.raster, scan.problems) == (None, ())


def test_names_with_numbers_are_no_spec_scans(root: Path, catalog: Catalog) -> None:
    """`frelon3` is no scan 3 of a SPEC file that happens to be there."""
    write_camera(root / "s/scan0001", frames_from(0, 4), 4, camera="frelon3")
    (root / "s/scan0001/frelon.dat").write_text(spec((3, "mesh x 0 1 1 y 0 1 1 1")))
    assert catalog.scan(b"s/scan0001/frelon3").raster is None


def test_parameters_of_a_continuous_scan(dataset: Path, catalog: Catalog) -> None:
    title = "fscan2d nnp3 -2 0.5 3 nnp2 10 0.5 4 0.02 0.02"
    facts = {
        "instrument/fscan_parameters/fast_npoints": 4,
        "instrument/fscan_parameters/slow_npoints": "3",
        "instrument/fscan_parameters/fast_motor_mode": "ZIGZAG",
    }
    write_entry(dataset, "3.1", title, frames=frames(dataset), facts=facts)
    scan = catalog.scan(SCAN)
    assert raster(scan) == (HORZ, VERT, "snake")
    assert (scan.axes, scan.problems) == ((), ())


def test_a_zigzag_before_it_turns(dataset: Path, catalog: Catalog) -> None:
    """The first line does not tell which way the second will go; the parameters do."""
    title = "fscan2d nnp3 -2 0.5 3 nnp2 10 0.5 4 0.02 0.02"
    facts = {"instrument/fscan_parameters/fast_motor_mode": "ZIGZAG"}
    there = positions(True, HORZ)
    write_entry(dataset, "3.1", title, positions=there, facts=facts, ended=False)
    assert raster(catalog.scan(SCAN)) == (HORZ, VERT, "snake")


def test_a_map_of_id13(dataset: Path, catalog: Catalog) -> None:
    there = {f"{name}_position": values for name, values in positions().items()}
    title = "kmap.dkmap(nnp2, -0.75, 0.75, 4, nnp3, -0.5, 0.5, 3, 0.01)"
    facts = {"technique/dim0": HORZ, "technique/dim1": VERT}
    write_entry(dataset, "3.1", title, frames=frames(dataset), positions=there, facts=facts)
    scan = catalog.scan(SCAN)
    assert raster(scan) == (HORZ, VERT, "raster")
    assert [(one.motor, one.start, one.end) for one in scan.axes] == [
        ("nnp2", 10.0, 11.5),
        ("nnp3", -2.0, -1.0),
    ]


@pytest.mark.parametrize(
    ("title", "given", "facts", "line"),
    [
        (TITLE, {}, {}, "where nnp2 was is not recorded: all lines are taken to run the same way"),
        (TITLE, {"nnp2": np.arange(12.0)}, {}, "its motor does not run along lines of 4 points"),
        ("amesh nnp2 0 1", {}, {}, "amesh takes two motors with start, end and intervals"),
        (
            "akmap( nnp2, 0, 1, 4, nnp3, 0, 1, 3, 1)",
            {},
            {"technique/dim0": 5},
            "nnp2 has 4 points by 'akmap nnp2 0 1 4 nnp3 0 1 3 1', but 5.0 by the parameters",
        ),
        ("amesh nnp2 0 1 1 nnp3 0 1 2 1", {"nnp2": np.tile([0.0, 1], 3)}, {}, "but there are 12"),
    ],
)
def test_what_does_not_go_together(
    dataset: Path, catalog: Catalog, title: str, given: Any, facts: Any, line: str
) -> None:
    write_entry(dataset, "3.1", title, frames=frames(dataset), positions=given, facts=facts)
    scan = catalog.scan(SCAN)
    (problem,) = scan.problems
    assert problem.startswith("s_0001/s_0001.h5 /3.1")
    assert line in problem
    assert scan.raster is None or line.startswith("where nnp2 was")


def test_a_dataset_that_cannot_be_read(dataset: Path, catalog: Catalog) -> None:
    dataset.write_bytes(b"\x89HDF\r\n\x1a\n" + os.urandom(500))
    (line,) = catalog.scan(SCAN).problems
    assert line.startswith("s_0001/s_0001.h5 cannot be read as HDF5")
    with pytest.raises(BadData, match="cannot be read as HDF5"):
        catalog.monitor(SCAN, "ct34")


def test_a_monitor(dataset: Path, catalog: Catalog) -> None:
    """One number a point; a point that was not counted is none. Compressed in several chunks."""
    counted = np.arange(1, POINTS + 1, dtype=np.int32)
    counted[4] = 0
    spectrum = np.ones((POINTS, 3))
    write_entry(
        dataset,
        "3.1",
        TITLE,
        frames=frames(dataset),
        positions=positions(),
        counters={"ct34": counted, "mca": spectrum},
    )
    monitor = catalog.monitor(SCAN, "ct34")
    expected = np.where(counted > 0, counted, np.nan)
    assert_array_equal(np.frombuffer(monitor.values, "<f8"), expected)
    assert (monitor.column, monitor.source) == ("ct34", "s_0001/s_0001.h5 /3.1")
    with pytest.raises(NoSuchPath) as caught:
        catalog.monitor(SCAN, "ct35")
    assert "did you mean 'ct34'?; there are ct34, nnp2, nnp3" in str(caught.value)


def test_a_monitor_of_an_aborted_scan(dataset: Path, catalog: Catalog) -> None:
    counted = np.arange(1.0, 6.0)
    write_entry(dataset, "3.1", TITLE, frames=frames(dataset), counters={"ct34": counted})
    monitor = catalog.monitor(SCAN, "ct34")
    expected = np.r_[counted, np.full(POINTS - 5, np.nan)]
    assert_array_equal(np.frombuffer(monitor.values, "<f8"), expected)


def test_a_column_that_is_damaged(dataset: Path, catalog: Catalog) -> None:
    counted = np.arange(1.0, 13.0)
    write_entry(dataset, "3.1", TITLE, frames=frames(dataset), counters={"ct34": counted})
    with h5py.File(dataset) as file:
        place = file["3.1/instrument/ct34/data"].id.get_chunk_info(1)
    with open(dataset, "r+b") as raw:
        raw.seek(place.byte_offset)
        raw.write(b"\xff" * place.size)
    with pytest.raises(BadData, match=r"s_0001/s_0001.h5: filter 1"):
        catalog.monitor(SCAN, "ct34")

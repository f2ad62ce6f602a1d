"""Rasters from SPEC and FIO files, from triggers, and where they contradict each other."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from metadatafiles import fio, spec
from scanfiles import Clock, frames_from, write_data, write_master, write_scan

from dadafs.cache.store import Store
from dadafs.scans.beside import spec as spec_module
from dadafs.scans.catalog import Catalog
from dadafs.scans.model import Axis, Raster
from dadafs.scans.tree import RawTree

MESH = "mesh stx 0 10 4 sty 0 4 1 0.02"  # 5 x 2 points, as many as `write_scan` makes
OLD = "run/detectors/eiger/newfile"


@pytest.fixture
def old(root: Path) -> Path:
    """A scan as P10 laid them out, its SPEC file not yet there."""
    (root / OLD).mkdir(parents=True)
    write_scan(root / OLD, "newfile_00042", ntrigger=1)
    return root / "run/newfile.dat"


def test_spec_file_of_the_old_layout(old: Path, catalog: Catalog) -> None:
    old.write_text(spec((41, "ascan stx 0 1 9 1"), (42, MESH), (43, "mesh stx 0 1 1 sty 0 1 1 1")))
    scan = catalog.scan(f"{OLD}/newfile_00042".encode())
    assert scan.raster == Raster(5, 2, "raster", f"run/newfile.dat #S 42: {MESH}")
    assert scan.axes == (Axis("stx", 0, 10), Axis("sty", 0, 4, direction="vert"))
    assert scan.metadata["command"] == MESH
    assert scan.sources["command"] == "run/newfile.dat #S 42"
    assert scan.problems == ()


def test_relative_scans_begin_where_motors_were(old: Path, catalog: Catalog) -> None:
    old.write_text(spec((42, "dmesh stx -1 1 4 stz -2 2 1 0.02")))
    scan = catalog.scan(f"{OLD}/newfile_00042".encode())
    assert scan.axes == (Axis("stx", 0.5, 2.5), Axis("stz", -1.75, 2.25, direction="vert"))


def test_fio_file_of_the_new_layout(root: Path, catalog: Catalog) -> None:
    (root / "s_00042/e4m").mkdir(parents=True)
    write_scan(root / "s_00042/e4m", "s_00042")
    (root / "s_00042/s_00042.fio").write_text(fio("dmesh stx -1 1 4 sty 0 4 1 0.02 True"))
    scan = catalog.scan(b"s_00042/e4m/s_00042")
    assert scan.raster is not None
    assert (scan.raster.horz, scan.raster.vert, scan.raster.order) == (5, 2, "snake")
    assert scan.raster.source.startswith("s_00042/s_00042.fio: dmesh")
    assert scan.axes == (Axis("stx", 0.5, 2.5), Axis("sty", -2.5, 1.5, direction="vert"))


@pytest.mark.parametrize("name", ["sample.dat", "sample.spec", "sample", "session.spec"])
def test_spec_file_beside_the_scan(root: Path, catalog: Catalog, name: str) -> None:
    write_scan(root, "sample_42")  # ID13 does not pad numbers
    (root / name).write_text(spec((42, MESH)))
    scan = catalog.scan(b"sample_42")
    assert scan.raster is not None
    assert (scan.raster.horz, scan.raster.vert) == (5, 2)


@pytest.mark.parametrize("content", [b"", b"#S 41 " + MESH.encode(), b"\0\xff" * 9000, b"1 2\n3 4"])
def test_files_that_say_nothing_of_the_scan(root: Path, catalog: Catalog, content: bytes) -> None:
    write_scan(root)
    (root / "scan.dat").write_bytes(content)
    (root / "scan42.fio").write_bytes(content)
    scan = catalog.scan(b"scan42")
    assert (scan.raster, scan.problems) == (None, ())


def test_comment_says_snake(old: Path, catalog: Catalog) -> None:
    text = spec((42, MESH)).replace("#T 0.02", "#C mode: bidirectional\n#T 0.02")
    old.write_text(text)
    scan = catalog.scan(f"{OLD}/newfile_00042".encode())
    assert scan.raster is not None
    assert scan.raster.order == "snake"


def test_aborted_scan_keeps_its_raster(root: Path, catalog: Catalog) -> None:
    write_data(root / "a_42_data_000001.h5", frames_from(0, 7), low=1)
    (root / "a.dat").write_text(spec((42, "mesh x 0 10 254 y 0 4 9 0.02")))
    scan = catalog.scan(b"a_42")
    assert scan.frames == 7
    assert scan.raster is not None
    assert (scan.raster.horz, scan.raster.vert) == (255, 10)
    assert scan.problems == ()


def test_more_frames_than_points(root: Path, catalog: Catalog) -> None:
    write_scan(root)
    (root / "scan.dat").write_text(spec((42, "mesh x 0 10 2 y 0 4 1 0.02")))
    scan = catalog.scan(b"scan42")
    assert scan.raster is None
    assert scan.problems == (
        "scan.dat #S 42 has 3 x 2 = 6 points, but there are 10 frames: its raster is not used;"
        " give horz= and vert=, or [raster] in geometry.toml",
    )
    assert scan.withheld["raster"] == scan.problems[0]


def test_two_logs_that_disagree(root: Path, catalog: Catalog) -> None:
    write_scan(root)
    (root / "scan.dat").write_text(spec((42, MESH)))
    (root / "scan42.fio").write_text(fio("mesh stx 0 10 1 sty 0 4 4 0.02"))
    scan = catalog.scan(b"scan42")
    assert scan.raster is None
    assert scan.problems == (
        "the raster is 2 x 5 in scan42.fio and 5 x 2 in scan.dat #S 42: none is used; give horz="
        " and vert=, or [raster] in geometry.toml",
    )


def test_a_number_that_was_given_twice(root: Path, catalog: Catalog) -> None:
    write_scan(root)
    (root / "scan.dat").write_text(spec((42, "ascan x 0 1 99 1"), (42, MESH)))
    scan = catalog.scan(b"scan42")
    assert scan.raster is not None
    assert (scan.raster.horz, scan.raster.vert) == (5, 2)
    assert scan.problems == ("scan.dat #S 42 is there 2 times: the last one is used",)


def test_a_command_that_makes_no_sense(root: Path, catalog: Catalog) -> None:
    write_scan(root)
    (root / "scan42.fio").write_text(fio("mesh stx 0 10 many sty 0 4 1 0.02"))
    scan = catalog.scan(b"scan42")
    assert scan.raster is None
    (problem,) = scan.problems
    assert problem.startswith("scan42.fio: '0 10 many' are no three numbers")


@pytest.mark.parametrize(
    ("images", "triggers", "expected"),
    [(5, 2, (5, 2)), (1, 10, None), (10, 1, None), (2, 5, (2, 5))],
)
def test_a_line_for_each_trigger(
    root: Path, catalog: Catalog, images: int, triggers: int, expected: Any
) -> None:
    write_scan(root, announced=images, ntrigger=triggers)
    scan = catalog.scan(b"scan42")
    assert (scan.frames, scan.problems) == (10, ())
    raster = scan.raster and (scan.raster.horz, scan.raster.vert)
    assert raster == expected
    if scan.raster is not None:
        assert scan.raster.source == "nimages x ntrigger: a line for each trigger"


def test_command_and_triggers_that_disagree(root: Path, catalog: Catalog) -> None:
    write_scan(root, announced=2, ntrigger=5)
    (root / "scan.dat").write_text(spec((42, MESH)))
    scan = catalog.scan(b"scan42")
    assert scan.raster is not None
    assert (scan.raster.horz, scan.raster.vert) == (5, 2)
    assert scan.problems == (
        f"the raster is 5 x 2 by scan.dat #S 42: {MESH}, but the detector had 5 triggers of 2"
        " images",
    )


def test_scan_of_one_frame(root: Path, catalog: Catalog) -> None:
    write_scan(root, counts=[1], announced=1)
    scan = catalog.scan(b"scan42")
    assert (scan.frames, scan.raster, scan.problems) == (1, None, ())
    assert len(catalog.slice(b"scan42", 0, 1).runs) == 1


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The pieces read of SPEC files: size and offset."""
    done: list[tuple[int, int]] = []
    pread = os.pread

    def spy(fd: int, size: int, offset: int) -> bytes:
        done.append((size, offset))
        return pread(fd, size, offset)

    monkeypatch.setattr(spec_module.os, "pread", spy)
    return done


def catalogs(tree: RawTree, store: Store, clock: Clock) -> Callable[[], Catalog]:
    return lambda: Catalog(tree, store, clock)


def test_a_long_spec_file_is_searched_once(
    root: Path, tree: RawTree, store: Store, clock: Clock, reads: list[tuple[int, int]]
) -> None:
    write_scan(root)
    data = "".join(f"{number} 2 3 4\n" for number in range(1 << 19))
    with (root / "scan.dat").open("w") as file:
        file.write(spec((41, "ct 1")) + data + spec((42, MESH), head="") + data)
    size = (root / "scan.dat").stat().st_size
    scan = Catalog(tree, store, clock).scan(b"scan42")
    assert scan.raster is not None
    searched = sum(length for length, _ in reads if length > spec_module.HEADER_BYTES)
    assert size <= searched < 1.2 * size
    assert max(length for length, _ in reads) <= spec_module.PIECE_BYTES
    version = scan.version
    for number in range(3):  # it grows by other scans: another catalog knows where this one is
        with (root / "scan.dat").open("a") as file:
            file.write(spec((43 + number, "ct 1"), head="") + "1 2 3 4\n" * 1000)
        reads.clear()
        again = Catalog(tree, store, clock).scan(b"scan42")
        assert again.raster == scan.raster
        assert again.version == version  # what is said of this scan is the same
        assert sum(length for length, _ in reads) < 200_000


def test_a_spec_file_that_is_written_anew(root: Path, catalog: Catalog, clock: Clock) -> None:
    write_scan(root)
    (root / "scan.dat").write_text(spec((42, MESH)))
    before = catalog.scan(b"scan42")
    (root / "scan.dat").write_text(spec((42, "mesh a 0 1 1 b 0 1 4 1"), (43, "ct 1"), (44, "ct 1")))
    clock.now += 10
    after = catalog.scan(b"scan42")
    assert after.raster is not None
    assert (after.raster.horz, after.raster.vert) == (2, 5)
    assert after.version != before.version


def test_a_scan_that_is_just_being_written(root: Path, catalog: Catalog, clock: Clock) -> None:
    write_scan(root)
    whole = spec((42, MESH))
    for end in (whole.index("#S 42") + 4, whole.index("mesh") + 9, len(whole)):
        (root / "scan.dat").write_text(whole[:end])
        clock.now += 10
        scan = catalog.scan(b"scan42")
        assert scan.problems == ()
    assert scan.raster is not None


def test_listings_read_no_log(
    root: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_scan(root)
    write_master(root / "lone_master.h5")
    (root / "scan.dat").write_text(spec((42, MESH)))
    (root / "geometry.toml").write_text("[raster]\nhorz = 5")

    def opened(self: RawTree, path: bytes) -> int:
        raise AssertionError(path)

    monkeypatch.setattr(RawTree, "open", opened)
    names = {entry.name for entry in catalog.list(b"")}
    assert names == {b"scan42", b"lone", b"scan.dat", b"geometry.toml"}
    assert catalog.resolve(b"scan42/darkfield").kind == "scan"

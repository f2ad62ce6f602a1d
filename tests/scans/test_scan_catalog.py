"""What the mount shows of a raw tree, and what it says of its scans."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scanfiles import (
    SHAPE,
    Clock,
    assert_frames,
    frames_from,
    read_slice,
    rewrite,
    write_data,
    write_master,
    write_scan,
)

from dadafs.errors import DadaError, NoSuchPath, NoSuchScan, NotPermitted, Stale
from dadafs.scans.catalog import Catalog
from dadafs.scans.tree import RawTree


def listed(catalog: Catalog, path: bytes = b"") -> list[tuple[bytes, str, bool]]:
    return [(one.name, one.attributes.kind, one.scan) for one in catalog.list(path)]


def test_listing_shows_scans_as_directories(root: Path, catalog: Catalog) -> None:
    write_scan(root)
    (root / "notes.txt").write_bytes(b"x")
    (root / "sub").mkdir()
    write_data(root / "lone_data_7.h5", frames_from(0, 1))
    assert listed(catalog) == [
        (b"lone", "directory", True),
        (b"notes.txt", "file", False),
        (b"scan42", "directory", True),
        (b"sub", "directory", False),
    ]


def test_listing_opens_no_hdf5_file(
    root: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_scan(root)

    def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError("an HDF5 file was opened")

    monkeypatch.setattr(h5py, "File", refuse)
    assert listed(catalog) == [(b"scan42", "directory", True)]
    assert catalog.resolve(b"scan42/raw").kind == "scan"
    assert len(catalog.raw_files(b"scan42")) == 4
    with pytest.raises(AssertionError, match="was opened"):  # so the above means something
        catalog.scan(b"scan42")


def test_a_number_that_is_none_is_a_problem_of_the_scan(root: Path, catalog: Catalog) -> None:
    write_scan(root, ntrigger=np.nan, count_time=0.0)
    assert catalog.scan(b"scan42").problems == (
        "/entry/instrument/detector/detectorSpecific/ntrigger is nan",
        "/entry/instrument/detector/count_time is 0: never set",
    )


def test_attributes_of_a_scan_come_from_its_files(root: Path, catalog: Catalog) -> None:
    write_scan(root, counts=(4, 4))
    (root / "scan42_master.h5").chmod(0o640)
    os.utime(root / "scan42_data_000002.h5", ns=(5, 4_000_000_000_000_000_123))
    entry = catalog.list(b"")[0]
    about = entry.attributes
    assert (about.mode, about.mtime_ns) == (0o750, 4_000_000_000_000_000_123)
    assert (about.uid, about.gid, about.inode) == (os.getuid(), os.getgid(), 0)
    assert catalog.resolve(b"scan42").attributes == about == catalog.scan(b"scan42").attributes


def test_paths_resolve_to_the_deepest_raw_thing(root: Path, catalog: Catalog) -> None:
    (root / "a/b").mkdir(parents=True)
    write_scan(root / "a/b")
    (root / "a/file.txt").write_bytes(b"x")
    (root / "link").symlink_to("a/b")
    found = catalog.resolve(b"a/b/scan42/darkfield/horz=2/full.npy")
    assert (found.kind, found.path) == ("scan", b"a/b/scan42")
    assert found.rest == (b"darkfield", b"horz=2", b"full.npy")
    for path, kind in ((b"", "directory"), (b"a/b", "directory"), (b"a/file.txt", "file")):
        found = catalog.resolve(path)
        assert (found.kind, found.path, found.rest) == (kind, path, ())
    found = catalog.resolve(b"link")
    assert (found.kind, found.attributes.target) == ("symlink", b"a/b")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (b"scan43/darkfield", "scan43 does not exist; did you mean scan42"),
        (b"notes.tx", "notes.tx does not exist; did you mean notes.txt?"),
        (b"zzz", "zzz does not exist"),
        (b"scan42_master.h5", "part of scan scan42: scan42/raw/scan42_master.h5"),
        (b"scan42_data_000002.h5", "scan42/raw/scan42_data_000002.h5"),
        (b"scan42_data_000009.h5", "scan42_data_000009.h5 does not exist"),
        (b"notes.txt/x", "notes.txt is a file: nothing is below it"),
        (b"link/scan", "link is a symlink to sub: nothing is below it"),
        (b"../raw/notes.txt", "not a path of the raw tree"),
        (b"scan42_master.h5/x", "part of scan"),
        (b"dangling", "leads nowhere"),
        (b"sub//x", "not a path"),
    ],
)
def test_paths_that_lead_nowhere_say_why(
    root: Path, catalog: Catalog, path: bytes, message: str
) -> None:
    write_scan(root)
    (root / "notes.txt").write_bytes(b"x")
    (root / "sub").mkdir()
    (root / "link").symlink_to("sub")
    (root / "dangling").symlink_to("none")
    with pytest.raises(NoSuchPath, match=message) as caught:
        catalog.resolve(path)
    assert "\n" not in str(caught.value)


def test_paths_out_of_the_root_are_refused(root: Path, catalog: Catalog, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    write_scan(tmp_path / "outside")
    (root / "out").symlink_to(tmp_path / "outside")
    (root / "s_master.h5").symlink_to(tmp_path / "outside/scan42_master.h5")
    assert listed(catalog) == []
    with pytest.raises(NotPermitted):
        catalog.resolve(b"out/scan42")
    with pytest.raises(DadaError):
        catalog.resolve(b"s")
    with pytest.raises(DadaError):
        catalog.scan(b"out/scan42")
    (root / "inside").symlink_to(".")
    with pytest.raises(NoSuchPath, match="inside is a symlink"):
        catalog.scan(b"inside/scan42")


def test_scan_whose_name_is_taken(root: Path, tree: RawTree, catalog: Catalog) -> None:
    write_scan(root)
    (root / "scan42").mkdir()
    (root / "scan42/inside").write_bytes(b"x")
    assert listed(catalog) == [(b"scan42", "directory", False), (b"scan42.scan", "directory", True)]
    assert catalog.resolve(b"scan42/inside").kind == "file"
    assert catalog.resolve(b"scan42.scan/raw").path == b"scan42.scan"
    assert_frames(tree, catalog, b"scan42.scan", range(10), 10)
    with pytest.raises(NoSuchPath, match=r"scan42.scan/raw/scan42_master.h5"):
        catalog.resolve(b"scan42_master.h5")
    with pytest.raises(NoSuchScan):
        catalog.scan(b"scan42")


def test_raw_files(root: Path, tree: RawTree, catalog: Catalog) -> None:
    (root / "a").mkdir()
    write_scan(root / "a")
    entries = catalog.raw_files(b"a/scan42")
    names = [entry.name for entry in entries]
    assert names == [b"scan42_master.h5", *(b"scan42_data_%06d.h5" % n for n in (1, 2, 3))]
    for entry in entries:
        assert tree.attributes(b"a/" + entry.name) == entry.attributes
    with pytest.raises(NoSuchScan, match="did you mean scan42"):
        catalog.raw_files(b"a/scan4")


def test_files_that_are_symlinks_make_scans(root: Path, tree: RawTree, catalog: Catalog) -> None:
    (root / "real").mkdir()
    write_scan(root / "real", counts=(4, 4, 2))
    (root / "copy").mkdir()
    for file in (root / "real").iterdir():
        (root / "copy" / file.name).symlink_to(f"../real/{file.name}")
    assert listed(catalog, b"copy") == [(b"scan42", "directory", True)]
    assert_frames(tree, catalog, b"copy/scan42", range(10), 10)
    (root / "real/scan42_data_000002.h5").unlink()  # leaves no trace in copy/
    names = [entry.name for entry in catalog.raw_files(b"copy/scan42")]
    assert names == [b"scan42_master.h5", b"scan42_data_000001.h5", b"scan42_data_000003.h5"]


def test_names_that_are_no_text(root: Path, tree: RawTree, catalog: Catalog) -> None:
    directory = Path(os.fsdecode(os.fsencode(root) + b"/\xe9t\xe9"))
    directory.mkdir()
    name = os.fsdecode(b"caf\xe9")
    write_scan(root, counts=(4, 4, 2))
    for file in root.glob("*.h5"):
        file.rename(directory / file.name.replace("scan42", name))
    path = b"\xe9t\xe9/caf\xe9"
    assert listed(catalog, b"\xe9t\xe9") == [(b"caf\xe9", "directory", True)]
    assert catalog.resolve(path + b"/x").rest == (b"x",)
    scan = catalog.scan(path)
    assert "taken by their numbers" in scan.problems[0]
    assert_frames(tree, catalog, path, range(10), 10)
    for text in (*scan.problems, *(one.name for one in catalog.data_files(path))):
        text.encode()


def test_scan_is_described(root: Path, catalog: Catalog) -> None:
    mask = np.zeros(SHAPE, np.uint32)
    mask[2, 3] = 1
    write_scan(root, mask=mask)
    scan = catalog.scan(b"scan42")
    assert (scan.path, scan.frames, scan.height, scan.width) == (b"scan42", 10, *SHAPE)
    assert (scan.dtype, scan.cx, scan.cy, scan.problems) == ("<u2", 2.25, 3.5, ())
    assert scan.mask
    assert scan.geometry is not None
    assert scan.sources["cx"] == "/entry/instrument/detector/beam_center_x"


def test_every_frame_is_found_in_its_place(root: Path, tree: RawTree, catalog: Catalog) -> None:
    write_scan(root)
    assert_frames(tree, catalog, b"scan42", range(10), 10)
    found = catalog.slice(b"scan42", 3, 6)
    assert (found.first, found.count) == (3, 6)
    assert [run.first for run in found.runs] == [3, 4, 8]
    assert sorted(read_slice(tree, found)) == list(range(3, 9))
    assert catalog.slice(b"scan42", 10, 0).runs == ()
    for first, count in ((0, 11), (10, 1), (-1, 2), (3, -1)):
        with pytest.raises(Stale, match="there are no frames"):
            catalog.slice(b"scan42", first, count)


def test_files_are_those_of_one_version(root: Path, catalog: Catalog, clock: Clock) -> None:
    write_scan(root)
    version = catalog.scan(b"scan42").version
    before = catalog.files(b"scan42", version)
    assert [one.name for one in before] == [one.name for one in catalog.raw_files(b"scan42")]
    rewrite(root / "scan42_data_000002.h5", frames=frames_from(0, 2), low=5)
    assert catalog.files(b"scan42", version) == before  # nothing else is known yet
    clock.now += 1.5
    with pytest.raises(Stale, match="scan42 has changed since it was opened"):
        catalog.files(b"scan42", version)
    after = catalog.files(b"scan42", catalog.scan(b"scan42").version)
    assert {old.name for old, new in zip(before, after, strict=True) if old != new} == {
        b"scan42_data_000002.h5"
    }


def test_version_changes_with_any_file(root: Path, catalog: Catalog, clock: Clock) -> None:
    write_scan(root)
    versions = [catalog.scan(b"scan42").version]
    assert catalog.scan(b"scan42").version == versions[0]
    for name in ("scan42_data_000002.h5", "scan42_data_000003.h5"):
        rewrite(root / name, frames=frames_from(0, 2), low=5 if "2" in name[-5:] else 9)
        clock.now += 1.5
        versions.append(catalog.scan(b"scan42").version)
    (root / "scan42_data_000003.h5").unlink()
    clock.now += 1.5
    versions.append(catalog.scan(b"scan42").version)
    assert len(set(versions)) == len(versions) == 4


def test_files_are_not_asked_for_news_all_the_time(
    root: Path, catalog: Catalog, clock: Clock
) -> None:
    write_scan(root)
    before = catalog.scan(b"scan42")
    os.utime(root / "scan42_master.h5", ns=(5, 5_000_000_000))
    clock.now += 0.5
    assert catalog.scan(b"scan42") is before
    clock.now += 0.6
    assert catalog.scan(b"scan42").version != before.version


def test_changed_file_is_indexed_anew_at_once(root: Path, tree: RawTree, catalog: Catalog) -> None:
    write_scan(root)
    before = catalog.slice(b"scan42", 0, 10)
    other = frames_from(4, 4) + np.uint16(1)
    rewrite(root / "scan42_data_000002.h5", frames=other, low=5)
    after = catalog.slice(b"scan42", 0, 10)  # though the scan's version is still the old one
    assert after.runs[1].identity != before.runs[1].identity
    np.testing.assert_array_equal(read_slice(tree, after)[4], other[0])


def test_growing_scan(root: Path, tree: RawTree, catalog: Catalog, clock: Clock) -> None:
    write_scan(root, counts=(4, None, None))
    assert_frames(tree, catalog, b"scan42", range(4), 10)
    before = catalog.scan(b"scan42")
    assert "2 of 3 data files are missing: scan42_data_000002.h5" in before.problems[0]
    write_data(root / "scan42_data_000002.h5", frames_from(4, 4), low=5)
    clock.now += 1.5
    after = catalog.scan(b"scan42")
    assert after.version != before.version
    assert_frames(tree, catalog, b"scan42", range(8), 10)
    write_data(root / "scan42_data_000003.h5", frames_from(8, 2), low=9)
    clock.now += 1.5
    assert catalog.scan(b"scan42").problems == ()
    assert_frames(tree, catalog, b"scan42", range(10), 10)


def test_new_scan_is_found_at_once(root: Path, catalog: Catalog) -> None:
    with pytest.raises(NoSuchPath):
        catalog.resolve(b"scan42")
    write_scan(root)
    assert catalog.resolve(b"scan42").kind == "scan"
    for file in root.iterdir():
        file.unlink()
    with pytest.raises(NoSuchPath):
        catalog.resolve(b"scan42")
    with pytest.raises(NoSuchScan):
        catalog.scan(b"scan42")


def test_files_elsewhere_count_in_the_version(
    root: Path, tree: RawTree, catalog: Catalog, clock: Clock
) -> None:
    (root / "deep").mkdir()
    write_data(root / "deep/one.h5", frames_from(0, 4), low=1)
    write_master(root / "s_master.h5", ["deep/one.h5", "./deep/../deep/two.h5"], nimages=8)
    before = catalog.scan(b"s").version
    assert_frames(tree, catalog, b"s", range(4), 8)
    write_data(root / "deep/two.h5", frames_from(4, 4), low=5)
    clock.now += 1.5
    assert catalog.scan(b"s").version != before
    assert_frames(tree, catalog, b"s", range(8), 8)


def test_data_files_are_told(root: Path, catalog: Catalog) -> None:
    write_scan(root, counts=(4, None, 2))
    found = [(one.name, one.first, one.frames, one.state) for one in catalog.data_files(b"scan42")]
    assert found == [
        ("scan42_data_000001.h5", 0, 4, "present"),
        ("scan42_data_000002.h5", 4, 4, "missing"),
        ("scan42_data_000003.h5", 8, 2, "present"),
    ]


def test_many_threads_get_the_same(root: Path, catalog: Catalog) -> None:
    write_scan(root)
    write_scan(root, "other")
    expected = [catalog.scan(b"scan42"), catalog.slice(b"scan42", 0, 10)]
    found: list[list[Any]] = []

    def ask() -> None:
        answers: list[Any] = []
        for _ in range(5):
            catalog.list(b"")
            catalog.resolve(b"other/x")
            catalog.data_files(b"other")
            answers = [catalog.scan(b"scan42"), catalog.slice(b"scan42", 0, 10)]
        found.append(answers)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 6


def test_every_change_makes_the_scan_younger(root: Path, catalog: Catalog, clock: Clock) -> None:
    """`make` and rsync go by the mtime: a file that appears may be old, one that vanishes is."""
    write_master(root / "s_master.h5", links=["s_data_000001.h5", "s_data_000002.h5"])
    write_data(root / "s_data_000001.h5", frames_from(0, 5))
    first = catalog.scan(b"s").attributes.mtime_ns
    assert first == max(path.stat().st_mtime_ns for path in root.iterdir())
    told = [first]
    write_data(root / "part", frames_from(5, 5))
    os.utime(root / "part", (1, 1))
    for change in (
        lambda: (root / "part").rename(root / "s_data_000002.h5"),
        lambda: (root / "geometry.toml").write_text("[raster]\nhorz = 5\n"),
        lambda: (root / "geometry.toml").unlink(),
        lambda: (root / "s_data_000002.h5").unlink(),
    ):
        change()
        clock.now += 100
        told.append(catalog.scan(b"s").attributes.mtime_ns)
        clock.now += 100
        assert catalog.scan(b"s").attributes.mtime_ns == told[-1]  # nothing has happened
    assert told == sorted(set(told))

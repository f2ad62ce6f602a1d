"""Directories are read again when they may have changed, and only then."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from scanfiles import Clock

from dadafs.scans.directories import SHARE, Directories, instead
from dadafs.scans.lone import LoneImages
from dadafs.scans.tree import RawTree

LONG_AGO_NS = 1_000_000_000_000_000_000
READ_S = 0.25  # what reading a directory takes here


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> list[bytes]:
    """The directories read so far, each at its price."""
    done: list[bytes] = []
    kinds = RawTree.kinds

    def spy(self: RawTree, path: bytes) -> list[tuple[bytes, str, bool]]:
        done.append(path)
        clock.now += READ_S
        return kinds(self, path)

    monkeypatch.setattr(RawTree, "kinds", spy)
    return done


@pytest.fixture
def directories(tree: RawTree, clock: Clock) -> Directories:
    return Directories(tree, LoneImages(tree), clock)


def age(path: Path, ns: int = LONG_AGO_NS) -> None:
    os.utime(path, ns=(0, ns))


def test_settled_directory_is_read_once(
    root: Path, directories: Directories, clock: Clock, reads: list[bytes]
) -> None:
    (root / "s_master.h5").touch()
    age(root)
    for _ in range(3):
        assert list(directories.get(b"").scans) == [b"s"]
        clock.now += 1000
    assert reads == [b""]
    (root / "t_master.h5").touch()
    age(root, LONG_AGO_NS + 1)
    assert list(directories.get(b"").scans) == [b"s", b"t"]
    assert len(reads) == 2


def test_fresh_directory_is_read_again_for_a_part_of_the_time(
    root: Path, directories: Directories, clock: Clock, reads: list[bytes]
) -> None:
    directories.get(b"")
    clock.now += SHARE * READ_S - 0.1
    directories.get(b"")
    assert len(reads) == 1
    clock.now += 0.2
    directories.get(b"")
    assert len(reads) == 2


def test_symlinks_among_scans_are_asked_again(
    root: Path, directories: Directories, clock: Clock, reads: list[bytes]
) -> None:
    (root / "sub").mkdir()
    (root / "real").touch()
    (root / "sub/s_master.h5").symlink_to("../real")
    age(root / "sub")
    assert list(directories.get(b"sub").scans) == [b"s"]
    (root / "real").unlink()  # which leaves no trace in `sub`
    clock.now += SHARE * READ_S + 0.1
    assert list(directories.get(b"sub").scans) == []


def test_names_kept_are_bounded(
    root: Path, directories: Directories, reads: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dadafs.scans.directories.KEPT_NAMES", 5)
    for name in (b"a", b"b"):
        path = root / os.fsdecode(name)
        path.mkdir()
        for number in range(4):
            (path / f"{number}").touch()
        age(path)
    for name in (b"a", b"a", b"b", b"b", b"a"):
        assert len(directories.get(name).names) == 4
    assert reads == [b"a", b"b", b"a"]


def test_suggestions() -> None:
    names = sorted([b"scan41", b"scan42", b"other", *(b"x%d" % n for n in range(1000))])
    assert instead(b"scan4", names) == "; did you mean scan42 or scan41?"
    assert instead(b"zzzzzz", names) == ""
    assert instead(b"a", []) == ""

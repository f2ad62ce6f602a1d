"""Mounts for the tests of commands: the fixtures of the tests of mounts."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "mount"))

from mounting import Site, fuse_missing, site

from tools.scan_maker import ScanMade, make_scan


@pytest.fixture(scope="session")
def _fuse_here() -> None:
    if reason := fuse_missing():
        pytest.skip(f"no FUSE here: {reason}")


@pytest.fixture(scope="session")
def _mounted(_fuse_here: None) -> Iterator[tuple[Site, ScanMade]]:
    with site() as made:
        scan = make_scan(made.raw, name="raster", horz=13, vert=11, images_per_file=50)
        made.mount()
        yield made, scan
        made.unmount()


@pytest.fixture
def working(_mounted: tuple[Site, ScanMade], monkeypatch: pytest.MonkeyPatch) -> Site:
    """A mount that all tests of commands share; this process finds its sockets."""
    made, _ = _mounted
    for name in ("XDG_CACHE_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(name, made.env[name])
    return made


@pytest.fixture
def bare(_fuse_here: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A site of this test's own, not yet mounted, with one scan."""
    with site() as made:
        make_scan(made.raw, name="raster", horz=13, vert=11, images_per_file=50)
        for name in ("XDG_CACHE_HOME", "XDG_RUNTIME_DIR"):
            monkeypatch.setenv(name, made.env[name])
        yield made
        if made.mounted():
            made.unmount()

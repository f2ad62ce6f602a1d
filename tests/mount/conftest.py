"""One mount for all tests that only read, each with scans of its own; others make theirs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scans"))

from mounting import Site, fuse_missing, site

from tools.scan_maker import ScanMade, make_scan


@pytest.fixture(scope="session")
def _fuse() -> None:
    if reason := fuse_missing():
        pytest.skip(f"no FUSE here: {reason}")


@pytest.fixture(scope="session")
def shared(_fuse: None) -> Iterator[Site]:
    """A site that is mounted as long as the tests run."""
    with site() as made:
        made.mount()
        yield made
        made.unmount()


@pytest.fixture
def unmounted(_fuse: None) -> Iterator[Site]:
    """A site of this test's own, not yet mounted."""
    with site() as made:
        yield made


@pytest.fixture
def own(unmounted: Site) -> Iterator[Site]:
    """A site of this test's own, mounted, and left mounted or not by it."""
    unmounted.mount()
    yield unmounted
    if unmounted.mounted():
        unmounted.unmount()
    unmounted.wait_gone()


@pytest.fixture(scope="session")
def raster(shared: Site) -> ScanMade:
    """`raster` in the shared mount: 11 lines of 13 points in 3 patches and 3 data files."""
    return make_scan(shared.raw, name="raster", horz=13, vert=11, images_per_file=50)

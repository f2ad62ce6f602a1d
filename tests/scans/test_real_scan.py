"""Frames of a real detector are found and decoded."""

from __future__ import annotations

from pathlib import Path

import pytest
from scanfiles import read_slice

from dadafs.cache.store import Store
from dadafs.scans.catalog import Catalog
from dadafs.scans.tree import RawTree

DATA = Path(__file__).resolve().parents[3] / "shared/data"
NAME = "vac_007_data_000001.h5"


@pytest.mark.realdata
@pytest.mark.skipif(not (DATA / NAME).exists(), reason=f"{DATA / NAME} is not here")
def test_lone_file_of_two_frames(store: Store) -> None:
    tree = RawTree(DATA)
    catalog = Catalog(tree, store)
    assert [entry.name for entry in catalog.list(b"") if entry.scan] == [b"vac_007"]
    scan = catalog.scan(b"vac_007")
    assert (scan.frames, scan.height, scan.width, scan.dtype) == (2, 3262, 3108, "<u4")
    assert (scan.problems, scan.geometry, scan.cx) == ((), None, None)
    frames = read_slice(tree, catalog.slice(b"vac_007", 0, 2))
    sums = [int(frames[n].sum(where=frames[n] != 2**32 - 1, dtype="u8")) for n in (0, 1)]
    assert sums == [137_689, 137_435]

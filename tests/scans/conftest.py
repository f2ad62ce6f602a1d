"""A raw tree, an index store and a catalog in a temporary directory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from scanfiles import Clock

from dadafs.cache.store import Store
from dadafs.scans.catalog import Catalog
from dadafs.scans.tree import RawTree


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "raw"
    path.mkdir()
    return path


@pytest.fixture
def tree(root: Path) -> RawTree:
    return RawTree(root)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "index", map_bytes=16 << 20)
    yield made
    made.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def catalog(tree: RawTree, store: Store, clock: Clock) -> Catalog:
    return Catalog(tree, store, clock)

"""What the pages on geometry and detectors show is true."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import tifffile
from metadatafiles import spec
from scanfiles import frames_from, write_data

from dadafs.scans.catalog import Catalog
from dadafs.scans.commands import parse
from dadafs.scans.model import Raster
from dadafs.scans.overrides import TABLES, merged, read_overrides

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "geometry.md").read_text()


def example() -> str:
    found = re.search(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return found[1]


def test_the_example_has_every_key() -> None:
    sections = read_overrides(example().encode())
    keys = set(sections[0].settings) | {"wavelength_nm"}
    assert keys == {key for table in TABLES.values() for key in table}
    files = [(b"a", "a/geometry.toml", sections)]
    assert merged(files, b"a/run55_1")["distance_m"].value == 5.3
    assert merged(files, b"a/empty/x")["horz"].value == 1
    assert merged(files, b"a/b")["distance_m"].value == 5.1


def test_the_example_is_applied(root: Path, catalog: Catalog) -> None:
    frames = np.zeros((3, 1200, 1100), np.uint16)
    write_data(root / "x_data_1.h5", frames, dataset="/entry/detector/frames")
    (root / "geometry.toml").write_text(example().replace("calib/agbh.poni", "none.poni"))
    scan = catalog.scan(b"x")
    assert (scan.cx, scan.cy) == (1035.5, 1101.25)
    assert scan.geometry is not None
    assert scan.geometry.distance_m == 5.1
    assert scan.raster is not None
    assert (scan.raster.horz, scan.raster.vert, scan.raster.order) == (255, 10, "snake")


def test_the_command_of_the_page(root: Path, catalog: Catalog) -> None:
    found = re.search(r"`(mesh x [^`]+)` is (\d+) points by (\d+) lines", PAGE)
    assert found is not None
    command = parse(found[1])
    assert command is not None
    assert (command.horz, command.vert) == (int(found[2]), int(found[3]))
    write_data(root / "newfile_42_data_000001.h5", frames_from(0, 2))
    (root / "newfile.dat").write_text(spec((42, found[1])))
    raster = catalog.scan(b"newfile_42").raster
    assert raster == Raster(255, 10, source=f"newfile.dat #S 42: {found[1]}")


def test_the_refusal_of_the_page(root: Path, catalog: Catalog) -> None:
    found = re.search(r"`(pixels are not whole [^`]+)`", (DOCS / "detectors.md").read_text())
    assert found is not None
    for number in (1, 2):
        tifffile.imwrite(root / f"a_{number}.tif", np.full((4, 4), 0.5, np.float32))
    assert found[1] in catalog.scan(b"a").problems[0]

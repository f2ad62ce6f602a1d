"""What the pages on geometry and detectors show is true."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
from blissfiles import write_entry, write_lima
from metadatafiles import fio, poni, spec
from scanfiles import frames_from, write_data, write_scan

from dadafs.scans.beside.commands import parse
from dadafs.scans.beside.overrides import TABLES, merged, read_overrides
from dadafs.scans.catalog import Catalog
from dadafs.scans.model import Raster

MESH = "mesh stx 0 10 4 sty 0 4 1 0.02"
WAVELENGTH = "/entry/instrument/beam/incident_wavelength"
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


@pytest.mark.parametrize(
    ("beamline", "log"),
    [
        ("P10", "newfile.dat"),
        ("P10", "sample_00042.fio"),
        ("ID13", ".dat"),
        ("ID13", "sample_0001.h5"),
    ],
)
def test_the_layouts_of_the_page(root: Path, catalog: Catalog, beamline: str, log: str) -> None:
    page = (DOCS / "detectors.md").read_text()
    blocks = re.findall(r"\*\*(\w+) \(.*?`([^`]+)/`.*?```\n(.*?)```", page, re.DOTALL)
    (path, picture), *_ = [
        (p, text) for name, p, text in blocks if name == beamline and log in text
    ]
    above: list[str] = []
    for line in picture.splitlines():
        name = line.strip()
        above[(len(line) - len(name)) // 2 :] = [name]
        place = root.joinpath(*above)
        if name.endswith("/"):
            place.mkdir()
        elif name.endswith("_master.h5"):
            write_scan(place.parent, name.removesuffix("_master.h5"), counts=(10,))
        elif name.startswith("eiger_"):
            write_lima(place, frames_from(0, 5), announced=10)
        elif name == log and name.endswith(".h5"):
            title, positions = "amesh stx 0 4 4 sty 0 1 1 0.02", {"stx": np.tile(np.arange(5.0), 2)}
            write_entry(place, "1.1", title, positions=positions, ended=False)
        elif name.endswith((".dat", ".fio")):
            place.write_text(fio(MESH) if name.endswith(".fio") else spec((42, MESH)))
        else:
            assert place.exists()  # written with its master
    raster = catalog.scan(path.encode()).raster
    assert raster is not None
    assert (raster.horz, raster.vert) == (5, 2)
    assert log in raster.source


def with_wavelength(root: Path) -> None:
    write_scan(root)
    with h5py.File(root / "scan42_master.h5", "a") as file:
        file[WAVELENGTH] = 1.05


def with_files(root: Path, facts: dict[str, Any], **files: str) -> None:
    write_scan(root, **facts)
    for name, text in files.items():
        (root / name.replace("__", ".")).write_text(text)


CONTRADICTIONS: dict[str, Callable[[Path], None]] = {
    "the beam centre is off the detector": lambda root: with_files(root, {"beam_center_x": 5.0}),
    "the beam centre was never set": lambda root: with_files(
        root, {"beam_center_x": 0.0, "beam_center_y": 0.0}
    ),
    "the distance is 0": lambda root: with_files(root, {"detector_distance": 0.0}),
    "pixels are not square": lambda root: with_files(root, {"y_pixel_size": 150e-6}),
    "wavelength and energy": with_wavelength,
    "PONI and master, distance": lambda root: with_files(
        root, {}, calib__poni=poni(Distance="2.1")
    ),
    "PONI and master, beam centre": lambda root: with_files(
        root, {}, calib__poni=poni(Poni1="0.0001")
    ),
    "several PONI files": lambda root: with_files(root, {}, a__poni=poni(), b__poni=poni()),
    "a SPEC file and a FIO file": lambda root: with_files(
        root, {}, scan__dat=spec((42, MESH)), scan42__fio=fio("mesh stx 0 10 1 sty 0 4 4 0.02")
    ),
    "a SPEC file and a FIO file, order": lambda root: with_files(
        root, {}, scan__dat=spec((42, MESH)), scan42__fio=fio(MESH + " True")
    ),
    "a SPEC file and a FIO file, motors": lambda root: with_files(
        root, {}, scan__dat=spec((42, MESH.replace("10 4", "20 4"))), scan42__fio=fio(MESH)
    ),
    "more frames than points": lambda root: with_files(
        root, {}, scan__dat=spec((42, "mesh x 0 10 2 y 0 4 1 0.02"))
    ),
    "scan command and triggers": lambda root: with_files(
        root, {"announced": 2, "ntrigger": 5}, scan__dat=spec((42, MESH))
    ),
    "one number, two scans": lambda root: with_files(
        root, {}, scan__dat=spec((42, "ascan x 0 1 99 1"), (42, MESH))
    ),
    "a key that does not exist": lambda root: with_files(
        root, {}, geometry__toml="[geometry]\ndistance = 5.1\n"
    ),
}


@pytest.mark.parametrize("what", CONTRADICTIONS)
def test_the_line_that_a_contradiction_gives(root: Path, catalog: Catalog, what: str) -> None:
    CONTRADICTIONS[what](root)
    (line,) = catalog.scan(b"scan42").problems
    assert f"| {what} | `{line}` |" in PAGE


def test_no_line_of_the_page_is_made_up() -> None:
    rows = re.findall(r"^\| ([^|]+) \| `[^`]+` \|$", PAGE, re.MULTILINE)
    assert rows == list(CONTRADICTIONS)

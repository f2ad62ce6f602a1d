"""geometry.toml and PONI files: what they change, what is refused, what contradicts what."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import pytest
from metadatafiles import fio, poni
from scanfiles import Clock, frames_from, read_slice, write_data, write_scan

from analysis.plan import Geometry
from dadafs.errors import Stale
from dadafs.scans.beside.overrides import read_overrides
from dadafs.scans.beside.poni import read_poni
from dadafs.scans.catalog import Catalog
from dadafs.scans.model import Raster, Scan
from dadafs.scans.tree import RawTree

SCAN = b"a/b/scan42"


@pytest.fixture
def there(root: Path) -> Path:
    (root / "a/b").mkdir(parents=True)
    write_scan(root / "a/b")
    return root


def toml(directory: Path, text: str) -> None:
    (directory / "geometry.toml").write_text(text)


def test_the_nearest_file_wins_key_by_key(there: Path, catalog: Catalog) -> None:
    toml(there, "[geometry]\ncx = 1.0\ncy = 2.0\ndistance_m = 5.0\n[raster]\nhorz = 5")
    toml(there / "a", "[geometry]\ncy = 3.0\nenergy_kev = 12.3984198\n")
    toml(there / "a/b", "[geometry]\ndistance_m = 7\n[raster]\norder = 'snake'")
    scan = catalog.scan(SCAN)
    assert (scan.cx, scan.cy) == (1.0, 3.0)
    assert scan.geometry == Geometry(7.0, pytest.approx(0.1), 75e-6)  # type: ignore[arg-type]
    assert scan.sources["cx"] == "geometry.toml: cx"
    assert scan.sources["cy"] == "a/geometry.toml: cy"
    assert scan.sources["distance_m"] == "a/b/geometry.toml: distance_m"
    assert scan.sources["wavelength_nm"] == "a/geometry.toml: energy_kev"
    assert scan.sources["pixel_m"] == "/entry/instrument/detector/x_pixel_size"
    assert scan.metadata["distance_m"] == 7.0
    assert scan.raster == Raster(5, 2, "snake", "geometry.toml: horz, a/b/geometry.toml: order")
    assert scan.problems == ()


def test_tables_by_pattern(there: Path, catalog: Catalog) -> None:
    write_scan(there / "a/b", "other")
    toml(
        there / "a",
        """
        [geometry]
        cx = 1.0
        [scan."scan4?".geometry]
        cx = 2.0
        [scan."b/*".geometry]
        cy = 1.5
        [scan."c/*".geometry]
        cy = 9.0
        """,
    )
    scan = catalog.scan(SCAN)
    assert (scan.cx, scan.cy) == (2.0, 1.5)
    assert scan.sources["cx"] == 'a/geometry.toml [scan."scan4?"]: cx'
    assert catalog.scan(b"a/b/other").cx == 1.0


def test_only_files_in_the_root_count(root: Path, tmp_path: Path, catalog: Catalog) -> None:
    write_scan(root)
    toml(tmp_path, "[geometry]\ncx = 1.0")
    assert catalog.scan(b"scan42").cx == 2.25


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[geometry]\ncz = 1", "unknown key cz in [geometry]; did you mean c"),
        ("[geometry]\ndistance_mm = 5", "in [geometry]; write distance_m, in metres"),
        ("[geometry]\nfoo = 5", "unknown key foo in [geometry]; known are cx, cy, distance_m,"),
        ("[geometri]\ncx = 1", "unknown table [geometri]; did you mean geometry?"),
        ("cx = 1", "cx belongs into [geometry]"),
        ("[geometry]\ncx = '1'", "cx = 1 must be a number"),
        ("[geometry]\ncx = true", "cx = True must be a number"),
        ("[geometry]\ncx = nan", "cx = nan is not from -100000 to 100000"),
        ("[geometry]\ndistance_m = 0", "distance_m = 0 is not from 0.0001 to 1000"),
        ("[geometry]\ndistance_m = -2", "distance_m = -2 is not from"),
        ("[geometry]\nwavelength_nm = 0.1\nenergy_kev = 12", "gives both"),
        ("[raster]\nhorz = 2.0", "horz = 2.0 must be a whole number"),
        ("[raster]\nhorz = 10000\nvert = 10000", "are more than 10000000"),
        ("[raster]\norder = 'snaky'", 'order = "snaky": give "raster" or "snake"'),
        ("[data]\ndataset = 5", "dataset = 5 must be a text in quotes"),
        ("geometry = 5", "[geometry] must be a table"),
        ("[scan.geometry]\ncx = 1", '[scan."run55_*".geometry] for some'),
        ('[scan."x".geometri]\ncx = 1', 'unknown table [scan."x".geometri]; did you mean'),
        ("scan = 1", "scan must be tables such as"),
        ("[geometry", "Expected ']'"),
        ("# " + "x" * 70_000, "more than 65536 bytes"),
        ("\N{SNOWMAN}", "Invalid statement"),
    ],
)
def test_refused_files(there: Path, catalog: Catalog, text: str, line: str) -> None:
    toml(there / "a", text)
    scan = catalog.scan(SCAN)
    (problem,) = scan.problems
    assert problem.startswith("a/geometry.toml is not used: ")
    assert line in problem
    assert "\n" not in problem
    # the file was to set something right: no axis, rather than the one it was to replace
    assert (scan.cx, scan.cy, scan.geometry) == (None, None, None)
    assert scan.withheld == {"geometry": problem, "centre": problem}
    assert scan.frames == 10


def test_a_refused_file_is_not_half_applied(there: Path, catalog: Catalog, clock: Clock) -> None:
    toml(there / "a/b", "[raster]\nhorz = 5\n[geometry]\ncx = 1\ncyy = 1")
    scan = catalog.scan(SCAN)
    assert scan.raster is None
    assert "unknown key cyy in [geometry]; did you mean cy?" in scan.problems[0]
    toml(there / "a/b", "[raster]\nhorz = 5\n[geometry]\ncx = 1\ncy = 1")
    clock.now += 10
    mended = catalog.scan(SCAN)
    assert (mended.cx, mended.cy, mended.problems) == (1, 1, ())
    assert mended.raster is not None


def test_latin_1_is_refused(there: Path, catalog: Catalog) -> None:
    (there / "geometry.toml").write_bytes(b"# M\xfcller\n[geometry]\ncx = 1")
    assert catalog.scan(SCAN).problems[0].startswith("geometry.toml is not used: 'utf-8' codec")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("cx = 5.0", "the beam centre (5, 3.5) is outside the detector of 5 x 6 pixels"),
        ("cy = -3", "the beam centre (2.25, -3) is outside the detector of 5 x 6 pixels"),
    ],
)
def test_a_centre_off_the_detector(there: Path, catalog: Catalog, text: str, line: str) -> None:
    toml(there, f"[geometry]\n{text}")
    scan = catalog.scan(SCAN)
    assert (scan.cx, scan.cy) == (None, None)
    assert line in scan.withheld["centre"]
    assert scan.withheld["centre"] in scan.problems
    assert scan.geometry is not None


def test_what_the_master_lacks_is_no_problem_once_given(root: Path, catalog: Catalog) -> None:
    write_scan(root, detector_distance=0.0, beam_center_x=0.0, beam_center_y=0.0)
    before = catalog.scan(b"scan42")
    assert (before.geometry, before.cx) == (None, None)
    assert before.withheld == {
        "geometry": "/entry/instrument/detector/detector_distance is 0: never set; give distance_m"
        " in geometry.toml",
        "centre": "the beam centre is (0, 0): never set; give cx and cy in geometry.toml",
    }
    assert set(before.problems) == set(before.withheld.values())
    toml(root, "[geometry]\ndistance_m = 2.0\ncx = 2.0\ncy = 3.0")
    clock_free = Catalog(catalog._tree, catalog._indexer._store)
    scan = clock_free.scan(b"scan42")
    assert scan.problems == ()
    assert scan.geometry is not None


def test_energy_and_wavelength_that_disagree(root: Path, catalog: Catalog) -> None:
    write_scan(root)
    with h5py.File(root / "scan42_master.h5", "a") as file:
        file["/entry/instrument/beam/incident_wavelength"] = 1.05
    scan = catalog.scan(b"scan42")
    assert scan.geometry is None
    assert "contradict each other" in scan.withheld["geometry"]
    toml(root, "[geometry]\nwavelength_nm = 0.105")
    assert Catalog(catalog._tree, catalog._indexer._store).scan(b"scan42").problems == ()


def test_poni_that_agrees(there: Path, catalog: Catalog) -> None:
    (there / "a/calib.poni").write_text(poni())
    scan = catalog.scan(SCAN)
    assert (scan.cx, scan.cy) == (pytest.approx(2.25), pytest.approx(3.5))
    assert scan.geometry == Geometry(2.002, pytest.approx(0.10003), 75e-6)  # type: ignore[arg-type]
    assert scan.sources["distance_m"] == scan.sources["cx"] == "a/calib.poni"
    assert scan.problems == ()


@pytest.mark.parametrize(
    ("change", "withheld", "line"),
    [
        ({"Distance": "2.1"}, "geometry", "distance is 2.1 m in calib.poni and 2 m in /entry"),
        ({"Wavelength": "1.1e-10"}, "geometry", "wavelength is 0.11 nm in calib.poni"),
        ({"Poni1": "0.0001"}, "centre", "the beam centre's cy is 0.833333 in calib.poni and 3.5"),
    ],
)
def test_poni_that_contradicts_the_master(
    root: Path, catalog: Catalog, change: dict[str, str], withheld: str, line: str
) -> None:
    write_scan(root)
    (root / "calib.poni").write_text(poni(**change))
    scan = catalog.scan(b"scan42")
    (problem,) = scan.problems
    assert problem.startswith(line)
    assert "in geometry.toml" in problem
    assert scan.withheld == {withheld: problem}
    assert (scan.geometry is None) == (withheld == "geometry")
    assert (scan.cx is None) == (withheld == "centre")


def test_a_user_settles_a_contradiction(root: Path, catalog: Catalog) -> None:
    write_scan(root)
    (root / "calib.poni").write_text(poni(Distance="2.1"))
    toml(root, "[geometry]\ndistance_m = 2.1")
    scan = catalog.scan(b"scan42")
    assert scan.geometry is not None
    assert scan.geometry.distance_m == 2.1
    assert scan.problems == ()


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"Distance": ""}, "calib.poni: no Distance in it"),
        ({"Distance": "0"}, "calib.poni: Distance is 0"),
        ({"Poni1": "far"}, "calib.poni: poni1 is 'far', which is no number"),
        ({"Wavelength": "-1"}, "calib.poni: Wavelength is -1"),
        ({"Detector_config": "{"}, "calib.poni: Detector_config is no JSON"),
        ({"Detector_config": '{"orientation": 2}'}, "orientation 2 of the detector is not"),
        ({"Detector_config": '{"pixel1": 1e-4, "pixel2": 2e-4}'}, "are not square"),
        ({"Rot1": "2.0"}, "turned away"),
    ],
)
def test_poni_that_cannot_be_used(
    root: Path, catalog: Catalog, change: dict[str, str], line: str
) -> None:
    write_scan(root)
    (root / "calib.poni").write_text(poni(**change))
    scan = catalog.scan(b"scan42")
    (problem,) = scan.problems
    assert line in problem
    assert scan.geometry is not None  # what the master says holds


def test_several_ponis(root: Path, catalog: Catalog, clock: Clock) -> None:
    write_scan(root)
    (root / "a.poni").write_text(poni())
    (root / "b.poni").write_text(poni(Distance="2.001"))
    scan = catalog.scan(b"scan42")
    assert scan.problems == (
        "2 PONI files in the raw root (a.poni, b.poni): none is used; name one in geometry.toml,"
        ' [geometry] poni = "a.poni"',
    )
    toml(root, "[geometry]\nponi = 'b.poni'")
    clock.now += 10
    scan = catalog.scan(b"scan42")
    assert scan.geometry is not None
    assert (scan.geometry.distance_m, scan.problems) == (2.001, ())
    toml(root, "[geometry]\nponi = 'c.poni'")
    clock.now += 10
    assert catalog.scan(b"scan42").problems == ("c.poni does not exist (from geometry.toml: poni)",)
    (root / "geometry.toml").unlink()
    (root / "scan42.poni").write_text(poni(Distance="2.002"))
    clock.now += 10
    scan = catalog.scan(b"scan42")
    assert scan.sources["distance_m"] == "scan42.poni"


def test_rotations_as_pyfai_has_them() -> None:
    # pyFAI 2026.9: getFit2D() of this gives x = 240.000, y = 186.667, 2000.005 mm
    found = read_poni(
        poni(
            Distance="2",
            Poni1="0.01",
            Poni2="0.02",
            Rot1="0.001",
            Rot2="0.002",
            Rot3="0.3",
            Wavelength="1e-10",
        ),
        "x",
    )
    assert found.cx is not None
    assert found.cy is not None
    assert found.cx == pytest.approx(240.000 - 0.5, abs=1e-3)
    assert found.cy == pytest.approx(186.667 - 0.5, abs=1e-3)
    assert found.distance_m == pytest.approx(2.000005, abs=1e-7)


def test_a_tilt_that_matters(root: Path, catalog: Catalog) -> None:
    write_scan(root, detector_distance=None, beam_center_x=None)
    (root / "calib.poni").write_text(
        poni(Rot1="0.5", Distance="0.01", Poni2=str(0.0001 + 0.01 * 0.5463))
    )
    scan = catalog.scan(b"scan42")
    assert scan.geometry is None
    assert "the detector is tilted by 29 degrees, which would change q by up to" in "".join(
        scan.problems
    )


def test_version_and_mtime_follow_what_is_said(
    there: Path, catalog: Catalog, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = catalog.scan(SCAN)
    indexed: list[bytes] = []
    index = catalog._indexer.index
    monkeypatch.setattr(
        catalog._indexer,
        "index",
        lambda path, dataset: indexed.append(path) or index(path, dataset),  # type: ignore[func-returns-value]
    )
    versions = [first.version]
    for number in (1, 2):
        toml(there, f"[geometry]\ncx = {number}")
        mtime_ns = first.attributes.mtime_ns + number * 10**9
        os.utime(there / "geometry.toml", ns=(0, mtime_ns))
        with pytest.raises(Stale):
            catalog.slice(SCAN, 0, 1, versions[-1])
        clock.now += 10
        scan = catalog.scan(SCAN)
        assert scan.attributes.mtime_ns == mtime_ns
        assert catalog.slice(SCAN, 0, 1, scan.version).count == 1
        versions.append(scan.version)
    indexed.clear()
    toml(there, "# the same\n[geometry]\ncx = 2")  # which says nothing new
    clock.now += 10
    assert catalog.scan(SCAN).version == versions[-1]
    (there / "geometry.toml").unlink()
    clock.now += 10
    assert catalog.scan(SCAN).version == first.version
    assert len(set(versions)) == 3
    assert indexed == []  # no data file was looked at again


def test_raster_of_the_user(there: Path, catalog: Catalog, clock: Clock) -> None:
    (there / "a/b/scan42.fio").write_text(fio("mesh x 0 1 1 y 0 1 1 0.1"))

    def raster(text: str) -> Scan:
        toml(there, f"[raster]\n{text}")
        clock.now += 10
        return catalog.scan(SCAN)

    assert catalog.scan(SCAN).raster is None  # ten frames, four points
    scan = raster("horz = 3")
    assert scan.raster == Raster(3, 4, "raster", "geometry.toml: horz")
    assert scan.problems == ()
    scan = raster("horz = 4\nvert = 2\nfirst = 1\norder = 'snake'")
    assert scan.raster is not None
    assert (scan.raster.horz, scan.raster.vert, scan.raster.first) == (4, 2, 1)
    scan = raster("first = 99\nvert = 5")
    assert scan.raster is not None
    assert scan.raster.first == 0
    assert scan.problems == ("geometry.toml: first = 99, but the scan has 10 frames: not used",)


def test_dataset_of_the_user(root: Path, tree: RawTree, catalog: Catalog, clock: Clock) -> None:
    write_data(root / "x_data_1.h5", frames_from(0, 3), dataset="/elsewhere/a")
    write_data(root / "y_data_1.h5", frames_from(3, 2), dataset="/elsewhere/b")
    toml(root, '[scan."x".data]\ndataset = "/elsewhere/a"\n[scan."y".data]\ndataset = "/no"')
    assert catalog.scan(b"x").frames == 3
    assert len(read_slice(tree, catalog.slice(b"x", 0, 3))) == 3
    scan = catalog.scan(b"y")
    assert (scan.frames, scan.problems[0]) == (0, "y_data_1.h5: no dataset /no in it")
    toml(root, '[data]\ndataset = "/elsewhere/b"')
    clock.now += 10
    assert catalog.scan(b"y").frames == 2


def test_sections_are_in_order() -> None:
    sections = read_overrides(b'[geometry]\ncx = 1\n[scan."b".raster]\nhorz = 2\n[scan."a".data]\n')
    assert [section.pattern for section in sections] == ["", "b", "a"]

"""What is read from masters, and what is not believed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scanfiles import DATASET, SHAPE, SPECIFIC, frames_from, write_data, write_master

from analysis.plan import Geometry, unpack_mask
from dadafs.scans.metadata.masters import Link, read_master
from dadafs.scans.tree import RawTree

NAME = "s_master.h5"
PATH = b"s_master.h5"


def test_everything_that_is_said(root: Path, tree: RawTree) -> None:
    write_master(root / NAME, ["s_data_000001.h5", "s_data_000002.h5"], nimages=7, ntrigger=3)
    found = read_master(tree, PATH)
    assert found.problems == ()
    assert found.links == tuple(
        Link(b"s_data_%06d.h5" % number, DATASET.encode()) for number in (1, 2)
    )
    assert (found.announced, found.height, found.width, found.dtype) == (21, *SHAPE, "<u2")
    assert (found.cx, found.cy) == (2.25, 3.5)
    assert found.geometry is not None
    assert found.geometry.distance_m == 2.0
    assert found.geometry.pixel_m == 75e-6
    assert found.geometry.wavelength_nm == pytest.approx(0.1, rel=1e-12)
    assert found.metadata["exposure_s"] == 0.02
    assert found.metadata["detector"] == "Eiger of 5 x 6"
    assert found.metadata["photon_energy_ev"] == 12398.4198
    assert (found.metadata["nimages"], found.metadata["ntrigger"]) == (7, 3)
    assert found.sources["distance_m"] == "/entry/instrument/detector/detector_distance"
    assert found.sources["wavelength_nm"] == f"{SPECIFIC}photon_energy"


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"detector_distance": (2000.0, "mm")}, Geometry(2.0, 0.1, 75e-6)),
        ({"x_pixel_size": (75.0, "um"), "y_pixel_size": (0.075, "MM")}, Geometry(2.0, 0.1, 75e-6)),
        ({"photon_energy": (12.3984198, "keV")}, Geometry(2.0, 0.1, 75e-6)),
        ({"photon_energy": np.array([12398.4198])}, Geometry(2.0, 0.1, 75e-6)),
        ({"detector_distance": np.full((1, 1), 2, np.int32)}, Geometry(2.0, 0.1, 75e-6)),
        ({"detector_distance": (np.float64(2.0), b"m")}, Geometry(2.0, 0.1, 75e-6)),
    ],
)
def test_units_and_single_elements(
    root: Path, tree: RawTree, facts: dict[str, Any], expected: Geometry
) -> None:
    write_master(root / NAME, **facts)
    found = read_master(tree, PATH)
    assert found.problems == ()
    assert found.geometry is not None
    for value, right in zip(
        (found.geometry.distance_m, found.geometry.wavelength_nm, found.geometry.pixel_m),
        (expected.distance_m, expected.wavelength_nm, expected.pixel_m),
        strict=True,
    ):
        assert value == pytest.approx(right, rel=1e-12)


@pytest.mark.parametrize(
    ("facts", "problem"),
    [
        ({"detector_distance": 0.0}, "detector_distance is 0: never set"),
        ({"detector_distance": -1.0}, "detector_distance is -1: never set"),
        ({"detector_distance": float("nan")}, "detector_distance is nan"),
        ({"detector_distance": (3.0, "furlong")}, "detector_distance is in 'furlong'"),
        ({"photon_energy": 0.0}, "photon_energy is 0: never set"),
        ({"x_pixel_size": float("inf")}, "x_pixel_size is inf"),
        ({"y_pixel_size": 150e-6}, "are not square"),
        ({"detector_distance": "far"}, ""),
        ({"detector_distance": np.zeros(2)}, ""),
        ({"detector_distance": None}, ""),
    ],
)
def test_geometry_that_is_not_believed(
    root: Path, tree: RawTree, facts: dict[str, Any], problem: str
) -> None:
    write_master(root / NAME, **facts)
    found = read_master(tree, PATH)
    assert found.geometry is None
    assert len(found.problems) == bool(problem)
    assert problem in "".join(found.problems)
    assert found.cx == 2.25  # the rest is


@pytest.mark.parametrize(
    ("facts", "problem"),
    [
        ({"beam_center_x": 0.0, "beam_center_y": 0.0}, "never set"),
        ({"beam_center_x": 5.0}, "outside the detector of 5 x 6"),
        ({"beam_center_y": -0.6}, "outside the detector"),
        ({"beam_center_x": float("nan")}, "beam_center_x is nan"),
        ({"beam_center_x": (1.0, "yard")}, "no unit known"),
        ({"beam_center_y": None}, ""),
    ],
)
def test_beam_centre_that_is_not_believed(
    root: Path, tree: RawTree, facts: dict[str, Any], problem: str
) -> None:
    write_master(root / NAME, **facts)
    found = read_master(tree, PATH)
    assert (found.cx, found.cy) == (None, None)
    assert len(found.problems) == bool(problem)
    assert problem in "".join(found.problems)
    assert "cx" not in found.sources


def test_beam_centre_in_lengths(root: Path, tree: RawTree) -> None:
    write_master(root / NAME, beam_center_x=(0.150, "mm"), beam_center_y=(3.5, "pixels"))
    found = read_master(tree, PATH)
    assert (found.cx, found.cy) == (pytest.approx(2.0), 3.5)


@pytest.mark.parametrize(("angstrom", "good"), [(1.0, True), (1.005, True), (1.05, False)])
def test_wavelength_and_energy_must_agree(
    root: Path, tree: RawTree, angstrom: float, good: bool
) -> None:
    write_master(root / NAME)
    with h5py.File(root / NAME, "a") as file:
        file["/entry/instrument/beam/incident_wavelength"] = angstrom
    found = read_master(tree, PATH)
    if good:
        assert found.geometry is not None
        assert found.geometry.wavelength_nm == pytest.approx(angstrom / 10)
        assert found.sources["wavelength_nm"] == "/entry/instrument/beam/incident_wavelength"
    else:
        assert found.geometry is None
        assert "contradict" in found.problems[0]


def test_pixel_mask(root: Path, tree: RawTree) -> None:
    mask = np.zeros((40, 33), np.uint32)
    mask[3, 4], mask[5] = 1, 1 << 31
    write_master(root / NAME, mask=mask, x_pixels_in_detector=None, y_pixels_in_detector=None)
    found = read_master(tree, PATH)
    assert found.mask_shape == mask.shape == (found.height, found.width)
    assert_array_equal(unpack_mask(found.mask, mask.shape), mask != 0)
    assert found.sources["mask"] == f"{SPECIFIC}pixel_mask"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"chunks": (16, 16)},
        {"chunks": (16, 16), "compression": "gzip", "shuffle": True},
        {"chunks": (40, 33), **hdf5plugin.LZ4()},
    ],
)
def test_pixel_mask_in_any_layout(root: Path, tree: RawTree, options: dict[str, Any]) -> None:
    mask = np.random.default_rng(1).integers(0, 2, (40, 33)).astype(np.uint32)
    write_master(root / NAME)
    with h5py.File(root / NAME, "a") as file:
        file.create_dataset(SPECIFIC + "pixel_mask", data=mask, **options)
    found = read_master(tree, PATH)
    assert found.problems == ()
    assert_array_equal(unpack_mask(found.mask, mask.shape), mask != 0)


@pytest.mark.parametrize("mask", [np.zeros(5, np.uint32), np.zeros((2, 2), np.float32)])
def test_pixel_mask_that_is_none(root: Path, tree: RawTree, mask: Any) -> None:
    write_master(root / NAME)
    with h5py.File(root / NAME, "a") as file:
        file[SPECIFIC + "pixel_mask"] = mask
    found = read_master(tree, PATH)
    assert (found.mask, found.mask_shape) == (b"", (0, 0))
    assert "pixel_mask is not used" in found.problems[0]


def test_corrupt_pixel_mask_is_not_used(root: Path, tree: RawTree) -> None:
    mask = np.random.default_rng(1).integers(0, 2, (64, 64)).astype(np.uint32)
    write_master(root / NAME, mask=mask)
    with h5py.File(root / NAME) as file:
        place = file[SPECIFIC + "pixel_mask"].id.get_chunk_info(0)
    with (root / NAME).open("r+b") as raw:
        raw.seek(place.byte_offset + 12)
        raw.write(b"\xff\xff\xff\xff")  # the length of the first block
    found = read_master(tree, PATH)
    assert found.mask == b""
    assert "pixel_mask is not used" in found.problems[0]


def test_frames_in_the_master_itself(root: Path, tree: RawTree) -> None:
    write_data(root / NAME, frames_from(0, 3))
    assert read_master(tree, PATH).links == (Link(PATH, b"/entry/data/data"),)


def test_links_go_by_number(root: Path, tree: RawTree) -> None:
    write_master(root / NAME)
    with h5py.File(root / NAME, "a") as file:
        for number in (1000000, 2, 999999):
            file["/entry/data"][f"data_{number:06}"] = h5py.ExternalLink(f"f{number}", DATASET)
    assert [link.path for link in read_master(tree, PATH).links] == [b"f2", b"f999999", b"f1000000"]


@pytest.mark.parametrize("target", ["/etc/passwd", "../../out.h5", "../raw/x.h5", "a/../../../x"])
def test_links_out_of_the_root_are_not_followed(root: Path, tree: RawTree, target: str) -> None:
    write_master(root / NAME, [target, "s_data_000002.h5"])
    found = read_master(tree, PATH)
    assert [link.path for link in found.links] == [b"", b"s_data_000002.h5"]
    assert found.problems == (f"1 links lead out of the raw tree: data_000001 -> {target}",)


def test_links_may_go_up_inside_the_root(root: Path, tree: RawTree) -> None:
    (root / "a/b").mkdir(parents=True)
    write_master(root / "a/b" / NAME, ["../data/x.h5", "./y.h5"])
    found = read_master(tree, b"a/b/" + PATH)
    assert [link.path for link in found.links] == [b"a/data/x.h5", b"a/b/y.h5"]
    assert found.problems == ()


def external_link(file: h5py.File, other: Path) -> None:
    del file["/entry/instrument/detector/detector_distance"]
    file["/entry/instrument/detector/detector_distance"] = h5py.ExternalLink(os.fspath(other), "/d")


def external_group(file: h5py.File, other: Path) -> None:
    del file["/entry/instrument"]
    file["/entry/instrument"] = h5py.ExternalLink(os.fspath(other), "/instrument")


def soft_to_external(file: h5py.File, other: Path) -> None:
    del file["/entry/instrument/detector/detector_distance"]
    file["/out"] = h5py.ExternalLink(os.fspath(other), "/")
    file["/entry/instrument/detector/detector_distance"] = h5py.SoftLink("/out/d")


def external_storage(file: h5py.File, other: Path) -> None:
    del file["/entry/instrument/detector/detector_distance"]
    file["/entry/instrument/detector"].create_dataset(
        "detector_distance", (1,), "f8", external=[(os.fspath(other), 0, 8)]
    )


def virtual(file: h5py.File, other: Path) -> None:
    del file["/entry/instrument/detector/detector_distance"]
    layout = h5py.VirtualLayout((1,), "f8")
    layout[:] = h5py.VirtualSource(os.fspath(other), "v", (1,))
    file["/entry/instrument/detector"].create_virtual_dataset("detector_distance", layout)


def soft_loop(file: h5py.File, other: Path) -> None:
    del file["/entry/instrument/detector/detector_distance"]
    file["/entry/instrument/detector/detector_distance"] = h5py.SoftLink("detector_distance")


@pytest.mark.parametrize(
    "lead_out",
    [external_link, external_group, soft_to_external, external_storage, virtual, soft_loop],
)
def test_values_of_other_files_are_not_read(
    root: Path, tree: RawTree, tmp_path: Path, lead_out: Callable[[h5py.File, Path], None]
) -> None:
    other = tmp_path / "secret.h5"
    with h5py.File(other, "w") as file:
        file["d"] = file["instrument/detector/detector_distance"] = 7.0
        file["v"] = np.array([7.0])
    write_master(root / NAME)
    with h5py.File(root / NAME, "a") as file:
        lead_out(file, other)
    found = read_master(tree, PATH)
    assert found.geometry is None
    assert "distance_m" not in found.sources


def test_soft_links_inside_are_followed(root: Path, tree: RawTree) -> None:
    write_master(root / NAME, detector_distance=None)
    with h5py.File(root / NAME, "a") as file:
        file["/entry/far"] = 3.0
        file["/entry/instrument/detector/detector_distance"] = h5py.SoftLink("/entry/farther")
        file["/entry/farther"] = h5py.SoftLink("far")
    found = read_master(tree, PATH)
    assert found.geometry is not None
    assert found.geometry.distance_m == 3.0


@pytest.mark.parametrize(
    ("facts", "problem"),
    [
        ({"nimages": 2**31, "ntrigger": 2**31}, "not believed"),
        ({"nimages": -1}, "no number of things"),
        ({"nimages": 2.5}, "no number of things"),
    ],
)
def test_absurd_numbers_of_frames(
    root: Path, tree: RawTree, facts: dict[str, Any], problem: str
) -> None:
    write_master(root / NAME, **facts)
    found = read_master(tree, PATH)
    assert found.announced == 0
    assert problem in found.problems[0]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "s_master.h5 is not an HDF5 file"),
        (b"no HDF5" * 1000, "s_master.h5 is not an HDF5 file"),
        (b"\x89HDF\r\n\x1a\n" + b"\xff" * 4000, "s_master.h5 cannot be read as HDF5"),
    ],
)
def test_files_that_are_no_masters(root: Path, tree: RawTree, content: bytes, problem: str) -> None:
    (root / NAME).write_bytes(content)
    found = read_master(tree, PATH)
    assert len(found.problems) == 1
    assert found.problems[0].startswith(problem)
    assert "\n" not in found.problems[0]


def test_truncated_master(root: Path, tree: RawTree) -> None:
    write_master(root / NAME, mask=np.ones((300, 300), np.uint32))
    os.truncate(root / NAME, (root / NAME).stat().st_size // 2)
    assert "s_master.h5 is truncated" in read_master(tree, PATH).problems[0]


def test_master_that_is_still_written(root: Path, tree: RawTree) -> None:
    write_master(root / NAME)
    with h5py.File(root / NAME, "w", libver="latest") as file:
        file["x"] = 1
        file.swmr_mode = True
        (root / "t_master.h5").write_bytes((root / NAME).read_bytes())
    assert "is still being written" in read_master(tree, b"t_master.h5").problems[0]


def test_master_that_has_vanished(tree: RawTree) -> None:
    assert read_master(tree, PATH).problems == ("s_master.h5 does not exist",)

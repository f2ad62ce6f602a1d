"""Scans made for tests and demonstrations are laid out as announced, and their truths true."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from tools.scan_maker import (
    CODECS,
    ScanMade,
    chunk_extent,
    damage_chunk,
    detector_named,
    main,
    make_frame,
    make_scan,
    pack,
    truncate,
    write_data_file,
)
from tools.scatter import DEAD, GAP, NOISY, Pattern, expected_counts, phantom, quantise

DETECTOR = "/entry/instrument/detector/"
FILTERS = {"bitshuffle": [32008], "bitshuffle-zstd": [32008], "lz4": [32004], "gzip": [1]}
SCRIPT = Path(__file__).resolve().parent.parent / "tools" / "make_scan"


def read_through_master(made: ScanMade) -> np.ndarray[Any, Any]:
    """Every frame, by the links of the master."""
    with h5py.File(made.master) as file:
        data = file["/entry/data"]
        return np.concatenate([data[name][()] for name in sorted(data)])


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
@pytest.mark.parametrize("codec", CODECS)
def test_every_codec_reads_back(tmp_path: Path, codec: str, dtype: type[np.uint16]) -> None:
    # 21 x 23 pixels: no multiple of 8, so bitshuffle leaves a raw rest.
    frames = np.random.default_rng(5).integers(0, 9, (3, 21, 23)).astype(dtype)
    frames[:, 4] = np.iinfo(dtype).max
    path = tmp_path / "data.h5"
    write_data_file(path, frames, codec, which=[2, 0, 1, 1], first_image=7)
    with h5py.File(path) as file:
        dataset = file["/entry/data/data"]
        assert_array_equal(dataset[()], frames[[2, 0, 1, 1]])
        assert (dataset.dtype, dataset.chunks) == (dtype, (1, 21, 23))
        assert (dataset.attrs["image_nr_low"], dataset.attrs["image_nr_high"]) == (7, 10)
        pipeline = dataset.id.get_create_plist()
        numbers = [pipeline.get_filter(n)[0] for n in range(pipeline.get_nfilters())]
        assert numbers == FILTERS.get(codec, [])


def test_scan_reads_back_through_its_master(tmp_path: Path) -> None:
    made = make_scan(tmp_path, horz=6, vert=5, unique=4, images_per_file=12)
    assert made.master == tmp_path / "scan42_master.h5"
    names = [path.name for path in made.data_files]
    assert names == [f"scan42_data_{number:06}.h5" for number in (1, 2, 3)]
    stored = read_through_master(made)
    assert_array_equal(stored, made.frames[made.which])
    assert_array_equal(stored.sum(where=~made.mask, axis=(1, 2), dtype=np.int64), made.sums)
    assert made.present.all()
    assert set(made.which) == set(range(4)) == set(range(len(made.patterns)))
    numbers = []
    for path in made.data_files:
        with h5py.File(path) as file:
            attributes = file["/entry/data/data"].attrs
            numbers.append((attributes["image_nr_low"], attributes["image_nr_high"]))
    assert numbers == [(1, 12), (13, 24), (25, 30)]


def test_master_holds_what_the_file_writer_writes(tmp_path: Path) -> None:
    made = make_scan(tmp_path, horz=6, vert=5, dtype="uint32", triggers=5)
    with h5py.File(made.master) as file:
        classes = {
            "/entry": b"NXentry",
            "/entry/data": b"NXdata",
            "/entry/instrument": b"NXinstrument",
            "/entry/instrument/beam": b"NXbeam",
            DETECTOR: b"NXdetector",
            DETECTOR + "detectorSpecific": b"NXcollection",
        }
        assert {name: file[name].attrs["NX_class"] for name in classes} == classes
        assert file["/entry/data"].attrs["signal"] == b"data_000001"
        assert file["/entry/data"].get("data_000001", getlink=True).filename == (
            "scan42_data_000001.h5"
        )
        geometry = made.geometry
        for name, value, unit in (
            (DETECTOR + "beam_center_x", geometry.cx, b"pixel"),
            (DETECTOR + "beam_center_y", geometry.cy, b"pixel"),
            (DETECTOR + "detector_distance", geometry.distance_m, b"m"),
            (DETECTOR + "x_pixel_size", geometry.pixel_m, b"m"),
            (DETECTOR + "y_pixel_size", geometry.pixel_m, b"m"),
            (DETECTOR + "detectorSpecific/photon_energy", geometry.photon_energy_ev, b"eV"),
        ):
            assert (file[name][()], file[name].attrs["units"]) == (value, unit)
        wavelength = file["/entry/instrument/beam/incident_wavelength"]
        assert float(wavelength[()]) / 10 == geometry.wavelength_nm
        assert wavelength.attrs["units"] == b"angstrom"
        assert_allclose(geometry.wavelength_nm * geometry.photon_energy_ev, 1239.842, rtol=1e-6)
        specific = file[DETECTOR + "detectorSpecific"]
        assert (specific["nimages"][()], specific["ntrigger"][()]) == (6, 5)
        assert specific["x_pixels_in_detector"][()] == 120
        assert specific["y_pixels_in_detector"][()] == 128
        assert specific["pixel_mask"].dtype == np.uint32
        assert specific["pixel_mask"].id.get_create_plist().get_filter(0)[0] == 32008
        assert_array_equal(specific["pixel_mask"][()] != 0, made.mask)
        assert file[DETECTOR + "bit_depth_image"][()] == 32
        assert file[DETECTOR + "sensor_material"][()] == b"Si"
        assert 0 < file[DETECTOR + "count_time"][()] < file[DETECTOR + "frame_time"][()]


def test_eiger_4m_has_its_gaps() -> None:
    bits = detector_named("eiger4m").pixel_mask
    assert bits.shape == (2167, 2070)
    rows = np.flatnonzero((bits == GAP).all(axis=1))
    columns = np.flatnonzero((bits == GAP).all(axis=0))
    gaps = [*range(514, 551), *range(1065, 1102), *range(1616, 1653)]
    assert rows.tolist() == gaps
    assert columns.tolist() == list(range(1030, 1040))
    modules = np.delete(np.delete(bits, rows, axis=0), columns, axis=1)
    assert 0 < np.count_nonzero(modules) < 1000
    assert set(np.unique(modules)) == {0, DEAD, NOISY}


@pytest.mark.parametrize(
    ("name", "shape", "gap_rows"), [("small", (128, 120), 4), ("7x9", (7, 9), 0)]
)
def test_other_detectors(name: str, shape: tuple[int, int], gap_rows: int) -> None:
    detector = detector_named(name)
    assert detector.shape == detector.pixel_mask.shape == shape
    assert np.count_nonzero((detector.pixel_mask == GAP).all(axis=1)) == gap_rows


@pytest.mark.parametrize("name", ["", "big", "0x5", "5x", "3x-4", "4x5x6"])
def test_no_detector(name: str) -> None:
    with pytest.raises(ValueError, match="no detector"):
        detector_named(name)


@pytest.mark.parametrize("dtype", ["uint16", "uint32"])
def test_pixels_that_do_not_count(tmp_path: Path, dtype: Any) -> None:
    made = make_scan(tmp_path, horz=2, vert=1, dtype=dtype)
    bits, sentinel = made.detector.pixel_mask, np.iinfo(dtype).max
    assert made.frames.dtype == dtype
    assert (made.frames[:, (bits == GAP) | (bits == DEAD)] == sentinel).all()
    noisy = made.frames[:, bits == NOISY]
    assert noisy.size
    assert ((noisy > 1000) & (noisy < sentinel)).all()  # only the mask tells
    assert (made.frames[:, bits == 0] < 1000).all()


def test_size_and_speed_of_real_frames() -> None:
    detector = detector_named("eiger4m")
    patterns, which = quantise(phantom(100, 100), 16)
    began = time.process_time()
    frame = make_frame(detector, patterns[0], np.dtype(np.uint16))
    assert time.process_time() - began < 3
    assert 0.95 < np.mean(frame[detector.pixel_mask == 0] == 0) < 0.99
    weights = np.bincount(which) / len(which)
    strongest = np.argsort(weights)[-4:]  # most of the points, and quick
    sizes = [
        len(pack([make_frame(detector, patterns[index], np.dtype(np.uint16))]).chunks[0])
        for index in strongest
    ]
    assert 250_000 < np.average(sizes, weights=weights[strongest]) < 310_000


def test_equal_arguments_give_equal_files(tmp_path: Path) -> None:
    contents = []
    for part, seed in (("a", 3), ("b", 3), ("c", 4)):
        made = make_scan(tmp_path / part, horz=5, vert=4, unique=3, seed=seed)
        assert made.master is not None
        contents.append([path.read_bytes() for path in (made.master, *made.data_files)])
    assert contents[0] == contents[1]
    assert contents[0][1] != contents[2][1]


def test_links_dangle_where_files_are_left_out(tmp_path: Path) -> None:
    made = make_scan(tmp_path, horz=10, vert=3, images_per_file=10, leave_out=[2])
    assert [path.name[-4] for path in made.data_files] == ["1", "3"]
    assert_array_equal(made.present, np.repeat([True, False, True], 10))
    with h5py.File(made.master) as file:
        data = file["/entry/data"]
        assert sorted(data) == ["data_000001", "data_000002", "data_000003"]
        assert data.get("data_000002") is None
        assert_array_equal(data["data_000003"][()], made.frames[made.which[20:]])


def test_aborted_scan_announces_more_than_it_has(tmp_path: Path) -> None:
    made = make_scan(tmp_path, horz=10, vert=3, frames=14, images_per_file=10)
    assert len(made.which) == len(made.sums) == 14
    with h5py.File(made.master) as file:
        assert file[DETECTOR + "detectorSpecific/nimages"][()] == 30
        data = file["/entry/data"]
        assert len(data) == 3
        assert len(data["data_000002"]) == 4
        assert data.get("data_000003") is None


def test_lone_data_file(tmp_path: Path) -> None:
    made = make_scan(tmp_path, frames=6, name="lone", master=False)
    assert made.master is None
    assert [path.name for path in tmp_path.iterdir()] == ["lone_data_000001.h5"]


def test_damage(tmp_path: Path) -> None:
    frames = np.random.default_rng(2).integers(0, 9, (3, 40, 40)).astype(np.uint16)
    path = tmp_path / "data.h5"
    write_data_file(path, frames, missing=[1])
    with h5py.File(path) as file:
        assert not file["/entry/data/data"][1].any()
        assert file["/entry/data/data"].id.get_num_chunks() == 2
    offset, length = chunk_extent(path, 2)
    before = path.read_bytes()
    damage_chunk(path, 2)
    after = path.read_bytes()
    changed = np.flatnonzero(np.frombuffer(before, "u1") != np.frombuffer(after, "u1"))
    assert changed.size
    assert offset + 12 <= changed.min() <= changed.max() < offset + length
    with h5py.File(path) as file:
        assert_array_equal(file["/entry/data/data"][0], frames[0])
    truncate(path, 0.25)
    assert path.read_bytes() == after[: len(after) // 4]
    with pytest.raises(ValueError, match="keep"):
        truncate(path, 2)


def test_snake_records_every_second_line_backwards(tmp_path: Path) -> None:
    straight = make_scan(tmp_path / "a", horz=7, vert=4, unique=5)
    snake = make_scan(tmp_path / "b", horz=7, vert=4, unique=5, order="snake")
    expected = straight.which.reshape(4, 7).copy()
    expected[1::2] = expected[1::2, ::-1]
    assert_array_equal(snake.which.reshape(4, 7), expected)
    assert_array_equal(snake.frames, straight.frames)


def test_quantised_phantom_keeps_the_picture() -> None:
    points = phantom(40, 30)
    chosen, which = quantise(points, 16)
    assert set(which) == set(range(len(chosen)))
    assert set(chosen) <= set(points)
    true = np.array([point.intensity for point in points])
    seen = np.array([chosen[index].intensity for index in which])
    assert np.corrcoef(true, seen)[0, 1] > 0.9
    strong = true > 0.6
    turns = [
        np.exp(2j * np.radians([point.angle_deg for point in source]))[strong]
        for source in (points, [chosen[index] for index in which])
    ]
    assert np.mean((turns[0] * turns[1].conj()).real) > 0.8
    assert np.ptp([point.angle_deg for point in chosen]) > 120


def test_few_points_keep_their_own_patterns() -> None:
    points = phantom(5, 3)
    assert quantise(points, 15)[0] == points
    assert_array_equal(quantise(points, 20)[1], np.arange(15))


@pytest.mark.parametrize("angle_deg", [0.0, 30.0, 90.0, 150.0])
def test_pattern_is_what_is_seen(angle_deg: float) -> None:
    detector = detector_named("600x600")
    scale = detector.scale
    pattern = Pattern(1.0, 0.6, angle_deg, 9.0, -6.0)
    counts = expected_counts(detector, pattern, 1.0).astype(float)
    y, x = np.mgrid[:600, :600]
    dx = x - detector.geometry.cx - scale * pattern.shift_x
    dy = y - detector.geometry.cy - scale * pattern.shift_y
    disc = counts * (np.hypot(dx, dy) < 150)
    # Second moments: (xx - yy) + 2i xy, over xx + yy.
    turn = (disc * (dx - 1j * dy) ** 2).sum() / (disc * (dx**2 + dy**2)).sum()
    seen_deg = np.degrees(np.angle(turn)) / 2
    assert abs((seen_deg - angle_deg + 90) % 180 - 90) < 0.1
    assert abs(turn) > 0.2
    assert_allclose((disc * dx).sum() / disc.sum(), 0, atol=0.05)
    assert_allclose((disc * dy).sum() / disc.sum(), 0, atol=0.05)
    assert_allclose(expected_counts(detector, pattern, 3.0), 3 * counts, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"horz": 0, "vert": 5}, "none"),
        ({"horz": 5, "vert": 5, "frames": 26}, "1 to 25"),
        ({"frames": 0}, "none"),
        ({"frames": 10, "triggers": 3}, "shared out"),
        ({"frames": 10, "triggers": 0}, "shared out"),
        ({"frames": 10, "images_per_file": 0}, "at least 1"),
        ({"frames": 10, "leave_out": [2]}, "no data file 2"),
        ({"frames": 10, "exposure": -1}, "exposure"),
        ({"frames": 10, "codec": "zip"}, "no codec"),
    ],
)
def test_impossible_scans(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_scan(tmp_path / "made", **arguments)
    assert not (tmp_path / "made").exists()


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "raw"
    sums = tmp_path / "sums.npy"
    arguments = ["--detector", "small", "--horz", "6", "--vert", "4", "--order", "snake"]
    arguments += ["--images-per-file", "12", "--leave-out", "2", "--lossless-sum", str(sums)]
    assert main([str(target), *arguments]) == 0
    printed = capsys.readouterr().out
    assert "scan42_master.h5" in printed
    assert "12 frames of 128 x 120 uint16, raster 6 x 4" in printed
    with h5py.File(target / "scan42_data_000001.h5") as file:
        frames = file["/entry/data/data"][()]
    valid = detector_named("small").pixel_mask == 0
    expected = frames.sum(where=valid, axis=(1, 2), dtype=float).reshape(2, 6)
    expected[1] = expected[1, ::-1].copy()
    assert_array_equal(np.load(sums), np.concatenate([expected, np.full((2, 6), np.nan)]))


def test_mistake_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--detector", "huge"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("make_scan: 'huge' is no detector")
    assert printed.err.count("\n") == 1


def test_script_runs_from_anywhere(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "made", "--detector", "20x30", "--frames", "4"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=60)
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == [
        "scan42_data_000001.h5",
        "scan42_master.h5",
    ]

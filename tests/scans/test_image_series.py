"""Scans of single images: CBF, EDF and TIFF, as detectors write them and as they should not be."""

from __future__ import annotations

import gzip
import io
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import fabio
import numpy as np
import pytest
import tifffile
from fabio.cbfimage import CbfImage
from fabio.edfimage import EdfImage
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from scanfiles import SHAPE, Clock, frames_from, read_slice, write_data

from analysis.codec import Codec, Filter
from analysis.plan import Geometry
from dadafs.errors import BadData, NoSuchPath, Stale
from dadafs.keys import patch_key
from dadafs.scans.catalog import Catalog
from dadafs.scans.formats.counts import as_counts
from dadafs.scans.formats.decode import decode
from dadafs.scans.formats.images import FORMATS, MAX_FILE_BYTES, read_image
from dadafs.scans.frames.slices import chunks, cut
from dadafs.scans.tree import RawTree

PILATUS = """\
# Detector: PILATUS 300K, S/N 3-0101
# 2025-05-14T09:26:53.589
# Pixel_size 172e-6 m x 172e-6 m
# Exposure_time 0.0970000 s
# Wavelength 0.90000 A
# Detector_distance 2.50000 m
# Beam_xy (2.50, 3.25) pixels
"""


def written(image: Any) -> bytes:
    """fabio writes to names only."""
    with tempfile.NamedTemporaryFile() as file:
        image.write(file.name)
        return Path(file.name).read_bytes()


def cbf(pixels: NDArray[Any], text: str = "") -> bytes:
    image = CbfImage(data=pixels)
    if text:
        image.header["_array_data.header_convention"] = "PILATUS_1.2"
        image.header["_array_data.header_contents"] = text
        image.pilatus_headers = None
    return written(image)


def edf(pixels: NDArray[Any]) -> bytes:
    return written(EdfImage(data=pixels, header={"title": "a scan"}))


def tif(pixels: NDArray[Any], **options: Any) -> bytes:
    out = io.BytesIO()
    tifffile.imwrite(out, pixels, photometric="minisblack", **options)
    return out.getvalue()


def rgb(pages: int) -> bytes:
    out = io.BytesIO()
    tifffile.imwrite(out, np.zeros((pages, *SHAPE, 3), "u1"), photometric="rgb")
    return out.getvalue()


WRITERS: dict[str, Callable[[NDArray[Any]], bytes]] = {"cbf": cbf, "edf": edf, "tif": tif}


def frame(number: int, dtype: str = "<i4") -> NDArray[Any]:
    """Frame of a series; its pixel (0, 0) is negative where the dtype is signed."""
    pixels = np.arange(SHAPE[0] * SHAPE[1]).reshape(SHAPE) + 100 * number
    pixels = pixels.astype(dtype)
    if pixels.dtype.kind != "u":
        pixels[0, 0] = -2
    return pixels


def expected(number: int, dtype: str = "<i4") -> NDArray[Any]:
    pixels = frame(number, dtype)
    target = "<u2" if dtype in ("<u2", "<i2") else "<u4"
    counts = pixels.astype("<i8")
    return np.where(counts < 0, np.iinfo(target).max, counts).astype(target)


def write_series(
    root: Path, kind: str, numbers: range, dtype: str = "<i4", name: str = "r"
) -> None:
    for number in numbers:
        path = root / f"{name}_{number:05}.{kind}"
        path.write_bytes(WRITERS[kind](frame(number, dtype)))


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("cbf", "<i4"),
        ("edf", "<i4"),
        ("edf", "<u2"),
        ("edf", "<f4"),
        ("edf", "<f8"),
        ("tif", "<u2"),
        ("tif", "<i4"),
        ("tif", "<u4"),
        ("tif", "<f4"),
    ],
)
def test_series(root: Path, tree: RawTree, catalog: Catalog, kind: str, dtype: str) -> None:
    write_series(root, kind, range(1, 6), dtype)
    assert [entry.name for entry in catalog.list(b"")] == [b"r"]
    scan = catalog.scan(b"r")
    assert (scan.frames, scan.height, scan.width, scan.problems) == (5, *SHAPE, ())
    frames = read_slice(tree, catalog.slice(b"r", 0, 5))
    assert sorted(frames) == [0, 1, 2, 3, 4]
    for number, pixels in frames.items():
        assert pixels.dtype.str == scan.dtype
        assert_array_equal(pixels, expected(number + 1, dtype))
    (files,) = catalog.data_files(b"r")
    assert files.name == f"r_00001.{kind} to r_00005.{kind}"
    assert (files.frames, files.state) == (5, "present")
    with pytest.raises(Stale):
        catalog.slice(b"r", 4, 2)
    with pytest.raises(NoSuchPath, match="is part of scan r: r/raw/r_00002"):
        catalog.resolve(f"r_00002.{kind}".encode())
    assert len(catalog.raw_files(b"r")) == 5


@pytest.mark.parametrize("kind", ["cbf", "edf", "tif"])
def test_files_packed_by_gzip(root: Path, tree: RawTree, catalog: Catalog, kind: str) -> None:
    """All of them, or some; fabio opens such files by the same names."""
    write_series(root, kind, range(1, 4))
    for number in (1, 3):
        path = root / f"r_{number:05}.{kind}"
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    scan = catalog.scan(b"r")
    assert (scan.frames, scan.height, scan.width, scan.problems) == (3, *SHAPE, ())
    frames = read_slice(tree, catalog.slice(b"r", 0, 3))
    for number in range(3):
        assert_array_equal(frames[number], expected(number + 1))
    assert_array_equal(fabio.open(str(root / f"r_00001.{kind}.gz")).data, frame(1))


def test_packed_files_that_are_damaged() -> None:
    packed = gzip.compress(cbf(frame(1)))
    with pytest.raises(BadData, match="not whole"):
        read_image(packed[:-9], "cbf")
    with pytest.raises(BadData, match=r"cannot be unpacked|not whole"):
        read_image(packed[:40] + b"\xff" * 40 + packed[80:], "cbf")
    bomb = gzip.compress(bytes(MAX_FILE_BYTES + 1), 1)
    with pytest.raises(BadData, match="more than one frame"):
        read_image(bomb, "edf")


def test_compressed_tif(root: Path, tree: RawTree, catalog: Catalog) -> None:
    for number in range(2):
        data = tif(frame(number, "<u2"), compression="zlib")
        (root / f"z_{number}.tif").write_bytes(data)
    frames = read_slice(tree, catalog.slice(b"z", 0, 2))
    assert_array_equal(frames[1], frame(1, "<u2"))


def test_header_of_a_pilatus(root: Path, catalog: Catalog) -> None:
    for number in range(2):
        (root / f"p_{number}.cbf").write_bytes(cbf(frame(number), PILATUS))
    scan = catalog.scan(b"p")
    assert scan.problems == ()
    assert scan.geometry == Geometry(2.5, pytest.approx(0.09), 172e-6)  # type: ignore[arg-type]
    assert (scan.cx, scan.cy) == (2.5, 3.25)
    assert scan.metadata["exposure_s"] == 0.097
    assert scan.metadata["detector"] == "PILATUS 300K, S/N 3-0101"
    assert scan.sources["cx"] == "header of the first file"


def test_missing_and_extra_files(root: Path, tree: RawTree, catalog: Catalog) -> None:
    write_series(root, "edf", range(3, 9))
    (root / "r_00005.edf").unlink()
    scan = catalog.scan(b"r")
    assert (scan.frames, scan.problems) == (6, ("1 of 6 files are missing",))
    assert sorted(read_slice(tree, catalog.slice(b"r", 0, 6))) == [0, 1, 3, 4, 5]
    assert [(f.name, f.first, f.frames, f.state) for f in catalog.data_files(b"r")] == [
        ("r_00003.edf to r_00004.edf", 0, 2, "present"),
        ("1 after r_00004.edf", 2, 1, "missing"),
        ("r_00006.edf to r_00008.edf", 3, 3, "present"),
    ]


def test_files_unlike_the_first_are_corrupt(root: Path, tree: RawTree, catalog: Catalog) -> None:
    write_series(root, "tif", range(4), "<u2")
    (root / "r_00001.tif").write_bytes(tif(np.zeros((3, 3), "<u2")))
    (root / "r_00002.tif").write_bytes(tif(np.zeros(SHAPE, "<u4")))
    (root / "r_00003.tif").write_bytes(b"")  # just being made: missing, not corrupt
    bad = []
    for run in catalog.slice(b"r", 0, 4).runs:
        for number, _, _ in chunks(run):
            try:
                decode((root / os.fsdecode(run.path)).read_bytes(), run.codec)
            except BadData:
                bad.append(number)
    assert bad == [1, 2]


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (tif(np.full(SHAPE, 0.5, "<f4")), "pixels are not whole numbers (e.g. 0.5)"),
        (tif(np.full(SHAPE, 1e12, "<f4")), "a pixel of 1e+12 is more than uint32 can hold"),
        (rgb(1), "r_0.tif: holds 6 x 5 x 3 pixels, not one frame"),
        (rgb(2), "r_0.tif: page 1 is a coloured picture"),
        (b"no TIFF at all", "r_0.tif: is not a whole TIF file"),
        (b"", "r_0.tif: a file of 0 bytes holds no frame"),
    ],
)
def test_series_that_cannot_be_analysed(
    root: Path, catalog: Catalog, data: bytes, line: str
) -> None:
    for number in range(2):
        (root / f"r_{number}.tif").write_bytes(data)
    scan = catalog.scan(b"r")
    assert scan.frames == 0
    assert line in scan.problems[0]
    assert all("\n" not in problem for problem in scan.problems)
    assert len(catalog.raw_files(b"r")) == 2


def test_growing_series(root: Path, catalog: Catalog, clock: Clock) -> None:
    write_series(root, "cbf", range(2))
    seen = [catalog.scan(b"r")]
    for end in (3, 5):
        write_series(root, "cbf", range(end))
        clock.now += 10
        seen.append(catalog.scan(b"r"))
    assert [scan.frames for scan in seen] == [2, 3, 5]
    assert len({scan.version for scan in seen}) == 3


def test_complete_patches_keep_their_keys(root: Path, catalog: Catalog, clock: Clock) -> None:
    """So what was computed of them stays known, whatever appears later."""

    def keys(path: bytes) -> list[bytes]:
        frames = catalog.scan(path).frames
        found = catalog.slice(path, 0, frames)
        starts = range(0, frames, 4)
        return [patch_key(b"", cut(found, at, min(4, frames - at))) for at in starts]

    write_series(root, "edf", range(6))
    write_data(root / "h_data_1.h5", frames_from(0, 4), low=1)
    write_data(root / "h_data_2.h5", frames_from(4, 2), low=5)
    before = {path: keys(path) for path in (b"r", b"h")}
    for number in range(6, 9):
        write_series(root, "edf", range(number, number + 1))
    write_data(root / "h_data_2.h5", frames_from(4, 4), low=5)
    write_data(root / "h_data_3.h5", frames_from(8, 1), low=9)
    clock.now += 10
    for path, old in before.items():
        new = keys(path)
        assert (len(old), len(new)) == (2, 3)
        assert new[0] == old[0]
        assert new[1] != old[1]


def test_cbf_with_a_flipped_bit(root: Path) -> None:
    data = bytearray(cbf(frame(1)))
    assert_array_equal(read_image(bytes(data), "cbf"), expected(1))
    data[data.index(b"\x0c\x1a\x04\xd5") + 10] ^= 4
    with pytest.raises(BadData, match="checksum differs"):
        read_image(bytes(data), "cbf")


@pytest.mark.parametrize("kind", ["cbf", "edf", "tif"])
def test_truncated_files_are_refused(kind: str) -> None:
    data = WRITERS[kind](np.random.default_rng(1).integers(0, 9, (60, 50)).astype("<i4"))
    for share in (0.0, 0.01, 0.1, 0.5, 0.9):
        with pytest.raises(BadData):
            read_image(data[: int(len(data) * share)], kind)


@cache
def sound(kind: str) -> bytes:
    return WRITERS[kind](frame(1))


@pytest.mark.parametrize("kind", ["cbf", "edf", "tif"])
@given(st.data())
@settings(max_examples=60, deadline=None)
def test_damaged_files_are_refused_or_frames(kind: str, data: st.DataObject) -> None:
    content = bytearray(sound(kind))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    codec = Codec(*SHAPE, "<u4", (Filter(FORMATS[kind]),))
    with suppress(BadData):
        pixels = decode(bytes(content), codec)
        assert (pixels.shape, pixels.dtype) == (SHAPE, np.dtype("<u4"))


@pytest.mark.parametrize(
    ("dtype", "values", "counts"),
    [
        ("<i4", [-1, 0, 2**31 - 1], [2**32 - 1, 0, 2**31 - 1]),
        ("<i2", [-2, 5], [65535, 5]),
        ("i1", [-1, 127], [255, 127]),
        (">u2", [1, 65535], [1, 65535]),
        ("<u8", [7, 2**64 - 1], [7, 2**32 - 1]),
        ("<i8", [-1, 9], [2**32 - 1, 9]),
        ("<f8", [-0.5, np.nan, 3.0, -0.0], [2**32 - 1, 2**32 - 1, 3, 0]),
        ("?", [True, False], [1, 0]),
    ],
)
def test_counts(dtype: str, values: list[Any], counts: list[int]) -> None:
    found = as_counts(np.array([values], dtype))
    assert found.tolist() == [counts]
    assert found.dtype.byteorder in "<=|"


@pytest.mark.parametrize(
    ("dtype", "value"), [("<f4", 1.5), ("<u8", 2**32), ("<c8", 1), ("<f4", np.inf)]
)
def test_no_counts(dtype: str, value: Any) -> None:
    with pytest.raises(BadData):
        as_counts(np.array([[value]], dtype))

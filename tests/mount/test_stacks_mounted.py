"""Image files of several frames, mounted: numbers, raw bytes, what grows, what is cut, no scans."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fabio
import numpy as np
import pytest
import stackfiles as made
import tifffile
from mounting import Site, contents, until
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from scanfiles import SHAPE

pytestmark = pytest.mark.mount

FRAMES = 70  # more than a patch
HORZ = 10


def counts(number: int = FRAMES, dtype: str = "<u2") -> NDArray[Any]:
    """Frames; a pixel of every second one was not measured."""
    frames = np.random.default_rng(number).poisson(9.0, (number, *SHAPE)).astype(dtype)
    frames[1::2, 2, 3] = -2 if frames.dtype.kind == "i" else np.iinfo(dtype).max
    return frames


def tif_pages(path: Path) -> NDArray[Any]:
    with tifffile.TiffFile(path) as file:
        return np.stack([page.asarray() for page in file.pages])


def tif_series(path: Path) -> NDArray[Any]:
    return np.asarray(tifffile.imread(path))


def edf_frames(path: Path) -> NDArray[Any]:
    with fabio.open(os.fspath(path)) as file:
        return np.stack([file.get_frame(number).data for number in range(file.nframes)])


def lone_tif(root: Path) -> tuple[list[str], Callable[[Path], NDArray[Any]]]:
    (root / "p.tif").write_bytes(made.tif(counts()))
    return ["p.tif"], tif_pages


def lone_bigtiff(root: Path) -> tuple[list[str], Callable[[Path], NDArray[Any]]]:
    (root / "p.tif").write_bytes(made.pages(counts(dtype="<i4"), bigtiff=True))
    return ["p.tif"], tif_pages


def imagej(root: Path) -> tuple[list[str], Callable[[Path], NDArray[Any]]]:
    (root / "p.tif").write_bytes(made.imagej_of_one_directory(counts()))
    return ["p.tif"], tif_series


def pillow(root: Path) -> tuple[list[str], Callable[[Path], NDArray[Any]]]:
    (root / "p.tiff").write_bytes(made.pillow(counts()))
    return ["p.tiff"], tif_pages


def tiles(root: Path) -> tuple[list[str], Callable[[Path], NDArray[Any]]]:
    (root / "p.tif").write_bytes(made.tif(counts(dtype="<u4"), tile=(16, 16), compression="zlib"))
    return ["p.tif"], tif_pages


def imagemagick(root: Path) -> tuple[list[str], Callable[[Path], NDArray[Any]]]:
    (root / "p.tif").write_bytes(made.imagemagick(counts()))
    return ["p.tif"], tif_pages


def lone_edf(root: Path) -> tuple[list[str], Callable[[Path], NDArray[Any]]]:
    (root / "p_0000.edf").write_bytes(made.lima(counts()))
    return ["p_0000.edf"], edf_frames


def parts(write: made.Writer, root: Path, ending: str, dtype: str) -> list[str]:
    """Files of different lengths."""
    frames, begin, names = counts(dtype=dtype), 0, []
    for number, end in enumerate((30, 31, 66, FRAMES), 1):
        names.append(f"p_{number:04}.{ending}")
        (root / names[-1]).write_bytes(write(frames[begin:end]))
        begin = end
    return names


def series_of_tif(root: Path) -> tuple[list[str], Callable[[Path], NDArray[Any]]]:
    return parts(made.pages, root, "tif", "<u2"), tif_pages


def series_of_edf(root: Path) -> tuple[list[str], Callable[[Path], NDArray[Any]]]:
    return parts(made.edf, root, "edf", "<i4"), edf_frames


@pytest.mark.parametrize(
    "write",
    [
        lone_tif,
        lone_bigtiff,
        imagej,
        pillow,
        imagemagick,
        tiles,
        lone_edf,
        series_of_tif,
        series_of_edf,
    ],
)
def test_a_scan(
    shared: Site, write: Callable[[Path], tuple[list[str], Callable[[Path], NDArray[Any]]]]
) -> None:
    root = shared.raw / "stacks" / write.__name__
    root.mkdir(parents=True)
    names, reader = write(root)
    read = [reader(root / name) for name in names]
    frames = np.concatenate(read)
    assert frames.shape == (FRAMES, *SHAPE)
    scan = f"stacks/{write.__name__}/p"
    assert os.listdir(shared.mnt / "stacks" / write.__name__) == ["p"]

    valid = frames >= 0 if frames.dtype.kind == "i" else frames != np.iinfo(frames.dtype).max
    assert not valid.all()
    each = np.where(valid, frames, 0).astype(np.int64)
    darkfield = shared.load(f"{scan}/darkfield/horz={HORZ}/vert={FRAMES // HORZ}.npy")
    assert_array_equal(darkfield, each.sum((1, 2)).reshape(-1, HORZ).astype(float), strict=True)
    assert_array_equal(shared.load(f"{scan}/darkfield/full.npy").ravel(), darkfield.ravel())
    rows, columns = np.indices(SHAPE)
    sector = np.degrees(np.arctan2(2.25 - rows, columns - 1.75)) % 360 // 90
    sums = np.stack([each[:, sector == one].sum(1) for one in range(4)], axis=1)
    pixels = np.stack([valid[:, sector == one].sum(1) for one in range(4)], axis=1)
    profile = shared.load(f"{scan}/azimuthal/cx=1.75/cy=2.25/horz={HORZ}/vert=7/bins=4.npy")
    assert_array_equal(profile[0].reshape(-1, 4), sums / pixels)
    assert_array_equal(profile[1].reshape(-1, 4), np.sqrt(sums) / pixels)

    largest = np.iinfo("<u4" if frames.dtype.itemsize == 4 else "<u2").max
    for number in (0, 1, 30, 31, FRAMES - 1):
        frame = shared.load(f"{scan}/frames/{number:06}.npy")
        assert_array_equal(frame, np.where(valid, frames, np.int64(largest))[number])
    assert_array_equal(shared.load(f"{scan}/sum/full.npy"), each.sum(0))

    told = json.loads(contents(shared.mnt / scan / "scan.json"))
    assert (told["frames"], told["problems"], told["complete"]) == (FRAMES, [], True)
    places = [(file["name"], file["first"], file["frames"]) for file in told["files"]]
    ends = np.cumsum([0, *map(len, read)]).tolist()
    assert places == [(name, ends[number], len(read[number])) for number, name in enumerate(names)]
    assert sorted(os.listdir(shared.mnt / scan / "raw")) == sorted(names)
    for name in names:
        assert contents(shared.mnt / scan / "raw" / name) == (root / name).read_bytes()


def test_what_is_no_series_is_shown_as_it_is(shared: Site) -> None:
    """Photographs, figures, documents, and maps that were computed here."""
    root = shared.raw / "pictures"
    root.mkdir()
    rng = np.random.default_rng(1)
    grey = rng.integers(0, 255, (3, 40, 50), "u1")
    differing = io.BytesIO()
    with tifffile.TiffWriter(differing) as file:
        for shape in ((40, 50), (40, 50), (20, 25)):
            file.write(np.ones(shape, "<u2"))
    files = {
        "photo.tif": made.tif(np.stack([grey] * 3, -1), photometric="rgb"),
        "photo_0001.tif": made.tif(np.stack([grey] * 3, -1), photometric="rgb"),
        "figure.tiff": made.pillow(grey),
        "fax.tif": made.tif(grey > 99, photometric="miniswhite"),
        "differing.tif": differing.getvalue(),
        "one.tif": made.tif(counts(1)[0]),
        "one_0001.edf": made.edf(counts(1)),
        "map.tif": made.tif(rng.random((2, 40, 50)).astype("<f4")),
    }
    for name, data in files.items():
        (root / name).write_bytes(data)
    assert sorted(os.listdir(shared.mnt / "pictures")) == sorted(files)
    for name, data in files.items():
        assert contents(shared.mnt / "pictures" / name) == data


def test_a_file_that_grows(shared: Site) -> None:
    """Frame by frame: each value is NaN or right, at the end it is the map of a whole file."""
    root = shared.raw / "growing"
    root.mkdir()
    frames = counts()
    data = made.lima(frames)
    each = len(data) // FRAMES
    sums = np.where(frames == 65535, 0, frames).sum((1, 2)).astype(float)
    path = root / "g_0000.edf"
    scan = shared.mnt / "growing/g"

    def shown() -> NDArray[Any] | None:
        try:
            return np.load(io.BytesIO((scan / "darkfield/full.npy").read_bytes())).ravel()
        except OSError:  # not yet a scan, or another version while it was read
            return None

    with path.open("wb") as file:
        for begin, end in ((0, each), (each, 2 * each), (2 * each, 9 * each + 1050)):
            file.write(data[begin:end])
            file.flush()
        until(lambda: (found := shown()) is not None and len(found) == 9, "nine frames")
        assert_array_equal(shown(), sums[:9])
        told = json.loads(contents(scan / "scan.json"))
        assert (told["frames"], told["problems"]) == (9, ["g_0000.edf ends in frame 9"])
        file.write(data[end:])
    until(lambda: (found := shown()) is not None and len(found) == FRAMES, "all frames")
    assert_array_equal(shown(), sums)
    (root / "g_0001.edf").write_bytes(made.lima(frames[:5]))
    until(lambda: (found := shown()) is not None and len(found) == FRAMES + 5, "another file")
    assert_array_equal(shown(), np.concatenate([sums, sums[:5]]))
    told = json.loads(contents(scan / "scan.json"))
    assert (told["complete"], told["problems"]) == (True, [])


@pytest.mark.parametrize(("kind", "write"), [("tif", made.pages), ("edf", made.lima)])
def test_a_file_that_is_cut(shared: Site, kind: str, write: made.Writer) -> None:
    root = shared.raw / f"cut-{kind}"
    root.mkdir()
    frames = counts()
    data = write(frames)
    each, there = len(data) // FRAMES, 20
    (root / f"c_1.{kind}").write_bytes(data[: 20 * each + each // 2])
    (root / f"c_2.{kind}").write_bytes(write(frames[:3]))
    told = json.loads(contents(shared.mnt / f"cut-{kind}/c/scan.json"))
    problem = f"c_1.{kind} ends in frame {there}"
    assert (told["frames"], told["problems"]) == (there + 3, [problem])
    sums = np.where(frames == 65535, 0, frames).sum((1, 2)).astype(float)
    found = shared.load(f"cut-{kind}/c/darkfield/full.npy").ravel()
    assert_array_equal(found[:there], sums[:there])
    assert_array_equal(found[there:], sums[:3])


def test_a_page_that_leads_nowhere(shared: Site) -> None:
    """Missing in the midst of the others, whichever program asks."""
    root = shared.raw / "nowhere"
    root.mkdir()
    frames = counts(12)
    data = bytearray(made.pages(frames))
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as file:
        at = file.pages[5].tags["StripOffsets"].valueoffset  # type: ignore[union-attr]
    data[at : at + 4] = len(data).to_bytes(4, "little")
    (root / "n.tif").write_bytes(data)
    sums = np.where(frames == 65535, 0, frames).sum((1, 2)).astype(float)
    sums[5] = np.nan
    assert_array_equal(shared.load("nowhere/n/darkfield/full.npy").ravel(), sums)
    with pytest.raises(OSError, match="Input/output error"):
        (shared.mnt / "nowhere/n/frames/000005.npy").read_bytes()

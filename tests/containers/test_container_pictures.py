"""png: colours, the wheel, and what has no picture."""

from __future__ import annotations

import io
from typing import Any

import imageio.v3 as imageio
import numpy as np
import pytest
import trio
from fakefarm import HEIGHT, WIDTH, array_in, read_all, result_of, scan_of
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from analysis.plan import pack_mask
from dadafs.containers.base import MAX_WHOLE, View
from dadafs.containers.colours import CMAPS, palette, wheel
from dadafs.containers.png import indexed, limits
from dadafs.errors import NoSuchPath
from dadafs.requests import extensions
from dadafs.scans.model import Scan

SCAN = scan_of(10, 4, 3)


def picture(path: str, scan: Scan = SCAN) -> NDArray[Any]:
    """Red, green, blue, opacity (row, column, 4)."""
    data = trio.run(read_all, path, scan)
    image: NDArray[Any] = imageio.imread(io.BytesIO(data), extension=".png", mode="RGBA")
    return image


@pytest.mark.parametrize("cmap", CMAPS)
def test_a_map_in_colours(cmap: str) -> None:
    array = trio.run(array_in, "darkfield/full.npy", SCAN)
    image = picture(f"darkfield/cmap={cmap}/full.png")
    assert image.shape == (3, 4, 4)
    colours = palette(cmap, 255)
    assert_array_equal(image[..., 3] == 0, np.isnan(array))
    low, high = np.nanpercentile(array, [1, 99])
    there = ~np.isnan(array)
    place = np.rint(np.clip((array[there] - low) / (high - low), 0, 1) * 254).astype(int)
    assert_array_equal(image[there][:, :3], colours[place])


@pytest.mark.parametrize(
    "path",
    [
        "dpc/full.png",
        "sum/full.png",
        "average/scale=log.png",
        "composite/bin=2/cmap=gray.png",
        "frames/000003.png",
        "frames/cmap=inferno/bin=2/000003.png",
        "orientation/channel=angle/cmap=hue.png",
    ],
)
def test_pictures_have_the_shape_of_the_array(path: str) -> None:
    stem = path.removesuffix("/scale=log.png").removesuffix("/cmap=gray.png").removesuffix(".png")
    stem = stem.replace("/cmap=inferno", "").replace("/cmap=hue", "")
    if "/" not in stem:
        stem += "/full"
    array = trio.run(array_in, f"{stem}.npy", SCAN)
    assert picture(path).shape[:2] == array.shape[-2:]


def test_the_first_channel_unless_one_is_given() -> None:
    assert_array_equal(picture("dpc/full.png"), picture("dpc/channel=x/full.png"))
    assert not np.array_equal(picture("dpc/full.png"), picture("dpc/channel=y/full.png"))


@pytest.mark.parametrize("name", ["orientation", "harmonic"])
def test_directions_are_a_wheel(name: str) -> None:
    angle, strength, *_ = trio.run(array_in, f"{name}/full.npy", SCAN)
    image = picture(f"{name}/full.png")
    there = np.isfinite(angle) & np.isfinite(strength)
    assert there.any()
    assert_array_equal(image[..., 3] > 0, there)
    bright = np.clip(strength[there] / np.percentile(strength[there], 99), 0, 1)
    assert_array_equal(image[there][:, :3], wheel(angle[there], bright))


def test_colours_of_the_wheel() -> None:
    degrees = np.array([0, 30, 60, 90, 120, 150, 180], float)
    red, yellow, green = [255, 0, 0], [255, 255, 0], [0, 255, 0]
    cyan, blue, magenta = [0, 255, 255], [0, 0, 255], [255, 0, 255]
    around = [red, yellow, green, cyan, blue, magenta, red]
    assert wheel(degrees, np.ones(7)).tolist() == around
    assert wheel(degrees, np.zeros(7)).max() == 0


def test_sentinels_of_frames_are_transparent() -> None:
    frame = np.array([[1, 65535, 3]], np.uint16)
    assert indexed(frame, View(blank=65535)).tolist() == [[1, 0, 255]]


@pytest.mark.parametrize(
    ("path", "window"),
    [
        ("frames/000003.png", np.s_[:, :]),
        ("frames/roi=2,1,5,7/000003.png", np.s_[1:8, 2:7]),
        ("sum/full.png", np.s_[:, :]),
        ("max/roi=1,2,5,3.png", np.s_[2:5, 1:6]),
    ],
)
def test_pixels_that_the_detector_masks_are_transparent(
    path: str, window: tuple[slice, slice]
) -> None:
    """And the others have the colours that they have without them."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[3, 4] = mask[2, 2] = mask[:, 8] = True
    found = picture(path, scan_of(10, 4, 3, mask=pack_mask(mask)))
    assert_array_equal(found[..., 3] == 0, mask[window])
    numbers = trio.run(array_in, path.replace(".png", ".npy"), SCAN)
    expected = indexed(np.where(mask[window], np.nan, numbers), View())
    table = np.concatenate([np.zeros((1, 3), np.uint8), palette("viridis", 255)])
    assert_array_equal(found[..., :3], table[expected])


def test_limits() -> None:
    numbers = np.arange(101.0)
    assert limits(numbers, None, None) == (1, 99)
    assert limits(numbers, 5, None) == (5, 99)
    assert limits(np.array([np.nan]), None, None) == (0, 1)
    low, high = limits(np.full(5, 7.0), None, None)
    assert low == 7 < high
    assert indexed(np.full((1, 2), 7.0), View()).tolist() == [[1, 1]]


def test_logarithm() -> None:
    numbers = np.array([[0.0, 1.0, 10.0, 100.0, -5.0, np.nan]])
    found = indexed(numbers, View(log=True, vmin=1, vmax=100)).tolist()
    assert found == [[1, 1, 128, 255, 1, 0]]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("radial/full.png", "profiles are no picture"),
        ("darkfield/cmap=gray/full.npy", "cmap= colours a picture"),
        ("darkfield/vmin=3.csv", "vmin= colours a picture"),
        ("darkfield/vmin=3/vmax=2.png", "vmin=3 must be below vmax=2"),
        ("darkfield/vmin=0/scale=log.png", "must be above 0"),
        ("orientation/cmap=gray.png", "give channel= too"),
        ("frames/scale=log/000001.tif", "scale= colours a picture"),
        ("radial/cmap=gray.png", "has no parameter 'cmap'"),
        ("darkfield/cmap=grey.png", "did you mean 'gray'"),
    ],
)
def test_what_makes_no_sense_does_not_exist(path: str, reason: str) -> None:
    with pytest.raises(NoSuchPath, match=reason):
        result_of(path, SCAN)


def test_what_would_not_fit_memory_or_format_does_not_exist() -> None:
    scan = scan_of(10_000_000, 10_000, 1000, height=2167, width=2070)
    assert MAX_WHOLE > 10_000_000
    every = ("npy", "tif", "h5", "mat", "png", "csv")
    assert extensions(result_of("darkfield/full.npy", scan).request, scan) == every
    profiles = result_of("radial/bins=100/full.npy", scan).request
    assert extensions(profiles, scan) == ("npy", "tif", "h5", "csv")
    pictures = result_of("composite/bin=100/full.npy", scan).request
    assert extensions(pictures, scan) == ("npy", "tif", "h5", "csv")
    line = scan_of(2_000_000, 2_000_000, 1)
    with pytest.raises(NoSuchPath, match="horz= folds"):
        result_of("darkfield/full.png", line)

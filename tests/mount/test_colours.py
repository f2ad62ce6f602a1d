"""Pictures with cmap=, scale=, vmin=, vmax=: every pixel, as programs show it, by the documents."""

from __future__ import annotations

import colorsys
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from mounting import Site, contents, load
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from PIL import Image

from tools.scan_maker import make_scan

pytestmark = pytest.mark.mount

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float64]
Program = Callable[[Path], Bytes]


@pytest.fixture(scope="module")
def scan(shared: Site) -> Path:
    """24 frames; lines of 7 points leave four points without a frame, NaN."""
    make_scan(shared.raw, name="colours", horz=6, vert=4, detector="70x64", unique=24)
    return shared.mnt / "colours"


def by_pillow(path: Path) -> Bytes:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGBA"))


def by_imagemagick(path: Path) -> Bytes:
    if shutil.which("convert") is None:
        pytest.skip("convert is missing: tools/setup test installs it")

    def run(*command: str | Path) -> bytes:
        return subprocess.run(command, capture_output=True, check=True, timeout=60).stdout

    kind, width, height = run("identify", "-format", "%m %w %h", path).decode().split()
    assert kind == "PNG"
    raw = run("convert", path, "-depth", "8", "rgba:-")
    return np.frombuffer(raw, np.uint8).reshape(int(height), int(width), 4)


def numbers(scan: Path, name: str) -> Floats:
    """What is coloured, NaN where nothing is: points without frames, pixels not measured."""
    array = load(scan / f"{name}.npy")
    if array.ndim == 3:
        array = array[0]
    found = array.astype(np.float64)
    if array.dtype.kind == "u":
        with h5py.File(scan / "raw/colours_master.h5") as master:
            found[master["entry/instrument/detector/detectorSpecific/pixel_mask"][()] != 0] = np.nan
        if name.startswith("frames"):
            found[array == np.iinfo(array.dtype).max] = np.nan
    return found


def steps(values: Floats, given: dict[str, str]) -> Floats:
    """The number of each colour, 0 the lowest to 254 the highest; NaN for none."""
    blank = np.isnan(values)
    ends = [float(given[name]) if name in given else None for name in ("vmin", "vmax")]
    if given.get("scale") == "log":
        values = np.log10(np.where(values > 0, values, np.nan))
        ends = [None if end is None else np.log10(end) for end in ends]
    usual = np.nanpercentile(values, [1, 99])
    low, high = (u if end is None else end for end, u in zip(ends, usual, strict=True))
    found = np.rint(254 * np.clip((np.nan_to_num(values, nan=low) - low) / (high - low), 0, 1))
    return np.where(blank, np.nan, found)


def table(cmap: str) -> tuple[Floats, float]:
    """The 255 colours, and how far off they may be: silx has 256 of matplotlib's, of which we
    have every eighth."""
    at = np.linspace(0, 1, 255)
    if cmap == "gray":
        return np.rint(255 * np.stack([at] * 3, axis=1)), 0
    if cmap == "hue":
        return np.rint([[255 * one for one in colorsys.hsv_to_rgb(h % 1, 1, 1)] for h in at]), 0
    colormap = pytest.importorskip("silx.math.colormap", reason="silx is missing: tools/setup test")
    known = colormap.get_colormap_lut(cmap)[:, :3].astype(float)
    places = np.linspace(0, 1, len(known))
    return np.stack([np.interp(at, places, known[:, one]) for one in range(3)], axis=1), 3


@pytest.mark.parametrize("program", [by_pillow, by_imagemagick])
@pytest.mark.parametrize(
    ("name", "look"),
    [
        ("darkfield/horz=7", ""),
        ("darkfield/horz=7", "cmap=gray"),
        ("darkfield/horz=7", "cmap=gray/scale=log"),
        ("darkfield/horz=7", "cmap=gray/vmin={low}/vmax={high}"),
        ("darkfield/horz=7", "cmap=gray/scale=log/vmin={low}/vmax={high}"),
        ("darkfield/horz=7", "cmap=hue/vmin={low}"),
        ("darkfield/horz=7", "cmap=inferno/vmax={high}"),
        ("dpc/channel=y/horz=6", "cmap=gray/scale=linear"),
        ("dpc/horz=6", "cmap=gray/scale=log/vmin=0.01"),
        ("sum/full", "cmap=gray/scale=log"),
        ("frames/000003", "cmap=inferno/scale=log/vmin=1/vmax=90"),
        ("frames/000003", "cmap=gray/vmax=2.5"),
    ],
)
def test_colours_are_those_of_the_documents(
    scan: Path, program: Program, name: str, look: str
) -> None:
    values = numbers(scan, name)
    low, high = (f"{end:.0f}" for end in np.nanpercentile(values, [20, 70]))
    look = look.format(low=low, high=high)
    given = dict(part.split("=") for part in look.split("/") if part)
    directory, _, last = name.rpartition("/")
    found = program(scan / directory / look / f"{last}.png")
    assert found.shape == (*values.shape, 4)
    step = steps(values, given)
    shown = ~np.isnan(step)
    assert_array_equal(found[..., 3], np.where(shown, 255, 0))
    assert len(np.unique(step[shown])) > 3
    if {"vmin", "vmax"} & given.keys():
        assert (step == 0).sum() + (step == 254).sum() > 2
    colours, off = table(given.get("cmap", "viridis"))
    wanted = colours[step[shown].astype(int)]
    assert_allclose(found[shown][:, :3].astype(float), wanted, rtol=0, atol=off)


@pytest.mark.parametrize("program", [by_pillow, by_imagemagick])
@pytest.mark.parametrize("look", ["", "vmin=0.1/vmax=0.4"])
def test_the_wheel_is_that_of_the_documents(scan: Path, program: Program, look: str) -> None:
    angle, strength = load(scan / "orientation/horz=7.npy")[:2]
    given = dict(part.split("=") for part in look.split("/") if part)
    low = float(given.get("vmin", 0))
    high = float(given.get("vmax", np.nanpercentile(strength, 99)))
    found = program(scan / "orientation" / look / "horz=7.png")
    assert_array_equal(found[..., 3] == 0, np.isnan(angle))
    bright = np.clip((strength - low) / (high - low), 0, 1)
    for place in np.argwhere(~np.isnan(angle)):
        point = tuple(place)
        wanted = colorsys.hsv_to_rgb(angle[point] / 180, 1, bright[point])
        assert_array_equal(found[point][:3], np.rint(255 * np.array(wanted)))
    assert len(np.unique(found[..., :3].reshape(-1, 3), axis=0)) > 10


def test_parameters_in_another_order_are_the_same_picture(scan: Path) -> None:
    one = contents(scan / "darkfield/cmap=inferno/scale=log/vmin=3/full.png")
    assert contents(scan / "darkfield/vmin=3/scale=log/cmap=inferno/full.png") == one
    assert contents(scan / "darkfield/vmin=3/scale=log/full.png") != one

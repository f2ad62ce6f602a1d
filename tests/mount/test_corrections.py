"""Masks, monitors and backgrounds through a real mount, against plain numpy."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import plain
import pytest
import tifffile
from flatfields import PLACE, damage_tile, give_flatfield, usable
from mounting import Site, load, until
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from dadafs.client.upstream.link import FRESH_S
from tools.scan_maker import ScanMade, make_scan

pytestmark = pytest.mark.mount

HORZ, VERT = 6, 4
Floats = NDArray[np.float64]


def fio(horz: int, vert: int, *columns: tuple[str, Floats]) -> str:
    """The log of a mesh, with these columns."""
    names = "".join(f" Col {n} {name} DOUBLE\n" for n, (name, _) in enumerate(columns, 1))
    rows = zip(*(values for _, values in columns), strict=True)
    lines = "".join(" ".join(f"{value!r}" for value in map(float, row)) + "\n" for row in rows)
    command = f"mesh x 0 1 {horz - 1} y 0 1 {vert - 1} 0.02"
    return f"!\n%c\n{command}\n!\n%p\nx = 0.0\n!\n%d\n{names}{lines}"


class Recorded(NamedTuple):
    """A scan with its log, and another one beside it, without a sample."""

    scan: ScanMade
    monitor: Floats
    other: ScanMade
    other_monitor: Floats

    def factors(self) -> Floats:
        """The mean of the monitor over it at each frame; NaN where it is not positive."""
        usable = np.where(self.monitor > 0, self.monitor, np.nan)
        return np.asarray(np.nanmean(usable) / usable)


@pytest.fixture(scope="module")
def made(shared: Site) -> Recorded:
    """`corr/sub/s` and `corr/sub/empty`."""
    directory = shared.raw / "corr/sub"
    scan = make_scan(directory, name="s", horz=HORZ, vert=VERT, images_per_file=10)
    other = make_scan(directory, name="empty", horz=3, vert=2)
    rng = np.random.default_rng(3)
    monitor, dark = rng.uniform(900, 1100, HORZ * VERT), rng.uniform(900, 1100, 6)
    monitor[[3, 7]] = 0, -1
    (directory / "s.fio").write_text(fio(HORZ, VERT, ("x", monitor * 0), ("ic1", monitor)))
    (directory / "empty.fio").write_text(fio(3, 2, ("ic1", dark)))
    return Recorded(scan, monitor, other, dark)


def drawn(scan: ScanMade, seed: int = 0) -> NDArray[np.bool_]:
    """A mask as somebody may draw it: a rectangle and some pixels."""
    mask = np.random.default_rng(seed).random(scan.detector.shape) < 0.05
    mask[20:60, 30:50] = True
    return mask


def masked_counts(scan: ScanMade, mask: NDArray[np.bool_]) -> Floats:
    return plain.counts(scan, plain.selection(scan) & ~mask)


def reason(site: Site, path: str) -> str:
    """Why a path is refused, in one line."""
    with pytest.raises(FileNotFoundError):
        (site.mnt / path).stat()
    lines = [line for line in site.errors().splitlines() if path in line]
    assert lines, path
    return lines[-1]


def write_mask(path: Path, mask: NDArray[np.bool_]) -> None:
    """In the format that the name says."""
    match path.suffix:
        case ".npy":
            np.save(path, mask)
        case ".tif":
            tifffile.imwrite(path, mask.astype(np.uint8) * 255)
        case ".edf":
            rows, columns = mask.shape
            head = (
                f"{{\nDim_1 = {columns} ;\nDim_2 = {rows} ;\nDataType = UnsignedByte ;\n"
                f"ByteOrder = LowByteFirst ;\n"
            )
            path.write_bytes(head.ljust(510).encode() + b"}\n" + mask.astype("u1").tobytes())
        case _:
            with h5py.File(path, "w") as file:
                file["entry/mask"] = mask.astype(np.int8)


@pytest.mark.parametrize(
    "name", ["above.npy", "m.npy", "m.tif", "m.edf", "m.h5", "m.h5:entry:mask"]
)
def test_masks_of_all_formats(shared: Site, made: Recorded, name: str) -> None:
    mask = drawn(made.scan)
    file = name.partition(":")[0]
    place = shared.raw / ("corr" if file.startswith("above") else "corr/sub")
    write_mask(place / file, mask)
    expected = plain.folded(masked_counts(made.scan, mask), HORZ, VERT)
    base = f"corr/sub/s/darkfield/mask={name}"
    assert_array_equal(shared.load(f"{base}.npy"), expected)
    assert_array_equal(shared.load(f"{base}/horz={HORZ}.npy"), expected)
    assert (shared.mnt / base).is_dir()
    assert "full.npy" in os.listdir(shared.mnt / base)
    assert expected.sum() < plain.counts(made.scan).sum()


def test_a_mask_that_is_edited_gives_other_numbers(shared: Site, made: Recorded) -> None:
    path = shared.raw / "corr/sub/edited.npy"
    result = shared.mnt / "corr/sub/s/darkfield/mask=edited.npy/full.npy"
    write_mask(path, drawn(made.scan, 1))
    assert_array_equal(load(result).ravel(), masked_counts(made.scan, drawn(made.scan, 1)))
    os.utime(path, ns=(0, result.stat().st_mtime_ns + 10**9))
    write_mask(path, drawn(made.scan, 2))
    os.utime(path, ns=(0, result.stat().st_mtime_ns + 2 * 10**9))
    newest = path.stat().st_mtime_ns
    until(lambda: result.stat().st_mtime_ns == newest, "the mask's time", 5 * FRESH_S + 5)
    assert_array_equal(load(result).ravel(), masked_counts(made.scan, drawn(made.scan, 2)))


def test_bad_masks_are_refused_in_one_line(shared: Site, made: Recorded) -> None:
    base = shared.raw / "corr/sub"
    np.save(base / "small.npy", np.zeros((3, 4)))
    np.save(base / "every.npy", np.ones(made.scan.detector.shape))
    (base / "torn.npy").write_bytes(b"\x93NUMPY\x01\0v\0{'descr'")
    outside = shared.base / "outside.npy"
    np.save(outside, np.zeros(made.scan.detector.shape))
    (base / "link.npy").symlink_to(outside)
    write_mask(base / "gaps.npy", drawn(made.scan))
    scan = "corr/sub/s/darkfield"
    rows, columns = made.scan.detector.shape
    for name, said in {
        "small.npy": f"3 x 4, but the detector has {rows} rows x {columns} columns",
        "every.npy": "masks every pixel",
        "torn.npy": "cannot be read as npy",
        "gasp.npy": "did you mean 'gaps.npy'?",
        "gaps.npy:a": "only in HDF5 files",
    }.items():
        assert said in reason(shared, f"{scan}/mask={name}/full.npy")
    with pytest.raises(PermissionError):
        (shared.mnt / f"{scan}/mask=link.npy/full.npy").stat()
    assert "ends in one of" in reason(shared, f"{scan}/mask=gaps")


def test_norm_scales_counts_and_leaves_ratios(shared: Site, made: Recorded) -> None:
    factor = made.factors()
    scan = "corr/sub/s"
    counts = plain.counts(made.scan)
    found = shared.load(f"{scan}/darkfield/norm=ic1.npy")
    assert_allclose(found.ravel(), counts * factor, rtol=1e-14)
    assert_array_equal(np.isnan(found).ravel().nonzero()[0], [3, 7])
    plain_dpc = shared.load(f"{scan}/dpc/full.npy")
    there = ~np.isnan(factor).reshape(VERT, HORZ)
    normed = shared.load(f"{scan}/dpc/norm=ic1.npy")
    assert_allclose(normed[:, there], plain_dpc[:, there], rtol=1e-11)
    profile = shared.load(f"{scan}/radial/bins=9/full.npy")
    scaled = shared.load(f"{scan}/radial/bins=9/norm=ic1.npy")
    each = factor.reshape(VERT, HORZ)[..., None]
    assert_allclose(scaled[0], profile[0] * each, rtol=1e-13)
    assert_allclose(scaled[1], profile[1] * each, rtol=1e-13)
    assert_array_equal(scaled[2][there], profile[2][there])


def test_norm_of_patterns_is_a_ratio_of_sums(shared: Site, made: Recorded) -> None:
    used = made.monitor > 0
    valid = plain.valid(made.scan)[made.scan.which][used]
    frames = made.scan.frames[made.scan.which][used]
    sums = np.where(valid, frames, 0).sum(0, dtype=np.float64)
    scale = made.monitor[used].mean() / (made.monitor[used].sum() / used.sum())
    found = shared.load("corr/sub/s/sum/norm=ic1.npy")
    expected = np.where(valid.any(0), sums * scale, np.nan)
    assert found.dtype == np.float64
    assert_allclose(found, expected, rtol=1e-13)
    region = shared.load("corr/sub/s/average/region=0,0,3,2/norm=ic1.npy")
    chosen = np.array([0, 1, 2, 6, 8])
    good = plain.valid(made.scan)[made.scan.which][chosen]
    part = np.where(good, made.scan.frames[made.scan.which][chosen], 0)
    count = np.where(good.any(0), good.sum(0), np.nan)
    scale = made.monitor[used].mean() / made.monitor[chosen].mean()
    assert_allclose(region, part.sum(0) / count * scale, rtol=1e-13)


def test_unknown_monitors_are_refused_in_one_line(shared: Site, made: Recorded) -> None:
    del made
    line = reason(shared, "corr/sub/s/darkfield/norm=ic2/full.npy")
    assert "did you mean 'ic1'?; there are x, ic1" in line
    assert "largest counts" in reason(shared, "corr/sub/s/max/norm=ic1.npy")
    make_scan(shared.raw / "corr", name="unlogged", horz=2, vert=2)
    line = reason(shared, "corr/unlogged/darkfield/norm=ic1/full.npy")
    assert "no SPEC, FIO or BLISS file tells of corr/unlogged" in line


def test_monitor_of_a_spec_file(shared: Site) -> None:
    directory = shared.raw / "corrspec"
    scan = make_scan(directory, name="new_00042", horz=3, vert=2)
    rows = "".join(f"{n} 0 {100 + n}\n" for n in range(5))
    (directory / "new.dat").write_text(
        "#F x\n\n#S 41 ascan x 0 1 1 1\n#N 1\n#L x\n7\n\n"
        f"#S 42 mesh x 0 2 2 y 0 1 1 0.02\n#N 3\n#L x  y  Ion Chamber\n{rows}#C done\n\n"
        "#S 43 ascan x 0 1 1 1\n#N 1\n#L x\n7\n"
    )
    monitor = np.array([100.0, 101, 102, 103, 104, np.nan])
    found = shared.load("corrspec/new_00042/darkfield/norm=Ion Chamber.npy")
    assert_allclose(found.ravel(), plain.counts(scan) * 102 / monitor, rtol=1e-14)


def test_background_of_another_scan(shared: Site, made: Recorded) -> None:
    counts, dark = plain.counts(made.scan), plain.counts(made.other).mean()
    found = shared.load("corr/sub/s/darkfield/background=empty.npy")
    assert_allclose(found.ravel(), counts - dark, rtol=1e-13)
    assert (found < 0).any()  # never made positive
    both = shared.load("corr/sub/s/darkfield/background=empty/norm=ic1.npy")
    mean = made.monitor[made.monitor > 0].mean()
    dark = (plain.counts(made.other) * mean / made.other_monitor).mean()
    assert_allclose(both.ravel(), counts * made.factors() - dark, rtol=1e-13)


def test_what_is_masked_in_the_background_does_not_count(shared: Site, made: Recorded) -> None:
    other = make_scan(shared.raw / "corr/sub", name="elsewhere", horz=2, vert=2, seed=5)
    assert (other.mask != made.scan.mask).any()
    chosen = ~made.scan.mask & ~other.mask
    expected = plain.counts(made.scan, chosen) - plain.counts(other, chosen).mean()
    found = shared.load("corr/sub/s/darkfield/background=elsewhere.npy")
    assert_allclose(found.ravel(), expected, rtol=1e-13)


def test_background_of_ratios_is_subtracted_from_their_sums(shared: Site, made: Recorded) -> None:
    rows, columns = np.indices(made.scan.detector.shape)
    geometry = made.scan.geometry
    dx, up = columns - geometry.cx, geometry.cy - rows

    def sums(scan: ScanMade) -> Floats:
        def of(frame: NDArray[np.uint16], good: NDArray[np.bool_]) -> list[float]:
            image = np.where(good, frame, 0).astype(np.float64)
            weights = (1, dx, -up, dx * dx, dx * up, up * up)
            return [float((image * weight).sum()) for weight in weights]

        return plain.each(scan, of)

    net = sums(made.scan) - sums(made.other).mean(0)
    found = shared.load("corr/sub/s/dpc/background=empty.npy")
    assert found.shape == (2, VERT, HORZ)
    counts = np.where(net[:, 0] > 0, net[:, 0], np.nan)
    assert_allclose(found.reshape(2, -1), (net[:, 1:3] / counts[:, None]).T, rtol=1e-9)
    found = shared.load("corr/sub/s/orientation/background=empty.npy")
    xx, xu, uu = (net[:, 3:] / counts[:, None]).T
    assert_allclose(found[2].ravel() + found[3].ravel(), xx + uu, rtol=1e-9)
    twice = np.radians(2 * found[0].ravel())
    assert_allclose(np.hypot(found[2] - found[3], 0).ravel(), np.hypot(xx - uu, 2 * xu), rtol=1e-8)
    assert_allclose(np.cos(twice), (xx - uu) / np.hypot(xx - uu, 2 * xu), atol=1e-8)


def test_background_of_frames_of_the_scan(shared: Site, made: Recorded) -> None:
    first = plain.counts(made.scan)[2:8].mean()
    found = shared.load("corr/sub/s/darkfield/background=2..7.npy")
    assert_allclose(found.ravel(), plain.counts(made.scan) - first, rtol=1e-13)
    frames, valid = made.scan.frames[made.scan.which], plain.valid(made.scan)[made.scan.which]
    image = np.where(valid, frames, 0).astype(np.float64)
    mean = image.sum(0) / np.where(valid.any(0), valid.sum(0), np.nan)
    less = image[:3].sum(0) / np.where(valid[:3].any(0), valid[:3].sum(0), np.nan)
    found = shared.load("corr/sub/s/average/background=0..2.npy")
    assert_allclose(found, mean - less, rtol=1e-12, atol=1e-12)
    found = shared.load("corr/sub/s/sum/background=0..2.npy")
    assert_allclose(found, (mean - less) * valid.sum(0), rtol=1e-11, atol=1e-10)
    tiles = shared.load("corr/sub/s/composite/roi=100,100,8,8/background=0..2.npy")
    window = np.s_[..., 100:108, 100:108]
    each = np.where(valid, image, np.nan)[window]
    expected = (each - less[window]).reshape(VERT, HORZ, 8, 8).swapaxes(1, 2)
    assert_allclose(tiles, expected.reshape(VERT * 8, HORZ * 8), rtol=1e-12, atol=1e-12)


def test_background_of_profiles_adds_its_error(shared: Site, made: Recorded) -> None:
    del made
    base = "corr/sub/{}/radial/bins=7/rmin=0/rmax=90/"
    own = shared.load(base.format("s") + "full.npy")
    dark = shared.load(base.format("empty") + "full.npy").reshape(3, -1, 7)
    found = shared.load(base.format("s") + "background=empty.npy")
    assert_allclose(found[0], own[0] - dark[0].mean(0), rtol=1e-12, atol=1e-15)
    error = np.sqrt(own[1] ** 2 + (dark[1] ** 2).sum(0) / len(dark[1]) ** 2)
    assert_allclose(found[1], error, rtol=1e-12)
    assert_array_equal(found[2], own[2])


def test_errors_of_what_is_corrected(shared: Site, made: Recorded) -> None:
    scan = "corr/sub/s"
    counts, dark = plain.counts(made.scan), plain.counts(made.other)
    found = shared.load(f"{scan}/darkfield/norm=ic1/channel=sigma.npy").ravel()
    assert_allclose(found, np.sqrt(counts) * made.factors(), rtol=1e-13)
    found = shared.load(f"{scan}/darkfield/background=empty/channel=sigma.npy").ravel()
    assert_allclose(found, np.sqrt(counts + dark.sum() / dark.size**2), rtol=1e-13)
    columns = np.indices(made.scan.detector.shape)[1] - made.scan.geometry.cx

    def sums(frame: NDArray[np.uint16], good: NDArray[np.bool_]) -> list[float]:
        image = np.where(good, frame, 0).astype(np.float64)
        return [float((image * columns**power).sum()) for power in range(3)]

    own, other = plain.each(made.scan, sums), plain.each(made.other, sums)
    net, variance = own - other.mean(0), own + other.sum(0) / len(other) ** 2
    mean = net[:, 1] / np.where(net[:, 0] > 0, net[:, 0], np.nan)
    square = variance[:, 2] - 2 * mean * variance[:, 1] + mean**2 * variance[:, 0]
    found = shared.load(f"{scan}/dpc/background=empty/channel=sigma_x.npy").ravel()
    assert_allclose(found, np.sqrt(square) / net[:, 0], rtol=1e-9)


def test_ratios_of_the_second_set_are_left_by_norm(shared: Site, made: Recorded) -> None:
    there = ~np.isnan(made.factors()).reshape(VERT, HORZ)
    for path in ("harmonic", "symmetry/fold=4", "exponent/bins=9/rmin=5/channel=exponent"):
        own = shared.load(f"corr/sub/s/{path}/full.npy")
        normed = shared.load(f"corr/sub/s/{path}/norm=ic1.npy")
        assert_allclose(normed[..., there], own[..., there], rtol=1e-8, atol=1e-8)
        assert np.isnan(normed[..., ~there]).all()
    bright = shared.load("corr/sub/s/crystal/threshold=2/norm=ic1.npy")
    own = shared.load("corr/sub/s/crystal/threshold=2.npy")
    assert_allclose(bright[0][there], (own[0] * made.factors().reshape(VERT, HORZ))[there])


def test_power_law_and_harmonic_less_a_background(shared: Site, made: Recorded) -> None:
    limits = "bins=7/rmin=10/rmax=60/background=0..3"
    intensity, sigma, _ = shared.load(f"corr/sub/s/radial/{limits}.npy").reshape(3, -1, 7)
    with h5py.File(shared.mnt / f"corr/sub/s/radial/{limits}.h5") as file:
        q = file["entry/result/q"][:]
    found = shared.load(f"corr/sub/s/exponent/{limits}.npy").reshape(3, -1)
    for point in range(HORZ * VERT):
        usable = intensity[point] > 0
        if usable.sum() < 3:
            assert np.isnan(found[:, point]).all()
            continue
        x, y = np.log(q[usable]), np.log(intensity[point][usable])
        weights = (intensity[point] / sigma[point])[usable]
        line, covariance = np.polyfit(x, y, 1, w=weights, cov="unscaled")
        assert_allclose(found[0, point], -line[0], rtol=1e-6)
        assert_allclose(found[1, point], np.sqrt(covariance[0, 0]), rtol=1e-6)
    geometry = made.scan.geometry
    rows, columns = np.indices(made.scan.detector.shape)
    turned = np.exp(2j * np.arctan2(geometry.cy - rows, columns - geometry.cx))

    def sums(frame: NDArray[np.uint16], good: NDArray[np.bool_]) -> list[float]:
        total = (np.where(good, frame, 0) * turned).sum()
        return [float(frame[good].sum(dtype=np.int64)), total.real, total.imag]

    n, c, s = (plain.each(made.scan, sums) - plain.each(made.other, sums).mean(0)).T
    strength = shared.load("corr/sub/s/harmonic/background=empty/channel=strength.npy").ravel()
    assert_allclose(strength, np.hypot(c, s) / np.where(n > 0, n, np.nan), rtol=1e-9)


def test_backgrounds_without_meaning_are_refused_in_one_line(shared: Site, made: Recorded) -> None:
    del made
    base = "corr/sub/s/{}/background={}.npy"
    assert "24 frames, 0 to 23" in reason(shared, base.format("dpc", "0..24"))
    assert "did you mean empty or" in reason(shared, base.format("dpc", "empt"))
    assert "first frame is after" in reason(shared, base.format("dpc", "4..3"))
    assert "largest counts" in reason(shared, base.format("max", "empty"))
    make_scan(shared.raw / "corr/sub", name="wide", horz=2, vert=2, dtype="uint32")
    assert "the frames differ" in reason(shared, base.format("dpc", "wide"))


def healed(made: ScanMade, mask: NDArray[np.bool_]) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
    """The distinct frames with their masked pixels taken from opposite, and their valid pixels."""
    rows, columns = np.nonzero(mask)
    height, width = mask.shape
    there = np.floor(2 * made.geometry.cy + 0.5).astype(int) - rows
    across = np.floor(2 * made.geometry.cx + 0.5).astype(int) - columns
    good = (there >= 0) & (there < height) & (across >= 0) & (across < width)
    good[good] &= ~mask[there[good], across[good]]
    frames, valid = made.frames.copy(), np.broadcast_to(~mask, made.frames.shape).copy()
    frames[:, rows[good], columns[good]] = made.frames[:, there[good], across[good]]
    valid[:, rows[good], columns[good]] = True
    return frames, valid & (frames != 65535)


def test_heal_fills_what_is_masked(shared: Site, made: Recorded) -> None:
    scan = made.scan
    write_mask(shared.raw / "corr/sub/heal.npy", drawn(scan, 7))
    mask = scan.mask | drawn(scan, 7)
    frames, valid = healed(scan, mask)
    assert valid.sum() > (~mask & (scan.frames != 65535)).sum()
    counts = np.where(valid, frames, 0).astype(np.float64)
    found = shared.load("corr/sub/s/darkfield/heal=1/mask=heal.npy.npy")
    assert_array_equal(found.ravel(), counts.sum((1, 2))[scan.which])
    every = scan.which
    found = shared.load("corr/sub/s/sum/heal=1/mask=heal.npy.npy")
    assert_array_equal(found, counts[every].sum(0))
    tiles = shared.load("corr/sub/s/composite/heal=1/mask=heal.npy/roi=28,18,12,12.npy")
    window = np.s_[..., 18:30, 28:40]
    expected = np.where(valid, counts, np.nan)[window][every].reshape(VERT, HORZ, 12, 12)
    assert_array_equal(tiles, expected.swapaxes(1, 2).reshape(VERT * 12, HORZ * 12))
    columns = np.arange(scan.detector.shape[1])
    x = (counts * (columns - scan.geometry.cx)).sum((1, 2)) / counts.sum((1, 2))
    found = shared.load("corr/sub/s/dpc/channel=x/heal=1/mask=heal.npy.npy")
    assert_allclose(found.ravel(), x[every], rtol=1e-9, atol=1e-9)
    with shared.computing(frames=0):
        shared.load("corr/sub/s/dpc/channel=y/heal=1/mask=heal.npy.npy")


def test_heal_needs_a_centre(shared: Site) -> None:
    scan = make_scan(shared.raw / "lone", name="l", horz=3, vert=2, master=False)
    rows, columns = scan.detector.shape
    np.save(shared.raw / "lone/m.npy", np.eye(rows, columns))
    line = reason(shared, "lone/l/darkfield/heal=1/mask=m.npy.npy")
    assert "the beam centre is unknown: give cx= and cy=" in line
    centre = "cx=30/cy=30/heal=1/mask=m.npy"
    assert shared.load(f"lone/l/darkfield/{centre}.npy").shape == (1, 6)


def with_flatfield(
    shared: Site, name: str, *, applied: int | None = 0, chunks: tuple[int, int] | None = None
) -> tuple[ScanMade, Floats]:
    """A scan whose master has a flat field, and that field."""
    made = make_scan(shared.raw / "flat", name=name, horz=5, vert=3)
    return made, give_flatfield(made, applied=applied, chunks=chunks)


@pytest.mark.parametrize("chunks", [None, (50, 90)])
def test_flat_field_is_applied_where_the_detector_did_not(
    shared: Site, chunks: tuple[int, int] | None
) -> None:
    name = "chunked" if chunks else "plain"
    made, factors = with_flatfield(shared, name, chunks=chunks)
    factors = usable(factors)
    chosen = plain.selection(made) & (factors > 0)

    def total(weights: Floats) -> Floats:
        return plain.each(
            made, lambda frame, good: float((np.where(good, frame, 0) * weights).sum()), chosen
        )

    counts = total(factors)
    found = shared.load(f"flat/{name}/darkfield/flat=1.npy")
    assert_allclose(found.ravel(), counts, rtol=1e-12)
    assert abs(found.ravel() - plain.counts(made)).max() > 1
    columns = np.arange(made.detector.shape[1])
    found = shared.load(f"flat/{name}/dpc/channel=x/flat=1.npy")
    expected = total(factors * (columns - made.geometry.cx)) / counts
    assert_allclose(found.ravel(), expected, rtol=1e-9, atol=1e-9)
    found = shared.load(f"flat/{name}/radial/bins=1/flat=1.npy")[..., 0]
    pixels = plain.each(made, lambda frame, good: float(good.sum()), chosen)
    assert_allclose(found[0].ravel(), counts / pixels, rtol=1e-12)
    assert_allclose(found[1].ravel(), np.sqrt(total(factors**2)) / pixels, rtol=1e-12)
    tiles = shared.load(f"flat/{name}/composite/roi=90,90,20,20/bin=2/horz=5/flat=1.npy")
    products = np.where(plain.valid(made, chosen), made.frames * factors, 0)[made.which]
    squares = products[:, 90:110, 90:110].reshape(3, 5, 10, 2, 10, 2).sum((3, 5))
    expected = squares.swapaxes(1, 2).reshape(30, 50)
    assert tiles.shape == expected.shape
    there = ~np.isnan(tiles)
    assert_allclose(tiles[there], expected[there], rtol=1e-12)
    found = shared.load(f"flat/{name}/darkfield/flat=1/background=0..4.npy")
    assert_allclose(found.ravel(), counts - counts[:5].mean(), rtol=1e-11, atol=1e-9)
    path = shared.mnt / f"flat/{name}/darkfield/flat=1.npy"
    assert os.getxattr(path, "user.dadafs.state") == b"cached"
    told = shared.run("verify", path)
    assert (told.returncode, told.stdout.count("numpy    equal")) == (0, 1)
    about = json.loads((shared.mnt / f"flat/{name}/scan.json").read_text())
    assert about["flatfield"] == {"source": PLACE, "applied": False}


class Flat(NamedTuple):
    """A scan with a flat field that the detector did not apply, and with a log."""

    scan: ScanMade
    factors: Floats
    """0 where they are of no use."""
    monitor: Floats

    def products(self) -> tuple[Floats, NDArray[np.bool_]]:
        """Of every frame, and where they are valid."""
        valid = plain.valid(self.scan, plain.selection(self.scan) & (self.factors > 0))
        products = np.where(valid, self.scan.frames, 0) * self.factors
        return products[self.scan.which], valid[self.scan.which]


@pytest.fixture(scope="module")
def flat(shared: Site) -> Flat:
    """`flat/logged`."""
    made, factors = with_flatfield(shared, "logged", chunks=(64, 64))
    monitor = np.random.default_rng(4).uniform(900, 1100, 15)
    (shared.raw / "flat/logged.fio").write_text(fio(5, 3, ("ic1", monitor)))
    return Flat(made, usable(factors), monitor)


def test_flat_field_of_patterns(shared: Site, flat: Flat) -> None:
    """What was counted is multiplied: exact, of the same pass as without."""
    counts = shared.load("flat/logged/sum/full.npy").astype(np.float64)
    with shared.computing(frames=0):
        found = shared.load("flat/logged/sum/flat=1.npy")
    products, valid = flat.products()
    some = valid.any(axis=0)
    assert (found.dtype, some.all()) == (np.float64, False)
    assert_array_equal(found, np.where(some, counts * flat.factors, np.nan))
    assert_allclose(found[some], products.sum(axis=0)[some], rtol=1e-13)
    with shared.computing(frames=0):
        largest = shared.load("flat/logged/max/flat=1.npy")
    assert_array_equal(largest, np.where(some, products.max(axis=0), np.nan))
    number = np.where(some, valid.sum(axis=0), np.nan)
    mean = products.sum(axis=0) / number
    assert_allclose(shared.load("flat/logged/average/flat=1.npy"), mean, rtol=1e-13)
    line = products[5:10].sum(axis=0) / np.where(
        valid[5:10].any(0), valid[5:10].sum(axis=0), np.nan
    )
    normed = shared.load("flat/logged/average/region=0,1,5,1/norm=ic1/flat=1.npy")
    assert_allclose(normed, line * flat.monitor.mean() / flat.monitor[5:10].mean(), rtol=1e-12)
    less = products[:5].sum(axis=0) / np.where(valid[:5].any(0), valid[:5].sum(axis=0), np.nan)
    net = shared.load("flat/logged/average/background=0..4/flat=1.npy")
    assert_allclose(net, mean - less, rtol=1e-11, atol=1e-12)
    net = shared.load("flat/logged/sum/region=0,1,5,1/background=0..4/flat=1.npy")
    assert_allclose(net, (line - less) * valid[5:10].sum(axis=0), rtol=1e-10, atol=1e-10)
    told = shared.run("verify", shared.mnt / "flat/logged/max/flat=1.npy")
    assert (told.returncode, told.stdout.count("numpy    equal")) == (0, 1)


def test_flat_field_of_healed_pixels(shared: Site, flat: Flat) -> None:
    mask = drawn(flat.scan, 7)
    np.save(shared.raw / "flat/heal.npy", mask)
    mask |= flat.scan.mask
    frames, valid = healed(flat.scan, mask)
    (factors,), _ = healed(replace(flat.scan, frames=flat.factors[None]), mask)
    valid &= factors > 0
    products = np.where(valid, frames, 0) * factors
    every = flat.scan.which
    where = "heal=1/mask=heal.npy/flat=1.npy"
    some = valid[every].any(axis=0)
    assert some[mask].any()
    found = shared.load(f"flat/logged/sum/{where}")
    assert_allclose(found, np.where(some, products[every].sum(0), np.nan), rtol=1e-13)
    found = shared.load(f"flat/logged/max/{where}")
    assert_array_equal(found, np.where(some, products[every].max(0), np.nan))
    found = shared.load(f"flat/logged/crystal/threshold=1/channel=counts/{where}").ravel()
    bright = np.where(products > 1, products, 0).sum((1, 2))[every]
    assert_allclose(found, bright, rtol=1e-12)


def test_flat_field_of_every_map_and_error(shared: Site, flat: Flat) -> None:
    products, _ = flat.products()
    variances = products * flat.factors
    base = "flat/logged"
    found = shared.load(f"{base}/darkfield/channel=sigma/flat=1.npy").ravel()
    assert_allclose(found, np.sqrt(variances.sum((1, 2))), rtol=1e-12)
    found = shared.load(f"{base}/darkfield/channel=sigma/norm=ic1/background=0..4/flat=1.npy")
    factor = flat.monitor.mean() / flat.monitor
    scaled = variances.sum((1, 2)) * factor**2
    assert_allclose(found.ravel(), np.sqrt(scaled + scaled[:5].sum() / 25), rtol=1e-11)
    rows, columns = np.indices(flat.scan.detector.shape)
    dx, up = columns - flat.scan.geometry.cx, flat.scan.geometry.cy - rows
    counts = products.sum((1, 2))
    x = (products * dx).sum((1, 2)) / counts
    square = (variances * (dx - x[:, None, None]) ** 2).sum((1, 2))
    found = shared.load(f"{base}/dpc/channel=sigma_x/flat=1.npy").ravel()
    assert_allclose(found, np.sqrt(square) / counts, rtol=1e-8)
    turned = (products * np.exp(2j * np.arctan2(up, dx))).sum((1, 2)) / counts
    found = shared.load(f"{base}/harmonic/flat=1.npy").reshape(2, -1)
    assert_allclose(found[1], np.abs(turned), rtol=1e-9)
    assert_allclose(np.exp(2j * np.radians(found[0])), turned / np.abs(turned), atol=1e-9)
    bright = products > 2
    found = shared.load(f"{base}/crystal/threshold=2/flat=1.npy").reshape(2, -1)
    assert_allclose(found[0], np.where(bright, products, 0).sum((1, 2)), rtol=1e-12)
    assert_array_equal(found[1], bright.sum((1, 2)))
    found = shared.load(f"{base}/crystal/threshold=2/channel=sigma_counts/flat=1.npy").ravel()
    assert_allclose(found, np.sqrt(np.where(bright, variances, 0).sum((1, 2))), rtol=1e-12)
    limits = "bins=5/rmin=5/rmax=60/flat=1"
    intensity, sigma, _ = shared.load(f"{base}/radial/{limits}.npy").reshape(3, -1, 5)
    with h5py.File(shared.mnt / f"{base}/radial/{limits}.h5") as file:
        q = file["entry/result/q"][:]
    found = shared.load(f"{base}/exponent/{limits}.npy").reshape(3, -1)
    assert np.isfinite(found).any()
    for point in np.flatnonzero(np.isfinite(found[0])):
        good = intensity[point] > 0
        x, y = np.log(q[good]), np.log(intensity[point][good])
        weights = (intensity[point] / sigma[point])[good]
        line, covariance = np.polyfit(x, y, 1, w=weights, cov="unscaled")
        assert_allclose(found[:2, point], [-line[0], np.sqrt(covariance[0, 0])], rtol=1e-7)


@pytest.mark.parametrize(
    "path",
    [
        *("orientation", "orientation/channel=sigma_angle", "dpc/channel=sigma_y", "harmonic"),
        *("harmonic/channel=sigma_strength", "symmetry", "symmetry/channel=sigma_angle"),
        *("crystal/threshold=2", "exponent/rmin=5", "azimuthal/heal=1"),
    ],
)
def test_products_are_verified_by_numpy(shared: Site, flat: Flat, path: str) -> None:
    del flat
    told = shared.run("verify", shared.mnt / f"flat/logged/{path}/flat=1.npy")
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.count("numpy    equal") == 1


@pytest.mark.parametrize("name", ["darkfield", "average"])
def test_a_flat_field_that_is_damaged_makes_no_numbers(shared: Site, name: str) -> None:
    made, _ = with_flatfield(shared, f"damaged-{name}", chunks=(64, 64))
    damage_tile(made)
    base = f"flat/damaged-{name}/{name}"
    with pytest.raises(OSError, match="Input/output error"):
        shared.load(f"{base}/flat=1.npy")
    line = f"flat field in flat/damaged-{name}_master.h5: tile 0 is corrupt"
    assert any(line in one and base in one for one in shared.errors().splitlines())
    assert shared.load(f"{base}/full.npy").size


def test_the_flat_field_is_told(shared: Site, flat: Flat) -> None:
    del flat
    for path in ("harmonic/flat=1.h5", "sum/flat=1.h5"):
        told = shared.run("explain", shared.mnt / "flat/logged" / path).stdout
        assert f"  correct   flatfield = {PLACE} (flat/logged_master.h5)" in told
        with h5py.File(shared.mnt / "flat/logged" / path) as file:
            names: list[str] = []
            file.visit(names.append)
        assert any(name.endswith("/flatfield") for name in names)


def test_flat_fields_that_are_not_to_be_applied(shared: Site, made: Recorded) -> None:
    del made
    with_flatfield(shared, "applied", applied=1)
    with_flatfield(shared, "unsaid", applied=None)
    path = "flat/{}/darkfield/flat=1.npy"
    assert "these are corrected counts" in reason(shared, path.format("applied"))
    assert "is not said in the master" in reason(shared, path.format("unsaid"))
    assert "has no flat field" in reason(shared, "corr/sub/s/darkfield/flat=1.npy")
    for analysis in ("sum", "max", "crystal", "darkfield/channel=sigma"):
        line = reason(shared, f"flat/applied/{analysis}/flat=1.npy")
        assert "these are corrected counts" in line
    assert shared.load("flat/applied/darkfield/flat=0.npy").shape == (1, 15)
    about = json.loads((shared.mnt / "flat/applied/scan.json").read_text())
    assert about["flatfield"]["applied"] is True


def test_provenance_names_what_corrected(shared: Site, made: Recorded) -> None:
    write_mask(shared.raw / "corr/sub/prov.npy", drawn(made.scan))
    path = "corr/sub/s/darkfield/mask=prov.npy/norm=ic1/background=empty.h5"
    with h5py.File(shared.mnt / path) as file:
        found: dict[str, object] = {}
        file.visititems(
            lambda name, item: (
                found.update({name.rpartition("/")[2]: item[()]})
                if isinstance(item, h5py.Dataset) and item.ndim == 0
                else None
            )
        )
    account = json.loads((shared.mnt / f"{path[:-3]}.json").read_text())
    assert all(name in json.dumps(account) for name in ("prov.npy", "ic1", "background_version"))
    assert found["mask"] == b"prov.npy"
    assert found["norm"] == b"ic1"
    assert found["background"] == b"empty"
    assert found["background_frames"] == 6
    assert found["norm_mean"] == pytest.approx(made.monitor[made.monitor > 0].mean(), rel=1e-15)


def test_uncorrected_patches_are_shared(shared: Site, made: Recorded) -> None:
    """Norm and background need no other pass over the frames than the plain map."""
    del made
    shared.load("corr/sub/s/darkfield/roi=7,7,90,90.npy")
    shared.load("corr/sub/empty/darkfield/roi=7,7,90,90.npy")
    with shared.computing(frames=0):
        shared.load("corr/sub/s/darkfield/roi=7,7,90,90/norm=ic1/background=empty.npy")


def test_the_readme_tells_of_them(shared: Site, made: Recorded) -> None:
    del made
    text = (shared.mnt / "corr/sub/s/darkfield/README.txt").read_text()
    assert all(f"  {name}=" in text for name in ("mask", "norm", "background"))
    assert "norm=" not in (shared.mnt / "corr/sub/s/max/README.txt").read_text()
    about = json.loads((shared.mnt / "corr/sub/s/scan.json").read_text())
    assert about["frames"] == HORZ * VERT

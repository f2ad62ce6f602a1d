"""Harmonic, symmetry, crystal, exponent and the errors of maps, read through a mount."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import plain
import pytest
from mounting import Site, contents
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from analysis.analyses import ANALYSES, azimuthal, crystal, exponent, harmonic, symmetry
from analysis.definition import Settings
from analysis.plan import Geometry
from analysis.selection import scattering_vector
from dadafs.client.tree.mapfile import FINISHED_BYTES
from tools.scan_maker import ScanMade, make_scan

pytestmark = pytest.mark.mount
HORZ, VERT = 13, 11
Capture = pytest.CaptureFixture[str]


def settings_of(made: ScanMade, **more: Any) -> Settings:
    beam = made.geometry
    return Settings(cx=beam.cx, cy=beam.cy, **more)


def mapped(values: NDArray[Any]) -> NDArray[Any]:
    """(frames, channels) as (channel, line, point)."""
    return np.moveaxis(plain.folded(values, HORZ, VERT), -1, 0)


def turned(found: NDArray[Any], wanted: NDArray[Any], period: float) -> NDArray[Any]:
    """Differences of angles."""
    return np.abs((found - wanted + period / 2) % period - period / 2)


def test_harmonic(shared: Site, raster: ScanMade) -> None:
    beam = raster.geometry
    chosen = plain.selection(raster, rmin=5, rmax=50)
    values = plain.each(
        raster, lambda frame, valid: harmonic.reference(frame, valid, beam.cx, beam.cy), chosen
    )
    wanted = mapped(values)
    found = shared.load("raster/harmonic/rmin=5/rmax=50/horz=13.npy")
    assert found.shape == (2, VERT, HORZ)
    assert_allclose(found[1], wanted[1], rtol=1e-9)
    assert turned(found[0], wanted[0], 180).max() < 1e-6
    with shared.computing(frames=0):  # the errors come out of the same pass
        for channel in ("sigma_angle", "sigma_strength"):
            sigma = shared.load(f"raster/harmonic/rmin=5/rmax=50/horz=13/channel={channel}.npy")
            assert sigma.shape == (VERT, HORZ)
            assert (sigma > 0).all()


def test_symmetry_is_a_view_of_the_azimuthal_profile(shared: Site, raster: ScanMade) -> None:
    settings = settings_of(raster, bins=90)
    chosen = plain.selection(raster, rmin=10, rmax=50)
    profiles = plain.each(
        raster, lambda frame, valid: azimuthal.reference(frame, valid, settings), chosen
    )
    for fold in (2, 5, 12):
        values = np.array([symmetry.reference(one[0], one[1], fold) for one in profiles])
        path = f"raster/symmetry/horz=13/bins=90/fold={fold}/rmin=10/rmax=50"
        found, wanted = shared.load(f"{path}.npy"), mapped(values)
        assert_allclose(found[0], wanted[0], atol=1e-11)
        assert turned(found[1], wanted[1], 360 / fold).max() < 1e-4
    with shared.computing(frames=0):
        shared.load("raster/azimuthal/bins=90/rmin=10/rmax=50.npy")
        assert (shared.load(f"{path}/channel=sigma_strength.npy") > 0).all()


def test_values_too_many_to_be_finished_at_once(shared: Site, raster: ScanMade) -> None:
    """Of 4096 bins a patch has 4 MB: each is made quantities by itself, and put together."""
    settings = settings_of(raster, bins=4096)
    found = shared.load("raster/symmetry/horz=13/bins=4096/fold=3.npy").reshape(2, -1)
    assert FINISHED_BYTES <= 64 * 2 * 4096 * 8
    for number in (0, 63, 64, 142):
        frame = raster.frames[raster.which[number]]
        valid = ~raster.mask & (frame != 65535)
        intensity, sigma, _ = azimuthal.reference(frame, valid, settings)
        strength, angle = symmetry.reference(intensity, sigma, 3)
        assert_allclose(found[0, number], strength, atol=1e-10)
        assert turned(found[1, number], angle, 120) < 1e-4
    picture = contents(shared.mnt / "raster/symmetry/horz=13/bins=4096/fold=3.csv").decode()
    rows = [line for line in picture.splitlines() if line and not line.startswith("#")]
    assert len(rows) == 2 * VERT


def test_the_readme_tells_defaults(shared: Site, raster: ScanMade) -> None:
    text = contents(shared.mnt / "raster/crystal/README.txt").decode()
    assert "more counts than this [counts]; 10 where it is not given" in text
    text = contents(shared.mnt / "raster/symmetry/README.txt").decode()
    assert "repeats every 360/fold; 6 where it is not given" in text
    assert "number of equal bins of a profile; 360 where it is not given" in text


@pytest.mark.parametrize("threshold", [None, 2, 0])
def test_crystal(shared: Site, raster: ScanMade, threshold: int | None) -> None:
    limit = 10 if threshold is None else threshold
    values = plain.each(raster, lambda frame, valid: crystal.reference(frame, valid, limit))
    name = "horz=13" if threshold is None else f"horz=13/threshold={threshold}"
    assert_array_equal(shared.load(f"raster/crystal/{name}.npy"), mapped(values))
    sigma = shared.load(f"raster/crystal/channel=sigma_counts/{name}.npy")
    assert_array_equal(sigma, np.sqrt(mapped(values)[0]))


@pytest.mark.parametrize("coordinate", ["q", "r"])
def test_exponent(shared: Site, raster: ScanMade, coordinate: str) -> None:
    beam = raster.geometry
    geometry = Geometry(beam.distance_m, beam.wavelength_nm, beam.pixel_m)
    settings = settings_of(raster, bins=20, geometry=geometry)
    rows, columns = np.indices(raster.detector.shape)
    r = np.hypot(columns - beam.cx, rows - beam.cy)
    q = scattering_vector(r, geometry)
    if coordinate == "q":
        lo, hi = np.round(scattering_vector(np.array([8.0, 50.0]), geometry), 4).tolist()
        chosen = ~raster.mask & (q >= lo) & (q <= hi)
        path = f"raster/exponent/horz=13/bins=20/qmin={lo}/qmax={hi}.npy"
    else:  # the power law is one of q whichever limits are given
        chosen = ~raster.mask & (r >= 8) & (r <= 50)
        lo, hi = q[chosen].min(), q[chosen].max()
        path = "raster/exponent/horz=13/bins=20/rmin=8/rmax=50.npy"
    values = plain.each(
        raster, lambda frame, valid: exponent.reference(frame, valid, settings, lo, hi), chosen
    )
    assert_allclose(shared.load(path), mapped(values), rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "channel"),
    [(name, one.name) for name, a in ANALYSES.items() if a.errors for one in a.errors.channels],
)
def test_errors_are_files_of_their_own(
    shared: Site, raster: ScanMade, name: str, channel: str
) -> None:
    analysis = ANALYSES[name]
    assert f"  {channel} " in contents(shared.mnt / f"raster/{name}/README.txt").decode()
    for known in analysis.channels:
        alone = shared.load(f"raster/{name}/channel={known.name}/horz=13.npy")
        whole = shared.load(f"raster/{name}/horz=13.npy").reshape(-1, VERT, HORZ)
        assert whole.shape[0] == len(analysis.channels)
        assert_array_equal(alone, whole[analysis.channels.index(known)])
    sigma = shared.load(f"raster/{name}/channel={channel}/horz=13.npy")
    assert sigma.shape == (VERT, HORZ)
    assert (sigma[np.isfinite(sigma)] >= 0).all()
    for ending in ("tif", "h5", "mat", "png", "csv"):
        assert contents(shared.mnt / f"raster/{name}/channel={channel}/horz=13.{ending}")


def test_the_error_of_a_sum_is_its_root(shared: Site, raster: ScanMade) -> None:
    sums = plain.folded(raster.sums, HORZ, VERT)
    assert_array_equal(shared.load("raster/darkfield/horz=13/channel=sigma.npy"), np.sqrt(sums))


@pytest.mark.parametrize("codec", ["lz4", "none", "gzip"])
@pytest.mark.parametrize("dtype", ["uint16", "uint32"])
def test_any_codec_gives_the_same(own: Site, codec: str, dtype: str) -> None:
    more: dict[str, Any] = {"horz": 4, "vert": 3, "unique": 5, "dtype": dtype}
    make_scan(own.raw, name="shuffled", **more)
    make_scan(own.raw, name="other", codec=codec, **more)
    for path in (
        *("harmonic/full", "crystal/threshold=1", "exponent/rmin=5", "symmetry/fold=3"),
        *("orientation/channel=sigma_l1", "dpc/channel=sigma_y"),
    ):
        one, two = (own.load(f"{name}/{path}.npy") for name in ("shuffled", "other"))
        assert one.tobytes() == two.tobytes()
        assert np.isfinite(one).all()


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("symmetri/full.npy", "did you mean 'symmetry'"),
        ("symmetry/fold=1.npy", "must be at least 2"),
        ("symmetry/fold=13.npy", "must be at most 12"),
        ("symmetry/fould=4.npy", "did you mean 'fold'"),
        ("symmetry/fold=6/bins=12.npy", "fold=6 needs more than 12 bins"),
        ("crystal/treshold=4.npy", "did you mean 'threshold'"),
        ("crystal/threshold=-1.npy", "must be at least 0"),
        ("crystal/threshold=2.5.npy", "no whole number"),
        ("exponent/bins=2.npy", "at least 3 bins"),
        ("harmonic/bins=3.npy", "no parameter 'bins'"),
        ("darkfield/channel=sigm.npy", "did you mean 'sigma'"),
        ("harmonic/channel=sigma_x.npy", "is none of angle, strength, sigma_angle"),
        ("max/channel=sigma.npy", "no parameter 'channel'"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line(
    shared: Site, raster: ScanMade, capsys: Capture, path: str, hint: str
) -> None:
    assert not (shared.mnt / "raster" / path).exists()
    code, out, err = shared.command(capsys, "explain", shared.mnt / "raster" / path)
    assert (code, out) == (1, "")
    assert len(err.splitlines()) == 1
    assert hint in err


def test_warming_serves_the_map_and_its_errors(own: Site, capsys: Capture) -> None:
    make_scan(own.raw, name="s", horz=7, vert=10, unique=20)
    paths = [own.mnt / f"s/{name}/full.npy" for name in ("harmonic", "crystal", "exponent")]
    code, _, _ = own.command(capsys, "warm", *paths, own.mnt / "s/symmetry/fold=4.npy")
    assert code == 0
    with own.computing(frames=0):
        for path in ("harmonic/full", "crystal/channel=sigma_counts", "symmetry/fold=8"):
            own.load(f"s/{path}.npy")
        own.load("s/orientation/channel=sigma_angle/full.npy")


def test_points_without_frames_are_nan(own: Site) -> None:
    made = make_scan(own.raw, name="s", horz=5, vert=4, unique=20, images_per_file=8)
    made.data_files[1].unlink()
    lost = np.isnan(own.load("s/darkfield/full.npy").ravel())
    assert lost.sum() == 8
    for name in ("harmonic/full", "crystal/full", "exponent/full", "symmetry/fold=2"):
        values = own.load(f"s/{name}.npy").reshape(-1, 20)
        assert_array_equal(np.isnan(values), np.broadcast_to(lost, values.shape))


def test_another_beam_centre_makes_other_directions(shared: Site, raster: ScanMade) -> None:
    beam = replace(raster.geometry, cx=40.0)
    values = plain.each(
        raster, lambda frame, valid: harmonic.reference(frame, valid, beam.cx, beam.cy)
    )
    found = shared.load("raster/harmonic/horz=13/cx=40/channel=strength.npy")
    assert_allclose(found, mapped(values)[1], rtol=1e-9)

"""The same numbers as the programs people use today: pyFAI and LiberTEM (extra `peers`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from analysis.analyses import ANALYSES, azimuthal, darkfield, dpc, radial
from analysis.axes import profile_axis
from analysis.definition import Settings
from analysis.plan import Geometry, Plan, pack_mask
from analysis.planning import plan_for
from analysis.reductions import REDUCTIONS

HEIGHT, WIDTH = 181, 203
CX, CY = 97.3137, 84.7713
SENTINEL = 65535
GEOMETRY = Geometry(distance_m=0.12, wavelength_nm=0.0918, pixel_m=75e-6)

RNG = np.random.default_rng(3)
INVALID = RNG.random((HEIGHT, WIDTH)) < 0.02
INVALID[:, 60:64] = True
FRAMES = RNG.poisson(5, (4, HEIGHT, WIDTH)).astype(np.uint16)
FRAMES[1, 40:60, 100:140] += 1000
FRAMES[2] = np.where(RNG.random((HEIGHT, WIDTH)) < 0.9, 0, FRAMES[2])
FRAMES[:, 5, 7] = SENTINEL
UNUSABLE = INVALID.copy()
UNUSABLE[5, 7] = True


def settings(**more: Any) -> Settings:
    return Settings(cx=CX, cy=CY, height=HEIGHT, width=WIDTH, **more)


def plan(name: str, wanted: Settings) -> Plan:
    return plan_for(ANALYSES[name], wanted, HEIGHT, WIDTH, "<u2", pack_mask(INVALID))


def by_pass(name: str, wanted: Settings) -> NDArray[np.float64]:
    """All channels of the frames, as the filesystem computes them."""
    made = plan(name, wanted)
    prepared = REDUCTIONS[made.reduction].prepare(made)
    values = np.zeros((len(FRAMES), *prepared.value_shape), prepared.value_dtype)
    for frame, out in zip(FRAMES, values, strict=True):
        prepared.frame(frame, out)
    return ANALYSES[name].finish(values, wanted)


# --- pyFAI


@pytest.fixture(scope="module")
def integrator() -> Any:
    """pyFAI counts from a pixel's corner, so that its centre is at + 0.5."""
    module = pytest.importorskip("pyFAI.integrator.azimuthal")
    return module.AzimuthalIntegrator(
        dist=GEOMETRY.distance_m,
        poni1=(CY + 0.5) * GEOMETRY.pixel_m,
        poni2=(CX + 0.5) * GEOMETRY.pixel_m,
        pixel1=GEOMETRY.pixel_m,
        pixel2=GEOMETRY.pixel_m,
        wavelength=GEOMETRY.wavelength_nm * 1e-9,
    )


def radial_reference(wanted: Settings) -> NDArray[np.float64]:
    assert wanted.qmin is not None
    assert wanted.qmax is not None
    profiles = [radial.reference(f, ~UNUSABLE, wanted, wanted.qmin, wanted.qmax) for f in FRAMES]
    return np.stack(profiles, axis=1)


def azimuthal_reference(wanted: Settings) -> NDArray[np.float64]:
    return np.stack([azimuthal.reference(f, ~UNUSABLE, wanted) for f in FRAMES], axis=1)


@pytest.mark.parametrize(
    ("method", "qmin"),
    [
        (("no", "csr", "cython"), 0.0),
        (("no", "histogram", "cython"), 0.0),
        (("no", "histogram", "python"), 0.2003),
    ],
)
@pytest.mark.parametrize(
    "compute", [radial_reference, lambda wanted: by_pass("radial", wanted)], ids=["numpy", "pass"]
)
def test_radial_profile_is_that_of_pyfai(
    integrator: Any,
    method: tuple[str, str, str],
    qmin: float,
    compute: Callable[[Settings], NDArray[np.float64]],
) -> None:
    """With a lower limit pyFAI's compiled methods put the pixels just below it in the first bin.

    The variance is given because its own Poisson model takes 1 for a pixel without counts.
    """
    wanted = settings(geometry=GEOMETRY, bins=60, qmin=qmin, qmax=4.0007)
    intensity, sigma, pixels = compute(wanted)
    assert (pixels > 0).all()
    for index, frame in enumerate(FRAMES):
        theirs = integrator.integrate1d(
            frame,
            60,
            unit="q_nm^-1",
            radial_range=(qmin, 4.0007),
            mask=UNUSABLE,
            method=method,
            correctSolidAngle=False,
            variance=frame.astype(np.float64),
        )
        assert_array_equal(pixels[index], theirs.count)
        assert_allclose(intensity[index], theirs.intensity, rtol=1e-6)
        assert_allclose(sigma[index], theirs.sem, rtol=1e-6)


def test_radial_axis_is_that_of_pyfai(integrator: Any) -> None:
    wanted = settings(geometry=GEOMETRY, bins=60, qmin=0.2003, qmax=4.0007)
    theirs = integrator.integrate1d(
        FRAMES[0], 60, unit="q_nm^-1", radial_range=(0.2003, 4.0007), method=("no", "csr", "cython")
    )
    axis = profile_axis(plan("radial", wanted))
    assert axis.unit == "1/nm"
    assert_allclose(axis.values, theirs.radial, rtol=1e-6)


@pytest.mark.parametrize(
    "compute",
    [azimuthal_reference, lambda wanted: by_pass("azimuthal", wanted)],
    ids=["numpy", "pass"],
)
def test_azimuthal_profile_is_that_of_pyfai(
    integrator: Any, compute: Callable[[Settings], NDArray[np.float64]]
) -> None:
    """pyFAI's chi runs clockwise as displayed, from -180 to 180 degrees: -phi."""
    intensity, _, pixels = compute(settings(bins=40))
    for index, frame in enumerate(FRAMES):
        theirs = integrator.integrate2d(
            frame,
            1,
            40,
            unit="r_mm",
            azimuth_range=(-180, 180),
            mask=UNUSABLE,
            method=("no", "histogram", "cython"),
            correctSolidAngle=False,
        )
        order = np.roll(np.arange(40)[::-1], 20)
        assert_array_equal(pixels[index], theirs.count[order, 0])
        assert_allclose(intensity[index], theirs.intensity[order, 0], rtol=1e-6)


# --- LiberTEM


@pytest.fixture(scope="module")
def context() -> Iterator[Any]:
    api = pytest.importorskip("libertem.api")
    with api.Context.make_with("inline") as made:
        yield made


def dataset(context: Any) -> Any:
    """Unusable pixels without counts; float64, because LiberTEM sums uint16 in float32."""
    counts = np.where(UNUSABLE, 0, FRAMES).astype(np.float64).reshape(2, 2, HEIGHT, WIDTH)
    return context.load("memory", data=counts, sig_dims=2)


@pytest.mark.filterwarnings("ignore:'where' used without 'out':UserWarning")  # in LiberTEM
def test_dpc_is_the_centre_of_mass_of_libertem(context: Any) -> None:
    udf = pytest.importorskip("libertem.udf.com")
    ours = by_pass("dpc", settings())
    theirs = context.run_udf(dataset(context), udf.CoMUDF.with_params(cx=CX, cy=CY))
    shifts = theirs["raw_shifts"].data.reshape(4, 2)  # y, x
    assert_allclose(ours[0], shifts[:, 1], atol=1e-6)
    assert_allclose(ours[1], shifts[:, 0], atol=1e-6)
    references = [dpc.reference(frame, ~UNUSABLE, CX, CY) for frame in FRAMES]
    assert_allclose(ours.T, references, atol=1e-12)


def test_darkfield_is_a_masked_sum_of_libertem(context: Any) -> None:
    udf = pytest.importorskip("libertem.udf.masks")
    rows, columns = np.indices((HEIGHT, WIDTH))
    r = np.hypot(columns - CX, rows - CY)
    ring = ((r >= 20.2) & (r <= 70.7)).astype(np.float64)
    masks = udf.ApplyMasksUDF(mask_factories=[lambda: ring], mask_dtype=np.float64)
    theirs = context.run_udf(dataset(context), masks)["intensity"].data.reshape(4)
    wanted = settings(rmin=20.2, rmax=70.7)
    assert_allclose(by_pass("darkfield", wanted)[0], theirs, rtol=1e-12)
    inside = ~UNUSABLE & (ring > 0)
    assert_allclose([darkfield.reference(frame, inside) for frame in FRAMES], theirs, rtol=1e-12)

"""Plans: equal computations have equal plans, other ones do not, nonsense has none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from analysis.analyses import ANALYSES
from analysis.axes import profile_axis
from analysis.definition import Settings
from analysis.parameters import PARAMETERS
from analysis.plan import Geometry, Plan, Roi
from analysis.planning import plan_for
from analysis.reductions import REDUCTIONS, Prepared, Reduction
from analysis.selection import radius, scattering_vector, selected

HEIGHT, WIDTH = 40, 60
GEOMETRY = Geometry(distance_m=0.3, wavelength_nm=0.09, pixel_m=75e-6)


@dataclass
class FakeReduction:
    """A pass by what it uses."""

    name: str
    uses: frozenset[str]
    version: str = field(default="abc")

    def prepare(self, plan: Plan) -> Prepared:
        raise AssertionError("planning prepares nothing")


PASSES: Mapping[str, Reduction] = {
    name: FakeReduction(name, frozenset(uses))
    for name, uses in {
        "moments": (),
        "radial": ("cx", "cy", "geometry", "bins"),
        "azimuthal": ("cx", "cy", "bins"),
        "placed": ("cx", "cy", "geometry", "bins"),
        "directions": ("cx", "cy"),
        "above": ("extra",),
        "patterns": (),
        "frame": ("bin",),
    }.items()
}


def plan(name: str, *, mask: bytes = b"", dtype: str = "<u2", **settings: Any) -> Plan:
    wanted = Settings(**settings)
    return plan_for(ANALYSES[name], wanted, HEIGHT, WIDTH, dtype, mask, reductions=PASSES)


BARE = plan("darkfield")


def test_a_plain_map_depends_on_nothing_but_detector_and_mask() -> None:
    assert Plan("moments", "abc", HEIGHT, WIDTH, "<u2") == BARE
    assert plan("darkfield", mask=b"x") == Plan("moments", "abc", HEIGHT, WIDTH, "<u2", b"x")


@pytest.mark.parametrize(
    "settings",
    [
        {"cx": 3.0, "cy": 4.0},
        {"cx": float("nan"), "cy": 4.0},
        {"geometry": GEOMETRY},
        {"roi": Roi(0, 0, WIDTH, HEIGHT)},
        {"rmin": 0, "cx": 3.0, "cy": 4.0},
        {"rmax": 80, "cx": 3.0, "cy": 4.0},
        {"rmin": 9.9, "cx": -10.0, "cy": 4.0},
        {"qmin": 0.0, "qmax": 5000, "geometry": GEOMETRY, "cx": 3.0, "cy": 4.0},
        {"height": HEIGHT, "width": WIDTH},
    ],
)
def test_what_changes_nothing_is_left_out(settings: dict[str, Any]) -> None:
    assert plan("darkfield", **settings) == BARE
    assert plan("darkfield", **settings).digest() == BARE.digest()


def test_the_moment_family_shares_its_pass() -> None:
    assert plan("dpc", cx=1.5, cy=2.5) == plan("orientation", cx=9.0, cy=3.0) == BARE


@pytest.mark.parametrize(
    "settings",
    [
        {"roi": Roi(0, 0, WIDTH - 1, HEIGHT)},
        {"rmin": 1},
        {"rmax": 50.0},
        {"qmin": 0.1, "geometry": GEOMETRY},
        {"qmax": 0.3, "geometry": GEOMETRY},
    ],
)
def test_what_selects_stays(settings: dict[str, Any]) -> None:
    centred = plan("darkfield", cx=3.0, cy=4.0, **settings)
    assert centred != BARE
    for name, value in settings.items():
        assert getattr(centred, name) == value
    assert (centred.cx is None) == ("roi" in settings)
    assert (centred.geometry is None) == ("geometry" not in settings)


def test_numbers_have_one_form() -> None:
    given_ints = plan("darkfield", cx=3, cy=0, rmax=7, dtype="uint16")
    given_floats = plan("darkfield", cx=3.0, cy=-0.0, rmax=7.0)
    assert given_ints.digest() == given_floats.digest()


def test_bins_default() -> None:
    radial = plan("radial", cx=3.0, cy=4.0)
    assert radial == plan("radial", cx=3.0, cy=4.0, bins=200)
    assert radial != plan("radial", cx=3.0, cy=4.0, bins=201)
    assert plan("azimuthal", cx=3.0, cy=4.0).bins == 72


def test_profiles_depend_on_the_centre() -> None:
    for name in ("radial", "azimuthal"):
        assert plan(name, cx=3.0, cy=4.0) != plan(name, cx=3.0, cy=4.5)


def test_only_a_radial_profile_depends_on_the_geometry() -> None:
    assert plan("radial", cx=3.0, cy=4.0, geometry=GEOMETRY).geometry == GEOMETRY
    assert plan("azimuthal", cx=3.0, cy=4.0, geometry=GEOMETRY).geometry is None


def test_limits_that_end_a_profile_stay() -> None:
    centre = {"cx": 3.0, "cy": 4.0}
    by_r = plan("radial", **centre, rmin=0, rmax=500)
    assert (by_r.rmin, by_r.rmax) == (0, 500)
    by_q = plan("radial", **centre, geometry=GEOMETRY, rmin=0, rmax=500, qmin=0, qmax=99)
    assert (by_q.rmin, by_q.rmax, by_q.qmin, by_q.qmax) == (None, None, 0, 99)
    around = plan("azimuthal", **centre, rmin=0, rmax=500)
    assert (around.rmin, around.rmax) == (None, None)


def test_composite_is_always_binned_so_that_invalid_pixels_are_nan() -> None:
    assert plan("composite").bin == 1
    assert plan("composite", bin=4, roi=Roi(1, 2, 8, 9)).bin == 4


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("dpc", {}, "the beam centre is unknown: give cx= and cy="),
        ("orientation", {"cx": 3.0}, "the beam centre is unknown"),
        ("radial", {"cy": 3.0}, "the beam centre is unknown"),
        ("azimuthal", {}, "the beam centre is unknown"),
        ("darkfield", {"rmin": 3}, "the beam centre is unknown"),
        ("dpc", {"cx": float("nan"), "cy": 3.0}, "cx=nan: must be finite"),
        ("dpc", {"cx": 3.0, "cy": 1e9}, r"cy=1e\+09: must be at most 100000"),
        ("darkfield", {"cx": 3.0, "cy": 4.0, "qmin": 0.1}, "give rmin= and rmax= in pixels"),
        ("darkfield", {"cx": 3.0, "cy": 4.0, "rmin": -1}, "rmin=-1: must be at least 0"),
        ("darkfield", {"cx": 3.0, "cy": 4.0, "rmax": float("inf")}, "rmax=inf: must be finite"),
        ("darkfield", {"cx": 3.0, "cy": 4.0, "rmin": 5, "rmax": 4}, "rmin=5 is more than rmax=4"),
        ("darkfield", {"cx": 3.0, "cy": 4.0, "rmin": 90}, "the farthest pixel is at 66"),
        ("darkfield", {"cx": -9.0, "cy": 4.0, "rmax": 8}, "the nearest pixel is at 9"),
        (
            "darkfield",
            {"cx": 3.0, "cy": 4.0, "qmin": 9, "geometry": GEOMETRY},
            "qmin=9 selects nothing",
        ),
        ("radial", {"cx": 3.0, "cy": 4.0, "rmin": 5, "rmax": 5}, "no room for bins"),
        ("radial", {"cx": 3.0, "cy": 4.0, "bins": 0}, "bins=0: must be at least 1"),
        ("radial", {"cx": 3.0, "cy": 4.0, "bins": 10**9}, "must be at most 4096"),
        ("darkfield", {"roi": Roi(3, 3, 0, 5)}, "w and h at least 1"),
        ("darkfield", {"roi": Roi(-1, 3, 2, 5)}, "x and y must be at least 0"),
        ("darkfield", {"roi": Roi(3, 3, 58, 5)}, "beyond the detector .60 columns, 40 rows"),
        ("darkfield", {"roi": Roi(3, 39, 5, 2)}, "beyond the detector"),
        ("composite", {"roi": Roi(3, 3, 5, 9), "bin": 6}, "bin=6 is more than the 5 x 9 pixels"),
        ("composite", {"bin": 41}, "bin=41 is more than"),
        ("sum", {"rmin": 3.0}, "there is no parameter rmin"),
        ("dpc", {"cx": 3.0, "cy": 4.0, "bins": 3}, "there is no parameter bins"),
    ],
)
def test_nonsense_has_no_plan(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        plan(name, **settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", ["<i4", "<u8", "<f4", "|b1"])
def test_pixels_that_would_be_summed_wrongly_are_refused(dtype: str) -> None:
    with pytest.raises(ValueError, match="only uint8, uint16 and uint32"):
        plan("darkfield", dtype=dtype)


CENTRES = st.floats(-90, 90)
ROIS = st.builds(
    Roi, st.integers(0, 50), st.integers(0, 30), st.integers(1, 10), st.integers(1, 10)
)


@given(
    CENTRES,
    CENTRES,
    st.none() | ROIS,
    *[st.none() | st.floats(0, 150)] * 2,
    *[st.none() | st.floats(0, 3)] * 2,
)
def test_leaving_out_keeps_the_selection(
    cx: float,
    cy: float,
    roi: Roi | None,
    rmin: float | None,
    rmax: float | None,
    qmin: float | None,
    qmax: float | None,
) -> None:
    everything = Plan(
        *("moments", "abc", HEIGHT, WIDTH, "<u2", b"", roi, cx, cy),
        *(rmin, rmax, qmin, qmax, GEOMETRY),
    )
    inside = selected(everything)
    try:
        made = plan(
            *("darkfield",),
            cx=cx,
            cy=cy,
            roi=roi,
            geometry=GEOMETRY,
            rmin=rmin,
            rmax=rmax,
            qmin=qmin,
            qmax=qmax,
        )
    except ValueError:
        assert not inside.any()
        return
    assert (selected(made) == inside).all()


# --- axes


def test_azimuthal_axis() -> None:
    axis = profile_axis(plan("azimuthal", cx=3.0, cy=4.0, bins=8))
    assert (axis.name, axis.unit) == ("phi", "degrees")
    assert axis.values.tolist() == [22.5, 67.5, 112.5, 157.5, 202.5, 247.5, 292.5, 337.5]


@pytest.mark.parametrize(
    ("geometry", "limits", "name", "unit"),
    [
        (None, {"rmin": 4.0, "rmax": 12.0}, "r", "px"),
        (GEOMETRY, {"qmin": 0.1, "qmax": 0.3}, "q", "1/nm"),
    ],
)
def test_radial_axis_between_limits(
    geometry: Geometry | None, limits: dict[str, float], name: str, unit: str
) -> None:
    wanted = plan("radial", cx=3.0, cy=4.0, geometry=geometry, bins=4, **limits)
    axis = profile_axis(wanted)
    low, high = limits.values()
    assert (axis.name, axis.unit) == (name, unit)
    assert_allclose(axis.values, low + (high - low) * np.array([1, 3, 5, 7]) / 8, rtol=1e-12)


@pytest.mark.parametrize("geometry", [None, GEOMETRY])
def test_radial_axis_over_the_selected_pixels(geometry: Geometry | None) -> None:
    roi = Roi(10, 10, 20, 20)
    axis = profile_axis(plan("radial", cx=3.3, cy=4.4, geometry=geometry, bins=5, roi=roi))
    r = radius((HEIGHT, WIDTH), 3.3, 4.4)[10:30, 10:30]
    position = r if geometry is None else scattering_vector(r, geometry)
    width = (position.max() - position.min()) / 5
    assert_allclose(axis.values, position.min() + width * (np.arange(5) + 0.5), rtol=1e-12)


def test_a_map_has_no_axis() -> None:
    with pytest.raises(ValueError, match="makes no profile"):
        profile_axis(BARE)


# --- parameters


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_fields_of_settings_and_plan(name: str) -> None:
    assert PARAMETERS[name].name == name
    assert name in Settings.__struct_fields__
    assert name in Plan.__struct_fields__


# --- the passes themselves


@pytest.mark.parametrize("name", PASSES)
def test_passes_use_what_plans_of_them_keep(name: str) -> None:
    assert REDUCTIONS[name].uses == PASSES[name].uses

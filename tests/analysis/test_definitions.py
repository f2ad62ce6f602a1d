"""The analyses by what they must give: closed-form truths, references, edges of definedness."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from analysis.analyses import ANALYSES, azimuthal, composite, darkfield, dpc, orientation, radial
from analysis.analyses import average as average_module
from analysis.analyses import max as max_module
from analysis.analyses import sum as sum_module
from analysis.definition import Settings
from analysis.parameters import PARAMETERS
from analysis.plan import Geometry, Roi
from analysis.reductions import REDUCTIONS

SENTINEL = 65535
GEOMETRY = Geometry(distance_m=0.3, wavelength_nm=0.09, pixel_m=75e-6)
FRAMES = arrays(np.uint16, (7, 9), elements=st.integers(0, 9) | st.just(60000))
MASKS = arrays(np.bool_, (7, 9))
CENTRES = st.floats(-3, 12)


def moments(frame: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Values of one frame, uint64 (1, 6), from Python integers."""
    totals = [0] * 6
    for row, column in np.argwhere(valid):
        x, y, counts = int(column), int(row), int(frame[row, column])
        for index, factor in enumerate((1, x, y, x * x, x * y, y * y)):
            totals[index] += counts * factor
    return np.array([[total % 2**64 for total in totals]], np.uint64)


def profile(
    frame: NDArray[Any],
    valid: NDArray[np.bool_],
    position: NDArray[np.float64],
    bins: int,
    hi: float,
) -> NDArray[np.uint64]:
    """Sums and pixels per bin over [0, hi], uint64 (1, 2, bins), pixel by pixel."""
    out = np.zeros((1, 2, bins), np.uint64)
    for row, column in np.argwhere(valid):
        index = min(int(position[row, column] / hi * bins), bins - 1)
        out[0, 0, index] += np.uint64(frame[row, column])
        out[0, 1, index] += np.uint64(1)
    return out


def everything(frame: NDArray[Any]) -> NDArray[np.bool_]:
    return np.ones(frame.shape, np.bool_)


def at(frame: NDArray[Any], cx: float, cy: float, **more: Any) -> Settings:
    return Settings(cx=cx, cy=cy, height=frame.shape[0], width=frame.shape[1], **more)


def streak(angle: float, long: float = 12, short: float = 3, edge: int = 121) -> NDArray[np.uint16]:
    """A Gaussian spot in the middle of a frame, its long axis `angle` degrees counter-clockwise."""
    rows, columns = np.mgrid[:edge, :edge]
    dx, up = columns - edge // 2, edge // 2 - rows
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    along, across = dx * c + up * s, up * c - dx * s
    counts = 60000 * np.exp(-(along**2) / (2 * long**2) - across**2 / (2 * short**2))
    return np.rint(counts).astype(np.uint16)


# --- the registry


def test_every_analysis_is_complete() -> None:
    for name, analysis in ANALYSES.items():
        assert analysis.name == name
        assert analysis.channels
        assert len({channel.name for channel in analysis.channels}) == len(analysis.channels)
        own = {parameter.name for parameter in analysis.own}
        assert set(analysis.parameters) <= set(PARAMETERS) | own
        assert own <= {name for name, _ in analysis.defaults}
        errors = [one for one in analysis.every_channel if one.name.startswith("sigma")]
        assert bool(errors) == (analysis.result in ("map", "stack"))
        assert len({channel.name for channel in analysis.every_channel}) == len(
            analysis.every_channel
        )
        assert {name for name, _ in analysis.defaults} <= set(analysis.parameters)
        assert analysis.result_dtype in (np.float64, np.uint64)
        hash(analysis)  # callers key their caches with it
    assert set(ANALYSES) == {
        *("darkfield", "dpc", "orientation", "radial", "azimuthal"),
        *("harmonic", "symmetry", "crystal", "exponent"),
        *("sum", "max", "average", "composite"),
    }


def test_every_pass_is_known() -> None:
    assert {analysis.reduction for analysis in ANALYSES.values()} <= set(REDUCTIONS)


def test_definitions_load_nothing_heavy() -> None:
    heavy = "numba", "scipy", "h5py", "trio"
    code = f"import analysis.analyses, sys; print([m for m in {heavy} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_texts_are_one_line() -> None:
    for analysis in ANALYSES.values():
        meanings = (channel.meaning for channel in analysis.every_channel)
        for text in (analysis.title, analysis.definition, *meanings):
            assert text
            assert not re.search(r"\n|  ", text)
    for parameter in PARAMETERS.values():
        assert parameter.meaning
        assert "\n" not in parameter.meaning


@pytest.mark.parametrize("name", ["darkfield", "dpc", "orientation"])
def test_maps_of_no_frames(name: str) -> None:
    analysis = ANALYSES[name]
    out = analysis.finish(np.zeros((0, 6), np.uint64), Settings(cx=1, cy=1, height=5, width=5))
    assert out.shape == (len(analysis.channels), 0)


@pytest.mark.parametrize("name", ["darkfield", "dpc", "orientation"])
def test_results_may_be_written_to(name: str) -> None:
    values = moments(streak(30), everything(streak(30)))
    values.flags.writeable = False
    out = ANALYSES[name].finish(values, at(streak(30), 60, 60))
    out[:] = np.nan


def test_a_frame_is_finished_by_itself() -> None:
    rng = np.random.default_rng(7)
    frames = [rng.poisson(2, (9, 11)).astype(np.uint16) for _ in range(17)]
    values = np.concatenate([moments(frame, everything(frame)) for frame in frames])
    for name in ("darkfield", "dpc", "orientation"):
        finish, settings = ANALYSES[name].finish, at(frames[0], 4.3, 5.1)
        together = finish(values, settings)
        apart = np.concatenate([finish(values[i : i + 1], settings) for i in range(17)], axis=1)
        assert together.tobytes() == apart.tobytes()


# --- darkfield


@given(FRAMES, MASKS)
def test_darkfield_is_its_definition(frame: NDArray[np.uint16], valid: NDArray[np.bool_]) -> None:
    out = darkfield.finish(moments(frame, valid), Settings())
    assert out.shape == (1, 1)
    assert out[0, 0] == darkfield.reference(frame, valid)


# --- dpc


@given(FRAMES, MASKS, CENTRES, CENTRES)
def test_dpc_is_its_definition(
    frame: NDArray[np.uint16], valid: NDArray[np.bool_], cx: float, cy: float
) -> None:
    out = dpc.finish(moments(frame, valid), at(frame, cx, cy))
    assert_allclose(out[:, 0], dpc.reference(frame, valid, cx, cy), rtol=1e-12, atol=1e-12)


def test_uniform_frame_is_not_deflected() -> None:
    frame = np.full((31, 41), 3, np.uint16)
    assert_array_equal(dpc.finish(moments(frame, everything(frame)), at(frame, 20, 15)), [[0], [0]])


def test_dpc_points_right_and_down() -> None:
    frame = np.zeros((31, 41), np.uint16)
    frame[20, 17] = 5
    out = dpc.finish(moments(frame, everything(frame)), at(frame, 15.5, 16.25))
    assert_array_equal(out[:, 0], [1.5, 3.75])


def test_deflection_by_whole_pixels_is_seen_as_such() -> None:
    spot = np.zeros((200, 200), np.uint16)
    spot[:121, :121] = streak(20)
    moved = np.roll(spot, (7, -3), (0, 1))
    values = np.concatenate([moments(one, everything(one)) for one in (spot, moved)])
    out = dpc.finish(values, at(spot, 58.7, 61.1))
    assert_allclose(out[:, 1] - out[:, 0], [-3, 7], atol=1e-13)


@pytest.mark.parametrize("name", ["dpc", "orientation"])
def test_nothing_is_known_without_counts(name: str) -> None:
    frame = np.zeros((5, 6), np.uint16)
    out = ANALYSES[name].finish(moments(frame, everything(frame)), at(frame, 2, 2))
    assert np.isnan(out).all()


@pytest.mark.parametrize("name", ["dpc", "orientation"])
def test_moments_need_a_centre_and_a_bound(name: str) -> None:
    finish, values = ANALYSES[name].finish, np.zeros((1, 6), np.uint64)
    assert ANALYSES[name].needs_centre
    with pytest.raises(ValueError, match="give cx= and cy="):
        finish(values, Settings(cx=1, height=5, width=5))
    with pytest.raises(ValueError, match="roi or the detector's height, width"):
        finish(values, Settings(cx=1, cy=1))
    finish(values, Settings(cx=1, cy=1, roi=Roi(0, 0, 3, 3)))


# --- orientation


@given(FRAMES, MASKS, CENTRES, CENTRES)
def test_orientation_is_its_definition(
    frame: NDArray[np.uint16], valid: NDArray[np.bool_], cx: float, cy: float
) -> None:
    angle, anisotropy, l1, l2 = orientation.finish(moments(frame, valid), at(frame, cx, cy))[:, 0]
    expected = orientation.reference(frame, valid, cx, cy)
    assert_allclose([l1, l2], expected[2:], rtol=1e-10, atol=1e-10)
    if not l1 > 1e-6:  # no counts, or all in the pixel of the centre
        return
    assert_allclose(anisotropy, expected[1], atol=1e-9)
    assert 0 <= anisotropy <= 1
    if anisotropy > 1e-6:
        assert 0 <= angle < 180
        assert abs((angle - expected[0] + 90) % 180 - 90) < 1e-5


@pytest.mark.parametrize("angle", [0, 0.3, 20, 45, 89.9, 90, 91, 135, 160, 179.8])
def test_rotating_a_pattern_rotates_its_angle(angle: float) -> None:
    frame = streak(angle)
    out = orientation.finish(moments(frame, everything(frame)), at(frame, 60, 60))[:, 0]
    assert abs((out[0] - angle + 90) % 180 - 90) < 0.01
    assert 0 <= out[0] < 180
    assert_allclose(out[1:], [(144 - 9) / (144 + 9), 144, 9], rtol=0.01)


@given(st.integers(-40, 40), st.integers(-40, 40), st.integers(1, 60000))
def test_friedel_pair(dx: int, up: int, counts: int) -> None:
    frame = np.zeros((81, 81), np.uint32)
    frame[40 - up, 40 + dx] += counts
    frame[40 + up, 40 - dx] += counts
    out = orientation.finish(moments(frame, everything(frame)), at(frame, 40, 40))[:, 0]
    if dx == up == 0:
        assert_array_equal(out, [np.nan, np.nan, 0, 0])
        return
    assert_allclose(out[0], np.degrees(np.arctan2(up, dx)) % 180 % 180, atol=1e-12)
    assert_allclose(out[1:], [1, dx**2 + up**2, 0], rtol=1e-14, atol=1e-12)


def test_isotropic_pattern() -> None:
    frame = streak(0, 9, 9)
    angle, anisotropy, l1, l2 = orientation.finish(
        moments(frame, everything(frame)), at(frame, 60, 60)
    )[:, 0]
    assert np.isnan(angle)  # exactly symmetric: there is no direction
    assert anisotropy == 0
    assert l1 == l2
    assert_allclose(l1, 81, rtol=1e-3)
    noisy = np.random.default_rng(1).poisson(frame).astype(np.uint16)
    out = orientation.finish(moments(noisy, everything(noisy)), at(frame, 60, 60))[:, 0]
    assert 0 < out[1] < 1e-3
    assert 0 <= out[0] < 180


def test_orientation_is_about_the_beam_not_the_mean() -> None:
    frame = streak(0, 3, 3)
    out = orientation.finish(moments(frame, everything(frame)), at(frame, 60, 80))[:, 0]
    assert_allclose(out, [90, 400 / 418, 409, 9], rtol=1e-3)


# --- profiles


def test_uniform_frame_has_flat_profiles() -> None:
    frame = np.full((15, 17), 4, np.uint16)
    rows, columns = np.indices(frame.shape)
    position = np.hypot(columns - 8.1, rows - 7.2)
    out = radial.finish(profile(frame, everything(frame), position, 5, 12), Settings())
    assert out.shape == (3, 1, 5)
    assert_array_equal(out[0, 0], 4)
    assert_array_equal(out[1, 0], np.sqrt(4 * out[2, 0]) / out[2, 0])
    assert out[2].sum() == frame.size


def test_empty_bin_is_unknown_and_has_no_pixels() -> None:
    values = np.array([[[0, 9, 0], [0, 4, 2]]], np.uint64)
    for name in ("radial", "azimuthal"):
        out = ANALYSES[name].finish(values, Settings())
        assert_array_equal(out[:, 0], [[np.nan, 2.25, 0], [np.nan, 0.75, 0], [0, 4, 2]])


@given(FRAMES, MASKS, st.sampled_from([None, GEOMETRY]))
def test_radial_is_its_definition(
    frame: NDArray[np.uint16], valid: NDArray[np.bool_], geometry: Geometry | None
) -> None:
    settings = at(frame, 4.137, 2.871, bins=6, geometry=geometry)
    rows, columns = np.indices(frame.shape)
    position, hi = np.hypot(columns - 4.137, rows - 2.871), 7.0
    if geometry is not None:
        angle = np.arctan(position * geometry.pixel_m / geometry.distance_m) / 2
        position, hi = 4 * np.pi / geometry.wavelength_nm * np.sin(angle), 0.25
    out = radial.finish(profile(frame, valid, position, 6, hi), settings)[:, 0]
    assert_allclose(out, radial.reference(frame, valid, settings, 0, hi), rtol=1e-12)


@given(FRAMES, MASKS)
def test_azimuthal_is_its_definition(frame: NDArray[np.uint16], valid: NDArray[np.bool_]) -> None:
    settings = at(frame, 4.137, 2.871, bins=7)
    rows, columns = np.indices(frame.shape)
    phi = np.degrees(np.arctan2(2.871 - rows, columns - 4.137)) % 360
    out = azimuthal.finish(profile(frame, valid, phi, 7, 360), settings)[:, 0]
    assert_allclose(out, azimuthal.reference(frame, valid, settings), rtol=1e-12)


@pytest.mark.parametrize(("row", "column", "quarter"), [(2, 8, 0), (2, 2, 1), (8, 2, 2), (8, 8, 3)])
def test_azimuth_runs_counter_clockwise_from_the_right(row: int, column: int, quarter: int) -> None:
    frame = np.zeros((11, 11), np.uint16)
    frame[row, column] = 30
    out = azimuthal.reference(frame, everything(frame), at(frame, 5.01, 5.02, bins=4))
    assert np.flatnonzero(out[0]).tolist() == [quarter]


# --- patterns and composite


@given(arrays(np.uint16, (3, 4, 5)), arrays(np.bool_, (3, 4, 5)))
def test_patterns_are_their_definitions(
    frames: NDArray[np.uint16], valid: NDArray[np.bool_]
) -> None:
    values = np.zeros((3, 4, 5), np.uint64)
    for frame, usable in zip(frames, valid, strict=True):
        counts = np.where(usable, frame, 0).astype(np.uint64)
        values[0] += counts
        values[1] = np.maximum(values[1], counts)
        values[2] += usable
    for module, analysis in (
        (sum_module, ANALYSES["sum"]),
        (max_module, ANALYSES["max"]),
        (average_module, ANALYSES["average"]),
    ):
        out = analysis.finish(values, Settings())
        assert out.shape == (1, 4, 5)
        assert out.dtype == analysis.result_dtype
        assert not np.shares_memory(out, values)
        assert_allclose(out[0], module.reference(frames, valid), rtol=1e-15)


def test_masked_pixels_of_patterns() -> None:
    values = np.zeros((3, 1, 2), np.uint64)
    values[:, 0, 1] = [10, 7, 4]
    assert_array_equal(ANALYSES["sum"].finish(values, Settings())[0], [[0, 10]])
    assert_array_equal(ANALYSES["max"].finish(values, Settings())[0], [[0, 7]])
    assert_array_equal(ANALYSES["average"].finish(values, Settings())[0], [[np.nan, 2.5]])


def test_sums_of_patterns_keep_all_digits() -> None:
    values = np.full((3, 1, 1), 2**53 + 1, np.uint64)
    assert int(ANALYSES["sum"].finish(values, Settings())[0, 0, 0]) == 2**53 + 1


@given(FRAMES, MASKS, st.integers(1, 4))
def test_composite_is_its_definition(
    frame: NDArray[np.uint16], valid: NDArray[np.bool_], edge: int
) -> None:
    tile = composite.reference(frame, valid, edge)
    assert tile.shape == (7 // edge, 9 // edge)
    squares = [
        (frame[y : y + edge, x : x + edge], valid[y : y + edge, x : x + edge])
        for y in range(0, 7 - edge + 1, edge)
        for x in range(0, 9 - edge + 1, edge)
    ]
    expected = [int((f * v.astype(np.int64)).sum()) if v.any() else np.nan for f, v in squares]
    assert_array_equal(tile.ravel(), expected)
    out = composite.finish(tile[None], Settings())
    assert_array_equal(out, tile[None, None])
    assert not np.shares_memory(out, tile)

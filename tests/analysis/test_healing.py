"""Friedel healing: every pass equals itself over a frame whose gaps numpy has filled."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from chunkmaking import encode, plan_of
from hypothesis import given, settings
from msgspec.structs import replace
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from scenes import SHAPE, scenes

from analysis.analyses import ANALYSES, darkfield, dpc, orientation
from analysis.definition import Settings
from analysis.plan import Plan, Roi, pack_mask
from analysis.planning import plan_for
from analysis.reductions import REDUCTIONS
from analysis.reference import reference
from analysis.selection import selected

Bools = NDArray[np.bool_]


def filled(plan: Plan, frame: NDArray[Any]) -> tuple[NDArray[Any], Bools]:
    """The frame with what is healed, and what remains masked: pixel by pixel, by the definition."""
    assert plan.cx is not None
    assert plan.cy is not None
    invalid = plan.invalid()
    image, masked = frame.copy(), invalid.copy()
    chosen = selected(replace(plan, mask=b"", heal=None))
    for y, x in np.argwhere(invalid & chosen):
        row, column = np.floor(2 * plan.cy + 0.5) - y, np.floor(2 * plan.cx + 0.5) - x
        if 0 <= row < plan.height and 0 <= column < plan.width:
            there = int(row), int(column)
            if not invalid[there]:
                image[y, x], masked[y, x] = frame[there], False
    return image, masked


def values(plan: Plan, frame: NDArray[Any]) -> NDArray[Any]:
    prepared = REDUCTIONS[plan.reduction].prepare(plan)
    out = np.zeros(prepared.value_shape, prepared.value_dtype)
    prepared.frame(frame, out)
    return out


@pytest.mark.parametrize(
    "name",
    [
        *("moments", "counts", "radial", "azimuthal", "patterns", "frame"),
        *("placed", "directions", "above"),
    ],
)
@settings(deadline=None, max_examples=40)
@given(scene=scenes(("<u2", "<u4")))
def test_every_pass(name: str, scene: tuple[NDArray[Any], Bools, dict[str, Any]]) -> None:
    frame, mask, more = scene
    more["heal"] = 1
    more |= {"bins": 6} if name in ("radial", "azimuthal", "placed") else {}
    more |= {"extra": (("threshold", 3.0),)} if name == "above" else {}
    more |= {"bin": 2} if name == "frame" else {}
    chunk, codec = encode(frame, "bitshuffle-lz4")
    plan = plan_of(name, codec, mask, **more)
    image, rest = filled(plan, frame)
    expected = values(replace(plan, mask=pack_mask(rest), heal=None), image)
    scale = np.nanmax(np.abs(expected), initial=0) if name == "directions" else 0
    assert_allclose(values(plan, frame), expected, rtol=0, atol=1e-12 * scale)
    again = reference(plan, frame)
    if again is not None:
        assert_allclose(again, expected, rtol=0, atol=1e-12 * scale)
    prepared = REDUCTIONS[name].prepare(plan)
    if prepared.fuses(codec):
        out = np.zeros(prepared.value_shape, prepared.value_dtype)
        assert prepared.chunk(chunk, codec, out)
        assert_allclose(out, expected, rtol=0, atol=1e-12 * scale)


@pytest.mark.parametrize("centre", [(34.0, 14.0), (34.5, 14.5), (34.2, 14.9)])
def test_maps_against_their_numpy_references(centre: tuple[float, float]) -> None:
    rng = np.random.default_rng(4)
    frame = rng.poisson(3, SHAPE).astype("<u2")
    mask = np.zeros(SHAPE, np.bool_)
    mask[:, 20:26] = mask[12:15] = True
    cx, cy = centre
    wanted = Settings(cx=cx, cy=cy, heal=1, height=SHAPE[0], width=SHAPE[1])
    for analysis in (ANALYSES["darkfield"], ANALYSES["dpc"], ANALYSES["orientation"]):
        plan = plan_for(analysis, wanted, *SHAPE, "<u2", pack_mask(mask))
        image, rest = filled(plan, frame)
        assert rest.sum() < mask.sum()
        found = analysis.finish(values(plan, frame)[None], wanted)[:, 0]
        expected = {
            "darkfield": lambda image=image, rest=rest: darkfield.reference(image, ~rest),
            "dpc": lambda image=image, rest=rest: dpc.reference(image, ~rest, cx, cy),
            "orientation": lambda image=image, rest=rest: orientation.reference(
                image, ~rest, cx, cy
            ),
        }[analysis.name]()
        assert_allclose(found, np.atleast_1d(expected), rtol=1e-9)


def test_a_symmetric_pattern_is_restored() -> None:
    """What Friedel's law promises: gaps make no deflection, and lose no counts."""
    rows, columns = np.indices(SHAPE)
    frame = (1000 / (1 + np.hypot(columns - 34, rows - 14))).astype("<u2")
    mask = np.zeros(SHAPE, np.bool_)
    mask[:, 40:44] = mask[2:5] = True
    window = Roi(5, 1, 59, 27)  # itself symmetric about the beam
    wanted = Settings(cx=34, cy=14, heal=1, roi=window, height=SHAPE[0], width=SHAPE[1])
    analysis = ANALYSES["dpc"]
    plan = plan_for(analysis, wanted, *SHAPE, "<u2", pack_mask(mask))
    healed = values(plan, frame)
    whole = values(replace(plan, mask=b"", heal=None), frame)
    gapped = values(replace(plan, heal=None), frame)
    corner = mask[1:28, 5:64]  # a gap opposite to a gap stays one
    both = corner & corner[::-1, ::-1]
    lost = frame[1:28, 5:64][both].sum()
    assert healed[0] == whole[0] - lost
    assert np.abs(analysis.finish(gapped[None], wanted)).max() > 0.1
    assert np.abs(analysis.finish(healed[None], wanted)).max() < 1e-12


def test_without_a_mask_there_is_nothing_to_heal() -> None:
    plain, asked = Settings(cx=3, cy=4), Settings(cx=3, cy=4, heal=1)
    darkfield_map = ANALYSES["darkfield"]
    made = [plan_for(darkfield_map, one, 9, 9, "<u2", b"") for one in (plain, asked)]
    assert made[0] == made[1]
    mask = pack_mask(np.eye(9, dtype=np.bool_))
    assert plan_for(darkfield_map, asked, 9, 9, "<u2", mask).heal == 1
    with pytest.raises(ValueError, match="give cx= and cy="):
        plan_for(darkfield_map, Settings(heal=1), 9, 9, "<u2", mask)


def test_a_corrupt_chunk_leaves_nothing() -> None:
    frame = np.random.default_rng(0).poisson(9, SHAPE).astype("<u2")
    mask = np.zeros(SHAPE, np.bool_)
    mask[3] = True
    chunk, codec = encode(frame, "bitshuffle-lz4")
    for name in ("moments", "counts"):
        prepared = REDUCTIONS[name].prepare(plan_of(name, codec, mask, cx=30.0, cy=15.0, heal=1))
        out = np.zeros(prepared.value_shape, np.uint64)
        assert not prepared.chunk(chunk[:-9], codec, out)
        assert not out.any()

"""Analyses that users write: declarations, selection, visitors, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from chunkmaking import encode, plan_of
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from analysis.plan import Plan
from analysis.plugins import Plugin, PluginFailed, PluginReduction, frame_analysis, number


def mean_square(**declared: Any) -> Plugin:
    """sum I (dx^2 + 2 dy^2) + offset, plainly and by a visitor."""

    @frame_analysis(
        title="mean square",
        channels={"square": "px^2"},
        parameters={"offset": number(1.5), "power": number(1, minimum=1, maximum=3)},
        **declared,
    )
    def square(frame: Any, geometry: Any, params: Any) -> Any:
        weights = geometry.dx**2 + 2 * geometry.dy**2
        return (frame.astype(float) ** params.power * weights).sum() + params.offset

    @square.fused(finish=lambda totals, geometry, params: totals + params.offset)
    def visit(totals, counts, dx, dy, params):  # type: ignore[no-untyped-def]
        totals[0] += counts ** params[1] * (dx * dx + 2 * dy * dy)

    return square


SQUARE = mean_square(needs_centre=True)
KINDS = ("bitshuffle-lz4", "bitshuffle", "bitshuffle-lz4-blocks-of-24")


def plain(plugin: Plugin) -> Plugin:
    """The same without its visitor."""
    twin = mean_square(needs_centre=True)
    twin.visitor = None
    return twin


def reduced(plugin: Plugin, plan: Plan, frame: NDArray[Any]) -> NDArray[np.float64]:
    prepared = PluginReduction(plugin).prepare(plan)
    out = np.zeros(prepared.value_shape)
    prepared.frame(frame, out)
    return out


@settings(max_examples=60, deadline=None)
@given(data=st.data(), dtype=st.sampled_from(["u1", "u2", "u4"]))
def test_visitor_agrees_with_the_function(data: st.DataObject, dtype: str) -> None:
    height, width = data.draw(st.tuples(st.integers(1, 40), st.integers(1, 70)))
    seed = data.draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    limit = np.iinfo(dtype).max
    frame = np.where(rng.random((height, width)) < 0.3, rng.integers(0, 9, (height, width)), 0)
    frame[rng.random((height, width)) < 0.05] = limit
    frame[rng.random((height, width)) < 0.05] = limit - 1
    frame = frame.astype(f"<{dtype}" if dtype != "u1" else "|u1")
    invalid = rng.random((height, width)) < 0.2
    chunk, codec = encode(frame, data.draw(st.sampled_from(KINDS)))
    plan = plan_of("plugin:square", codec, invalid, cx=1.25, cy=-3.5)
    expected = reduced(plain(SQUARE), plan, frame)
    assert np.allclose(reduced(SQUARE, plan, frame), expected, rtol=1e-12)
    prepared = PluginReduction(SQUARE).prepare(plan)
    assert prepared.fuses(codec)
    out = np.zeros(prepared.value_shape)
    assert prepared.chunk(chunk, codec, out)
    assert np.allclose(out, expected, rtol=1e-12)
    assert not prepared.chunk(chunk[: len(chunk) // 2], codec, out)


def small(**more: Any) -> Plan:
    return Plan("plugin:x", "", 2, 3, "<u2", **more)


FRAME = np.array([[1, 2, 3], [4, 65535, 6]], "<u2")


def test_frame_is_zero_where_not_valid() -> None:
    seen: list[NDArray[Any]] = []

    @frame_analysis(title="t", channels={"a": "", "b": ""})
    def look(frame: Any, geometry: Any, params: Any) -> Any:
        seen.append(frame.copy())
        with pytest.raises(ValueError, match="read-only"):
            frame[0, 0] = 1
        return frame.sum(), geometry.selected.sum()

    _, codec = encode(FRAME, "none")
    invalid = np.zeros((2, 3), bool)
    invalid[0, 2] = True
    out = reduced(look, plan_of("plugin:look", codec, invalid), FRAME)
    assert seen[0].tolist() == [[1, 2, 0], [4, 0, 6]]
    assert out.tolist() == [[13.0], [5.0]]


def test_profile_of_declared_length() -> None:
    @frame_analysis(title="t", channels={"rows": ""}, length=3)
    def columns(frame: Any, geometry: Any, params: Any) -> Any:
        return frame.sum(axis=0)

    assert columns.analysis.result == "stack"
    values = reduced(columns, small(), FRAME)[None]
    assert columns.analysis.finish(values, None).tolist() == [[[5.0, 2.0, 9.0]]]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("returned", "complaint"),
    [
        (lambda: [1, 2], r"returned an array of shape \(2,\), declared is \(1, 1\)"),
        (lambda: "many", "returned str"),
        (lambda: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda: exit(3), "SystemExit: 3"),
    ],
)
def test_what_goes_wrong_says_so(returned: Any, complaint: str) -> None:
    @frame_analysis(title="t", channels={"a": ""})
    def bad(frame: Any, geometry: Any, params: Any) -> Any:
        return returned()

    with pytest.raises(PluginFailed, match=complaint):
        reduced(bad, small(), FRAME)


def test_beam_centre_must_be_declared() -> None:
    @frame_analysis(title="t", channels={"a": ""})
    def asks(frame: Any, geometry: Any, params: Any) -> Any:
        return geometry.r.max()

    with pytest.raises(PluginFailed, match="declare needs_centre=True"):
        reduced(asks, small(), FRAME)
    with pytest.raises(PluginFailed, match="unknown"):
        _ = PluginReduction(SQUARE).prepare(small(cx=0.0, cy=0.0))._geometry.q


def test_who_does_not_need_the_centre_is_not_told_it() -> None:
    @frame_analysis(title="t", channels={"x": "px"})
    def mean(frame: Any, geometry: Any, params: Any) -> Any:
        assert geometry.cx is None
        return (frame * np.arange(geometry.shape[1])).sum()

    plain_twin = reduced(mean, small(cx=1.0, cy=0.0, rmax=9.0), FRAME)

    @mean.fused()
    def visit(totals, counts, dx, dy, params):  # type: ignore[no-untyped-def]
        totals[0] += counts * dx

    expected = [[2 + 6 + 12.0]]
    assert plain_twin.tolist() == expected
    assert reduced(mean, small(cx=1.0, cy=0.0, rmax=9.0), FRAME).tolist() == expected
    assert reduced(mean, small(), FRAME).tolist() == expected


def nothing(frame: Any, geometry: Any, params: Any) -> Any:
    return 0


@pytest.mark.parametrize(
    ("declared", "complaint"),
    [
        ({"channels": {}}, "at least one"),
        ({"name": "Big Name"}, "no name"),
        ({"name": "roi"}, "taken"),
        ({"parameters": {"horz": number(1)}}, "taken"),
        ({"parameters": {"x=y": number(1)}}, "no name"),
        ({"length": 0}, "length"),
    ],
)
def test_declarations_that_cannot_be(declared: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        frame_analysis(**{"title": "t", "channels": {"a": ""}} | declared)(nothing)


def test_default_within_its_range() -> None:
    with pytest.raises(ValueError, match="not within"):
        number(5, maximum=4)


def test_version_follows_the_source() -> None:
    first, second = mean_square(), mean_square()
    assert first.version == second.version
    second.source = b"other"
    assert first.version != second.version

"""What results hold: contents for the containers. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from analysis.axes import profile_axis
from analysis.definition import Analysis, Settings
from analysis.parameters import Parameter
from analysis.plan import Plan
from dadafs.containers.base import LONGEST_SCALE, Container, Content, Scale, View
from dadafs.containers.colours import CMAPS, WHEEL
from dadafs.errors import NoSuchPath
from dadafs.paths import Value
from dadafs.planning import Layout
from dadafs.scans.model import Scan

WHEELS = {"orientation": ("angle", "anisotropy"), "harmonic": ("angle", "strength")}
"""Analyses shown as a colour wheel, with the channels of its hue and brightness."""

VIEW_PARAMETERS = {
    parameter.name: parameter
    for parameter in (
        Parameter("cmap", "choice", None, None, "", "only .png: colours", CMAPS),
        Parameter("scale", "choice", None, None, "", "only .png: of colours", ("linear", "log")),
        Parameter("vmin", "float", None, None, "", "only .png: number of the lowest colour"),
        Parameter("vmax", "float", None, None, "", "only .png: number of the highest colour"),
    )
}


def channels_shown(analysis: Analysis, container: Container) -> tuple[int, ...]:
    """Which channels a file without `channel=` holds: all, or what one picture can show."""
    names = [channel.name for channel in analysis.channels]
    if not container.picture:
        return tuple(range(len(names)))
    return tuple(names.index(name) for name in WHEELS.get(analysis.name, names[:1]))


def view_of(values: Mapping[str, Value], container: Container, *, wheel: bool) -> View | None:
    """How a picture is coloured; NoSuchPath where what is asked has no meaning."""
    given = [name for name in VIEW_PARAMETERS if name in values]
    if not container.picture:
        if given:
            raise NoSuchPath(f"{given[0]}= colours a picture: it is for .png alone")
        return None
    low, high = (_float(values.get(name)) for name in ("vmin", "vmax"))
    log = values.get("scale") == "log"
    if wheel and ("cmap" in given or log):
        raise NoSuchPath("the colour wheel has no cmap= or scale=log; give channel= too")
    if low is not None and high is not None and not low < high:
        raise NoSuchPath(f"vmin={low:g} must be below vmax={high:g}")
    if wheel and high is not None and high <= 0 and low is None:
        raise NoSuchPath(f"vmax={high:g} must be above 0")
    if log and any(one is not None and one <= 0 for one in (low, high)):
        raise NoSuchPath("scale=log: vmin= and vmax= must be above 0")
    cmap = WHEEL if wheel else str(values.get("cmap", "viridis"))
    return View(cmap, log, low, high)


def frame_content(
    settings: Settings,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    container: Container,
    view: View | None,
) -> Content:
    """Of one detector frame."""
    content = Content(
        shape, dtype, ("row", "column"), (), "detector frame", "counts", ("counts",), view=view
    )
    if container.scales:
        content = replace(content, scales=_plane(content, settings))
    return content


def analysis_content(
    analysis: Analysis,
    scan: Scan,
    settings: Settings,
    plan: Plan,
    layout: Layout,
    value_shape: tuple[int, ...],
    container: Container,
    view: View | None,
) -> Content:
    """Of the result of an analysis."""
    shape, axes = _shape_and_axes(analysis, layout, value_shape)
    channels = [analysis.channels[number] for number in layout.channels]
    content = Content(
        shape,
        analysis.result_dtype,
        axes,
        tuple(channel.name for channel in channels),
        analysis.title,
        channels[0].unit,
        tuple(channel.unit for channel in channels),
        view=view,
    )
    if container.scales:
        scales = _scales(analysis, content, settings, plan)
        if analysis.result in ("map", "stack"):
            scales = tuple(_along_motor(scale, scan, layout) for scale in scales)
        content = replace(content, scales=scales)
    return content


def settled(content: Content, plan: Plan) -> Content:
    """`content` with the coordinates of its bins, which may take as long as preparing the pass."""
    scales = tuple(
        replace(scale, listed=profile_axis(plan).values.astype("<f8").tobytes())
        if scale.axis == "bin" and math.isnan(scale.first)
        else scale
        for scale in content.scales
    )
    return content if scales == content.scales else replace(content, scales=scales)


def is_settled(content: Content) -> bool:
    """Whether all coordinates are known."""
    return not any(math.isnan(scale.first) and not scale.listed for scale in content.scales)


def _scales(
    analysis: Analysis, content: Content, settings: Settings, plan: Plan
) -> tuple[Scale, ...]:
    if analysis.result == "pattern":
        return _plane(content, settings)
    scales = [
        Scale(axis, axis, "px" if axis in ("row", "column") else "", count)
        for axis, count in zip(content.axes, content.shape, strict=True)
        if axis not in ("channel", "bin")
    ]
    if "bin" in content.axes:
        scales.append(_bins(plan, content.shape[-1]))
    return tuple(scale for scale in scales if scale.count <= LONGEST_SCALE)


def _along_motor(scale: Scale, scan: Scan, layout: Layout) -> Scale:
    """Lines and points by the motor that moved, where the raster is the recorded one."""
    known = scan.raster
    if known is None or (layout.horz, layout.vert, layout.first) != (
        known.horz,
        known.vert,
        known.first,
    ):
        return scale
    direction = {"point": "horz", "line": "vert"}.get(scale.axis)
    for axis in scan.axes:
        if axis.direction == direction and axis.start is not None and axis.end is not None:
            step = (axis.end - axis.start) / max(scale.count - 1, 1)
            label = f"{axis.motor}, relative" if axis.relative else axis.motor
            return replace(scale, unit=axis.unit, first=axis.start, step=step, label=label)
    return scale


def _bins(plan: Plan, count: int) -> Scale:
    """Of a profile; NaN, to be settled, where the ends of the bins follow from the pixels."""
    if plan.reduction == "azimuthal":
        return Scale("bin", "phi", "degrees", count, 180 / count, 360 / count)
    if plan.reduction == "radial":
        name, unit = ("r", "px") if plan.geometry is None else ("q", "1/nm")
        return Scale("bin", name, unit, count, math.nan)
    return Scale("bin", "bin", "", count)


def _plane(content: Content, settings: Settings) -> tuple[Scale, ...]:
    """Rows and columns of the detector; those of a square of pixels are its centre's."""
    edge = settings.bin or 1
    x, y = (settings.roi.x, settings.roi.y) if settings.roi else (0, 0)
    rows, columns = content.shape
    return tuple(
        Scale(axis, axis, "px", count, first + (edge - 1) / 2, edge)
        for axis, count, first in (("row", rows, y), ("column", columns, x))
        if count <= LONGEST_SCALE
    )


def _shape_and_axes(
    analysis: Analysis, layout: Layout, value_shape: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    axes = ("channel",) if len(layout.channels) > 1 else ()
    match analysis.result:
        case "map":
            return layout.shape, (*axes, "line", "point")
        case "stack":
            return layout.shape, (*axes, "line", "point", "bin")
        case "pattern":
            return value_shape[-2:], ("row", "column")
        case "image":
            _, _, width, height = layout.window
            rows, columns = value_shape
            return (height * rows, width * columns), ("row", "column")


def _float(value: Value | None) -> float | None:
    assert value is None or isinstance(value, int | float)
    return None if value is None else float(value)

"""The raster that a path lays the frames of a scan out in: asked for, or recorded. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from analysis.parameters import Parameter
from analysis.plan import Roi
from dadafs.errors import NoSuchPath
from dadafs.paths import Value, format_value
from dadafs.planning import Layout
from dadafs.scans.beside.commands import MAX_POINTS
from dadafs.scans.beside.overrides import ORDERS
from dadafs.scans.model import Scan

RASTER_PARAMETERS = {
    parameter.name: parameter
    for parameter in (
        Parameter("horz", "int", 1, MAX_POINTS, "points", "points per line"),
        Parameter("vert", "int", 1, MAX_POINTS, "lines", "lines"),
        Parameter("first", "int", 0, None, "", "index of the frame of the first point"),
        Parameter(
            "order", "choice", None, None, "", "snake: every second line ran backwards", ORDERS
        ),
    )
}
REGION = Parameter(
    "region", "roi", None, None, "points", "x,y,w,h: only the w points from x of the h lines from y"
)


def layout_of(
    values: dict[str, Value], scan: Scan, channels: tuple[int, ...], cell: tuple[int, ...]
) -> Layout:
    """Which frame each point has, and what of the raster is wanted. NoSuchPath."""
    horz, vert, snake = raster(values, scan)
    first = _first(values, scan)
    if first >= scan.frames:
        raise NoSuchPath(f"first={first}: the scan has {scan.frames} frames")
    region = values.get("region")
    assert region is None or isinstance(region, Roi)
    if region is not None and (region.x + region.w > horz or region.y + region.h > vert):
        raise NoSuchPath(
            f"region={format_value(region)} reaches beyond the raster"
            f" ({horz} points per line, {vert} lines){_withheld_raster(values, scan)}"
        )
    return Layout(scan.frames, horz, vert, first, snake, channels, cell, region=region)


def _withheld_raster(values: Mapping[str, Value], scan: Scan) -> str:
    """Why the scan's own raster is not known, where the path gives none."""
    reason = scan.withheld.get("raster", "")
    return f" ({reason})" if reason and not {"horz", "vert"} & values.keys() else ""


def _first(values: Mapping[str, Value], scan: Scan) -> int:
    """The frame of the first point: as asked, else as recorded."""
    first = _int(values, "first")
    if first is None:
        first = scan.raster.first if scan.raster is not None else 0
    return first


def raster(values: Mapping[str, Value], scan: Scan) -> tuple[int, int, bool]:
    """Points per line, lines, snake: as asked, else as recorded, else one line of all frames.

    Given only one of horz and vert, the other one is what holds the rest of the frames.
    """
    horz, vert = _int(values, "horz"), _int(values, "vert")
    first = _first(values, scan)
    rest = max(scan.frames - first, 1)
    known = scan.raster
    if horz is None and vert is None:
        horz, vert = (known.horz, known.vert) if known is not None else (rest, 1)
    elif horz is None:
        assert vert is not None
        horz = -(-rest // vert)
    elif vert is None:
        vert = -(-rest // horz)
    assert vert is not None
    if horz * vert > MAX_POINTS:
        raise NoSuchPath(f"{horz} x {vert} points are more than {MAX_POINTS}")
    order = values.get("order", known.order if known is not None else "raster")
    return horz, vert, order == "snake"


def _int(values: Mapping[str, Value], name: str) -> int | None:
    value = values.get(name)
    assert value is None or isinstance(value, int)
    return value

"""From an analysis and its settings to the plan of one pass. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from analysis.definition import Analysis, Settings, beam_centre
from analysis.parameters import PARAMETERS
from analysis.plan import Geometry, Plan, Roi
from analysis.reductions import REDUCTIONS, Reduction
from analysis.selection import scattering_vector

_SLACK = 1e-9  # relative; far above rounding in r and q, far below what separates two pixels


def plan_for(
    analysis: Analysis,
    settings: Settings,
    height: int,
    width: int,
    dtype: str,
    mask: bytes,
    *,
    reductions: Mapping[str, Reduction] = REDUCTIONS,
) -> Plan:
    """The one plan of this computation: what does not change the values is left out.

    Equal computations have equal plans, and so share what is cached: a dpc with another beam
    centre is the same pass, as is one whose roi is the whole detector, or whose rmin is 0.

    ValueError, one line that says what to type instead, where the settings are out of range,
    select nothing, or lack what they need (the beam centre, the geometry).
    """
    _check(analysis, settings, height, width, dtype)
    if analysis.needs_centre:
        _centre(settings)
    if analysis.check is not None:
        analysis.check(settings)
    reduction = reductions[analysis.reduction]
    uses = reduction.uses
    roi = None if settings.roi == Roi(0, 0, width, height) else settings.roi
    kept_geometry = settings.geometry if "geometry" in uses else None
    # Given limits are the ends of a profile over the same coordinate, and change it always.
    ends = () if "geometry" not in uses else ("q",) if kept_geometry is not None else ("r",)
    limits = _limits(settings, roi or Roi(0, 0, width, height), ends)
    if kept_geometry is None and ("qmin" in limits or "qmax" in limits):
        kept_geometry = settings.geometry
    heal = 1 if settings.heal and mask else None
    # Of a pattern, what was summed is multiplied: the pass is that over the counts.
    flat = 1 if settings.flat and analysis.result != "pattern" else None
    cx = cy = None
    if limits or heal or "cx" in uses or "cy" in uses:
        cx, cy = _centre(settings)
    elif flat and reduction.name == "moments" and None not in (settings.cx, settings.cy):
        cx, cy = _centre(settings)  # that moments in floating point are taken about
    return Plan(
        reduction=reduction.name,
        version=reduction.version,
        height=height,
        width=width,
        dtype=np.dtype(dtype).str,
        mask=mask,
        roi=roi,
        cx=cx,
        cy=cy,
        rmin=limits.get("rmin"),
        rmax=limits.get("rmax"),
        qmin=limits.get("qmin"),
        qmax=limits.get("qmax"),
        geometry=kept_geometry,
        bins=_bins(analysis, settings) if "bins" in uses else None,
        bin=settings.bin or 1 if "bin" in uses else None,
        extra=settings.extra if "extra" in uses else (),
        heal=heal,
        flat=flat,
    )


def _check(analysis: Analysis, settings: Settings, height: int, width: int, dtype: str) -> None:
    """Refuse what is out of range by itself, without regard to the beam.

    The beam centre is known of every scan, needed or not: it is checked where it is used.
    """
    pixel = np.dtype(dtype)
    if pixel.kind != "u" or pixel.itemsize > 4:
        raise ValueError(f"frames of {pixel.name}: only uint8, uint16 and uint32 can be analysed")
    for name, parameter in PARAMETERS.items():
        value = getattr(settings, name)
        if value is None or name in ("cx", "cy"):
            continue
        if name not in analysis.parameters:
            raise ValueError(f"there is no parameter {name}")
        parameter.check(value)
    roi = settings.roi
    if roi is not None and (roi.x + roi.w > width or roi.y + roi.h > height):
        raise ValueError(
            f"roi={roi.x},{roi.y},{roi.w},{roi.h} reaches beyond the detector"
            f" ({width} columns, {height} rows)"
        )
    columns, rows = (width, height) if roi is None else (roi.w, roi.h)
    if settings.bin is not None and settings.bin > min(columns, rows):
        raise ValueError(f"bin={settings.bin} is more than the {columns} x {rows} pixels")


def _centre(settings: Settings) -> tuple[float, float]:
    """The beam centre, in range, as floats (an integer packs to another plan), without -0.0."""
    cx, cy = beam_centre(settings)
    PARAMETERS["cx"].check(cx)
    PARAMETERS["cy"].check(cy)
    return float(cx) + 0.0, float(cy) + 0.0


def _bins(analysis: Analysis, settings: Settings) -> int:
    if settings.bins is not None:
        return settings.bins
    defaults = dict(analysis.defaults)
    if "bins" not in defaults:
        raise ValueError("the number of bins is unknown: give bins=")
    return int(defaults["bins"])


def _limits(settings: Settings, area: Roi, ends: tuple[str, ...]) -> dict[str, float]:
    """The limits that exclude pixels of `area`, or that end a profile (coordinates `ends`)."""
    limits: dict[str, float] = {}
    for coordinate in ("r", "q"):
        low, high = f"{coordinate}min", f"{coordinate}max"
        given = {
            name: float(value) + 0.0
            for name in (low, high)
            if (value := getattr(settings, name)) is not None
        }
        if not given:
            continue
        _check_order(low, high, given, coordinate in ends)
        nearest, farthest = _span(coordinate, settings, area)
        if given.get(low, 0.0) > farthest * (1 + _SLACK):
            raise ValueError(
                f"{low}={given[low]:g} selects nothing: the farthest pixel is at {farthest:.6g}"
            )
        if given.get(high, np.inf) < nearest * (1 - _SLACK):
            raise ValueError(
                f"{high}={given[high]:g} selects nothing: the nearest pixel is at {nearest:.6g}"
            )
        if coordinate not in ends:
            if given.get(low, np.inf) <= nearest * (1 - _SLACK):
                del given[low]
            if given.get(high, 0.0) >= farthest * (1 + _SLACK):
                del given[high]
        limits |= given
    return limits


def _check_order(low: str, high: str, given: Mapping[str, float], profile: bool) -> None:
    """Refuse limits in the wrong order, or equal where a profile is to be binned between them."""
    if low not in given or high not in given:
        return
    if given[low] > given[high]:
        raise ValueError(f"{low}={given[low]:g} is more than {high}={given[high]:g}")
    if profile and given[low] == given[high]:
        raise ValueError(f"{low} and {high} are both {given[low]:g}: no room for bins")


def _span(coordinate: str, settings: Settings, area: Roi) -> tuple[float, float]:
    """Bounds of r (pixels) or q (1/nm) over the pixels of `area`, at most a pixel too wide."""
    cx, cy = _centre(settings)
    columns, rows = (area.x, area.x + area.w - 1), (area.y, area.y + area.h - 1)
    nearest = np.hypot(_distance(cx, *columns), _distance(cy, *rows))
    farthest = np.hypot(
        max(abs(cx - column) for column in columns), max(abs(cy - row) for row in rows)
    )
    r = np.array([nearest, farthest])
    if coordinate == "q":
        r = scattering_vector(r, _geometry(settings))
    return float(r[0]), float(r[1])


def _distance(centre: float, first: int, last: int) -> float:
    return max(first - centre, centre - last, 0.0)


def _geometry(settings: Settings) -> Geometry:
    if settings.geometry is None:
        raise ValueError(
            "q limits need wavelength, distance and pixel size, which are unknown:"
            " give rmin= and rmax= in pixels instead"
        )
    return settings.geometry

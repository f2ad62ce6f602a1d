"""What holds of several accounts of where the detector stood. Pure.

A user's word in geometry.toml goes first. Of the others, a calibration goes before the master; but
where they contradict each other none is used, because a wrong axis is worse than none.
"""

from __future__ import annotations

import math

import msgspec

from analysis.plan import Geometry
from dadafs.scans.beside.sidecars import Notes
from dadafs.scans.metadata.masters import TOLERANCE, Master, outside, within

UNITS = {"distance_m": "m", "wavelength_nm": "nm", "pixel_m": "m"}
WRITTEN = {"pixel_m": "pixel_um"}  # as geometry.toml has it


class Settled(msgspec.Struct, frozen=True):
    """The geometry of a scan."""

    cx: float | None = None
    cy: float | None = None
    geometry: Geometry | None = None
    values: dict[str, float | None] = {}
    """Distance, wavelength, pixel: each for itself."""
    sources: dict[str, str] = {}
    problems: tuple[str, ...] = ()
    withheld: dict[str, str] = {}
    """Why `geometry` or `centre` is not used although something gives it."""


def settle(master: Master, notes: Notes, height: int, width: int) -> Settled:
    """Compare what master, calibration and user say."""
    if notes.refused:
        line = notes.refused[0]
        return Settled(problems=notes.refused, withheld={"geometry": line, "centre": line})
    values: dict[str, float | None] = {}
    sources: dict[str, str] = {}
    wrong: dict[str, str] = {}
    claims = _claims(master, notes)
    tilt = _tilted(notes, claims, height, width)
    for key in UNITS:
        values[key], line = _one(key, claims, sources)
        line = line or (master.withheld.get(key, "") if values[key] is None else "")
        if line:
            wrong[key] = line
    cx, cy, line = _centre(master, claims, sources, height, width)
    withheld = {"centre": line} if line else {}
    geometry = None
    if tilt:
        withheld["geometry"] = tilt
    elif wrong:
        withheld["geometry"] = next(iter(wrong.values()))
    else:
        distance, wavelength, pixel = (values[key] for key in UNITS)
        if distance is not None and wavelength is not None and pixel is not None:
            geometry = Geometry(distance, wavelength, pixel)
    lines = [tilt, *wrong.values(), line]
    return Settled(
        cx,
        cy,
        geometry,
        values,
        sources,
        tuple(dict.fromkeys(one for one in lines if one)),
        withheld,
    )


def _claims(master: Master, notes: Notes) -> dict[str, list[tuple[float, str]]]:
    """(value, source) by what it is; where the user has spoken, there is only that."""
    found: dict[str, list[tuple[float, str]]] = {}
    for key in (*UNITS, "cx", "cy"):
        given = notes.given.get(key)
        if given is not None:
            found[key] = [(float(given.value), given.source)]
            continue
        found[key] = []
        if notes.poni is not None:
            value = getattr(notes.poni, key)
            if value is not None:
                found[key].append((value, notes.poni.source))
        told = getattr(master, key) if key in ("cx", "cy") else master.metadata.get(key)
        if isinstance(told, int | float):
            found[key].append((float(told), master.sources.get(key, "master")))
    return found


def _one(
    key: str, claims: dict[str, list[tuple[float, str]]], sources: dict[str, str]
) -> tuple[float | None, str]:
    """The value all agree on, and why there is none."""
    told = claims[key]
    if not told:
        return None, ""
    first, source = told[0]
    for other, another in told[1:]:
        if abs(other - first) > TOLERANCE * abs(first):
            unit = UNITS[key]
            return None, (
                f"{key.rpartition('_')[0]} is {first:.6g} {unit} in {source} and {other:.6g} {unit}"
                f" in {another}: none is used; give {WRITTEN.get(key, key)} in geometry.toml"
            )
    sources[key] = source
    return first, ""


def _centre(
    master: Master,
    claims: dict[str, list[tuple[float, str]]],
    sources: dict[str, str],
    height: int,
    width: int,
) -> tuple[float | None, float | None, str]:
    """Column, row, and why they are not known."""
    xs, ys = claims["cx"], claims["cy"]
    if not xs or not ys:
        if xs or ys:
            given, lacking = ("cx", "cy") if xs else ("cy", "cx")
            line = f"{(xs or ys)[0][1]} gives {given}, but nothing gives {lacking}"
            return None, None, line
        return None, None, master.withheld.get("centre", "")
    for key, told, size in (("cx", xs, width), ("cy", ys, height)):
        for other, another in told[1:]:
            if abs(other - told[0][0]) > TOLERANCE * size:
                line = (
                    f"the beam centre's {key} is {told[0][0]:.6g} in {told[0][1]} and {other:.6g}"
                    f" in {another}: none is used; give cx and cy in geometry.toml"
                )
                return None, None, line
    cx, cy = xs[0][0], ys[0][0]
    if height and width and not within(cx, cy, height, width):
        return None, None, f"{outside(cx, cy, height, width)} ({xs[0][1]})"
    sources["cx"], sources["cy"] = xs[0][1], ys[0][1]
    return cx, cy, ""


def _tilted(
    notes: Notes, claims: dict[str, list[tuple[float, str]]], height: int, width: int
) -> str:
    """Why a calibration cannot be used without the tilt it has; empty when it can.

    Across a detector tilted by t a point at angle a from the beam appears displaced by about
    tan(t) tan(a) of its radius.
    """
    poni = notes.poni
    if poni is None or not poni.tilt_rad:
        return ""
    pixels = [value for value, _ in claims["pixel_m"]]
    if not pixels or not poni.distance_m:
        return ""
    reach = pixels[0] * math.hypot(height, width) / poni.distance_m
    error = math.tan(poni.tilt_rad) * reach
    if error <= TOLERANCE:
        return ""
    return (
        f"{poni.source}: the detector is tilted by {math.degrees(poni.tilt_rad):.2g} degrees, which"
        f" would change q by up to {100 * error:.2g} %: tilts are not supported"
    )

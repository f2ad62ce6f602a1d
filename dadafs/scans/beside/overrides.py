"""`geometry.toml`: what a user knows better than the metadata. Pure.

A file is taken whole or not at all. Of several, the nearest to the scan wins, value by value.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

import msgspec

from dadafs.scans.beside.commands import MAX_POINTS

NAME = b"geometry.toml"
READ_BYTES = 1 << 16
HC_NM_KEV = 1.23984198
SCAN = "scan"  # the table of tables by pattern
ORDERS = ("raster", "snake")
NUMBER, COUNT, TEXT = "number", "count", "text"

TABLES: dict[str, dict[str, tuple[str, float, float]]] = {
    "geometry": {  # kind, and from where to where it is believed
        "cx": (NUMBER, -1e5, 1e5),
        "cy": (NUMBER, -1e5, 1e5),
        "distance_m": (NUMBER, 1e-4, 1e3),
        "wavelength_nm": (NUMBER, 1e-5, 1e3),
        "energy_kev": (NUMBER, 1e-3, 1e5),
        "pixel_um": (NUMBER, 1e-2, 1e5),
        "poni": (TEXT, 0, 0),
    },
    "raster": {
        "horz": (COUNT, 1, MAX_POINTS),
        "vert": (COUNT, 1, MAX_POINTS),
        "first": (COUNT, 0, 1 << 40),
        "order": (TEXT, 0, 0),
    },
    "data": {"dataset": (TEXT, 0, 0)},
}
INSTEAD = {  # what people write: key -> key, and what to do to the value
    "energy_ev": "energy_kev, in keV",
    "distance": "distance_m, in metres",
    "distance_mm": "distance_m, in metres",
    "wavelength": "wavelength_nm, in nm",
    "wavelength_a": "wavelength_nm, in nm",
    "pixel": "pixel_um, in micrometres",
    "pixel_size": "pixel_um, in micrometres",
    "energy": "energy_kev, in keV",
    "beam_center_x": "cx",
    "beam_center_y": "cy",
}

Setting: TypeAlias = float | int | str


class Section(msgspec.Struct, frozen=True):
    """What one file says for the scans of one pattern."""

    pattern: str
    """Of names, or of paths below the file where it has a slash; empty for all."""
    settings: dict[str, Setting]


class Given(msgspec.Struct, frozen=True, array_like=True):
    """A value, and who gave it."""

    value: Setting
    source: str
    directory: bytes = b""
    """Of the file, for values that are paths."""


def read_overrides(text: bytes) -> list[Section]:
    """The sections of a file, those that count less first. ValueError, one line, when refused."""
    if len(text) > READ_BYTES:
        raise ValueError(f"more than {READ_BYTES} bytes")
    try:
        tree = tomllib.loads(text.decode())
    except (ValueError, RecursionError) as exc:
        raise ValueError(" ".join(str(exc).split())) from None
    by_pattern = tree.pop(SCAN, {})
    if not isinstance(by_pattern, dict):
        raise ValueError(f'{SCAN} must be tables such as [{SCAN}."run55_*".geometry]')
    sections = [Section("", _settings(tree, ""))]
    for pattern, tables in by_pattern.items():
        if not isinstance(tables, dict):
            raise ValueError(f'write [{SCAN}."{pattern}".geometry] and the like')
        if pattern in TABLES:
            raise ValueError(
                f"[{SCAN}.{pattern}] lacks the name of a scan: [{pattern}] is for all scans,"
                f' [{SCAN}."run55_*".{pattern}] for some'
            )
        sections.append(Section(pattern, _settings(tables, f'{SCAN}."{pattern}".')))
    return sections


def _settings(tables: Mapping[str, Any], above: str) -> dict[str, Setting]:
    found: dict[str, Setting] = {}
    for table, values in tables.items():
        if table not in TABLES:
            if not above and table in {key for keys in TABLES.values() for key in keys}:
                home = next(name for name, keys in TABLES.items() if table in keys)
                raise ValueError(f"{table} belongs into [{home}]")
            known = (*TABLES, SCAN) if not above else tuple(TABLES)
            raise ValueError(f"unknown table [{above}{table}]{_instead(table, known)}")
        if not isinstance(values, dict):
            raise ValueError(f"[{above}{table}] must be a table")
        for key, value in values.items():
            if key not in TABLES[table]:
                raise ValueError(
                    f"unknown key {key} in [{above}{table}]{_instead(key, TABLES[table])}"
                )
            found[key] = _checked(key, value, *TABLES[table][key])
    if "wavelength_nm" in found and "energy_kev" in found:
        raise ValueError(f"[{above}geometry] gives both wavelength_nm and energy_kev: give one")
    if float(found.get("horz", 1)) * float(found.get("vert", 1)) > MAX_POINTS:
        raise ValueError(
            f"[{above}raster] {found['horz']} x {found['vert']} points are more than {MAX_POINTS}"
        )
    return found


def _instead(name: str, known: Iterable[str]) -> str:
    if (better := INSTEAD.get(name.lower())) is not None:
        return f"; write {better}"
    names = list(known)
    near = get_close_matches(name.lower(), names, n=2, cutoff=0.5)
    return f"; did you mean {' or '.join(near)}?" if near else f"; known are {', '.join(names)}"


def _checked(key: str, value: object, kind: str, low: float, high: float) -> Setting:
    if kind == TEXT:
        if not isinstance(value, str) or not value or not value.isprintable():
            raise ValueError(f"{key} = {_shown(value)} must be a text in quotes")
        if key == "order" and value not in ORDERS:
            raise ValueError(f'order = "{value}": give "raster" or "snake"')
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{key} = {_shown(value)} must be a number")
    if kind == COUNT and not isinstance(value, int):
        raise ValueError(f"{key} = {_shown(value)} must be a whole number")
    if not (math.isfinite(value) and low <= value <= high):
        raise ValueError(f"{key} = {value:g} is not from {low:g} to {high:g}")
    return value if kind == COUNT else float(value)


def _shown(value: object) -> str:
    return " ".join(str(value).split())[:40]


def merged(files: Sequence[tuple[bytes, str, Sequence[Section]]], scan: bytes) -> dict[str, Given]:
    """What holds for the scan of that path; `files`, nearest first, are (directory, path, content).

    Keys that exclude each other (wavelength and energy) count as one. Lengths are in metres.
    """
    found: dict[str, Given] = {}
    for directory, path, sections in reversed(files):
        for section in sections:
            if section.pattern and not _matches(section.pattern, directory, scan):
                continue
            where = f' [{SCAN}."{section.pattern}"]' if section.pattern else ""
            for key, value in section.settings.items():
                given = Given(value, f"{path}{where}: {key}", directory)
                name, given = _converted(key, given)
                found[name] = given
    return found


def _converted(key: str, given: Given) -> tuple[str, Given]:
    value = given.value
    if key == "energy_kev" and isinstance(value, float):
        return "wavelength_nm", msgspec.structs.replace(given, value=HC_NM_KEV / value)
    if key == "pixel_um" and isinstance(value, float):
        return "pixel_m", msgspec.structs.replace(given, value=value * 1e-6)
    return key, given


def _matches(pattern: str, directory: bytes, scan: bytes) -> bool:
    path = scan.decode("utf-8", "surrogateescape")
    if "/" not in pattern:
        return fnmatchcase(path.rpartition("/")[2], pattern)
    above = directory.decode("utf-8", "surrogateescape")
    return fnmatchcase(path[len(above) + 1 if above else 0 :], pattern)

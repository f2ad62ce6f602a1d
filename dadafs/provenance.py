"""How a result came about: the one account of it, for h5, mat, NAME.json and attributes. Pure."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from hashlib import blake2b

import msgspec

from analysis.definition import Analysis, Settings
from analysis.parameters import PARAMETERS
from analysis.plan import Plan, Roi
from dadafs import __version__
from dadafs.containers.base import Fact, Provenance, plain
from dadafs.paths import format_value
from dadafs.planning import Layout
from dadafs.scans.model import Scan

GIVEN = "path"
"""Source of what the path itself says."""
DEFAULT = "default"
MASK_DIGEST_BYTES = 8


def of_frame(
    number: int, scan: Scan, settings: Settings, plan: Plan, given: Collection[str]
) -> Provenance:
    """Of one detector frame; `given` are the names of the parameters that the path has."""
    facts = (Fact("frame", number), Fact("definition", "the detector's own numbers"))
    parameters = tuple(_parameters(scan, settings, ("roi", "bin"), given))
    return Provenance(_origin(scan, plan, facts, given), parameters)


def of_analysis(
    analysis: Analysis,
    scan: Scan,
    settings: Settings,
    plan: Plan,
    layout: Layout,
    given: Collection[str],
) -> Provenance:
    """Of the result of an analysis; `given` are the names of the parameters that the path has."""
    channels = [analysis.channels[number] for number in layout.channels]
    facts = [Fact("analysis", analysis.name), Fact("definition", analysis.definition)]
    facts += [Fact(f"channel_{one.name}", one.meaning) for one in channels if one.meaning]
    detector_plane = _parameters(scan, settings, analysis.parameters, given)
    return Provenance(
        _origin(scan, plan, facts, given), (*_raster(scan, layout, given), *detector_plane)
    )


def _origin(
    scan: Scan, plan: Plan, facts: Iterable[Fact], given: Collection[str]
) -> tuple[Fact, ...]:
    return (
        Fact("program", "dadafs"),
        Fact("version", __version__),
        Fact("scan", plain(os.fsdecode(scan.path))),
        Fact("scan_version", scan.version),
        *facts,
        Fact("pass", f"{plan.reduction} {plan.version}"),
        *_mask(scan, plan, given),
        *(Fact("problems", plain("; ".join(scan.problems))) for _ in scan.problems[:1]),
    )


def _mask(scan: Scan, plan: Plan, given: Collection[str]) -> Iterable[Fact]:
    """Which pixels are left out, by a digest: equal masks have equal ones."""
    if plan.mask:
        digest = blake2b(plan.mask, digest_size=MASK_DIGEST_BYTES).hexdigest()
        source = GIVEN if "mask" in given else plain(scan.sources.get("mask", ""))
        yield Fact("mask_digest", digest, source=source)


def _raster(scan: Scan, layout: Layout, given: Collection[str]) -> Iterable[Fact]:
    recorded = DEFAULT if scan.raster is None else plain(scan.raster.source)

    def fact(name: str, value: str | int, unit: str = "") -> Fact:
        return Fact(name, value, unit, GIVEN if name in given else recorded)

    yield fact("horz", layout.horz, "points")
    yield fact("vert", layout.vert, "lines")
    yield fact("first", layout.first)
    yield fact("order", "snake" if layout.snake else "raster")
    if layout.region is not None:
        yield fact("region", format_value(layout.region), "points")


def _parameters(
    scan: Scan, settings: Settings, names: Iterable[str], given: Collection[str]
) -> Iterable[Fact]:
    """Those of these parameters that have a value, and the geometry, with where each is from."""

    def source(name: str) -> str:
        return GIVEN if name in given else plain(scan.sources.get(name, DEFAULT))

    known = msgspec.structs.asdict(settings)
    for name in names:
        value = known.get(name)
        if value is not None:
            text = format_value(value) if isinstance(value, Roi) else value
            yield Fact(name, text, PARAMETERS[name].unit, source(name))
    for name, value in settings.extra:
        yield Fact(name, value, source=source(name))
    if settings.geometry is not None:
        for field, unit in (("distance_m", "m"), ("wavelength_nm", "nm"), ("pixel_m", "m")):
            yield Fact(field, float(getattr(settings.geometry, field)), unit, source(field))

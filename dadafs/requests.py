"""Requests made concrete: what a parsed path asks of one scan. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np

from analysis.analyses import ANALYSES
from analysis.definition import Analysis, Settings
from analysis.parameters import PARAMETERS, Parameter
from analysis.plan import Plan, Roi, pack_mask, unpack_mask
from analysis.planning import plan_for
from analysis.reductions import REDUCTIONS
from analysis.reductions.shapes import value_type
from dadafs.containers import CONTAINERS, Container, Content, Shell
from dadafs.containers.base import Fact, FileTable, FrameRun, Provenance
from dadafs.contents import (
    VIEW_PARAMETERS,
    WHEELS,
    analysis_content,
    channels_shown,
    frame_content,
    settled,
    view_of,
)
from dadafs.corrections import (
    NOTHING,
    Chosen,
    Correction,
    Supplies,
    chosen_frames,
    correction_of,
    corrections_of,
    facts,
    refusals_of,
    spans_of,
)
from dadafs.errors import NoSuchPath
from dadafs.paths import FRAMES, Grammar, Request, Value, format_value
from dadafs.planning import Layout
from dadafs.provenance import of_analysis, of_frame
from dadafs.rastering import RASTER_PARAMETERS, REGION, layout_of
from dadafs.scans.model import ChunkRun, Scan

FRAMES_PASS = "frame"
MAX_NUMBERS = 1 << 34  # 137 GB: 10^6 profiles of 4096 bins and three channels
FRAME_PARAMETERS = {name: PARAMETERS[name] for name in ("roi", "bin")} | VIEW_PARAMETERS


def parameters_of(analysis: Analysis) -> dict[str, Parameter]:
    """All parameters that a path may give to an analysis, by name, in the order of listings."""
    table = dict(RASTER_PARAMETERS)
    if analysis.result in ("pattern", "image"):
        table["region"] = REGION
    known = PARAMETERS | {parameter.name: parameter for parameter in analysis.own}
    table |= {name: known[name] for name in analysis.parameters}
    table |= corrections_of(analysis)
    names = tuple(channel.name for channel in analysis.every_channel)
    if len(names) > 1:
        table["channel"] = Parameter("channel", "choice", None, None, "", "only this", names)
    if analysis.result != "stack":
        table |= VIEW_PARAMETERS
    return table


def grammar() -> Grammar:
    """The paths that the known analyses and containers make possible."""
    tables: dict[str, Mapping[str, Parameter]] = {FRAMES: FRAME_PARAMETERS}
    tables |= {analysis.name: parameters_of(analysis) for analysis in ANALYSES.values()}
    refusals = {analysis.name: refusals_of(analysis) for analysis in ANALYSES.values()}
    return Grammar(tables, tuple(CONTAINERS), refusals)


@dataclass(frozen=True, slots=True)
class Result:
    """All about one result of one scan, known before anything is computed."""

    request: Request
    scan: Scan
    analysis: Analysis | None
    """None for a frame."""
    settings: Settings
    plan: Plan
    value_shape: tuple[int, ...]
    """Of the values the plan leaves of one frame, or of many for a pattern."""
    value_dtype: np.dtype[Any]
    layout: Layout
    content: Content
    container: Container
    correction: Correction | None = None
    """What is done to the sums before the quantities follow from them."""
    corrected: tuple[Fact, ...] = ()
    """What the provenance says of masks, monitors and backgrounds."""

    @property
    def provenance(self) -> Provenance:
        """How it comes about, whatever its container."""
        given = [name for name, _ in self.request.parameters]
        if self.analysis is None:
            number = self.layout.first
            made = of_frame(number, self.scan, self.settings, self.plan, given)
        else:
            made = of_analysis(
                self.analysis, self.scan, self.settings, self.plan, self.layout, given
            )
        scan, spans = self.scan, spans_of(self.layout, self.correction)
        return replace(
            made,
            parameters=(*made.parameters, *self.corrected),
            files=FileTable(scan.files, scan.name_bytes) if scan.files else None,
            frames=tuple(FrameRun(span.start, len(span)) for span in spans),
        )

    @property
    def chosen(self) -> list[Chosen]:
        """The frames that it needs, its own first."""
        return chosen_frames(self.scan, self.layout, self.correction)

    @property
    def flat_tiles(self) -> ChunkRun | None:
        """The chunks of the flat field, where one is asked for."""
        flat = self.scan.flat
        return flat.tiles if self.settings.flat and flat is not None else None

    def settled(self) -> Result:
        """With all coordinates, where some follow from the pixels: takes up to 0.3 s, pure."""
        return replace(self, content=settled(self.content, self.plan))


def shell_of(result: Result) -> Shell:
    """The container around the result's array."""
    return result.container.shell(result.content)


def extensions(request: Request, scan: Scan, supplies: Supplies = NOTHING) -> tuple[str, ...]:
    """The containers that this result exists in, whatever the one of `request`."""
    found = []
    for extension in CONTAINERS:
        try:
            concrete(replace(request, extension=extension), scan, supplies)
        except NoSuchPath:
            continue
        found.append(extension)
    return tuple(found)


def concrete(request: Request, scan: Scan, supplies: Supplies = NOTHING) -> Result:
    """What `request` means for `scan`; NoSuchPath where the scan has no such result.

    `supplies` are what the request names outside the scan.
    """
    if not scan.frames:
        reason = scan.problems[0] if scan.problems else "it has no frames"
        raise NoSuchPath(f"nothing can be computed from this scan: {reason}")
    values = dict(request.parameters)
    roi = values.get("roi")
    if isinstance(roi, Roi) and (roi.x + roi.w > scan.width or roi.y + roi.h > scan.height):
        raise NoSuchPath(
            f"roi={format_value(roi)} reaches beyond the detector"
            f" ({scan.width} columns, {scan.height} rows)"
        )
    if request.analysis == FRAMES:
        result = _frame(request, scan, values)
    else:
        result = _analysis(request, scan, values, supplies)
    if result.content.count > MAX_NUMBERS:
        raise NoSuchPath(
            f"{request.analysis}: {result.content.count} numbers are more than {MAX_NUMBERS}"
        )
    refusal = result.container.refuses(result.content)
    if refusal is not None:
        raise NoSuchPath(f"{request.analysis}: {refusal}")
    if result.container.provenance:
        content = replace(result.content, provenance=result.provenance)
        result = replace(result, content=content)
    return result


def _frame(request: Request, scan: Scan, values: dict[str, Value]) -> Result:
    number = request.frame
    assert number is not None
    if number >= scan.frames:
        raise NoSuchPath(f"the scan has {scan.frames} frames, 0 to {scan.frames - 1}")
    settings = _settings(values)
    if settings.bin is not None:
        height, width = _window(settings.roi, scan)
        if settings.bin > min(height, width):
            raise NoSuchPath(f"bin={settings.bin} is more than the {width} x {height} pixels")
    plan = Plan(
        reduction=FRAMES_PASS,
        version=REDUCTIONS[FRAMES_PASS].version,
        height=scan.height,
        width=scan.width,
        dtype=scan.dtype,
        mask=b"" if settings.bin is None else scan.mask,
        roi=settings.roi,
        bin=settings.bin,
    )
    shape, dtype = value_type(plan)
    layout = Layout(scan.frames, 1, 1, number, cell=shape, patch_frames=1, flat=True)
    container = CONTAINERS[request.extension]
    view = view_of(values, container, wheel=False)
    if view is not None and dtype.kind == "u":
        shown = msgspec.structs.replace(plan, mask=scan.mask)
        view = replace(view, blank=plan.sentinel, plane=shown)
    content = frame_content(settings, layout.shape, dtype, container, view)
    return Result(request, scan, None, settings, plan, shape, dtype, layout, content, container)


def _analysis(request: Request, scan: Scan, values: dict[str, Value], supplies: Supplies) -> Result:
    analysis = ANALYSES[request.analysis]
    chosen = values.get("channel")
    if chosen is not None:
        analysis, number = analysis.with_channel(str(chosen))
    settings = _settings(values, scan, analysis)
    correction = correction_of(values, scan, supplies)
    mask = scan.mask if supplies.mask is None else supplies.mask.pixels
    if supplies.background is not None:  # what has no background does not count
        mask = _united(mask, supplies.background.mask, scan.height, scan.width)
    try:
        plan = _plan(analysis, settings, scan.height, scan.width, scan.dtype, mask)
    except ValueError as exc:
        raise NoSuchPath(f"{analysis.name}: {exc}{_because(settings, scan)}") from exc
    value_shape, value_dtype = value_type(plan)
    container = CONTAINERS[request.extension]
    channels = channels_shown(analysis, container) if chosen is None else (number,)
    layout = layout_of(values, scan, channels, _cell(analysis, value_shape))
    wheel = container.picture and chosen is None and analysis.name in WHEELS
    view = view_of(values, container, wheel=wheel)
    if view is not None and analysis.result == "pattern":
        view = replace(view, plane=plan)
    if correction is not None or settings.flat:
        analysis = replace(analysis, dtype="<f8")
    content = analysis_content(analysis, scan, settings, plan, layout, value_shape, container, view)
    return Result(
        request,
        scan,
        analysis,
        settings,
        plan,
        value_shape,
        value_dtype,
        layout,
        content,
        container,
        correction,
        tuple(facts(values, scan, supplies, correction)),
    )


def _cell(analysis: Analysis, value_shape: tuple[int, ...]) -> tuple[int, ...]:
    """What one channel holds of one frame."""
    match analysis.result:
        case "map":
            return ()
        case "stack":
            return value_shape[1:]
        case _:
            return value_shape[-2:]


@lru_cache(64)
def _plan(
    analysis: Analysis, settings: Settings, height: int, width: int, dtype: str, mask: bytes
) -> Plan:
    return plan_for(analysis, settings, height, width, dtype, mask)


@lru_cache(16)
def _united(one: bytes, other: bytes, height: int, width: int) -> bytes:
    """Pixels that are invalid by either of two masks."""
    if one == other or not other:
        return one
    shape = height, width
    return pack_mask(unpack_mask(one, shape) | unpack_mask(other, shape))


def _because(settings: Settings, scan: Scan) -> str:
    """Why what this result needs is not known, where the scan's files do say it."""
    reasons = []
    if settings.cx is None or settings.cy is None:
        reasons.append(scan.withheld.get("centre"))
    if settings.geometry is None and (settings.qmin is not None or settings.qmax is not None):
        reasons.append(scan.withheld.get("geometry"))
    return "".join(f" ({reason})" for reason in dict.fromkeys(reasons) if reason)


def _settings(
    values: Mapping[str, Value], scan: Scan | None = None, analysis: Analysis | None = None
) -> Settings:
    """The detector-plane parameters, with the defaults of scan and analysis filled in."""
    fields: dict[str, Any] = {
        field: values[field] for field in Settings.__struct_fields__ if field in values
    }
    if scan is not None:
        for name in ("cx", "cy"):
            if name not in fields and getattr(scan, name) is not None:
                fields[name] = getattr(scan, name)
        fields |= {"geometry": scan.geometry, "height": scan.height, "width": scan.width}
    defaults: dict[str, float] = {} if analysis is None else dict(analysis.defaults)
    own = () if analysis is None else tuple(sorted(p.name for p in analysis.own))
    fields["extra"] = tuple((name, _number(values.get(name, defaults[name]))) for name in own)
    return msgspec.convert({**defaults, **fields}, Settings, from_attributes=True)


def _window(roi: Roi | None, scan: Scan) -> tuple[int, int]:
    return (scan.height, scan.width) if roi is None else (roi.h, roi.w)


def _number(value: Value) -> float:
    assert isinstance(value, int | float)
    return float(value)

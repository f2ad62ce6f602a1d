"""Masks, monitors, backgrounds, flat fields: what a request names, and what it means for a result.
Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.corrections import factors
from analysis.definition import Analysis
from analysis.parameters import Parameter
from dadafs.containers.base import Fact
from dadafs.errors import NoSuchPath
from dadafs.paths import Value, frame_range
from dadafs.planning import Layout
from dadafs.scans.model import Attributes, Mask, Monitor, Scan
from dadafs.scans.names import MASKS, show

MASK, NORM, BACKGROUND, FLAT = "mask", "norm", "background", "flat"

_PARAMETERS = (
    Parameter(
        MASK,
        "file",
        None,
        None,
        "",
        "a file beside the scan or above it: pixels that are not 0 in it do not count",
        MASKS,
    ),
    Parameter(
        NORM, "name", None, None, "", "column of the SPEC or FIO file: counts per mean of this"
    ),
    Parameter(
        BACKGROUND,
        "frames",
        None,
        None,
        "",
        "less the mean of these frames, e.g. 0..99, or of the scan of that name beside",
    ),
)


def corrections_of(analysis: Analysis) -> dict[str, Parameter]:
    """The corrections that have a meaning for an analysis, by name."""
    refused = refusals_of(analysis)
    return {one.name: one for one in _PARAMETERS if one.name not in refused}


def refusals_of(analysis: Analysis) -> dict[str, str]:
    """Why an analysis lacks some of them, by name."""
    reason = analysis.uncorrected or "it is not made of sums of counts"
    refused = {}
    if analysis.additive is None:
        refused = {NORM: reason, BACKGROUND: reason}
    elif not analysis.additive.linear:
        refused = {BACKGROUND: reason}
    return refused


@dataclass(frozen=True, slots=True)
class Supplies:
    """What a request names outside its scan, as the server found it."""

    mask: Mask | None = None
    monitor: Monitor | None = None
    background: Scan | None = None
    """Another scan."""
    background_monitor: Monitor | None = None
    """The same column while the other scan was recorded."""

    def version(self, scan: Scan) -> str:
        """Of the scan and of all this: another one, other numbers."""
        parts = [scan.version]
        if self.mask is not None:
            parts.append(self.mask.digest)
        for monitor in (self.monitor, self.background_monitor):
            if monitor is not None:
                parts.append(monitor.digest())
        if self.background is not None:
            parts.append(self.background.version)
        return "-".join(parts)

    def sources(self) -> Iterator[Attributes]:
        """Of the files whose times count, and which who reads a result must be allowed to read."""
        if self.mask is not None:
            yield self.mask.attributes
        if self.background is not None:
            yield self.background.attributes


NOTHING = Supplies()


@dataclass(frozen=True, slots=True)
class Background:
    """Frames whose mean is subtracted."""

    scan: Scan
    frames: range
    monitor: Monitor | None


@dataclass(frozen=True, slots=True)
class Correction:
    """What is done to the parts of a result."""

    monitor: Monitor | None = None
    background: Background | None = None

    def factors(self) -> NDArray[np.float64] | None:
        """Of each frame of the scan (frames,); None without normalisation."""
        return None if self.monitor is None else factors(_array(self.monitor), self.mean())

    def background_factors(self) -> NDArray[np.float64] | None:
        """The same of the scan of the background: both are scaled to the same monitor."""
        if self.background is None or self.background.monitor is None:
            return None
        return factors(_array(self.background.monitor), self.mean())

    def mean(self) -> float:
        """Of the monitor, over all frames of the scan that have it."""
        assert self.monitor is not None
        return float(np.nanmean(_array(self.monitor)))


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """Frames of a scan that a result needs: its own, or those of its background."""

    scan: Scan
    layout: Layout
    factors: NDArray[np.float64] | None = None
    """Of every frame of the scan; those that are NaN are left out."""

    @property
    def usable(self) -> NDArray[np.bool_] | None:
        """Which frames of the scan are not left out; None for all."""
        return None if self.factors is None else ~np.isnan(self.factors)


def chosen_frames(scan: Scan, layout: Layout, correction: Correction | None) -> list[Chosen]:
    """The frames of a result, and those of its background where it has one."""
    if correction is None:
        return [Chosen(scan, layout)]
    chosen = [Chosen(scan, layout, correction.factors())]
    background = correction.background
    if background is not None:
        frames, factors = background.frames, correction.background_factors()
        of = Layout(background.scan.frames, len(frames), 1, frames.start)
        chosen.append(Chosen(background.scan, of, factors))
    return chosen


def spans_of(layout: Layout, correction: Correction | None) -> list[range]:
    """Runs of frames with those of a result, and with those of its background where it has one."""
    background = None if correction is None else correction.background
    return [layout.span] if background is None else [layout.span, background.frames]


def correction_of(values: Mapping[str, Value], scan: Scan, supplies: Supplies) -> Correction | None:
    """What `values` ask for; None where nothing is to be done to the parts. NoSuchPath."""
    background = None
    if BACKGROUND in values:
        background = _background(str(values[BACKGROUND]), scan, supplies)
    if values.get(FLAT):
        for one in (scan, supplies.background):
            if one is not None and (why := _flat_refusal(one)):
                raise NoSuchPath(f"flat=1: {why}")
    if supplies.monitor is None and background is None:
        return None
    return Correction(supplies.monitor, background)


def _flat_refusal(scan: Scan) -> str:
    if scan.flat is None:
        return f"the master of {show(scan.path)} has no flat field"
    return scan.flat.refusal((scan.height, scan.width))


def _background(text: str, scan: Scan, supplies: Supplies) -> Background:
    frames = frame_range(text)
    if frames is not None:
        if frames.stop > scan.frames:
            raise NoSuchPath(
                f"background={text}: the scan has {scan.frames} frames, 0 to {scan.frames - 1}"
            )
        return Background(scan, frames, supplies.monitor)
    other = supplies.background
    assert other is not None
    if not other.frames:
        raise NoSuchPath(f"background={text}: that scan has no frames that can be read")
    kinds = [(one.height, one.width, one.dtype) for one in (scan, other)]
    if kinds[0] != kinds[1]:
        said = " and ".join(f"{height} x {width} {dtype}" for height, width, dtype in kinds)
        raise NoSuchPath(f"background={text}: the frames differ, {said}")
    return Background(other, range(other.frames), supplies.background_monitor)


def facts(
    values: Mapping[str, Value], scan: Scan, supplies: Supplies, correction: Correction | None
) -> Iterator[Fact]:
    """What has been corrected, by what, for the provenance."""
    if supplies.mask is not None:
        yield Fact(MASK, str(values[MASK]), source=supplies.mask.source)
    if values.get(FLAT) and scan.flat is not None and scan.flat.tiles is not None:
        yield Fact("flatfield", scan.flat.source, source=show(scan.flat.tiles.path))
    if correction is None:
        return
    if correction.monitor is not None:
        yield Fact(NORM, correction.monitor.column, source=correction.monitor.source)
        yield Fact("norm_mean", correction.mean(), source=correction.monitor.source)
    background = correction.background
    if background is not None:
        path = background.scan.path.decode(errors="replace")
        yield Fact(BACKGROUND, str(values[BACKGROUND]), source=path)
        yield Fact("background_frames", len(background.frames), source=path)
        yield Fact("background_version", background.scan.version, source=path)


def _array(monitor: Monitor) -> NDArray[np.float64]:
    return np.frombuffer(monitor.values, "<f8")

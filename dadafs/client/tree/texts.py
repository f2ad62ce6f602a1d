"""The texts of the tree: README.txt at every level, scan.json. Pure."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from analysis.analyses import ANALYSES
from analysis.definition import Analysis, Channel
from analysis.parameters import Parameter
from dadafs.containers import CONTAINERS
from dadafs.contents import WHEELS
from dadafs.paths import FRAMES
from dadafs.rastering import raster
from dadafs.requests import FRAME_PARAMETERS, parameters_of
from dadafs.scans.model import DataFile, Scan

_CONTAINER_LIST = ", ".join(CONTAINERS)

_BESIDE = """\
Beside each result, not listed: NAME.json, how it comes about (files, parameters, frames that are
missing or corrupt), and NAME.npy.progress, one line on how far it is computed."""


def root_readme(example: str | None) -> str:
    """How to use the tree; `example` is the path of a scan that is in it."""
    scan = example or "scan42"
    hint = "" if example else "(No scan was found at the top of this tree; scan42 is made up.)\n"
    analyses = "\n".join(f"  {a.name:<12} {a.title}" for a in ANALYSES.values())
    return f"""\
This is dadafs: raw scans, and their analyses as files.

Every scan is a directory. Opening a file in it computes what its name says, and remembers it:

  cp {scan}/darkfield/full.tif /tmp/                      the scan's own raster
  cp {scan}/darkfield/horz=51/vert=10.npy /tmp/           51 points a line, 10 lines
  cp {scan}/darkfield/roi=900,900,200,200/full.npy /tmp/  some of the detector
  cp {scan}/frames/000007.npy /tmp/                       one detector frame
  cp {scan}/radial/bins=100.h5 /tmp/                      profiles with their axis, as NeXus
  cp {scan}/dpc/mask=gaps.tif/full.npy /tmp/              with a mask that lies beside the scan
  cp {scan}/darkfield/norm=ic1/full.npy /tmp/             per count of a monitor in its log
  cp {scan}/darkfield/background=0..9/full.npy /tmp/      less the mean of frames, or of a scan
  cp {scan}/orientation/heal=1/full.npy /tmp/             gaps filled from opposite to them
  cp {scan}/orientation/full.png /tmp/                    to look at
  cat {scan}/README.txt {scan}/scan.json                  what a scan is and has
  ls {scan}/raw                                           its own files, byte for byte
{hint}
Analyses:
{analyses}

Parameters are directories NAME=VALUE in any order, the last one carries the ending; `full` stands
for no further parameter. Endings: {_CONTAINER_LIST}.
Pictures (.png) are not listed, so that file managers do not compute thumbnails; they are there.
Nor are full.json, how full.* comes about, and full.npy.progress, one line on how far it is.
A name that means nothing does not exist; `dadafs explain PATH`, or .dadafs/errors.log, says why
and what is near. .dadafs/stats.json counts what was computed and what came from caches.
The tree is read-only. Points whose frames are missing or corrupt are NaN.
"""


def scan_readme(scan: Scan) -> str:
    """What is in one scan."""
    name = os.fsdecode(scan.path).rsplit("/", 1)[-1]
    if not scan.frames:
        lines = "\n".join(f"  {problem}" for problem in scan.problems) or "  it has no frames"
        return f"""\
{name} cannot be analysed:
{lines}

raw/ holds its files, byte for byte.
"""
    horz, vert, snake = raster({}, scan)
    origin = scan.raster.source if scan.raster else "no metadata gives one, so one line"
    centre = "unknown" if scan.cx is None else f"column {scan.cx}, row {scan.cy}"
    problems = "".join(f"  problem: {problem}\n" for problem in scan.problems)
    analyses = "\n".join(f"  {a.name + '/':<13}{a.title}" for a in ANALYSES.values())
    return f"""\
{name}: {scan.frames} frames of {scan.width} x {scan.height} pixels ({scan.dtype})
  raster: {horz} points x {vert} lines{", snake" if snake else ""} ({origin})
  beam centre: {centre}
{problems}
  scan.json    all metadata, where it came from, which frames are there
  raw/         the scan's own files, byte for byte
  frames/      000000.npy to {scan.frames - 1:06d}.npy, and other endings
{analyses}

For example:
  cp darkfield/full.tif /tmp/
  cp darkfield/horz={horz}/vert={vert}.npy /tmp/
  cat darkfield/full.json                               how darkfield/full.* comes about
Each directory has a README.txt with its parameters.
"""


def analysis_readme(name: str) -> str:
    """What an analysis computes and takes; also for `frames`."""
    if name == FRAMES:
        return f"""\
Detector frames: 000007.npy is frame 7, in the detector's own dtype with its raw values; the
largest value marks pixels that were not measured. Endings: {_CONTAINER_LIST}.
{_BESIDE}
With bin=N: sums over the valid pixels of N x N squares, float64, NaN where none is valid.

Parameters, for instance roi=900,900,200,200/bin=2/000007.npy:
{_table(FRAME_PARAMETERS.values())}
"""
    analysis = ANALYSES[name]
    return f"""\
{name}: {analysis.title}
  {analysis.definition}

Result: {analysis.result}, array axes {_axes(analysis)}, {analysis.result_dtype} (float32 in tif).
Channels:
{_channels(analysis)}
Endings: {_endings(analysis)}
{_BESIDE}

Parameters:
{_table(parameters_of(analysis).values(), dict(analysis.defaults))}
"""


def scan_json(scan: Scan, files: tuple[DataFile, ...]) -> str:
    """All that is known of a scan, as JSON."""
    horz, vert, snake = raster({}, scan)
    flat = scan.flat
    present = sum(file.frames for file in files if file.state == "present")
    about: dict[str, Any] = {
        "scan": os.fsdecode(scan.path),
        "frames": scan.frames,
        "complete": present >= scan.frames > 0,
        "frames_present": min(present, scan.frames),
        "detector": {"height": scan.height, "width": scan.width, "dtype": scan.dtype},
        "raster": {
            "horz": horz,
            "vert": vert,
            "order": "snake" if snake else "raster",
            "first": scan.raster.first if scan.raster else 0,
            "source": scan.raster.source if scan.raster else "default: one line of all frames",
        },
        "axes": scan.axes,
        "beam_centre": {"column": scan.cx, "row": scan.cy},
        "geometry": scan.geometry and msgspec.structs.asdict(scan.geometry),
        "flatfield": None if flat is None else {"source": flat.source, "applied": flat.applied},
        "metadata": scan.metadata,
        "sources": scan.sources,
        "problems": scan.problems,
        "files": files,
    }
    text = msgspec.json.encode(about, enc_hook=_printable)
    return msgspec.json.format(text, indent=2).decode() + "\n"


def _printable(value: Any) -> Any:
    raise NotImplementedError(f"{type(value)} in scan.json")


def _axes(analysis: Analysis) -> str:
    if analysis.result in ("pattern", "image"):
        return "(row, column)"
    channel = "channel, " if len(analysis.channels) > 1 else ""
    return f"({channel}line, point{', bin' if analysis.result == 'stack' else ''})"


def _endings(analysis: Analysis) -> str:
    if analysis.result == "stack":
        return ", ".join(one for one in CONTAINERS if not CONTAINERS[one].picture)
    if analysis.name in WHEELS:
        hue, brightness = WHEELS[analysis.name]
        return f"{_CONTAINER_LIST} (png without channel=: {hue} as hue, {brightness} as brightness)"
    first = analysis.channels[0].name
    return _CONTAINER_LIST + (
        f" (png: {first}, or channel=)" if len(analysis.every_channel) > 1 else ""
    )


def _channels(analysis: Analysis) -> str:
    def rows(channels: Iterable[Channel]) -> str:
        return "\n".join(f"  {c.name:<16} {c.meaning} [{c.unit}]" for c in channels)

    if analysis.errors is None:
        return rows(analysis.channels)
    return f"""\
{rows(analysis.channels)}
Only by channel=, their Poisson errors:
{rows(analysis.errors.channels)}"""


def _table(parameters: Iterable[Parameter], defaults: Mapping[str, float] | None = None) -> str:
    def row(parameter: Parameter) -> str:
        kind = "x,y,w,h" if parameter.kind == "roi" else parameter.kind
        unit = f" [{parameter.unit}]" if parameter.unit else ""
        choices = f" ({', '.join(parameter.choices)})" if parameter.choices else ""
        default = (defaults or {}).get(parameter.name)
        usual = "" if default is None else f"; {default:g} where it is not given"
        return f"  {parameter.name + '=':<12}{kind:<9}{parameter.meaning}{unit}{choices}{usual}"

    return "\n".join(row(parameter) for parameter in parameters)

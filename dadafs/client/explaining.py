"""What a path of the mount means, in words: for `dadafs explain`."""

from __future__ import annotations

import os

from dadafs.client.namespace import Namespace
from dadafs.errors import DadaError, NoSuchPath
from dadafs.planning import piece, portions
from dadafs.requests import Result


async def explain(namespace: Namespace, path: bytes) -> str:
    """Lines on what is at `path`: kind, shape, size, patches. NoSuchPath where it is refused."""
    result = await namespace.result(path)
    shown = "/" + os.fsdecode(path)
    if result is None:
        item = await namespace.item(path)
        size = f", {item.attributes.size} bytes" if item.attributes.kind == "file" else ""
        return f"{shown}: a {item.attributes.kind}{size}\n"
    return _result(shown, result)


def _result(shown: str, result: Result) -> str:
    scan, layout, content = result.scan, result.layout, result.content
    shell = result.container.shell(content)
    what = content.title
    if result.analysis is not None:
        what = f"{result.analysis.name}, {what}: {result.analysis.definition}"
    lines = [
        f"{shown}: {what}",
        f"  scan      {os.fsdecode(scan.path)}: {scan.frames} frames of"
        f" {scan.width} x {scan.height} pixels ({scan.dtype})",
        f"  array     {_axes(result)}, {content.dtype}, in {content.unit}",
    ]
    if len(content.channels) > 1:
        lines.append(f"  channels  {', '.join(content.channels)}")
    if not layout.flat:
        lines.append(f"  raster    {layout.horz} points x {layout.vert} lines from {layout.first}")
    for fact in result.corrected:
        lines.append(f"  correct   {fact.name} = {fact.value} ({fact.source})")
    lines.append(f"  file      {shell.size} bytes, {result.container.extension}")
    lines.append(f"  compute   {_work(result)}")
    return "\n".join(lines) + "\n"


def _axes(result: Result) -> str:
    content = result.content
    return " x ".join(f"{n} {name}" for n, name in zip(content.shape, content.axes, strict=True))


def _work(result: Result) -> str:
    if result.analysis is not None and result.analysis.result == "pattern":
        parts = portions(result.layout)
        frames = sum(run.count for part in parts for run in part)
        return f"{frames} frames in {len(parts)} patches"
    numbers = result.layout.points * result.layout.cell_size * len(result.layout.channels)
    patches = piece(result.layout, 0, numbers).patches
    return f"{sum(patch.count for patch in patches)} frames in {len(patches)} patches"


async def explain_or_refuse(namespace: Namespace, path: bytes) -> str:
    """As `explain`; a refusal names the path."""
    try:
        return await explain(namespace, path)
    except DadaError as exc:
        raise NoSuchPath(f"/{os.fsdecode(path)}: {exc}") from exc

"""What a path of the mount means, in words: for `dadafs explain`."""

from __future__ import annotations

import os

from dadafs.client.tree.accounts import Accounts, Cost
from dadafs.client.tree.namespace import Namespace
from dadafs.errors import DadaError, NoSuchPath
from dadafs.requests import Result, shell_of


async def explain(namespace: Namespace, accounts: Accounts, path: bytes) -> str:
    """Lines on what is at `path`: kind, shape, size, cost. NoSuchPath where it is refused."""
    result = await namespace.result(path)
    shown = "/" + os.fsdecode(path)
    if result is None:
        item = await namespace.item(path)
        size = f", {item.attributes.size} bytes" if item.attributes.kind == "file" else ""
        return f"{shown}: a {item.attributes.kind}{size}\n"
    return _result(shown, result, await accounts.cost(result))


def _result(shown: str, result: Result, cost: Cost) -> str:
    scan, layout, content = result.scan, result.layout, result.content
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
    lines.append(f"  file      {shell_of(result).size} bytes, {result.container.extension}")
    lines += [f"  problem   {problem}" for problem in scan.problems]
    lines += _work(cost)
    return "\n".join(lines) + "\n"


def _axes(result: Result) -> str:
    content = result.content
    return " x ".join(f"{n} {name}" for n, name in zip(content.shape, content.axes, strict=True))


def _work(cost: Cost) -> list[str]:
    patches = f"{cost.frames} frames in {cost.patches} patches"
    if cost.cached == cost.patches:
        return [f"  compute   nothing: all {patches} are cached"]
    if cost.seconds is None:
        time = "unknown: this mount has computed nothing of this kind yet"
    else:
        time = f"about {cost.seconds:.1f} s, at the rate measured in this mount"
    return [
        f"  compute   {patches}, {cost.cached} of them cached",
        f"  read      {cost.bytes} bytes of raw data",
        f"  time      {time}",
    ]


async def explain_or_refuse(namespace: Namespace, accounts: Accounts, path: bytes) -> str:
    """As `explain`; a refusal names the path."""
    try:
        return await explain(namespace, accounts, path)
    except DadaError as exc:
        raise NoSuchPath(f"/{os.fsdecode(path)}: {exc}") from exc

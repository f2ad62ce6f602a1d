"""The tree of the mount: what is at a path, what a directory holds, what opening gives."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import replace

from dadafs import paths
from dadafs.cache.store import Store
from dadafs.client.farming.farm import Farm
from dadafs.client.tree import texts
from dadafs.client.tree.accounts import ATTRIBUTES, Accounts
from dadafs.client.tree.items import (
    FrameListing,
    Item,
    directory_attributes,
    raw_item,
    raw_items,
    result_attributes,
    text_attributes,
)
from dadafs.client.tree.mapfile import CompositeFile, MapFile
from dadafs.client.tree.own import OwnFiles, Texts
from dadafs.client.tree.patternfile import PatternFile
from dadafs.client.tree.resultfile import ResultFile
from dadafs.client.tree.supplying import supplies_for
from dadafs.client.upstream.files import RawFiles, TextFile, VirtualFile
from dadafs.client.upstream.link import Link
from dadafs.client.upstream.locator import Locator
from dadafs.containers import Shell
from dadafs.corrections import Supplies
from dadafs.errors import NoSuchScan
from dadafs.paths import README, format_node
from dadafs.rastering import raster
from dadafs.requests import Result, concrete, extensions, grammar, shell_of
from dadafs.scans.model import Resolved, Scan
from dadafs.scans.names import join, split

log = logging.getLogger(__name__)

PICTURES = ("png",)  # not listed: a file manager would make thumbnails, which computes


class Namespace:
    """The tree of a mount, over the server's raw tree and the farm. Knows nothing of FUSE."""

    def __init__(
        self,
        link: Link,
        locator: Locator,
        farm: Farm,
        results: Store,
        raw_files: RawFiles,
        accounts: Accounts,
        diagnosis: Texts,
    ) -> None:
        self._link = link
        self._locator = locator
        self._farm = farm
        self._results = results
        self._raw_files = raw_files
        self._accounts = accounts
        self._own = OwnFiles(link, diagnosis)
        self._grammar = grammar()

    async def item(self, path: bytes) -> Item:
        """What is at `path`. NoSuchPath, NotPermitted; never computes."""
        if path in self._own:
            return await self._own.item(path)
        found = await self._link.resolve(path)
        if found.kind != "scan":
            return raw_item(found.attributes, path)
        if not found.rest:  # nothing of its content is asked: no need to open its files
            return Item(found.attributes, path)
        scan, node = await self._node(found)
        return await self._scan_item(path, scan, node)

    async def children(self, path: bytes) -> Sequence[tuple[bytes, Item]]:
        """The entries of a directory; never computes."""
        if path in self._own:
            return await self._own.children(path)
        found = await self._link.resolve(path)
        if found.kind == "scan":
            return await self._scan_children(path, found)
        entries = raw_items(path, await self._link.list(path))
        if path == b"":
            entries = [(name, item) for name, item in entries if name not in self._own]
            entries += await self._own.children(path)
        return entries

    async def open(self, path: bytes) -> tuple[VirtualFile, Item]:
        """The file at `path`, open for reading."""
        if path in self._own:
            item = await self._own.item(path)
            return TextFile(await self._own.text(path)), item
        found = await self._link.resolve(path)
        if found.kind != "scan":
            item = raw_item(found.attributes, path)
            return self._raw_files.open(path, item.attributes), item
        scan, node = await self._node(found)
        match node:
            case paths.RawFile(name):
                item = await self._scan_item(path, scan, node)
                raw = join(split(found.path)[0], name)
                return self._raw_files.open(raw, item.attributes), item
            case paths.Request():
                result, shell, item = await self._made_result(scan, node)
                _note_raster(path, result)
                return self._result_file(path, result, shell), item
            case paths.ScanDirectory() | paths.RawDirectory() | paths.ResultDirectory():
                await self._scan_item(path, scan, node)  # which may have a reason of its own
                raise IsADirectoryError
            case _:
                text, item = await self._made_text(scan, node)
                return TextFile(text), item

    def _result_file(self, path: bytes, result: Result, shell: Shell) -> ResultFile:
        name = os.fsdecode(path)
        kind = "frame" if result.analysis is None else result.analysis.result
        if kind == "pattern":
            return PatternFile(name, result, shell, self._farm, self._locator, self._results)
        files = CompositeFile if kind == "image" else MapFile
        return files(name, result, shell, self._farm, self._locator)

    async def result(self, path: bytes) -> Result | None:
        """What computing the file at `path` means; None where it is not a result."""
        if path in self._own:
            return None
        found = await self._link.resolve(path)
        if found.kind != "scan":
            return None
        scan, node = await self._node(found)
        if not isinstance(node, paths.Request):
            return None
        return await self._result(scan, node)

    async def _result(self, scan: Scan, node: paths.Request) -> Result:
        return concrete(node, scan, await self._supplies(scan, node))

    async def _supplies(self, scan: Scan, node: paths.Request) -> Supplies:
        return await supplies_for(self._link, scan, node.parameters)

    async def attribute(self, path: bytes, name: bytes) -> bytes | None:
        """An extended attribute; None where there is none. Computes nothing."""
        if name not in ATTRIBUTES:
            return None
        result = await self.result(path)
        return None if result is None else await self._accounts.attribute(result, name)

    async def attributes(self, path: bytes) -> tuple[bytes, ...]:
        """The names of the extended attributes of what is at `path`."""
        return () if await self.result(path) is None else ATTRIBUTES

    async def _node(self, found: Resolved) -> tuple[Scan, paths.Node]:
        """The scan and what the rest of the path means in it."""
        node = self._grammar.parse(found.rest)
        return await self._link.scan(found.path), node

    async def _scan_item(self, path: bytes, scan: Scan, node: paths.Node) -> Item:
        match node:
            case paths.ScanDirectory() | paths.RawDirectory():
                return Item(directory_attributes(scan), path)
            case paths.ResultDirectory():
                if not scan.frames:
                    raise NoSuchScan(f"{os.fsdecode(scan.path)} cannot be analysed; see README.txt")
                return Item(directory_attributes(scan), path)
            case paths.RawFile(name):
                entry = await self._link.raw_file(scan.path, name)
                return raw_item(entry.attributes, _identity(scan, node))
            case paths.Request():
                return (await self._made_result(scan, node))[-1]
            case _:
                return (await self._made_text(scan, node))[-1]

    async def _made_result(self, scan: Scan, node: paths.Request) -> tuple[Result, Shell, Item]:
        """A result, the container around it, and what is shown of both."""
        supplies = await self._supplies(scan, node)
        result = concrete(node, scan, supplies)
        shell = shell_of(result)
        attributes = result_attributes(scan, supplies, shell.size)
        return result, shell, Item(attributes, _identity(scan, node), supplies.version(scan))

    async def _made_text(self, scan: Scan, node: paths.Node) -> tuple[bytes, Item]:
        """A text as it is now, and what is shown of it."""
        text = await self._text(scan, node)
        live = not isinstance(node, paths.ResultText)
        attributes = text_attributes(scan, len(text))
        return text, Item(attributes, _identity(scan, node), scan.version, live)

    async def _text(self, scan: Scan, node: paths.Node) -> bytes:
        match node:
            case paths.ResultText(analysis):
                return texts.analysis_readme(analysis).encode()
            case paths.ScanText(paths.README):
                return texts.scan_readme(scan).encode()
            case paths.ScanText():
                return texts.scan_json(scan, await self._link.data_files(scan)).encode()
            case paths.ResultProgress(request):
                standing = await self._accounts.standing(await self._result(scan, request))
                return standing.line().encode() + b"\n"
            case paths.ResultAccount(request):
                supplies = await self._supplies(scan, request)
                anyone = next(iter(extensions(request, scan, supplies)), "npy")
                result = concrete(replace(request, extension=anyone), scan, supplies)
                return await self._accounts.json(result)
        raise IsADirectoryError

    async def _scan_children(self, path: bytes, found: Resolved) -> Sequence[tuple[bytes, Item]]:
        scan, node = await self._node(found)
        names: list[str] = []
        match node:
            case paths.RawDirectory():
                return raw_items(path, await self._link.raw_files(scan.path))
            case paths.ScanDirectory():
                names = [paths.README, paths.SCAN_JSON, paths.RAW]
                names += list(self._grammar.analyses) if scan.frames else []
            case paths.ResultDirectory(paths.FRAMES, parameters):
                first = paths.Request(paths.FRAMES, "npy", parameters, 0)
                first = replace(first, extension=next(iter(extensions(first, scan)), "npy"))
                readme = await self._scan_item(path, scan, paths.ResultText(paths.FRAMES))
                item = await self._scan_item(path, scan, first)
                return FrameListing(readme, item, first, scan)
            case paths.ResultDirectory(analysis, parameters):
                request = paths.Request(analysis, "npy", parameters)
                every = extensions(request, scan, await self._supplies(scan, request))
                kinds = [kind for kind in every if kind not in PICTURES] or every
                names = [README, *self._result_names(scan, dict(parameters), kinds)]
        nodes = [
            (name.encode(), self._grammar.parse((*found.rest, name.encode()))) for name in names
        ]
        return [(name, await self._scan_item(join(path, name), scan, one)) for name, one in nodes]

    def _result_names(
        self, scan: Scan, given: dict[str, paths.Value], kinds: Sequence[str]
    ) -> list[str]:
        """What a result directory lists: full.*, and the recorded raster as parameters."""
        names = [f"{paths.FULL}.{extension}" for extension in kinds]
        horz, vert, _ = raster(given, scan)
        if not given:
            names.append(f"horz={horz}")
        elif set(given) == {"horz"}:
            names += [f"vert={vert}.{extension}" for extension in kinds]
        return names


def _identity(scan: Scan, node: paths.Node) -> bytes:
    return b"/".join((scan.path, *format_node(node)))


def _note_raster(path: bytes, result: Result) -> None:
    layout = result.layout
    beyond = layout.first + layout.points - layout.frames
    if beyond > 0 and not layout.flat:
        log.warning(
            "%s: a raster of %d points from frame %d on, the scan has %d frames: %d points NaN",
            os.fsdecode(path),
            layout.points,
            layout.first,
            layout.frames,
            beyond,
        )

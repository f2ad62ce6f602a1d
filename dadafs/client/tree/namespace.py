"""The tree of the mount: what is at a path, what a directory holds, what opening gives."""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, overload

from msgspec import structs

from dadafs import paths
from dadafs.cache.store import Store
from dadafs.client.farming.farm import Farm
from dadafs.client.tree import texts
from dadafs.client.tree.accounts import ATTRIBUTES, Accounts
from dadafs.client.tree.mapfile import CompositeFile, MapFile
from dadafs.client.tree.patternfile import PatternFile
from dadafs.client.tree.resultfile import ResultFile
from dadafs.client.tree.supplying import supplies_for
from dadafs.client.upstream.files import RawFiles, TextFile, VirtualFile
from dadafs.client.upstream.link import Link
from dadafs.client.upstream.locator import Locator
from dadafs.corrections import Supplies
from dadafs.errors import NoSuchPath, NoSuchScan
from dadafs.paths import README, format_node
from dadafs.requests import Result, concrete, extensions, grammar, raster
from dadafs.scans.model import Attributes, Resolved, Scan
from dadafs.scans.owners import common_mode

log = logging.getLogger(__name__)

DIAGNOSIS = b".dadafs"
PICTURES = ("png",)  # not listed: a file manager would make thumbnails, which computes
DIRECTORY_BYTES = 4096  # what directories say of their size


@dataclass(frozen=True, slots=True)
class Item:
    """What is at a path."""

    attributes: Attributes
    identity: bytes
    """Equal for all ways to write the same file's path; inode numbers are made of it."""
    version: str = ""
    """Of the content: when it is another, what was cached of it is wrong."""
    live: bool = False
    """A text that may be longer at the next look: neither it nor its size is to be cached."""


Texts: TypeAlias = dict[bytes, Callable[[], Awaitable[str]]]


class FrameListing(Sequence[tuple[bytes, Item]]):
    """The entries of a directory of frames, made as they are looked at: there may be a million."""

    def __init__(self, readme: Item, first: Item, request: paths.Request, scan: Scan) -> None:
        self._readme = readme
        self._first = first
        self._request = request
        self._scan = scan

    def __len__(self) -> int:
        return 1 + self._scan.frames

    @overload
    def __getitem__(self, index: int) -> tuple[bytes, Item]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[tuple[bytes, Item]]: ...
    def __getitem__(self, index: int | slice) -> tuple[bytes, Item] | Sequence[tuple[bytes, Item]]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if index == 0:
            return README.encode(), self._readme
        if index >= len(self):
            raise IndexError(index)
        names = format_node(replace(self._request, frame=index - 1))
        return names[-1], replace(self._first, identity=b"/".join((self._scan.path, *names)))


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
        self._diagnosis = diagnosis
        self._grammar = grammar()

    async def item(self, path: bytes) -> Item:
        """What is at `path`. NoSuchPath, NotPermitted; never computes."""
        if _first(path) == DIAGNOSIS:
            return await self._diagnosis_item(path)
        if path == README.encode():
            return await self._root_readme_item()
        found = await self._link.resolve(path)
        if found.kind != "scan":
            return _raw_item(found.attributes, path)
        if not found.rest:  # nothing of its content is asked: no need to open its files
            return Item(found.attributes, path)
        scan, node = await self._node(found)
        return await self._scan_item(path, scan, node)

    async def children(self, path: bytes) -> Sequence[tuple[bytes, Item]]:
        """The entries of a directory; never computes."""
        if path == DIAGNOSIS:
            names = [DIAGNOSIS + b"/" + name for name in self._diagnosis]
            return [(_last(name), await self._diagnosis_item(name)) for name in names]
        found = await self._link.resolve(path)
        if found.kind == "scan":
            return await self._scan_children(path, found)
        entries = [
            (entry.name, _raw_item(entry.attributes, _join(path, entry.name)))
            for entry in await self._link.list(path)
        ]
        if path == b"":
            own = (DIAGNOSIS, README.encode())
            entries = [entry for entry in entries if entry[0] not in own]
            entries += [(name, await self.item(name)) for name in own]
        return entries

    async def open(self, path: bytes) -> tuple[VirtualFile, Item]:
        """The file at `path`, open for reading."""
        if _first(path) == DIAGNOSIS:
            item = await self._diagnosis_item(path)
            return TextFile((await self._diagnosis[_last(path)]()).encode()), item
        if path == README.encode():
            item = await self._root_readme_item()
            return TextFile((await self._root_readme()).encode()), item
        found = await self._link.resolve(path)
        if found.kind != "scan":
            item = _raw_item(found.attributes, path)
            return self._raw_files.open(path, item.attributes), item
        scan, node = await self._node(found)
        item = await self._scan_item(path, scan, node)
        match node:
            case paths.RawFile(name):
                raw = _join(_parent(found.path), name)
                return self._raw_files.open(raw, item.attributes), item
            case paths.Request():
                result = concrete(node, scan, await self._supplies(scan, node))
                self._note_raster(path, result)
                return self._result_file(path, result), item
            case _:
                return TextFile(await self._text(scan, node)), item

    def _result_file(self, path: bytes, result: Result) -> ResultFile:
        name = os.fsdecode(path)
        shell = result.container.shell(result.content)
        kind = "frame" if result.analysis is None else result.analysis.result
        if kind == "pattern":
            return PatternFile(name, result, shell, self._farm, self._locator, self._results)
        files = CompositeFile if kind == "image" else MapFile
        return files(name, result, shell, self._farm, self._locator)

    async def result(self, path: bytes) -> Result | None:
        """What computing the file at `path` means; None where it is not a result."""
        if _first(path) == DIAGNOSIS or path == README.encode():
            return None
        found = await self._link.resolve(path)
        if found.kind != "scan":
            return None
        scan, node = await self._node(found)
        if not isinstance(node, paths.Request):
            return None
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
        identity = b"/".join((scan.path, *format_node(node)))
        version = scan.version
        match node:
            case paths.ScanDirectory() | paths.RawDirectory():
                return Item(_directory(scan), path)
            case paths.ResultDirectory():
                if not scan.frames:
                    raise NoSuchScan(f"{os.fsdecode(scan.path)} cannot be analysed; see README.txt")
                return Item(_directory(scan), path)
            case paths.RawFile(name):
                entry = await self._link.raw_file(scan.path, name)
                return _raw_item(entry.attributes, identity)
            case paths.Request():
                supplies = await self._supplies(scan, node)
                result = concrete(node, scan, supplies)
                size = result.container.shell(result.content).size
                return Item(_result(scan, supplies, size), identity, supplies.version(scan))
            case _:
                text = await self._text(scan, node)
                live = not isinstance(node, paths.ResultText)
                return Item(_file(scan, len(text)), identity, version, live)

    async def _text(self, scan: Scan, node: paths.Node) -> bytes:
        match node:
            case paths.ResultText(analysis):
                return texts.analysis_readme(analysis).encode()
            case paths.ScanText(paths.README):
                return texts.scan_readme(scan).encode()
            case paths.ScanText():
                return texts.scan_json(scan, await self._link.data_files(scan)).encode()
            case paths.ResultProgress(request):
                result = concrete(request, scan, await self._supplies(scan, request))
                standing = await self._accounts.standing(result)
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
                entries = await self._link.raw_files(scan.path)
                return [
                    (entry.name, _raw_item(entry.attributes, _join(path, entry.name)))
                    for entry in entries
                ]
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
        return [(name, await self._scan_item(_join(path, name), scan, one)) for name, one in nodes]

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

    async def _root_readme(self) -> str:
        scans = (entry.name for entry in await self._link.list(b"") if entry.scan)
        example = next(scans, None)
        return texts.root_readme(None if example is None else os.fsdecode(example))

    async def _root_readme_item(self) -> Item:
        root = (await self._link.resolve(b"")).attributes
        size = len((await self._root_readme()).encode())
        attributes = replace_attributes(root, "file", size, root.mode & 0o444)
        return Item(attributes, README.encode(), live=True)

    async def _diagnosis_item(self, path: bytes) -> Item:
        root = (await self._link.resolve(b"")).attributes
        if path == DIAGNOSIS:
            return Item(replace_attributes(root, "directory", DIRECTORY_BYTES, 0o555), path)
        name = path[len(DIAGNOSIS) + 1 :]
        if name not in self._diagnosis:
            known = b", ".join(self._diagnosis).decode()
            raise NoSuchPath(f".dadafs has no {os.fsdecode(name)!r}, it has {known}")
        return Item(replace_attributes(root, "file", 0, 0o444), path, live=True)

    def _note_raster(self, path: bytes, result: Result) -> None:
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


def replace_attributes(
    of: Attributes, kind: Literal["directory", "file"], size: int, mode: int
) -> Attributes:
    """Owner and time of `of` for something else."""
    return Attributes(kind, size, of.mtime_ns, mode, of.uid, of.gid, 0)


def _raw_item(attributes: Attributes, identity: bytes) -> Item:
    version = f"{attributes.size} {attributes.mtime_ns} {attributes.inode}"
    return Item(attributes, identity, version)


def _directory(scan: Scan) -> Attributes:
    return replace_attributes(scan.attributes, "directory", DIRECTORY_BYTES, scan.attributes.mode)


def _file(scan: Scan, size: int) -> Attributes:
    return replace_attributes(scan.attributes, "file", size, scan.attributes.mode & 0o444)


def _result(scan: Scan, supplies: Supplies, size: int) -> Attributes:
    """As new as the newest of all that it is made of, and for who may read all of it."""
    files = [scan.attributes, *supplies.sources()]
    readable = replace_attributes(_file(scan, size), "file", size, common_mode(files) & 0o444)
    return structs.replace(readable, mtime_ns=max(one.mtime_ns for one in files))


def _first(path: bytes) -> bytes:
    return path.split(b"/", 1)[0]


def _last(path: bytes) -> bytes:
    return path.rsplit(b"/", 1)[-1]


def _parent(path: bytes) -> bytes:
    return path.rsplit(b"/", 1)[0] if b"/" in path else b""


def _join(path: bytes, name: bytes) -> bytes:
    return path + b"/" + name if path else name

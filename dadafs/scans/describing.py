"""Putting together what is known of a scan: its files, their names, and what is said beside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import msgspec

from dadafs.errors import DadaError
from dadafs.scans.beside.sidecars import Notes
from dadafs.scans.frames.imageseries import ImageSeries, are_stacks, stack_links
from dadafs.scans.frames.index import FrameIndexer
from dadafs.scans.frames.lima import read_lima
from dadafs.scans.frames.series import Series, links_by_number
from dadafs.scans.metadata.geometry import settle
from dadafs.scans.metadata.masters import Link, Master, read_master
from dadafs.scans.metadata.rasters import rastered
from dadafs.scans.model import Attributes, Scan, SourceFile
from dadafs.scans.names import ScanFiles, join, show, split
from dadafs.scans.tree import RawTree

NAMES_SHOWN = 3  # of files that are missing
AnySeries: TypeAlias = Series | ImageSeries


class Contents(msgspec.Struct, frozen=True):
    """What the files of a scan hold, as of one version of them."""

    master: Master
    series: AnySeries
    elsewhere: tuple[bytes, ...]
    """Data files that are not named like the scan's."""
    problems: tuple[str, ...]
    """Of master and names; the series has its own."""


def read_contents(
    tree: RawTree,
    indexer: FrameIndexer,
    directory: bytes,
    files: ScanFiles,
    dataset: bytes = b"",
) -> Contents:
    """Read the master of a scan and find out how its frames are laid out.

    `dataset` is where a user says that frames are in HDF5 files.
    """
    if files.images and are_stacks(tree, directory, files):
        stacks, odd = stack_links(directory, files.data)
        return Contents(Master(), Series(tree, indexer, stacks, 0), (), tuple(odd))
    if files.images:
        images = ImageSeries(tree, directory, files)
        return Contents(images.master, images, (), ())
    master = Master()
    if files.master is not None:
        master = read_master(tree, join(directory, files.master), dataset)
    elif files.lima:
        master = read_lima(tree, indexer, directory, files, dataset)
    problems = list(master.problems)
    own = {join(directory, name) for name in files.all}
    led = () if files.lima else master.links  # its links are in its directory, there or not yet
    elsewhere = tuple(
        dict.fromkeys(link.path for link in led if link.path and link.path not in own)
    )
    present = own | {path for path in elsewhere if _exists(tree, path)}
    links = list(master.links)
    if files.data and not any(link.path in present for link in links):
        if links:
            problems.append(
                f"links of {show(files.master or b'')} lead to files that are not there, e.g."
                f" {_name(links[0])}; the scan's data files are taken by their numbers"
            )
        links = links_by_number(directory, files, len(links))
    if not links and files.master is not None and not master.broken:
        links = [Link(join(directory, files.master), b"")]  # somewhere in it
    if dataset and not any(link.part for link in links):
        links = [Link(link.path, dataset) for link in links]
    problems += _missing(links, present)
    series = Series(
        tree, indexer, links, master.announced, (master.height, master.width, master.dtype)
    )
    return Contents(master, series, elsewhere, tuple(problems))


def _exists(tree: RawTree, path: bytes) -> bool:
    try:
        tree.identity(path)
    except DadaError:
        return False
    return True


def _missing(links: list[Link], present: set[bytes]) -> list[str]:
    """One line each on data files that are not there, and on those that nothing leads to."""
    lines = []
    missing = [_name(link) for link in links if link.path and link.path not in present]
    if missing:
        more = ", ..." if len(missing) > NAMES_SHOWN else ""
        names = ", ".join(missing[:NAMES_SHOWN]) + more
        lines.append(f"{len(missing)} of {len(links)} data files are missing: {names}")
    return lines


def _name(link: Link) -> str:
    return show(split(link.path)[1])


def describe(
    path: bytes,
    version: str,
    attributes: Attributes,
    files: Sequence[SourceFile],
    contents: Contents,
    notes: Notes,
) -> Scan:
    """All there is to know about a scan. What the data files say goes before the master's word."""
    master, series = contents.master, contents.series
    shape = (series.height, series.width)
    settled = settle(master, notes, *shape)
    believed = set(settled.problems)
    doubted = {line for line in master.withheld.values() if line not in believed}
    problems = [*contents.problems, *series.problems]
    problems = [line for line in problems if line not in doubted or line in series.problems]
    problems += settled.problems
    metadata = dict(master.metadata) | settled.values
    geometric = ("cx", "cy", *settled.values)
    sources = {key: source for key, source in master.sources.items() if key not in geometric}
    sources |= settled.sources
    mask = master.mask
    if mask and master.mask_shape != shape:
        problems.append(
            f"the pixel mask of {master.mask_shape[0]} x {master.mask_shape[1]} does not fit"
            f" frames of {shape[0]} x {shape[1]} and is not used"
        )
        mask = b""
        sources.pop("mask", None)
    lines = rastered(notes, series.frames, master.metadata, series.grid or master.grid)
    if lines.command:
        metadata["command"] = lines.command
        sources["command"] = lines.command_source
    if lines.raster is not None:
        sources["raster"] = lines.raster.source
    problems += [*lines.problems, *notes.problems]
    if not series.frames:
        problems.append("no frames can be read")
    withheld = dict(settled.withheld)
    if lines.withheld:
        withheld["raster"] = lines.withheld
    newest = max(attributes.mtime_ns, notes.mtime_ns)
    every = (*files, *notes.files)
    return Scan(
        path=path,
        version=version,
        attributes=msgspec.structs.replace(attributes, mtime_ns=newest),
        files=len(every),
        name_bytes=max(len(file.name) for file in every),
        frames=series.frames,
        height=series.height,
        width=series.width,
        dtype=series.dtype,
        raster=lines.raster,
        axes=lines.axes,
        cx=settled.cx,
        cy=settled.cy,
        geometry=settled.geometry,
        mask=mask,
        metadata=metadata,
        sources=sources,
        problems=tuple(dict.fromkeys(problems)),
        withheld=withheld,
        flat=master.flat,
    )

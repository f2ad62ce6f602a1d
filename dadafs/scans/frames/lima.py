"""Where the frames of a scan are that LImA recorded: `eiger_0000.h5`, `eiger_0001.h5`, ..."""

from __future__ import annotations

import numpy as np
from msgspec.structs import replace

from dadafs.errors import DadaError
from dadafs.scans.frames.index import FileIndex, FrameIndexer
from dadafs.scans.frames.series import links_by_number
from dadafs.scans.metadata.layout import Part
from dadafs.scans.metadata.lima import read_camera
from dadafs.scans.metadata.masters import MAX_LINKS, Link, Master
from dadafs.scans.model import NO_CHUNK
from dadafs.scans.names import ScanFiles, join, number_of, split
from dadafs.scans.tree import RawTree

TRIED = 4  # files until some tell how all are laid out
ASKED = 2  # the last file of an acquisition may be short, but not two in a row


def read_lima(
    tree: RawTree, indexer: FrameIndexer, directory: bytes, files: ScanFiles, dataset: bytes
) -> Master:
    """What the first file says of its camera, with links that say which frames are in which file.

    `dataset` is where a user says that frames are.
    """
    master = Master()
    found: list[FileIndex] = []
    for name in files.data[:TRIED]:
        path = join(directory, name)
        try:
            index = indexer.index(path, dataset)
        except DadaError:
            continue
        if index.problem or not index.frames:
            continue
        if not found:
            master = read_camera(tree, path)
        found.append(index)
        if len(found) == ASKED:
            break
    frames, per_file = master.announced, max((index.frames for index in found), default=0)
    if any(_recorded(index) > frames for index in found):  # of several acquisitions in one file
        frames = 0
    links = tuple(
        replace(link, dataset=dataset) for link in lima_links(directory, files, frames, per_file)
    )
    part = links[-1].part
    return replace(master, links=links, announced=0 if part is None else part.end)


def lima_links(directory: bytes, files: ScanFiles, frames: int, per_file: int) -> list[Link]:
    """Where the frames are if each acquisition has so many, and each file but its last `per_file`.

    The files of the last acquisition count whether they are there or not. Where `frames` is 0 it
    is not said which frames a file holds. Pure.
    """
    last = max(number_of(name) or 0 for name in files.data)
    per_file = min(per_file, frames)
    each = -(-frames // per_file) if per_file else 0
    if not each or (total := (last // each + 1) * each) > MAX_LINKS:
        return links_by_number(directory, files)
    links = links_by_number(directory, files, total)
    if number_of(split(links[-1].path)[1]) != len(links) - 1:  # too far apart to be positions
        return links
    return [replace(link, part=_part(at, frames, per_file)) for at, link in enumerate(links)]


def _part(link: int, frames: int, per_file: int) -> Part:
    acquisition, file = divmod(link, -(-frames // per_file))
    skipped = file * per_file
    return Part(link, acquisition * frames + skipped, min(per_file, frames - skipped))


def _recorded(index: FileIndex) -> int:
    """Frames up to the last that is there: LImA makes the dataset before it knows how many."""
    there = np.flatnonzero(np.frombuffer(index.offsets, "<u8") != NO_CHUNK)
    return int(there[-1]) + 1 if len(there) else 0

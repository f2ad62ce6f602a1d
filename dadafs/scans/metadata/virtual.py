"""Virtual datasets: frames that lie in other files, each of a few runs of which it names."""

from __future__ import annotations

import math
from itertools import pairwise

import h5py
from h5py import h5d, h5g, h5s

from dadafs.scans.formats import hdf5
from dadafs.scans.formats.stacks import USUAL, default_paths
from dadafs.scans.metadata.layout import Part
from dadafs.scans.names import show

MAX_SOURCES = 100_000


def virtual_stack(file: h5py.File, wanted: bytes = b"") -> h5d.DatasetID | None:
    """The series of frames at `wanted`, else at a usual place, if it is a virtual dataset."""
    for path in (wanted,) if wanted else (*USUAL, *default_paths(file)):
        found = hdf5.find(file, path)
        if found is None or isinstance(found, h5g.GroupID):
            continue
        return found if found.get_create_plist().get_layout() == h5d.VIRTUAL else None
    return None


def grid(found: h5d.DatasetID) -> tuple[int, int] | None:
    """Points and lines, where it has an axis for each."""
    return (found.shape[1], found.shape[0]) if len(found.shape) == 4 else None


def sources(found: h5d.DatasetID) -> list[tuple[bytes, bytes, Part]]:
    """File, dataset, and which of its frames are which of all; in the order of the frames.

    Lines and points of four axes are counted through. ValueError, one line, where a source is no
    run of whole frames or two of them are the same frames.
    """
    properties = found.get_create_plist()
    count = properties.get_virtual_count()
    if len(found.shape) not in (3, 4):
        raise ValueError(f"a virtual dataset of {len(found.shape)} axes is no series of frames")
    if count > MAX_SOURCES:
        raise ValueError(f"a virtual dataset of {count} sources: not believed")
    parts = []
    for number in range(count):
        name = properties.get_virtual_filename(number)
        first, frames = _run(properties.get_virtual_vspace(number), found.shape)
        space = properties.get_virtual_srcspace(number)
        skip = 0
        if space.get_select_type() != h5s.SEL_ALL:
            skip, taken = _run(space, space.shape)
            if taken != frames:
                raise ValueError(
                    f"virtual dataset: {taken} frames of {show(name.encode())} for {frames}"
                )
        part = Part(number, first, frames, skip)
        parts.append((name.encode(), properties.get_virtual_dsetname(number).encode(), part))
    parts.sort(key=lambda one: one[2].first)
    for (_, _, one), (name, _, other) in pairwise(parts):
        if one.end > other.first:
            raise ValueError(
                f"virtual dataset: frame {other.first} is in {show(name)} and elsewhere"
            )
    return parts


def _run(space: h5s.SpaceID, shape: tuple[int, ...]) -> tuple[int, int]:
    """The first frame and the number of frames of a selection. ValueError where it is no run."""
    *leading, height, width = shape
    try:
        begin, last = space.get_select_bounds()
        selected = space.get_select_npoints()
    except ValueError as exc:
        raise ValueError("a virtual dataset that grows without end is not supported") from exc
    counts = [b - a + 1 for a, b in zip(begin, last, strict=True)]
    whole = len(counts) == len(shape) and tuple(counts[-2:]) == (height, width)
    if not whole or math.prod(counts) != selected or not leading:
        raise ValueError("a virtual dataset of parts of frames is not supported")
    if len(leading) == 1:
        return begin[0], counts[0]
    if counts[0] > 1 and counts[1] != leading[1]:
        raise ValueError("a virtual dataset of parts of lines is not supported")
    return begin[0] * leading[1] + begin[1], counts[0] * counts[1]

"""Reading HDF5 files without being led out of them.

An HDF5 file can name other files anywhere: external links, external storage, virtual datasets.
The library would open them by itself, past the checks of the raw tree. Here a path inside a file is
walked link by link, and what lies elsewhere is not followed. Files are opened one at a time: the
library shares what it knows of a file among all who have it open, so a second opening of a file
that has changed meanwhile would see the old one; and h5py has a single lock anyway.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import h5py
import hdf5plugin  # noqa: F401  registers its filters
import numpy as np
from h5py import h5a, h5d, h5g, h5l, h5o

from analysis.codec import Filter

ERRORS = (OSError, LookupError, RuntimeError, ValueError, TypeError, ArithmeticError, MemoryError)
"""What h5py raises on files that are not as they should be."""

MAX_HOPS = 16  # soft links followed on one path
MAX_TEXT = 200

Value: TypeAlias = str | float | None
_one_at_a_time = threading.RLock()


@contextmanager
def opened(fd: int) -> Iterator[h5py.File]:
    """The HDF5 file behind a descriptor, which stays the caller's. One of ERRORS."""
    with (
        _one_at_a_time,
        h5py.File(f"/proc/self/fd/{fd}", "r", locking=False) as file,
    ):
        yield file


def reason(exc: BaseException) -> str:
    """Why a file cannot be read, for people."""
    text = str(exc)
    if "signature not found" in text:
        return "is not an HDF5 file"
    if "truncated file" in text:
        return "is truncated, or still being written"
    if "already open for write" in text or "consistency flags" in text:
        return "is still being written, or its writer died"
    return f"cannot be read as HDF5: {' '.join(text.split())[:MAX_TEXT]}"


def root(file: h5py.File) -> h5g.GroupID:
    """The root group."""
    return h5g.open(file.id, b"/")


def find(file: h5py.File, path: bytes) -> h5g.GroupID | h5d.DatasetID | None:
    """The object at `path`, None where there is none in this very file."""
    top = root(file)
    here: h5g.GroupID | h5d.DatasetID = top
    ahead = deque(part for part in path.split(b"/") if part)
    hops = 0
    while ahead:
        name = ahead.popleft()
        if not isinstance(here, h5g.GroupID) or not here.links.exists(name):
            return None
        kind = here.links.get_info(name).type
        if kind == h5l.TYPE_HARD:
            here = h5o.open(here, name)
        elif kind == h5l.TYPE_SOFT and hops < MAX_HOPS:
            hops += 1
            target = here.links.get_val(name)
            here = top if target.startswith(b"/") else here
            ahead.extendleft(reversed([p for p in target.split(b"/") if p not in (b"", b".")]))
        else:
            return None
    return here


def dataset(file: h5py.File, path: bytes) -> h5d.DatasetID | None:
    """The dataset at `path` whose values lie in this very file, else None."""
    found = find(file, path)
    if not isinstance(found, h5d.DatasetID):
        return None
    properties = found.get_create_plist()
    if properties.get_layout() == h5d.VIRTUAL or properties.get_external_count():
        return None
    return found


def filters(found: h5d.DatasetID) -> tuple[Filter, ...]:
    """The filter pipeline of a dataset."""
    properties = found.get_create_plist()
    if properties.get_layout() != h5d.CHUNKED:
        return ()
    stages = [properties.get_filter(number) for number in range(properties.get_nfilters())]
    return tuple(Filter(stage[0], tuple(stage[2])) for stage in stages)


def scalar(file: h5py.File, path: bytes) -> tuple[Value, str]:
    """The only value of a dataset, number or text, and its unit; None where there is none.

    An array of one element counts as its element.
    """
    found = dataset(file, path)
    if found is None or found.get_space().get_simple_extent_npoints() != 1 or filters(found):
        return None, ""
    high = h5py.Dataset(found)
    return _plain(high[()]), text_of(found, "units")


def each_chunk(found: h5d.DatasetID, note: Callable[[h5d.StoreInfo], None]) -> None:
    """Have `note` told of every chunk that was written."""
    if hasattr(found, "chunk_iter"):
        found.chunk_iter(note)
    else:  # HDF5 before 1.10.10 and 1.12.3: quadratic
        for number in range(found.get_num_chunks()):
            note(found.get_chunk_info(number))


def attribute(found: h5d.DatasetID, name: str) -> int | None:
    """An attribute that is an integer, else None."""
    value = _plain(h5py.Dataset(found).attrs.get(name))
    return int(value) if isinstance(value, float) and value.is_integer() else None


def text_attribute(group: h5g.GroupID, name: str) -> bytes | None:
    """An attribute of a group that is the name of something, else None."""
    if not h5a.exists(group, name.encode()):
        return None
    try:
        text = _text(h5py.Group(group).attrs[name])
    except ERRORS:
        return None
    return text.encode("utf-8", "replace") if text else None


def text_of(found: h5d.DatasetID, name: str) -> str:
    """An attribute of a dataset that is one text; empty where it is none."""
    return _text(h5py.Dataset(found).attrs.get(name)) or ""


def _plain(value: object) -> Value:
    array = np.asarray(value)
    if array.size != 1:
        return None
    if array.dtype.kind in "iufb":
        return float(array.reshape(-1)[0])
    return _text(array.reshape(-1)[0])


def _text(value: object) -> str | None:
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str):
        return None
    line = " ".join(value.replace("\0", " ").split())[:MAX_TEXT]
    return line.encode("utf-8", "replace").decode()

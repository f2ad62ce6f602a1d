"""Which dataset of an HDF5 file holds its frames."""

from __future__ import annotations

from collections import deque

import h5py
from h5py import h5d, h5g, h5l, h5o

from dadafs.scans.formats import hdf5
from dadafs.scans.names import show

USUAL = (
    b"/entry/data/data",
    b"/entry/instrument/detector/data",
    b"/entry/data/data_000001",
    b"/entry_0000/measurement/data",
)
MAX_OBJECTS = 5000  # looked at; masters with every motor have some hundred
SHOWN = 4
KINDS = "uif"  # of pixels, the likeliest first: other stacks are made of frames


def find_stack(file: h5py.File) -> tuple[bytes, h5d.DatasetID]:
    """The path and dataset of the frames. LookupError, one line, where none or several may be it.

    In this order: the usual paths, what NeXus's `default` and `signal` attributes lead to, and the
    only dataset that is a series of frames, of unsigned integers if there is one. An external link
    is not followed.
    """
    for path in (*USUAL, *default_paths(file)):
        found = hdf5.dataset(file, path)
        if found is not None:
            return path, found
    candidates, signals = _candidates(file)
    kinds = {dataset.dtype.kind for dataset in candidates.values()}
    likely = next((kind for kind in KINDS if kind in kinds), "")
    candidates, signals = (
        {path: dataset for path, dataset in some.items() if dataset.dtype.kind == likely}
        for some in (candidates, signals)
    )
    for chosen in (signals, candidates):
        if len(chosen) == 1:
            return next(iter(chosen.items()))
    if not candidates:
        raise LookupError(f"no dataset {show(USUAL[0])} in it, nor another series of frames")
    names = ", ".join(show(path) for path in list(candidates)[:SHOWN])
    more = ", ..." if len(candidates) > SHOWN else ""
    raise LookupError(
        f"{len(candidates)} series of frames in it ({names}{more}): name one in geometry.toml,"
        f' [data] dataset = "{show(next(iter(candidates)))}"'
    )


def is_stack(found: h5d.DatasetID) -> bool:
    """Whether a dataset looks like a series of frames."""
    shape = found.shape
    return (
        len(shape) in (3, 4)
        and found.dtype.kind in KINDS
        and min(shape[-2:]) > 1
        and found.get_create_plist().get_layout() != h5d.VIRTUAL
    )


def default_paths(file: h5py.File) -> list[bytes]:
    """The path of the signal of the default plot of NeXus, where attributes lead to one."""
    path = b""
    group = hdf5.root(file)
    for _ in range(8):
        name = hdf5.text_attribute(group, "default")
        if name is None:
            break
        path += b"/" + name
        below = hdf5.find(file, path)
        if not isinstance(below, h5g.GroupID):
            return []
        group = below
    signal = hdf5.text_attribute(group, "signal")
    return [path + b"/" + signal] if signal is not None else []


def _candidates(
    file: h5py.File,
) -> tuple[dict[bytes, h5d.DatasetID], dict[bytes, h5d.DatasetID]]:
    """All series of frames by path, each once, and those that an NXdata group calls its signal."""
    found: dict[bytes, h5d.DatasetID] = {}
    signals: dict[bytes, h5d.DatasetID] = {}
    seen: set[tuple[int, int]] = set()
    ahead = deque([(b"", hdf5.root(file))])
    looked = 0
    while ahead and looked < MAX_OBJECTS:
        path, group = ahead.popleft()
        signal = hdf5.text_attribute(group, "signal")
        for name in group:
            looked += 1
            if looked > MAX_OBJECTS:
                break
            if group.links.get_info(name).type != h5l.TYPE_HARD:
                continue
            below = h5o.open(group, name)
            info = h5o.get_info(below)
            at, known = path + b"/" + name, (info.fileno, info.addr) in seen
            seen.add((info.fileno, info.addr))
            if isinstance(below, h5g.GroupID):
                if not known:
                    ahead.append((at, below))
            elif isinstance(below, h5d.DatasetID) and is_stack(below):
                if name == signal:
                    signals[at] = below
                if not known:
                    found[at] = below
    return found, signals

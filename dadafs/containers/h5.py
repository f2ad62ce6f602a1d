"""h5, HDF5 as NeXus: what silx view, h5web, Matlab and h5py plot or read without being told.

/entry                       NXentry, the default of the file
/entry/result                NXdata, the default of the entry: channels and scales by name
/entry/process               NXprocess: program, version, scan, analysis, definition
/entry/process/parameters    all parameters, defaults filled in, each with its `source`
/entry/process/files         the scan's files: name, size_bytes, mtime_ns, inode
/entry/process/frame_status  what became of each frame, background_frame_status of those subtracted

The last two are as long as the scan is: they stand behind the numbers, each on a page of its own,
and are made when they are read.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from dadafs.containers import hdf5
from dadafs.containers.base import (
    UNUSED,
    Annex,
    Container,
    Content,
    Fact,
    Provenance,
    Shell,
    plain_bytes,
)
from dadafs.containers.hdf5 import Dataset, Group, Value
from dadafs.containers.names import distinct

_BYTE = np.dtype("u1")
_FRAME_STATUS = ("frame_status", "background_frame_status")
_MEANING = f"0 used, 1 missing, 2 corrupt, {UNUSED} no part of this"


@lru_cache(128)
def shell(content: Content) -> Shell:
    """Headers and scales, then the channels one after another, C-ordered, uncompressed."""
    dtype = content.dtype.newbyteorder("<")
    end = content.count * dtype.itemsize
    tail: list[bytes | Annex] = []
    begins = []
    for annex in _annexes(content.provenance):
        gap = -end % hdf5.PAGE_BYTES
        tail += [bytes(gap), annex]
        begins.append(end + gap)
        end += gap + annex.size
    prefix = hdf5.prefix(_root(content, begins), end)
    encode = plain_bytes(dtype)
    return Shell((prefix,), content.count, dtype.itemsize, b"", encode, tail=tuple(tail))


def _annexes(provenance: Provenance) -> Iterator[Annex]:
    if provenance.files is not None:
        yield Annex(None, provenance.files.size)
    for number, run in enumerate(provenance.frames):
        yield Annex(number, run.count)


def _root(content: Content, begins: list[int]) -> Group:
    process = Group(_process(content.provenance, begins), {"NX_class": "NXprocess"})
    entry = Group(
        {"title": Dataset(content.title), "result": _result(content), "process": process},
        {"NX_class": "NXentry", "default": "result"},
    )
    return Group({"entry": entry}, {"NX_class": "NXroot", "default": "entry", "creator": "dadafs"})


def _process(provenance: Provenance, begins: list[int]) -> dict[str, Dataset | Group]:
    """`begins` says where the annexes stand behind the first of the numbers."""
    process = {fact.name: _dataset(fact) for fact in provenance.facts}
    parameters = {fact.name: _dataset(fact) for fact in provenance.parameters}
    process["parameters"] = Group(parameters, {"NX_class": "NXparameters"})
    table, places = provenance.files, iter(begins)
    if table is not None:
        first = next(places)
        columns = {
            name: Dataset(shape=(table.count,), dtype=dtype, begin=first + at)
            for name, dtype, at in table.columns()
        }
        process["files"] = Group(columns, {"NX_class": "NXcollection"})
    for name, run, begin in zip(_FRAME_STATUS, provenance.frames, places, strict=False):
        about: dict[str, Value] = {"first_frame": run.first, "meaning": _MEANING}
        process[name] = Dataset(shape=(run.count,), dtype=_BYTE, begin=begin, attributes=about)
    return process


def _result(content: Content) -> Group:
    members: dict[str, Dataset | Group] = {"title": Dataset(content.title)}
    scales = {scale.axis: scale for scale in content.scales}
    axes = content.block_axes
    attributes: dict[str, Value] = {
        "NX_class": "NXdata",
        "title": content.title,
        "axes": tuple(scales[axis].name if axis in scales else "." for axis in axes),
    }
    for scale in content.scales:
        about: dict[str, Value] = {"units": scale.unit} if scale.unit else {}
        if scale.label:
            about["long_name"] = f"{scale.label} ({scale.unit})" if scale.unit else scale.label
        data = scale.numbers().astype("<f8").tobytes()
        members[scale.name] = Dataset(data, (scale.count,), hdf5.FLOAT64, attributes=about)
        attributes[scale.name + "_indices"] = axes.index(scale.axis)
    names = distinct([name for name, _ in content.blocks], members)
    attributes["signal"] = names[0]
    if len(names) > 1:
        attributes["auxiliary_signals"] = tuple(names[1:])
    shape, dtype = content.block_shape, content.dtype.newbyteorder("<")
    block_bytes = content.count // len(names) * dtype.itemsize
    interpretation = "spectrum" if "bin" in axes else "image"
    for number, (name, (_, unit)) in enumerate(zip(names, content.blocks, strict=True)):
        members[name] = Dataset(
            shape=shape,
            dtype=dtype,
            begin=number * block_bytes,
            attributes={"interpretation": interpretation} | ({"units": unit} if unit else {}),
        )
    return Group(members, attributes)


def _dataset(fact: Fact) -> Dataset | Group:
    told = {"units": fact.unit, "source": fact.source}
    return Dataset(fact.value, attributes={name: text for name, text in told.items() if text})


H5 = Container("h5", shell, scales=True, provenance=True)

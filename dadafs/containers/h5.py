"""h5, HDF5 as NeXus: what silx view, h5web, Matlab and h5py plot or read without being told.

/entry                       NXentry, the default of the file
/entry/result                NXdata, the default of the entry: channels and scales by name
/entry/process               NXprocess: program, version, scan, analysis, definition
/entry/process/parameters    all parameters, defaults filled in, each with its `source`
"""

from __future__ import annotations

from functools import lru_cache

from dadafs.containers import hdf5
from dadafs.containers.base import Container, Content, Fact, Shell, plain_bytes
from dadafs.containers.hdf5 import Dataset, Group, Value
from dadafs.containers.names import distinct


@lru_cache(128)
def shell(content: Content) -> Shell:
    """Headers and scales, then the channels one after another, C-ordered, uncompressed."""
    dtype = content.dtype.newbyteorder("<")
    prefix = hdf5.prefix(_root(content), content.count * dtype.itemsize)
    return Shell((prefix,), content.count, dtype.itemsize, b"", plain_bytes(dtype))


def _root(content: Content) -> Group:
    provenance = content.provenance
    process = {fact.name: _dataset(fact) for fact in provenance.facts}
    parameters = {fact.name: _dataset(fact) for fact in provenance.parameters}
    process["parameters"] = Group(parameters, {"NX_class": "NXparameters"})
    entry = Group(
        {
            "title": Dataset(content.title),
            "result": _result(content),
            "process": Group(process, {"NX_class": "NXprocess"}),
        },
        {"NX_class": "NXentry", "default": "result"},
    )
    return Group({"entry": entry}, {"NX_class": "NXroot", "default": "entry", "creator": "dadafs"})


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

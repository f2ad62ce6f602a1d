"""What LImA, which records detectors for BLISS, says in each of its files."""

from __future__ import annotations

import math
from collections.abc import Callable

import h5py
from h5py import h5g, h5l

from dadafs.errors import DadaError
from dadafs.scans.formats import hdf5
from dadafs.scans.metadata.masters import MAX_ANNOUNCED, TOLERANCE, Master
from dadafs.scans.names import show, split
from dadafs.scans.tree import RawTree

MEASUREMENT = b"/entry_0000/measurement"  # its `data` is a soft link into the detector's group
PIXELS_M = (1e-7, 1e-2)  # metres by convention, without a unit: other sizes are in another one


def read_camera(tree: RawTree, path: bytes) -> Master:
    """What one file says of its camera and acquisition; empty where it cannot be read.

    `announced` are the frames of one acquisition. A scan may be made of several.
    """
    try:
        with tree.opened(path) as (fd, _), hdf5.opened(fd) as file:
            return _camera(file)
    except (DadaError, *hdf5.ERRORS):  # whoever reads its frames says why
        return Master()


def _camera(file: h5py.File) -> Master:
    place = _detector(file)
    if not place:
        return Master()

    def number(name: bytes) -> float | None:
        value, _ = hdf5.scalar(file, place + name)
        return value if isinstance(value, float) and math.isfinite(value) else None

    metadata: dict[str, str | int | float | None] = {}
    sources: dict[str, str] = {}

    def told(key: str, value: str | float | None, name: bytes) -> None:
        if value is not None:
            metadata[key], sources[key] = value, show(place + name)

    told("exposure_s", number(b"/acquisition/exposure_time"), b"/acquisition/exposure_time")
    told("pixel_m", _pixel(number), b"/detector_information/pixel_size/xsize")
    model, _ = hdf5.scalar(file, place + b"/detector_information/model")
    told("detector", model if isinstance(model, str) else None, b"/detector_information/model")
    announced = number(b"/acquisition/nb_frames")
    if announced is None or not announced.is_integer() or not 0 < announced <= MAX_ANNOUNCED:
        announced = 0.0  # 0 is LImA's word for a series without end
    return Master(announced=int(announced), metadata=metadata, sources=sources)


def _detector(file: h5py.File) -> bytes:
    """The group of the detector; b"" where it cannot be told."""
    group = hdf5.find(file, MEASUREMENT)
    if not isinstance(group, h5g.GroupID) or not group.links.exists(b"data"):
        return b""
    if group.links.get_info(b"data").type != h5l.TYPE_SOFT:
        return b""
    return split(group.links.get_val(b"data"))[0]


def _pixel(number: Callable[[bytes], float | None]) -> float | None:
    """The side of a pixel that is square and not binned, in metres."""
    x, y = (number(b"/detector_information/pixel_size/%b" % side) for side in (b"xsize", b"ysize"))
    bins = {number(b"/image_operation/binning/%b" % side) for side in (b"x", b"y")}
    if x is None or y is None or not bins <= {1.0, None}:
        return None
    return x if PIXELS_M[0] <= x <= PIXELS_M[1] and abs(x - y) <= TOLERANCE * x else None

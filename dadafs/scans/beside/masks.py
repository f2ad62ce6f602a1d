"""Masks that users draw: images beside scans, in which what is not zero is masked."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from dadafs.errors import BadData, NoSuchPath
from dadafs.scans.formats import hdf5
from dadafs.scans.formats.images import MAX_FILE_BYTES, read_pixels
from dadafs.scans.names import HDF5_MASKS

MAX_OBJECTS = 1000  # of an HDF5 file that are looked at for its only image

Shape = tuple[int, int]


def read_mask(fd: int, name: str, shape: Shape) -> NDArray[np.bool_]:
    """The masked pixels, bool of `shape`, in the file behind a descriptor.

    `name` is the file's, with `:entry:mask` behind it where a path inside it is meant. NaN is
    masked too. NoSuchPath, one line, for what is no image of the detector's shape.
    """
    file, colon, inside = name.partition(":")
    kind = file.rpartition(".")[2].lower()
    if colon and kind not in HDF5_MASKS:
        raise NoSuchPath(f"mask={name}: only in HDF5 files there is something to name after the :")
    try:
        if kind in HDF5_MASKS:
            pixels = _read_hdf5(fd, file, inside.replace(":", "/"), shape)
        else:
            pixels = _READERS[kind](_all(fd), shape)
    except BadData as exc:
        raise NoSuchPath(f"mask={name}: {exc}") from exc
    masked = np.asarray(pixels != 0)  # of NaN too
    if masked.all():
        raise NoSuchPath(f"mask={name}: masks every pixel")
    return masked


def _all(fd: int) -> bytes:
    size = os.fstat(fd).st_size
    if size > MAX_FILE_BYTES:
        raise BadData(f"a file of {size} bytes is no mask")
    with os.fdopen(os.dup(fd), "rb") as file:
        file.seek(0)
        return file.read()


def _fits(found: tuple[int, ...], dtype: np.dtype[Any], shape: Shape) -> None:
    """BadData where an array of that shape and dtype is no mask for a detector of `shape`."""
    if dtype.kind not in "biuf":
        raise BadData(f"holds {dtype}, not numbers")
    if found != shape:
        sides = " x ".join(map(str, found)) or "one number"
        raise BadData(f"is {sides}, but the detector has {shape[0]} rows x {shape[1]} columns")


def _read_npy(data: bytes, shape: Shape) -> NDArray[Any]:
    """Its header is believed only where it says the right shape: then the size is known."""
    file = io.BytesIO(data)
    try:
        major, _ = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0
        if major > 1:
            read = np.lib.format.read_array_header_2_0
        found, _, dtype = read(file)
        _fits(found, dtype, shape)
        array: NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError) as exc:
        raise BadData(f"cannot be read as npy: {' '.join(str(exc).split())[:200]}") from exc
    return array


def _read_image(kind: str) -> Callable[[bytes, Shape], NDArray[Any]]:
    def read(data: bytes, shape: Shape) -> NDArray[Any]:
        pixels = read_pixels(data, kind)
        _fits(pixels.shape, pixels.dtype, shape)
        return pixels

    return read


_READERS = {
    "npy": _read_npy,
    "tif": _read_image("tif"),
    "tiff": _read_image("tif"),
    "edf": _read_image("edf"),
}


def _read_hdf5(fd: int, name: str, inside: str, shape: Shape) -> NDArray[Any]:
    try:
        with hdf5.opened(fd) as file:
            path = inside or _only_image(file, name)
            found = hdf5.dataset(file, path.encode())
            if found is None:
                raise BadData(f"has no dataset {path} of its own")
            dataset = h5py.Dataset(found)
            _fits(dataset.shape, dataset.dtype, shape)
            return np.asarray(dataset[()])
    except BadData:
        raise
    except hdf5.ERRORS as exc:
        raise BadData(hdf5.reason(exc)) from exc


def _only_image(file: h5py.File, name: str) -> str:
    """The path of the only dataset with two axes. BadData where there are more, or none."""
    found: list[str] = []
    seen = 0

    def look(path: str, item: h5py.Group | h5py.Dataset) -> bool | None:
        nonlocal seen
        seen += 1
        if isinstance(item, h5py.Dataset) and item.ndim == 2:
            found.append(path)
        return True if seen >= MAX_OBJECTS else None

    file.visititems(look)
    if len(found) == 1:
        return found[0]
    if not found:
        raise BadData("has no dataset with two axes")
    some = ", ".join(f"{name}:{path.replace('/', ':')}" for path in found[:3])
    raise BadData(f"holds several images: say which one, as {some}")

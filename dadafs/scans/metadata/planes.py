"""What HDF5 files hold of each pixel of a detector: masks, and where flat fields lie."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
from h5py import h5d

from analysis.codec import Codec
from dadafs.errors import BadData
from dadafs.scans.formats import hdf5
from dadafs.scans.formats.decode import decoded_chunks
from dadafs.scans.formats.images import MAX_PIXELS
from dadafs.scans.model import ChunkRun, Identity

MAX_TILES = 4096  # of a flat field


def tiles_of(found: h5d.DatasetID, path: bytes, identity: Identity) -> ChunkRun:
    """Where the chunks of a plane of floats lie in its file, in raster order. BadData."""
    if len(found.shape) != 2 or found.dtype.kind != "f" or found.dtype.itemsize not in (4, 8):
        raise BadData(f"{len(found.shape)} dimensions of {found.dtype}")
    properties = found.get_create_plist()
    height, width = found.shape
    if not 0 < height * width <= MAX_PIXELS:
        raise BadData(f"{height} x {width} pixels")
    places: list[tuple[int, int]] = []
    if properties.get_layout() == h5d.CONTIGUOUS:
        tile = found.shape
        if found.get_offset() is not None:
            places.append((found.get_offset(), found.get_storage_size()))
    elif properties.get_layout() == h5d.CHUNKED:
        tile = properties.get_chunk()
        for row in range(0, height, tile[0]):
            for column in range(0, width, tile[1]):
                info = found.get_chunk_info_by_coord((row, column))
                if info.filter_mask == 0 and info.byte_offset is not None:
                    places.append((info.byte_offset, info.size))
    else:
        raise BadData("it is stored within the header of its file")
    if len(places) != -(-height // tile[0]) * -(-width // tile[1]) or len(places) > MAX_TILES:
        raise BadData("its chunks are not all there, or too many")
    codec = Codec(tile[0], tile[1], found.dtype.str, hdf5.filters(found))
    offsets, lengths = (np.array(column) for column in zip(*places, strict=True))
    return ChunkRun(
        path, identity, codec, 0, offsets.astype("<u8").tobytes(), lengths.astype("<u4").tobytes()
    )


def read_plane(found: h5d.DatasetID) -> np.ndarray[tuple[int, int], np.dtype[Any]]:
    """A dataset of integers (rows, columns). BadData when it is none, or does not decode."""
    shape = found.shape
    if len(shape) != 2 or found.dtype.kind not in "iub":
        raise BadData(f"{len(shape)} dimensions of {found.dtype}")
    if not 0 < shape[0] * shape[1] <= MAX_PIXELS:
        raise BadData(f"{shape[0]} x {shape[1]} pixels")
    plane = np.zeros((shape[0], shape[1]), found.dtype)
    if found.get_create_plist().get_layout() != h5d.CHUNKED:
        h5py.Dataset(found).read_direct(plane)
        return plane
    height, width = found.get_create_plist().get_chunk()
    if height * width > MAX_PIXELS:
        raise BadData(f"chunks of {height} x {width} pixels")
    codec = Codec(height, width, found.dtype.str, hdf5.filters(found))
    for (row, column), part in decoded_chunks(found, codec):
        target = plane[row : row + height, column : column + width]
        target[...] = part[: target.shape[0], : target.shape[1]]
    return plane

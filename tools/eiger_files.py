"""The files that DECTRIS's file writer leaves behind, sound or damaged.

A frame is compressed once and its chunk written as often as it occurs, so ten thousand frames
cost little more than their bytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import ArrayLike

from tools.scatter import Detector, Frame

CODECS: dict[str, Mapping[str, Any]] = {
    "bitshuffle": hdf5plugin.Bitshuffle(cname="lz4"),
    "bitshuffle-zstd": hdf5plugin.Bitshuffle(cname="zstd"),  # the same filter number, 32008
    "lz4": hdf5plugin.LZ4(),
    "gzip": {"compression": 4},
    "none": {},
}
DATASET = "/entry/data/data"
DATE = "2025-05-14T09:26:53.589793"  # one for all, so that equal arguments give equal files


@dataclass(frozen=True, slots=True)
class Packed:
    """Compressed frames of one shape and dtype."""

    chunks: tuple[bytes, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    codec: str
    """A name in `CODECS`."""


def pack(frames: Iterable[Frame], codec: str = "bitshuffle") -> Packed:
    """Compress frames with HDF5's own filters, one at a time. ValueError without any frame."""
    if codec not in CODECS:
        raise ValueError(f"{codec!r} is no codec: use one of {', '.join(CODECS)}")
    chunks: list[bytes] = []
    shape: tuple[int, ...] = (0, 0)
    dtype: np.dtype[Any] = np.dtype(np.uint16)
    with h5py.File("frames", "w", driver="core", backing_store=False) as file:
        dataset = None
        for frame in frames:
            if dataset is None:
                shape, dtype = frame.shape, frame.dtype
                dataset = _create_stack(file, "frames", 1, shape, dtype, codec)
            if (frame.shape, frame.dtype) != (shape, dtype):
                raise ValueError("frames differ in shape or dtype")
            dataset[0] = frame
            dataset.flush()
            chunks.append(bytes(dataset.id.read_direct_chunk((0, 0, 0))[1]))
    if not chunks:
        raise ValueError("no frames to pack")
    return Packed(tuple(chunks), shape, dtype, codec)


def _create_stack(
    group: h5py.Group, name: str, count: int, shape: tuple[int, ...], dtype: Any, codec: str
) -> h5py.Dataset:
    return group.create_dataset(
        name,
        shape=(count, *shape),
        maxshape=(None, *shape),
        chunks=(1, *shape),
        dtype=dtype,
        **CODECS[codec],
    )


def write_data_file(
    path: Path,
    frames: Packed | Frame,
    codec: str = "bitshuffle",
    *,
    which: ArrayLike | None = None,
    first_image: int = 1,
    missing: Sequence[int] = (),
) -> None:
    """A data file: `frames[which]`, all of them in order without `which`.

    `first_image` is the number of its first frame in the scan, from 1. `missing` are the indices,
    in this file, of frames whose chunk is never written: HDF5 reads them as zeros. Frames that
    are packed already keep their codec.
    """
    packed = frames if isinstance(frames, Packed) else pack(frames, codec)
    order = np.arange(len(packed.chunks)) if which is None else np.asarray(which)
    left_out = frozenset(missing)
    with h5py.File(path, "w") as file:
        data = _group(_group(file, "entry", "NXentry"), "data", "NXdata")
        dataset = _create_stack(data, "data", len(order), packed.shape, packed.dtype, packed.codec)
        dataset.attrs["image_nr_low"] = np.int32(first_image)
        dataset.attrs["image_nr_high"] = np.int32(first_image + len(order) - 1)
        write = dataset.id.write_direct_chunk
        for index, frame in enumerate(order.tolist()):
            if index not in left_out:
                write((index, 0, 0), packed.chunks[frame])


def write_master(
    path: Path,
    detector: Detector,
    *,
    links: Sequence[str],
    images: int,
    triggers: int = 1,
    dtype: np.dtype[Any],
    count_time_s: float = 0.0199,
    frame_time_s: float = 0.02,
) -> None:
    """A master file that links to the data files `links`, names relative to its directory.

    The links may dangle. `images` is the number of frames per trigger that was announced.
    """
    geometry = detector.geometry
    bits = 8 * dtype.itemsize
    with h5py.File(path, "w") as file:
        entry = _group(file, "entry", "NXentry")
        entry["definition"] = np.bytes_("NXmx")
        data = _group(entry, "data", "NXdata")
        data.attrs["signal"] = np.bytes_("data_000001")
        for number, link in enumerate(links, 1):
            data[f"data_{number:06}"] = h5py.ExternalLink(link, DATASET)
        instrument = _group(entry, "instrument", "NXinstrument")
        wavelength_angstrom = np.float32(10 * geometry.wavelength_nm)
        beam = _group(instrument, "beam", "NXbeam")
        _scalar(beam, "incident_wavelength", wavelength_angstrom, "angstrom")
        plane = _group(instrument, "detector", "NXdetector")
        facts: tuple[tuple[str, np.generic, str], ...] = (
            ("beam_center_x", np.float32(geometry.cx), "pixel"),
            ("beam_center_y", np.float32(geometry.cy), "pixel"),
            ("bit_depth_image", np.uint32(bits), ""),
            ("bit_depth_readout", np.uint32(12), ""),
            ("count_time", np.float32(count_time_s), "s"),
            ("description", np.bytes_(f"Dectris Eiger {detector.height} x {detector.width}"), ""),
            ("detector_distance", np.float32(geometry.distance_m), "m"),
            ("detector_number", np.bytes_("E-08-0000"), ""),
            ("detector_readout_time", np.float32(1e-5), "s"),
            ("frame_time", np.float32(frame_time_s), "s"),
            ("sensor_material", np.bytes_("Si"), ""),
            ("sensor_thickness", np.float32(4.5e-4), "m"),
            ("threshold_energy", np.float32(geometry.photon_energy_ev / 2), "eV"),
            ("x_pixel_size", np.float32(geometry.pixel_m), "m"),
            ("y_pixel_size", np.float32(geometry.pixel_m), "m"),
        )
        for name, value, unit in facts:
            _scalar(plane, name, value, unit)
        specific = _group(plane, "detectorSpecific", "NXcollection")
        facts = (
            ("compression", np.bytes_("bslz4"), ""),
            ("data_collection_date", np.bytes_(DATE), ""),
            ("nimages", np.uint32(images), ""),
            ("ntrigger", np.uint32(triggers), ""),
            ("number_of_excluded_pixels", np.uint32(np.count_nonzero(detector.pixel_mask)), ""),
            ("photon_energy", np.float32(geometry.photon_energy_ev), "eV"),
            ("pixel_mask_applied", np.int32(1), ""),
            ("x_pixels_in_detector", np.uint32(detector.width), ""),
            ("y_pixels_in_detector", np.uint32(detector.height), ""),
        )
        for name, value, unit in facts:
            _scalar(specific, name, value, unit)
        specific.create_dataset(
            "pixel_mask", data=detector.pixel_mask, chunks=detector.shape, **CODECS["bitshuffle"]
        )


def write_log(
    directory: Path, name: str, kind: str, horz: int, vert: int, *, snake: bool = False
) -> Path:
    """The scan command of a mesh in a SPEC file, or in a FIO file as Sardana writes it.

    `name` ends with the number of the scan; the SPEC file bears what comes before.
    """
    command = f"mesh stx 0 10 {horz - 1} sty 0 4 {vert - 1} 0.02"
    if kind == "fio":
        path = directory / f"{name}.fio"
        text = f"!\n! Comments\n!\n%c\n{command} {snake}\n%p\nstx = 0.0\nsty = 0.0\n%d\n"
        path.write_text(f"{text} Col 1 stx DOUBLE\n")
        return path
    stem = name.rstrip("0123456789")
    number = name[len(stem) :]
    if kind != "spec" or not number or not stem.rstrip("_"):
        raise ValueError(f"a log of {name!r}: spec or fio, and a name with a number at its end")
    path = directory / f"{stem.rstrip('_')}.dat"
    comment = "#C snake\n" if snake else ""
    with path.open("a") as file:
        if not file.tell():
            file.write(f"#F {path.name}\n#E 1747214813\n#O0 stx  sty\n\n")
        file.write(f"#S {int(number)} {command}\n{comment}#P0 0 0\n#N 1\n#L stx\n0\n\n")
    return path


def _group(parent: h5py.Group, name: str, nx_class: str) -> h5py.Group:
    group = parent.create_group(name)
    group.attrs["NX_class"] = np.bytes_(nx_class)
    return group


def _scalar(group: h5py.Group, name: str, value: np.generic, unit: str) -> None:
    group[name] = value
    if unit:
        group[name].attrs["units"] = np.bytes_(unit)


def truncate(path: Path, keep: float = 0.5) -> None:
    """Cut a file after the fraction `keep` of its bytes, as a full disk or a broken copy does."""
    if not 0 <= keep <= 1:
        raise ValueError(f"cannot keep {keep} of a file: 0 to 1")
    os.truncate(path, int(path.stat().st_size * keep))


def chunk_extent(path: Path, index: int) -> tuple[int, int]:
    """Where in a data file the chunk of a frame lies: offset and length in bytes."""
    with h5py.File(path, "r") as file:
        info = file[DATASET].id.get_chunk_info_by_coord((index, 0, 0))
        return int(info.byte_offset), int(info.size)


def damage_chunk(path: Path, index: int, replacement: bytes = b"\xff" * 64) -> None:
    """Overwrite the middle of a frame's chunk; its header and all the other frames stay intact."""
    offset, length = chunk_extent(path, index)
    replacement = replacement[: max(1, length // 2)]
    with path.open("r+b") as file:
        file.seek(offset + (length - len(replacement)) // 2)
        file.write(replacement)

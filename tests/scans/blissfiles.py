"""Datasets as BLISS and LImA write them at the ESRF: one file a sample, frames in files beside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from scanfiles import BITSHUFFLE

INSTRUMENT = "ESRF-ID13"


def lima_name(camera: str, number: int) -> str:
    return f"{camera}_{number:04}.h5"


def write_lima(
    path: Path,
    frames: NDArray[Any],
    *,
    announced: int,
    allocated: int | None = None,
    camera: str = "eiger",
    pixel_m: float = 75e-6,
    missing: Sequence[int] = (),
    closed: bool = True,
    options: Mapping[str, Any] = BITSHUFFLE,
) -> None:
    """A file of LImA: the dataset of `allocated` frames, of an acquisition of `announced`.

    The soft link of the plot is made when the file is closed. Chunks of `missing` are not written.
    """
    detector = f"/entry_0000/{INSTRUMENT}/{camera}"
    with h5py.File(path, "w") as file:
        classes = {
            "/": "NXroot",
            "/entry_0000": "NXentry",
            f"/entry_0000/{INSTRUMENT}": "NXinstrument",
            "/entry_0000/measurement": "NXcollection",
            detector: "NXdetector",
            f"{detector}/header": "NXcollection",
            f"{detector}/plot": "NXdata",
            f"{detector}/detector_information": "NXcollection",
            f"{detector}/acquisition": "NXcollection",
            f"{detector}/image_operation": "NXcollection",
        }
        for group, nx_class in classes.items():
            file.require_group(group).attrs["NX_class"] = nx_class
        file.attrs.update(default="/entry_0000", creator="LIMA-1.10.1", file_name=str(path))
        file["entry_0000"].attrs["default"] = f"{INSTRUMENT}/{camera}/plot"
        file[f"entry_0000/{INSTRUMENT}"].attrs["default"] = f"{camera}/plot"
        file[detector].attrs["default"] = "plot"
        file[f"{detector}/plot"].attrs["signal"] = "data"
        file["entry_0000/title"] = "Lima 2D detector acquisition"
        file["entry_0000/measurement/data"] = h5py.SoftLink(f"/{detector}/data")
        told = {
            "acquisition/nb_frames": np.int32(announced),
            "acquisition/exposure_time": 0.01,
            "acquisition/trigger_mode": "ExtTrigMult",
            "detector_information/model": "Dectris Eiger 4M",
            "detector_information/pixel_size/xsize": pixel_m,
            "detector_information/pixel_size/ysize": pixel_m,
            "image_operation/binning/x": np.int32(1),
            "image_operation/binning/y": np.int32(1),
            "image_operation/rotation": "0",
        }
        for name, value in told.items():
            file[f"{detector}/{name}"] = value
        shape = frames.shape[1:]
        made = file.create_dataset(
            f"{detector}/data",
            (len(frames) if allocated is None else allocated, *shape),
            frames.dtype,
            chunks=(1, *shape),
            maxshape=(None, *shape),
            **options,
        )
        made.attrs["interpretation"] = "image"
        for number, frame in enumerate(frames):
            if number not in missing:
                made[number] = frame
        if closed:
            file[f"{detector}/plot/data"] = h5py.SoftLink(f"/{detector}/data")
            file["entry_0000/end_time"] = "2026-05-14T09:31:00Z"


def write_camera(
    directory: Path,
    frames: NDArray[Any],
    per_file: int,
    *,
    announced: int | None = None,
    camera: str = "eiger",
) -> list[Path]:
    """The files of an acquisition, as many as there are frames for; each is allocated in full."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, first in enumerate(range(0, len(frames), per_file)):
        paths.append(directory / lima_name(camera, number))
        write_lima(
            paths[-1],
            frames[first : first + per_file],
            announced=len(frames) if announced is None else announced,
            allocated=per_file,
            camera=camera,
        )
    return paths


def write_entry(
    path: Path,
    name: str,
    title: str,
    *,
    frames: Sequence[Path] = (),
    camera: str = "eiger",
    link: str = "virtual",
    positions: Mapping[str, NDArray[Any]] | None = None,
    units: str = "mm",
    counters: Mapping[str, NDArray[Any]] | None = None,
    facts: Mapping[str, Any] | None = None,
    ended: bool = True,
) -> None:
    """One scan, `1.1`, in the file of a dataset; `frames` are the camera's files.

    `link` is how they are linked: `virtual`, a virtual dataset with paths from here; `absolute`,
    one with paths as they were where it was recorded; `external`, a link to the first file.
    """
    with h5py.File(path, "a") as file:
        file.attrs["NX_class"] = "NXroot"
        file.attrs["creator"] = "Bliss"
        entry = file.create_group(name)
        instrument = entry.create_group("instrument")
        measurement = entry.create_group("measurement")
        positioners = instrument.create_group("positioners")
        for group, nx_class in (
            (entry, "NXentry"),
            (instrument, "NXinstrument"),
            (measurement, "NXcollection"),
            (positioners, "NXcollection"),
        ):
            group.attrs["NX_class"] = nx_class
        entry["title"] = title
        entry["start_time"] = "2026-05-14T09:30:00.000000+02:00"
        if ended:
            entry["end_time"] = "2026-05-14T09:31:00.000000+02:00"
        positioners["ndetx"] = -280.0
        for device, values in (positions or {}).items():
            _device(instrument, measurement, device, "value", values, units)
        for device, values in (counters or {}).items():
            _device(instrument, measurement, device, "data", values, "")
        for place, value in (facts or {}).items():
            entry[place] = value
        group = instrument.create_group(camera)
        group.attrs["NX_class"] = "NXdetector"
        group["acq_parameters/acq_expo_time"] = 0.01
        if frames:
            _images(group, path, frames, link)
            measurement[camera] = h5py.SoftLink(f"/{name}/instrument/{camera}/data")


def _device(
    instrument: h5py.Group,
    measurement: h5py.Group,
    name: str,
    last: str,
    values: NDArray[Any],
    units: str,
) -> None:
    group = instrument.create_group(name)
    group.attrs["NX_class"] = "NXpositioner" if last == "value" else "NXdetector"
    made = group.create_dataset(
        last,
        data=values,
        maxshape=(None, *values.shape[1:]),
        chunks=(max(len(values) // 2, 1), *values.shape[1:]),
        compression="gzip",
        shuffle=True,
    )
    if units:
        made.attrs["units"] = units
    measurement[name] = h5py.SoftLink(made.name)


def _images(group: h5py.Group, path: Path, frames: Sequence[Path], link: str) -> None:
    source = f"/entry_0000/{INSTRUMENT}/eiger/data"
    beside = [one.relative_to(path.parent) for one in frames]
    if link == "external":
        group["data"] = h5py.ExternalLink(str(beside[0]), "/entry_0000/measurement/data")
        return
    shapes = []
    for one in frames:
        with h5py.File(one) as file:
            shapes.append((file["entry_0000/measurement/data"].shape, file[source].dtype))
    total = sum(shape[0] for shape, _ in shapes)
    layout = h5py.VirtualLayout((total, *shapes[0][0][1:]), shapes[0][1])
    first = 0
    for one, (shape, _) in zip(beside, shapes, strict=True):
        name = f"./{one}"
        if link == "absolute":
            name = f"/data/visitor/ls1/id13/20260514/RAW_DATA/s/{path.parent.name}/{one}"
        layout[first : first + shape[0]] = h5py.VirtualSource(name, source, shape)
        first += shape[0]
    group.create_virtual_dataset("data", layout, fillvalue=0)
    group["image"] = h5py.SoftLink("data")

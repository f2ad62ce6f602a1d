"""Image files of several frames, by the programs that write them."""

from __future__ import annotations

import io
import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tifffile
from fabio.edfimage import EdfImage
from numpy.typing import NDArray
from PIL import Image

Writer = Callable[[NDArray[Any]], bytes]


def tif(frames: NDArray[Any], **options: Any) -> bytes:
    """A page for each frame."""
    out = io.BytesIO()
    tifffile.imwrite(out, frames, **{"photometric": "minisblack", **options})
    return out.getvalue()


def pages(frames: NDArray[Any], **options: Any) -> bytes:
    """The same, each page followed by its pixels, as cameras write them."""
    out = io.BytesIO()
    with tifffile.TiffWriter(out, bigtiff=options.pop("bigtiff", False)) as file:
        for frame in frames:
            file.write(frame, contiguous=False, photometric="minisblack", **options)
    return out.getvalue()


def imagej(frames: NDArray[Any]) -> bytes:
    """As ImageJ writes it: big-endian, with its description."""
    return tif(frames, imagej=True, byteorder=">")


def imagej_of_one_directory(frames: NDArray[Any]) -> bytes:
    """As ImageJ writes stacks of more than 4 GiB: the first page leads to no other."""
    data = bytearray(imagej(frames))
    at = int.from_bytes(data[4:8], "big")
    end = at + 2 + 12 * int.from_bytes(data[at : at + 2], "big")
    data[end : end + 4] = bytes(4)
    return bytes(data)


def pillow(
    frames: NDArray[Any], compression: str | None = "tiff_adobe_deflate", **options: Any
) -> bytes:
    """In strips, deflated."""
    first, *others = map(Image.fromarray, frames)
    out = io.BytesIO()
    first.save(out, "TIFF", save_all=True, append_images=others, compression=compression, **options)
    return out.getvalue()


def imagemagick(frames: NDArray[Any]) -> bytes:
    """Deflated, with differences of neighbours."""
    with tempfile.TemporaryDirectory() as directory:
        single = [os.path.join(directory, f"{number}.tif") for number in range(len(frames))]
        for path, frame in zip(single, frames, strict=True):
            tifffile.imwrite(path, frame)
        made = os.path.join(directory, "made.tif")
        subprocess.run(["convert", *single, "-compress", "zip", made], check=True, timeout=60)
        return Path(made).read_bytes()


def edf(frames: NDArray[Any]) -> bytes:
    """By fabio."""
    image = EdfImage(data=frames[0], header={"title": "a scan"})
    for frame in frames[1:]:
        image.append_frame(data=frame)
    with tempfile.NamedTemporaryFile() as file:
        image.write(file.name)
        return Path(file.name).read_bytes()


def lima(frames: NDArray[Any], first: int = 0) -> bytes:
    """EDF as LImA writes it: headers of 1024 bytes, and of more where there is more to say."""
    out = []
    for number, frame in enumerate(frames):
        stated = {
            "EDF_DataBlockID": f"{number + 1}.Image.Psd",
            "EDF_BinarySize": frame.nbytes,
            "EDF_HeaderSize": 1024,
            "ByteOrder": "LowByteFirst",
            "DataType": {"u2": "UnsignedShort", "i4": "SignedInteger"}[frame.dtype.str[1:]],
            "Dim_1": frame.shape[1],
            "Dim_2": frame.shape[0],
            "Image": first + number,
            "HeaderID": "EH:000000:000000:000000",
            "time_of_day": 1762000000.5 + number,
            "acq_mode": "Single",
            "acq_expo_time": 0.02,
        }
        text = "{\n" + "".join(f"{name} = {value} ;\n" for name, value in stated.items())
        out += [text.encode().ljust(1022) + b"}\n", frame.tobytes()]
    return b"".join(out)

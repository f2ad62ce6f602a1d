"""Make a scan as a beamline leaves it: master file, data files, a phantom worth looking at.

From the command line `tools/make_scan DIR`; from tests `make_scan(directory, ...)`, which also
returns what is needed to compute the right answers.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tools.eiger_files import (
    CODECS,
    Packed,
    chunk_extent,
    damage_chunk,
    pack,
    truncate,
    write_data_file,
    write_log,
    write_master,
)
from tools.scatter import (
    Detector,
    Frame,
    Geometry,
    Pattern,
    detector_named,
    make_frame,
    phantom,
    quantise,
)

__all__ = [
    "CODECS",
    "Detector",
    "Geometry",
    "Packed",
    "Pattern",
    "ScanMade",
    "chunk_extent",
    "damage_chunk",
    "detector_named",
    "main",
    "make_frame",
    "make_scan",
    "pack",
    "truncate",
    "write_data_file",
    "write_log",
    "write_master",
]


@dataclass(frozen=True, slots=True)
class ScanMade:
    """A scan on disk and the truth about it."""

    master: Path | None
    data_files: tuple[Path, ...]
    """Those that were written, in order."""
    horz: int
    """Points per line."""
    vert: int
    """Lines that were announced; `len(which)` frames of them were recorded."""
    which: NDArray[np.intp] = field(repr=False)
    """For each recorded frame, in order of time, its index in `frames` and `patterns`."""
    present: NDArray[np.bool_] = field(repr=False)
    """For each recorded frame, whether its data file was written."""
    frames: Frame = field(repr=False)
    """The distinct frames as stored, (unique, height, width); none where they were not kept."""
    frame_sums: NDArray[np.int64] = field(repr=False)
    """Of each distinct frame, the sum of its valid pixels."""
    patterns: tuple[Pattern, ...] = field(repr=False)
    """What each distinct frame shows."""
    detector: Detector = field(repr=False)
    geometry: Geometry

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Invalid pixels, by the pixel mask of the master; without one nobody can know them."""
        return np.asarray(self.detector.pixel_mask != 0)

    @property
    def sums(self) -> NDArray[np.int64]:
        """Of each recorded frame, the sum of its valid pixels."""
        return self.frame_sums[self.which]


def make_scan(
    directory: Path | str,
    *,
    name: str = "scan42",
    horz: int | None = None,
    vert: int | None = None,
    frames: int | None = None,
    order: Literal["raster", "snake"] = "raster",
    detector: str = "small",
    dtype: Literal["uint16", "uint32"] = "uint16",
    codec: str = "bitshuffle",
    images_per_file: int = 1000,
    unique: int = 16,
    exposure: float = 1.0,
    seed: int = 0,
    triggers: int = 1,
    master: bool = True,
    leave_out: Collection[int] = (),
    keep_frames: bool = True,
    log: Literal["", "spec", "fio"] = "",
) -> ScanMade:
    """Write a scan to `directory`, which is made if need be. Equal arguments, equal files.

    The raster is `horz` times `vert`, or the squarest that has just `frames` points. Fewer frames
    than raster points are an aborted scan: the master announces all of the raster, and its links
    to files that were never begun dangle, as do those to the data files in `leave_out` (numbers
    from 1). Scans with at most `unique` points have a frame of their own for each.
    With `log` the scan command lies beside it, as SPEC or Sardana write it.
    ValueError for arguments that make no scan.
    """
    horz, vert, recorded = _raster(horz, vert, frames)
    announced = horz * vert
    if triggers < 1 or announced % triggers:
        raise ValueError(f"{announced} frames cannot be shared out over {triggers} triggers")
    if images_per_file < 1 or unique < 1:
        raise ValueError("images per file and unique frames: at least 1")
    if not 0 <= exposure <= 1e6:
        raise ValueError(f"an exposure of {exposure}: from 0 to 1e6")
    files = math.ceil(announced / images_per_file)
    if unknown := set(leave_out) - set(range(1, files + 1)):
        raise ValueError(f"no data file {min(unknown)} to leave out: they are 1 to {files}")
    plane = detector_named(detector, seed=seed)
    points, which = quantise(phantom(horz, vert, seed=seed), unique)
    if order == "snake":
        which = which.reshape(vert, horz)
        which[1::2] = which[1::2, ::-1]
    which = which.ravel()[:recorded]
    used, which = np.unique(which, return_inverse=True)  # a short scan may not meet all of them
    patterns = tuple(points[index] for index in used)

    kept: list[Frame] = []
    sums: list[int] = []
    pixels = np.dtype(np.uint16) if dtype == "uint16" else np.dtype(np.uint32)

    def expose() -> Iterator[Frame]:
        valid = plane.pixel_mask == 0
        for index, pattern in enumerate(patterns):
            frame = make_frame(plane, pattern, pixels, exposure=exposure, seed=(seed, 3, index))
            sums.append(int(frame.sum(where=valid, dtype=np.int64)))
            if keep_frames:
                kept.append(frame)
            yield frame

    packed = pack(expose(), codec)
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    names = [f"{name}_data_{number:06}.h5" for number in range(1, files + 1)]
    present = np.zeros(recorded, bool)
    written = []
    for number, first in enumerate(range(0, recorded, images_per_file), 1):
        if number in leave_out:
            continue
        part = slice(first, first + images_per_file)
        path = directory / names[number - 1]
        write_data_file(path, packed, which=which[part], first_image=first + 1)
        present[part] = True
        written.append(path)
    master_path = directory / f"{name}_master.h5" if master else None
    if master_path is not None:
        images = announced // triggers
        write_master(
            master_path, plane, links=names, images=images, triggers=triggers, dtype=pixels
        )
    if log:
        write_log(directory, name, log, horz, vert, snake=order == "snake")
    return ScanMade(
        master=master_path,
        data_files=tuple(written),
        horz=horz,
        vert=vert,
        which=which,
        present=present,
        frames=np.stack(kept) if kept else np.empty((0, *plane.shape), pixels),
        frame_sums=np.array(sums, np.int64),
        patterns=patterns,
        detector=plane,
        geometry=plane.geometry,
    )


def _raster(horz: int | None, vert: int | None, frames: int | None) -> tuple[int, int, int]:
    """Points per line, lines, recorded frames."""
    if frames is not None and horz is None and vert is None:
        vert = next((n for n in range(math.isqrt(max(frames, 0)), 0, -1) if frames % n == 0), 1)
        horz = frames // vert
    horz = 51 if horz is None else horz
    vert = 10 if vert is None else vert
    if horz < 1 or vert < 1:
        raise ValueError(f"a raster of {horz} x {vert} points has none")
    frames = horz * vert if frames is None else frames
    if not 1 <= frames <= horz * vert:
        raise ValueError(f"{frames} frames: a raster of {horz} x {vert} has 1 to {horz * vert}")
    return horz, vert, frames


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. A user's mistake prints one line; returns the exit status."""
    options = _parser().parse_args(arguments)
    began = time.perf_counter()
    try:
        made = make_scan(
            options.directory,
            name=options.name,
            horz=options.horz,
            vert=options.vert,
            frames=options.frames,
            order=options.order,
            detector=options.detector,
            dtype=options.dtype,
            codec=options.codec,
            images_per_file=options.images_per_file,
            unique=options.unique,
            exposure=options.exposure,
            seed=options.seed,
            triggers=options.triggers,
            master=not options.no_master,
            leave_out=options.leave_out,
            keep_frames=False,
            log=options.log,
        )
        if options.truncate is not None and made.data_files:
            truncate(made.data_files[-1], options.truncate)
        if options.lossless_sum is not None:
            np.save(options.lossless_sum, _map(made, options.order))
    except (OSError, ValueError) as error:
        print(f"make_scan: {error}", file=sys.stderr)
        return 1
    seconds = time.perf_counter() - began
    for path in (made.master, *made.data_files):
        if path is not None:
            print(f"{path}  {path.stat().st_size / 1e6:.1f} MB")
    frames = int(made.present.sum())
    size_bytes = sum(path.stat().st_size for path in made.data_files)
    height, width = made.detector.shape
    print(
        f"{frames} frames of {height} x {width} {options.dtype}, "
        f"raster {made.horz} x {made.vert}, {len(made.patterns)} distinct, "
        f"{size_bytes / max(frames, 1) / 1e3:.1f} kB a frame, "
        f"{seconds:.1f} s, {frames / seconds:.0f} frames/s"
    )
    return 0


def _map(made: ScanMade, order: str) -> NDArray[np.float64]:
    """What `darkfield` over the whole detector must give: (line, point), NaN where missing."""
    values = np.full((made.vert, made.horz), np.nan)
    values.flat[: len(made.which)] = np.where(made.present, made.sums, np.nan)
    if order == "snake":
        values[1::2] = values[1::2, ::-1].copy()
    return values


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make_scan", description="Make a scan as an Eiger's file writer leaves it."
    )
    parser.add_argument("directory", metavar="DIR", type=Path, help="made if need be")
    parser.add_argument("--name", default="scan42")
    parser.add_argument("--horz", type=int, help="points per line (51)")
    parser.add_argument("--vert", type=int, help="lines (10)")
    parser.add_argument("--frames", type=int, help="recorded frames: with a raster, aborted there")
    parser.add_argument("--order", choices=("raster", "snake"), default="raster")
    parser.add_argument(
        "--detector", default="eiger4m", metavar="NAME", help="eiger4m, small or HEIGHTxWIDTH"
    )
    parser.add_argument("--dtype", choices=("uint16", "uint32"), default="uint16")
    parser.add_argument("--codec", choices=tuple(CODECS), default="bitshuffle")
    parser.add_argument("--images-per-file", type=int, default=1000, metavar="N")
    parser.add_argument("--unique", type=int, default=16, metavar="N", help="distinct frames")
    parser.add_argument("--exposure", type=float, default=1.0, help="scales all counts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--triggers", type=int, default=1, help="over which nimages is shared out")
    parser.add_argument(
        "--log", choices=("spec", "fio"), default="", help="write the scan command beside it"
    )
    parser.add_argument("--no-master", action="store_true", help="leave lone data files")
    parser.add_argument(
        "--leave-out",
        type=_numbers,
        default=(),
        metavar="N,N",
        help="data files, from 1, that are not written",
    )
    parser.add_argument(
        "--truncate", type=float, metavar="FRACTION", help="keep so much of the last data file"
    )
    parser.add_argument(
        "--lossless-sum",
        type=Path,
        metavar="FILE",
        help="also write the exact sums of valid pixels, a npy of (line, point)",
    )
    return parser


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


if __name__ == "__main__":
    sys.exit(main())

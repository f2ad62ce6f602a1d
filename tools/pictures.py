"""Pictures for the documents, each read from a real mount of a generated scan."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from dadafs.containers.base import View
from dadafs.containers.colours import palette
from dadafs.containers.png import indexed
from tools.benches.mounting import mounted
from tools.scan_maker import make_scan

ROOT = Path(__file__).resolve().parents[1]
WIDTH = 400  # pixels, or just below: edges of points stay sharp


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the pictures; the exit code."""
    parser = argparse.ArgumentParser(prog="make_pictures", description=__doc__)
    parser.add_argument("directory", nargs="?", type=Path, default=ROOT / "docs/pictures")
    parser.add_argument("--horz", type=int, default=80, help="points per line of the scan")
    parser.add_argument("--vert", type=int, default=60, help="its lines")
    options = parser.parse_args(arguments)
    make_pictures(options.directory, options.horz, options.vert)
    return 0


def make_pictures(directory: Path, horz: int, vert: int) -> None:
    """Make a scan, mount it, and write what its analyses look like to `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="dadafs-pictures-") as place:
        raw = Path(place, "raw")
        made = make_scan(
            raw, horz=horz, vert=vert, detector="256x240", unique=horz * vert, log="spec"
        )
        assert made.master is not None
        with mounted(raw, Path(place)) as mnt:
            scan = mnt / made.master.name.removesuffix("_master.h5")
            for name, path in {
                "darkfield": "darkfield/rmin=12/full.png",
                "dpc": "dpc/cmap=gray/rmax=8/channel=x.png",
                "orientation": "orientation/rmin=12/full.png",
                "composite": f"composite/bin=8/scale=log/region=0,{vert // 2},12,9.png",
            }.items():
                with Image.open(scan / path) as picture:
                    save(picture, directory / f"{name}.png")
            profiles = np.load(scan / "radial/rmax=120/bins=80/channel=intensity.npy")
            colours = indexed(profiles[vert // 2], View(log=True))
            picture = Image.fromarray(palette("viridis", 255)[np.maximum(colours, 1) - 1])
            save(picture, directory / "radial.png")


def save(picture: Image.Image, path: Path) -> None:
    """A picture of points, each a square of pixels."""
    times = max(1, WIDTH // picture.width)
    larger = picture.resize(
        (picture.width * times, picture.height * times), Image.Resampling.NEAREST
    )
    larger.save(path, optimize=True)
    print(f"{path.name}: {larger.width} x {larger.height}, {path.stat().st_size / 1e3:.1f} kB")

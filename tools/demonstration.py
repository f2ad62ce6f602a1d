"""What dadafs does, shown on a scan made for it: each step is a command anybody could type."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
DADAFS = ROOT / ".venv/bin/dadafs"
SHADES = " .:-=+*#%@"
HORZ, VERT = 51, 30


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demonstration; the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    place = Path(tempfile.gettempdir()) / f"dadafs-demo-{os.getuid()}"
    raw, mnt, maps = place / "raw", place / "mnt", place / "maps"
    for directory in (raw, mnt, maps):
        directory.mkdir(parents=True, exist_ok=True)
    if not (raw / "scan42_master.h5").exists():
        run(
            ROOT / "tools/make_scan", raw, f"--horz={HORZ}", f"--vert={VERT}",
            f"--lossless-sum={place / 'sums.npy'}",
        )  # fmt: skip
    run(DADAFS, "mount", raw, mnt)
    try:
        show(mnt, maps, np.load(place / "sums.npy"))
        if "--keep" in arguments:
            print(f"\nStill mounted at {mnt}; `{DADAFS} umount {mnt}` ends it.")
    finally:
        if "--keep" not in arguments:
            run(DADAFS, "umount", mnt)
    return 0


def show(mnt: Path, maps: Path, sums: NDArray[np.float64]) -> None:
    """Look around in the mount, compute maps, compare them with the truth."""
    scan = mnt / "scan42"
    run("ls", "-l", scan)
    run("cat", scan / "README.txt")
    before, began = computed(mnt), time.perf_counter()
    run("cp", scan / f"darkfield/horz={HORZ}/vert={VERT}.npy", maps / "darkfield.npy")
    seconds = time.perf_counter() - began
    darkfield = np.load(maps / "darkfield.npy")
    frames = computed(mnt) - before
    print(f"{HORZ * VERT} points in {seconds:.1f} s; {frames} frames were computed,")
    print(f"{HORZ * VERT - frames} remembered from before. The map, dark to bright:\n")
    print(picture(darkfield))
    verdict = "equals" if np.array_equal(darkfield, sums) else "DIFFERS FROM"
    print(f"\nIt {verdict} the sums that the frames were made with, to the last count.")
    run("cp", scan / f"dpc/horz={HORZ}/vert={VERT}.tif", maps / "dpc.tif")
    run("cp", scan / f"orientation/horz={HORZ}/vert={VERT}.tif", maps / "orientation.tif")
    run("cp", scan / "average/full.tif", maps / "average.tif")
    print(f"\nThe maps are in {maps}; any program that reads npy or tif opens them.")
    if verdict != "equals":
        raise SystemExit(1)


def computed(mnt: Path) -> int:
    """Frames that the mount has computed so far."""
    frames: int = json.loads((mnt / ".dadafs/stats.json").read_text())["frames_computed"]
    return frames


def run(*command: str | Path) -> None:
    """Say the command, then run it; SystemExit where it fails."""
    words = [str(word) for word in command]
    print(f"\n$ {shlex.join([words[0].removeprefix(f'{ROOT}/'), *words[1:]])}", flush=True)
    done = subprocess.run(words)
    if done.returncode:
        raise SystemExit(f"{words[0]} ended with {done.returncode}")


def picture(values: NDArray[np.float64]) -> str:
    """A map as text, dark to bright."""
    low, high = np.nanmin(values), np.nanmax(values)
    scaled = (values - low) / max(high - low, 1) * (len(SHADES) - 1)
    return "\n".join("".join(SHADES[int(v)] * 2 for v in line) for line in scaled)


if __name__ == "__main__":
    sys.exit(main())

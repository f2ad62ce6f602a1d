"""Whole maps through the mount, cold results, as a share of what the kernel alone can do."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from tools.benches.mounting import mounted, seconds_of, stats

HORZ, VERT = 128, 128
MAPS = ("darkfield", "radial", "azimuthal", "average")


def main(arguments: Sequence[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="bench map", description=__doc__)
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    parser.add_argument("--rounds", type=int, default=3, help="of which the median counts (3)")
    parser.add_argument("--maps", nargs="+", choices=MAPS, default=list(MAPS))
    options = parser.parse_args(arguments)
    with TemporaryDirectory(prefix="dadafs-bench-") as place:
        figures = measure(Path(place), options.rounds, options.maps)
    if options.json:
        print(json.dumps(figures, indent=2))
        return 0
    print(f"{'':12}{'mount':>10}{'kernels':>10}{'share':>8}   frames/s, Eiger 4M, all cores")
    for name, of in figures.items():
        print(f"{name:12}{of['mount']:>10.0f}{of['kernels']:>10.0f}{of['share']:>8.2f}")
    return 0


def measure(place: Path, rounds: int, maps: Sequence[str]) -> dict[str, dict[str, float]]:
    """Frames a second of each map, by name: `mount`, `kernels` (as many threads), their ratio."""
    raw = place / "raw"
    command = [sys.executable, "-m", "tools.scan_maker", str(raw)]
    subprocess.run([*command, f"--horz={HORZ}", f"--vert={VERT}"], check=True, stdout=sys.stderr)
    rates: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in maps}
    for number in range(rounds):
        here = place / f"round{number}"
        here.mkdir()
        with mounted(raw, here) as mnt:
            warm(mnt)
            for name in maps:
                path = mnt / f"scan42/{name}/horz={HORZ}/vert={VERT}.npy"
                before = stats(mnt)["frames_computed"]
                seconds = seconds_of(path.read_bytes)
                frames = stats(mnt)["frames_computed"] - before
                rates[name][0].append(frames / seconds)
                rates[name][1].append(bare_rate(raw, name))
    found = {}
    for name, (through, bare) in rates.items():
        share = median(a / b for a, b in zip(through, bare, strict=True))
        found[name] = {"mount": median(through), "kernels": median(bare), "share": share}
    return found


def warm(mnt: Path) -> None:
    """Have the peer load its kernels and the kernel of the machine the raw files."""
    for name in MAPS:
        (mnt / f"scan42/{name}/roi=0,0,64,64/horz=8/vert=1.npy").read_bytes()
    for file in (mnt / "scan42/raw").iterdir():
        file.read_bytes()


def bare_rate(raw: Path, name: str, threads: int | None = None) -> float:
    """Frames a second of the pass alone, in so many threads, or as many as there are cores."""
    threads = threads or len(os.sched_getaffinity(0))
    from analysis.reductions import REDUCTIONS
    from dadafs.cache.store import Store
    from dadafs.requests import concrete, grammar
    from dadafs.scans.catalog import Catalog
    from dadafs.scans.frames.slices import chunks
    from dadafs.scans.tree import RawTree

    with TemporaryDirectory(prefix="dadafs-bench-index-") as index:
        store = Store(Path(index), 1 << 26)
        catalog = Catalog(RawTree(raw), store)
        scan = catalog.scan(b"scan42")
        frames = catalog.slice(b"scan42", 0, 1000)
        store.close()
    node = grammar().parse([name.encode(), b"full.npy"])
    result = concrete(node, scan)  # type: ignore[arg-type]
    prepared = REDUCTIONS[result.plan.reduction].prepare(result.plan)
    run = frames.runs[0]
    fd = os.open(raw / os.fsdecode(run.path), os.O_RDONLY)
    places = list(chunks(run))

    def work(part: int) -> None:
        out = None if name == "average" else _zeros(prepared)
        pattern = prepared.new() if name == "average" else None
        for _, offset, length in places[part::threads]:
            chunk = os.pread(fd, length, offset)
            if pattern is not None:
                prepared.accumulate(chunk, run.codec, pattern)
            else:
                prepared.chunk(chunk, run.codec, out)

    try:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, range(threads)))
            began = time.perf_counter()
            list(pool.map(work, range(threads)))
            return len(places) / (time.perf_counter() - began)
    finally:
        os.close(fd)


def _zeros(prepared: object) -> object:
    import numpy as np

    return np.zeros(prepared.value_shape, prepared.value_dtype)  # type: ignore[attr-defined]

"""Frames a second of each pass on one core, beside h5py's `read_direct` alone.

`read_direct` decodes into memory that is there already: the least that any program on h5py does.
A pass reads its chunks from the page cache as a peer does, and leaves its values.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from tools.benches.stopwatch import ROUNDS, Rate, compare, one_thread

if TYPE_CHECKING:
    from tools.benches.sources import Source

DTYPES = ("uint16", "uint32")
CODECS = ("bitshuffle", "lz4", "none")
PEERS = ("libertem", "pyfai")


def main(arguments: Sequence[str]) -> int:
    """The command line."""
    options = _parser().parse_args(arguments)
    one_thread()
    from tools.benches.passes import passes_over
    from tools.benches.peers import NotInstalled, passes_of

    results = []
    against: list[str] = options.against
    with TemporaryDirectory(prefix="dadafs-bench-") as directory:
        for opening in _sources(Path(directory), options):
            with opening as source:
                passes = passes_over(source)
                for peer in against:
                    try:
                        passes |= passes_of(peer, source)
                    except NotInstalled as error:
                        print(f"bench: {error}", file=sys.stderr)
                against = []  # the first scan is the common one; others would take minutes
                rates = compare(passes, options.seconds, options.rounds)
                results.append({"title": source.title, "rates": [asdict(rate) for rate in rates]})
                if not options.json:
                    _show(source, rates)
    if options.json:
        print(json.dumps(results, indent=1))
    return 0


def _sources(
    directory: Path, options: argparse.Namespace
) -> Iterator[AbstractContextManager[Source]]:
    from tools.benches.sources import REAL_FILE, generated, real

    for dtype in options.dtype:
        for codec in options.codec:
            yield generated(directory, dtype, codec)
    if REAL_FILE.exists():
        yield real()
    else:
        print(f"bench: skipped the real frames: no {REAL_FILE}", file=sys.stderr)


def _show(source: Source, rates: Sequence[Rate]) -> None:
    print(f"\n{source.title}, {source.chunk_bytes / 1e3:.0f} kB a frame")
    print(f"  {'':<34} {'frames/s':>9} {'/ read_direct':>14}")
    for rate in rates:
        print(f"  {rate.name:<34} {rate.frames_per_s:>9.0f} {rate.ratio:>14.2f}")
    ours = {rate.name: rate for rate in rates}
    for rate in rates:
        name = _OURS.get(rate.name)
        if name in ours:
            print(f"  {name} / {rate.name}: {ours[name].ratio / rate.ratio:.1f}")
    sys.stdout.flush()


_OURS = {
    "LiberTEM mask sum": "darkfield",
    "LiberTEM centre of mass": "darkfield, dpc, orientation",
    "pyFAI integrate1d": "radial",
}
"""By what a peer does: which pass gives the same."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench kernels", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print figures for programs")
    parser.add_argument(
        "--seconds", type=float, default=1.0, metavar="S", help="on each pass and scan (1)"
    )
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS, metavar="N", help=f"turns of each pass ({ROUNDS})"
    )
    parser.add_argument(
        "--against", nargs="+", choices=PEERS, default=[], help="measure these, too"
    )
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=DTYPES)
    parser.add_argument("--codec", nargs="+", choices=CODECS, default=CODECS)
    return parser

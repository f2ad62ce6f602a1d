"""`dadafs get` and `dadafs warm`: have files computed, and show how far that is."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from dadafs.commands.declaring import DONE, REFUSED, Commands, command, inner_path
from dadafs.errors import DadaError, Unreachable, UsageError

if TYPE_CHECKING:
    from dadafs.client.asking.fetching import Progress
    from dadafs.rpc.messages import FileFacts

BAR = 24
REDRAW_S = 0.1


def add(commands: Commands) -> None:
    """Declare the commands."""
    get = command(
        commands,
        "get",
        _get,
        summary="copy a file of a mount, with progress; resumes",
        about="Copy PATH of a mount to DEST, a file or directory. What was copied when it was\n"
        "interrupted is kept in DEST.part and continued if the source is unchanged.",
        example="dadafs get /mnt/dada/scan42/darkfield/full.h5 /tmp/",
    )
    get.add_argument("path", metavar="PATH", type=Path)
    get.add_argument("dest", metavar="DEST", type=Path)
    warm = command(
        commands,
        "warm",
        _warm,
        summary="compute files ahead",
        about="Compute each PATH of a mount, so that reading it later is a matter of caches.",
        example="dadafs warm /mnt/dada/scan42/darkfield/full.npy /mnt/dada/scan42/dpc/full.npy",
    )
    warm.add_argument("paths", metavar="PATH", type=Path, nargs="+")


def _get(options: argparse.Namespace) -> int:
    from dadafs.client.asking.fetching import facts, fetch

    mountpoint, inner = inner_path(options.path)
    dest = _destination(options.path, options.dest)
    about = facts(mountpoint, inner)
    part = dest.with_name(dest.name + ".part")
    note = dest.with_name(dest.name + ".part.json")
    start = _resumable(part, note, about)
    began = time.monotonic()
    note.write_text(_noted(about))
    with open(part, "r+b" if start else "wb") as file, Bar(dest.name, start) as bar:
        file.truncate(start)

        def write(offset: int, data: memoryview) -> None:
            file.seek(offset)
            file.write(data)

        fetch(mountpoint, inner, about, start, write, bar.show)
        file.flush()
        os.fsync(file.fileno())
        end = file.tell() if about.live else about.size
    os.replace(part, dest)
    note.unlink()
    os.utime(dest, ns=(time.time_ns(), about.mtime_ns))
    resumed = f", {start} of them from before" if start else ""
    print(f"{dest}: {end} bytes{resumed}, in {time.monotonic() - began:.1f} s")
    return DONE


def _warm(options: argparse.Namespace) -> int:
    from dadafs.client.asking.fetching import facts, fetch

    code = DONE
    for path in options.paths:
        mountpoint, inner = inner_path(path)
        began = time.monotonic()
        try:
            about = facts(mountpoint, inner)
            with Bar(path.name, 0) as bar:
                fetch(mountpoint, inner, about, 0, lambda _offset, _data: None, bar.show)
        except Unreachable:
            raise
        except DadaError as exc:
            print(f"dadafs: {exc}", file=sys.stderr)
            code = REFUSED
        else:
            print(f"{path}: computed, in {time.monotonic() - began:.1f} s", flush=True)
    return code


def _destination(source: Path, dest: Path) -> Path:
    from dadafs.client.mounting.mountpoint import mount_above

    if dest.is_dir():
        dest = dest / source.name
    if mount_above(dest) is not None:
        raise UsageError(f"{dest} is within a mount, which is read-only")
    if not dest.parent.is_dir():
        raise UsageError(f"{dest.parent} is no directory")
    return dest


def _resumable(part: Path, note: Path, about: FileFacts) -> int:
    """How much of the source is there already; 0 where the source is another."""
    try:
        same = note.read_text() == _noted(about)
        size = part.stat().st_size
    except OSError:
        return 0
    return size if same and not about.live and size <= about.size else 0


def _noted(about: FileFacts) -> str:
    return json.dumps([about.version, about.size, about.mtime_ns])


class Bar:
    """One line on a terminal, drawn again and again; nothing elsewhere."""

    def __init__(self, name: str, start: int) -> None:
        self._name = name
        self._start = start
        self._on = sys.stderr.isatty()
        self._began = time.monotonic()
        self._drawn = 0.0

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._on and self._drawn:
            print(file=sys.stderr)

    def show(self, progress: Progress) -> None:
        """Draw, if it was not just drawn."""
        now = time.monotonic()
        if not self._on or now - self._drawn < REDRAW_S:
            return
        self._drawn = now
        line = bar_line(self._name, progress, self._start, now - self._began)
        columns = shutil.get_terminal_size().columns
        print("\r\x1b[K" + line[: columns - 1], end="", file=sys.stderr, flush=True)


def bar_line(name: str, progress: Progress, start: int, seconds: float) -> str:
    """Part done, rate, time left. Pure.

    While nothing came yet, what is known is how many patches were computed.
    """
    from dadafs.commands.showing import duration, size

    total = progress.bytes_total
    came = progress.bytes_done - start
    if came > 0 and total:
        share = progress.bytes_done / total
        rate = came / max(seconds, 1e-3)
        left = duration((total - progress.bytes_done) / rate)
        told = f"{share:4.0%} {size(rate)}/s, {left} left"
    elif progress.patches_wanted:
        share = progress.patches_done / progress.patches_wanted
        told = f"patch {progress.patches_done} of {progress.patches_wanted}"
        if progress.patches_per_s:
            more = (progress.patches_wanted - progress.patches_done) / progress.patches_per_s
            told += f", {progress.patches_per_s:.1f}/s, {duration(more)} left"
    else:
        share, told = 0.0, "begins"
    filled = round(share * BAR)
    return f"{name} [{'#' * filled}{'.' * (BAR - filled)}] {told}"

"""`dadafs cache`: what caches hold, whether it is sound, and emptying them."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from dadafs.commands.declaring import DONE, REFUSED, Commands, command
from dadafs.errors import BadData, UsageError

SHOWN = 100


def add(commands: Commands) -> None:
    """Declare the command."""
    cache = command(
        commands,
        "cache",
        _cache,
        summary="look at, verify or clear caches",
        about="stats: what caches hold. verify: compare the checksum of every value.\n"
        "clear: remove them; refused while a mount, server or peer has them open.\n"
        "Exit code 1 where something is damaged or in use.",
        example="dadafs cache stats",
    )
    cache.add_argument("action", choices=("stats", "verify", "clear"))
    cache.add_argument(
        "--cache", type=Path, metavar="DIR", help="one cache (all below ~/.cache/dadafs)"
    )


def _cache(options: argparse.Namespace) -> int:
    from dadafs.cache.inspecting import stores
    from dadafs.config import caches

    directory = Path(os.path.abspath(options.cache)) if options.cache else caches()
    if options.cache and not directory.is_dir():
        raise UsageError(f"{directory} is no directory")
    found = stores(directory)
    if not found:
        print(f"no cache in {directory}")
    act = {"stats": _stats, "verify": _verify, "clear": _clear}[options.action]
    code = DONE
    for path in found[:SHOWN] if options.action == "stats" else found:
        try:
            good = act(path)
        except (BadData, UsageError) as exc:
            print(f"dadafs: {exc}", file=sys.stderr)
            good = False
        code = code if good else REFUSED
    if options.action == "stats" and len(found) > SHOWN:
        print(f"... and {len(found) - SHOWN} more")
    return code


def _stats(path: Path) -> bool:
    from dadafs.cache.inspecting import held
    from dadafs.commands.showing import size

    one = held(path)
    use = "in use" if one.in_use else "not in use"
    print(
        f"{path}: {one.values} values, {size(one.used_bytes)} of {size(one.map_bytes)},"
        f" {size(one.disk_bytes)} on disk, {use}"
    )
    return True


def _verify(path: Path) -> bool:
    from dadafs.cache.inspecting import verify

    one = verify(path)
    state = f"{one.damaged} damaged, which count as missing" if one.damaged else "all sound"
    print(f"{path}: {one.values} values, {state}")
    return not one.damaged


def _clear(path: Path) -> bool:
    from dadafs.cache.inspecting import clear
    from dadafs.commands.showing import size

    print(f"{path}: removed, {size(clear(path))} are free")
    return True

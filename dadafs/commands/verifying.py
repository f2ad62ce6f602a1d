"""`dadafs verify`: compute parts of a result once more, and compare."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from dadafs.commands.declaring import DONE, REFUSED, Commands, command, inner_path
from dadafs.errors import UsageError

if TYPE_CHECKING:
    from dadafs.client.asking.verifying import Finding

PATCHES = 3  # of 64 frames, each 3 s (sums) to 12 s (profiles) where frames have 4M pixels


def add(commands: Commands) -> None:
    """Declare the command."""
    verify = command(
        commands,
        "verify",
        _verify,
        summary="compute some of a result again in plain numpy, and compare",
        about="Compute some patches of PATH, chosen at random, once more from the raw data:\n"
        "decoded filter by filter and reduced by plain numpy, without the kernels. Sums of\n"
        "counts must be equal to the last one, floats to 1e-9. A pattern is verified over\n"
        "all its frames.\n"
        "Exit code 1 where something differs.",
        example="dadafs verify /mnt/dada/scan42/dpc/full.npy --patches 10",
    )
    verify.add_argument("path", metavar="PATH", type=Path)
    verify.add_argument(
        "--patches", type=int, default=PATCHES, metavar="N", help=f"how many ({PATCHES})"
    )
    verify.add_argument(
        "--plugins", type=Path, metavar="DIR", help="plug-ins, where PATH is of one of these"
    )


def _verify(options: argparse.Namespace) -> int:
    from dadafs.client.asking.verifying import verify
    from dadafs.plugins import load_plugins

    if options.patches < 1:
        raise UsageError("--patches: at least 1")
    load_plugins(options.plugins)
    mountpoint, inner = inner_path(options.path)
    seen = 0

    def tell(finding: Finding, parts: int) -> None:
        nonlocal seen
        if not seen:
            print(f"{options.path}: verifying {min(options.patches, parts)} of {parts}", flush=True)
        seen += 1
        verdict = f"DIFFERS: {finding.difference}" if finding.difference else "equal"
        where = f"frames {finding.first}-{finding.last}"
        read = f"{finding.frames} read again"
        print(f"  {where:<22} {read:<18} {finding.method:<8} {verdict}", flush=True)

    return REFUSED if verify(mountpoint, inner, options.patches, tell) else DONE

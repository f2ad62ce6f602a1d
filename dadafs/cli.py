"""The command `dadafs`. What a command needs is imported by the command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from dadafs import __version__
from dadafs.commands import (
    caching,
    checking,
    configuring,
    fetching,
    installing,
    mounting,
    nodes,
    reporting,
    telling,
    verifying,
)
from dadafs.commands.declaring import REFUSED, SILENT, USAGE
from dadafs.errors import DadaError, Unreachable, UsageError

ROOMS = (
    *(mounting, telling, fetching, nodes, caching),
    *(configuring, checking, reporting, verifying, installing),
)
INTERRUPTED = 130

EPILOG = """\
examples:
  dadafs mount /data /mnt/dada                    mount the scans below /data
  cp /mnt/dada/scan42/darkfield/full.tif /tmp/    compute a map by reading it
  dadafs explain /mnt/dada/scan42/dpc/full.npy    what a path means, or why it is refused
  dadafs umount /mnt/dada

exit codes: 0 done, 1 refused or failed (one line says why), 2 wrong command line or
configuration, 3 a mount or server does not answer, 130 interrupted.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code. A user's mistake prints one line."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if len(given) >= 2 and given[0].startswith(("/", "tcp://")):
            given = mounting.called_by_mount(given)
        options = parser().parse_args(given)
        code: int = options.run(options)
    except UsageError as exc:
        print(f"dadafs: {exc}", file=sys.stderr)
        return USAGE
    except Unreachable as exc:
        print(f"dadafs: {exc}", file=sys.stderr)
        return SILENT
    except BrokenPipeError:  # whoever read us has seen enough
        sys.stderr.close()
        return REFUSED
    except (DadaError, OSError) as exc:
        print(f"dadafs: {exc}", file=sys.stderr)
        return REFUSED
    except KeyboardInterrupt:
        return INTERRUPTED
    return code


def parser() -> argparse.ArgumentParser:
    """All commands; man page and completion are made of it too."""
    made = argparse.ArgumentParser(
        prog="dadafs",
        description="Mount raw X-ray scans; their analyses are files that are computed when read.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--version", action="version", version=f"dadafs {__version__}")
    commands = made.add_subparsers(metavar="COMMAND", required=True)
    for room in ROOMS:
        room.add(commands)
    return made


if __name__ == "__main__":
    sys.exit(main())

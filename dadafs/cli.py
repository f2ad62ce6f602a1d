"""The command `dadafs`. Heavy modules are imported by the commands that need them."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from dadafs import __version__
from dadafs.errors import DadaError, NoSuchPath, UsageError

EXIT_REFUSED = 1
EXIT_USAGE = 2
MIB = 1 << 20
UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}

EPILOG = """\
examples:
  dadafs mount /data /mnt/dada                    mount the scans below /data
  cp /mnt/dada/scan42/darkfield/full.tif /tmp/    compute a map by reading it
  dadafs explain /mnt/dada/scan42/dpc/full.npy    what a path means, or why it is refused
  dadafs umount /mnt/dada

exit codes: 0 done, 1 refused (one line says why), 2 wrong command line.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code. A user's mistake prints one line."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except UsageError as exc:
        print(f"dadafs: {exc}", file=sys.stderr)
        return EXIT_USAGE
    except (DadaError, OSError) as exc:
        print(f"dadafs: {exc}", file=sys.stderr)
        return EXIT_REFUSED
    except KeyboardInterrupt:
        return 130
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dadafs",
        description="Mount raw X-ray scans; their analyses are files that are computed when read.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"dadafs {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    mount = commands.add_parser(
        "mount",
        help="mount the scans below a directory",
        description="Mount the scans below RAW at MNT, an empty directory.",
        epilog="example: dadafs mount /data /mnt/dada",
    )
    mount.add_argument("raw", metavar="RAW", type=Path)
    mount.add_argument("mountpoint", metavar="MNT", type=Path)
    mount.add_argument("--foreground", action="store_true", help="stay, and log to the terminal")
    mount.add_argument("--cache", type=Path, metavar="DIR", help="of index and results")
    mount.add_argument("--threads", type=_count, metavar="N", help="that compute (one a core)")
    mount.add_argument(
        "--results-size", type=_size, metavar="SIZE", help="of the results kept on disk (8GiB)"
    )
    mount.add_argument("--memory", type=_size, metavar="SIZE", help="of recent values (48MiB)")
    mount.add_argument("--plugins", type=Path, metavar="DIR", help="of your own analyses, *.py")
    mount.add_argument("--allow-other", action="store_true", help="let other users in")
    mount.set_defaults(run=_mount)

    umount = commands.add_parser(
        "umount",
        help="take a mount away",
        description="Take the mount at MNT away, also one whose process has died.",
        epilog="example: dadafs umount /mnt/dada",
    )
    umount.add_argument("mountpoint", metavar="MNT", type=Path)
    umount.add_argument("--lazy", action="store_true", help="even if it is in use")
    umount.set_defaults(run=_umount)

    explain = commands.add_parser(
        "explain",
        help="what a path means, or why it is refused",
        description="Print what PATH means: shape, size, cost; or why it is refused.",
        epilog="example: dadafs explain /mnt/dada/scan42/darkfield/horz=51/vert=10.npy",
    )
    explain.add_argument("path", metavar="PATH", type=Path)
    explain.set_defaults(run=_explain)

    status = commands.add_parser(
        "status",
        help="counters and gauges of a mount, as JSON",
        description="Print what a mount says of itself; a single one need not be named.",
        epilog="example: dadafs status /mnt/dada",
    )
    status.add_argument("mountpoint", metavar="MNT", type=Path, nargs="?")
    status.set_defaults(run=_status)
    return parser


def _mount(options: argparse.Namespace) -> int:
    from dadafs.client.starting import start, stay
    from dadafs.config import MountConfig, default_cache

    root = Path(os.path.abspath(options.raw))
    mountpoint = Path(os.path.realpath(options.mountpoint))  # as the kernel will call it
    given = {
        "threads": options.threads,
        "results_bytes": options.results_size,
        "memory_bytes": options.memory,
        "allow_other": options.allow_other or None,
        "plugins": Path(os.path.abspath(options.plugins)) if options.plugins else None,
    }
    config = MountConfig(
        root,
        mountpoint,
        Path(os.path.abspath(options.cache)) if options.cache else default_cache(root),
        **{name: value for name, value in given.items() if value is not None},
    )
    if options.foreground:
        stay(config)
    else:
        start(config)
    return 0


def _umount(options: argparse.Namespace) -> int:
    from dadafs.client.mountpoint import unmount

    unmount(Path(os.path.abspath(options.mountpoint)), lazy=options.lazy)
    return 0


def _explain(options: argparse.Namespace) -> int:
    from dadafs.client.asking import ask
    from dadafs.client.mountpoint import mount_above
    from dadafs.rpc.messages import Explain

    path = Path(os.path.abspath(options.path))
    mount = mount_above(path)
    if mount is None:
        raise UsageError(f"{path} is not within a dadafs mount; `dadafs mount RAW MNT` makes one")
    if not path.is_relative_to(mount.mountpoint):  # it leads there through a symlink
        path = Path(os.path.realpath(path))
    inner = os.fsencode(path.relative_to(mount.mountpoint))
    try:
        print(ask(mount.mountpoint, Explain(b"" if inner == b"." else inner)), end="")
    except NoSuchPath as exc:
        print(f"dadafs: {exc}", file=sys.stderr)
        return EXIT_REFUSED
    return 0


def _status(options: argparse.Namespace) -> int:
    from dadafs.client.asking import ask
    from dadafs.client.mountpoint import mount_at, mounts
    from dadafs.rpc.messages import AskStatus

    if options.mountpoint is not None:
        mount = mount_at(options.mountpoint)
        if mount is None:
            raise UsageError(f"{options.mountpoint} is not a dadafs mount")
        mountpoint = mount.mountpoint
    else:
        found = [mount.mountpoint for mount in mounts()]
        if len(found) != 1:
            names = ", ".join(map(str, found)) or "there is none"
            raise UsageError(f"say which mount: {names}")
        mountpoint = found[0]
    print(ask(mountpoint, AskStatus()), end="")
    return 0


def _size(text: str) -> int:
    """Bytes from `128MiB`, `8G`, `1000`."""
    number = text.strip().lower().removesuffix("b").removesuffix("i")
    unit = number[-1:] if number[-1:].isalpha() else ""
    try:
        size = int(float(number.removesuffix(unit)) * UNITS[unit])
    except (ValueError, KeyError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text!r} is no size; say for instance 128MiB") from None
    if size < MIB:
        raise argparse.ArgumentTypeError(f"{text!r} is too small; at least 1MiB")
    return size


def _count(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 1024")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())

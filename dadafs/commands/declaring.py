"""How commands are declared: a parser with an example, options made of settings."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from dadafs import settings
from dadafs.errors import UsageError

DONE = 0
REFUSED = 1
USAGE = 2
SILENT = 3
"""A mount or server did not answer in time."""

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
Run: TypeAlias = Callable[[argparse.Namespace], int]


def command(
    commands: Commands, name: str, run: Run, *, summary: str, about: str, example: str
) -> argparse.ArgumentParser:
    """Declare a command that calls `run`."""
    parser = commands.add_parser(
        name,
        help=summary,
        description=about,
        epilog=f"example: {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def typed(read: Callable[[Any], Any]) -> Callable[[str], Any]:
    """A reader of settings as a type of argparse, which then prints its line."""

    def convert(text: str) -> Any:
        try:
            return read(text)
        except ValueError as exc:
            raise argparse.ArgumentTypeError(str(exc)) from None

    return convert


def add_settings(parser: argparse.ArgumentParser, section: str) -> None:
    """An option for every setting of a section, and `--config`."""
    for key, setting in settings.SECTIONS[section].items():
        option = "--" + key.replace("_", "-")
        if setting.metavar is not None:
            read = absolute if setting.read is settings.path else setting.read
            told = "" if setting.default is None else f" ({_default(setting)})"
            meaning = setting.meaning + told
            parser.add_argument(
                option, dest=key, type=typed(read), metavar=setting.metavar, help=meaning
            )
        elif setting.default:
            parser.add_argument(
                option.replace("--", "--no-", 1),
                dest=key,
                action="store_false",
                default=None,
                help=f"do not {setting.meaning}",
            )
        else:
            parser.add_argument(
                option, dest=key, action="store_true", default=None, help=setting.meaning
            )
    add_config(parser)


def add_config(parser: argparse.ArgumentParser) -> None:
    """The option that names a configuration file."""
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="read this file instead of the two usual ones"
    )


def values(options: argparse.Namespace, section: str) -> dict[str, Any]:
    """What holds for a section. UsageError."""
    found = settings.effective(section, vars(options), os.environ, options.config)
    return {key: one.value for key, one in found.items()}


def absolute(path: str | Path) -> Path:
    """A path of the command line."""
    if not str(path):
        raise ValueError("'' is no path")
    return Path(os.path.abspath(os.path.expanduser(path)))


def chosen_mount(mountpoint: Path | None) -> Path:
    """The mount that is meant: the one named, else the only one. UsageError."""
    from dadafs.client.mounting.mountpoint import by_mountpoint, mount_at

    if mountpoint is not None:
        mounted = mount_at(Path(os.path.abspath(mountpoint)))
        if mounted is None:
            raise UsageError(f"{mountpoint} is not a dadafs mount")
        return mounted.mountpoint
    found = list(by_mountpoint())
    if len(found) != 1:
        names = ", ".join(map(str, found[:20])) or "there is none"
        raise UsageError(f"say which mount: {names}")
    return found[0]


def inner_path(given: Path) -> tuple[Path, bytes]:
    """The mount that holds a path, and the path within it. UsageError."""
    from dadafs.client.mounting.mountpoint import mount_above

    path = Path(os.path.abspath(given))
    mount = mount_above(path)
    if mount is None:
        raise UsageError(f"{path} is not within a dadafs mount; `dadafs mount RAW MNT` makes one")
    if not path.is_relative_to(mount.mountpoint):  # it leads there through a symlink
        path = Path(os.path.realpath(path))
    inner = os.fsencode(path.relative_to(mount.mountpoint))
    return mount.mountpoint, b"" if inner == b"." else inner


def _default(setting: settings.Setting) -> str:
    return settings.shown(setting.default, setting).strip('"')

"""`dadafs mount`, `dadafs umount`, and the form in which mount(8) calls us."""

from __future__ import annotations

import argparse
import difflib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dadafs import settings
from dadafs.commands.declaring import Commands, add_settings, command, values
from dadafs.errors import UsageError

_IGNORED = """
rw ro dev nodev suid nosuid exec noexec atime noatime relatime strictatime diratime nodiratime
sync async dirsync mand nomand auto noauto user nouser users owner group defaults nofail
default_permissions _netdev
"""
IGNORED = frozenset(_IGNORED.split())
"""Options for mount(8) and the kernel: the mount is read-only and safe whatever they say."""


def add(commands: Commands) -> None:
    """Declare the commands."""
    mount = command(
        commands,
        "mount",
        _mount,
        summary="mount the scans below a directory",
        about="Mount the scans below RAW at MNT, an empty directory. Returns when it answers.",
        example="dadafs mount /data /mnt/dada",
    )
    mount.add_argument("raw", metavar="RAW", help="a directory, or tcp://HOST:PORT of a server")
    mount.add_argument("mountpoint", metavar="MNT", type=Path)
    mount.add_argument("--foreground", action="store_true", help="stay, and log to the terminal")
    add_settings(mount, "mount")

    umount = command(
        commands,
        "umount",
        _umount,
        summary="take a mount away",
        about="Take the mount at MNT away, also one whose process has died.",
        example="dadafs umount /mnt/dada",
    )
    umount.add_argument("mountpoint", metavar="MNT", type=Path)
    umount.add_argument("--lazy", action="store_true", help="even if it is in use")


def called_by_mount(arguments: Sequence[str]) -> list[str]:
    """The same as `dadafs mount ...` for `SOURCE MNT [-o OPTIONS]`, as mount(8) calls the program
    of a line of fstab with the type fuse.dadafs. UsageError for an option that we do not have."""
    source, mountpoint, *rest = arguments
    translated = ["mount", source, mountpoint]
    while rest:
        word = rest.pop(0)
        if word.startswith("-o"):
            given = word[2:] or (rest.pop(0) if rest else "")
            for option in filter(None, given.split(",")):
                translated += _translated(option)
        elif word not in ("-n", "-s", "-v", "-w", "-r"):
            raise UsageError(f"{word} is no option of mount")
    return translated


def _translated(option: str) -> list[str]:
    """One option of fstab as options of ours."""
    name, _, value = option.partition("=")
    known: dict[str, Any] = settings.SECTIONS["mount"]
    key = name.replace("-", "_")
    negated = key.removeprefix("no_") in known and key.startswith("no_")
    if name in IGNORED or name.startswith(("x-", "X-", "comment")):
        return []
    if name == "config" and value:
        return [f"--config={value}"]
    if key in known and known[key].metavar is not None and value:
        return [f"--{key.replace('_', '-')}={value}"]
    if key in known and known[key].metavar is None and not value:
        return [] if known[key].default else [f"--{key.replace('_', '-')}"]
    if negated and known[key.removeprefix("no_")].default is True and not value:
        return [f"--{key.replace('_', '-')}"]
    close = difflib.get_close_matches(key, [*known, "config", *IGNORED], 1, 0.6)
    hint = f"did you mean {close[0]}?" if close else "known are " + ", ".join(known)
    raise UsageError(f"no mount option {option!r}; {hint}")


def _mount(options: argparse.Namespace) -> int:
    from dadafs.client.mounting.mountpoint import mount_at
    from dadafs.config import MountConfig, address, cores, default_cache

    told = values(options, "mount")
    server = address(options.raw) if options.raw.startswith("tcp://") else None
    root = Path(os.path.abspath(options.raw)) if server is None else None
    source = str(root) if server is None else f"tcp://{server[0]}:{server[1]}"
    mounted = mount_at(options.mountpoint)  # which is to be refused, and may hang if looked at
    config = MountConfig(
        root,
        mounted.mountpoint if mounted else Path(os.path.realpath(options.mountpoint)),
        told["cache"] or default_cache(source),
        threads=told["threads"] or cores(),
        results_bytes=told["results_size"],
        memory_bytes=told["memory"],
        allow_other=told["allow_other"],
        plugins=told["plugins"],
        server=server,
        tls=told["tls"],
        raw_bytes=told["raw_memory"],
        metrics_port=told["metrics_port"],
        local_peer=told["local_peer"],
    )
    if options.foreground:
        from dadafs.client.mounting.staying import stay

        stay(config)
    else:
        from dadafs.client.mounting.starting import start

        start(config)
    return 0


def _umount(options: argparse.Namespace) -> int:
    from dadafs.client.mounting.mountpoint import unmount

    unmount(Path(os.path.abspath(options.mountpoint)), lazy=options.lazy)
    return 0

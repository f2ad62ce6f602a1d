"""`dadafs status`, `peers`, `top`, `explain`, `version`: what mounts say of themselves."""

from __future__ import annotations

import argparse
import json
import os
import select
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from dadafs import __version__
from dadafs.commands.declaring import (
    DONE,
    REFUSED,
    SILENT,
    Commands,
    chosen_mount,
    command,
    inner_path,
)
from dadafs.errors import DadaError, NoSuchPath, Unreachable

SOON_S = 5.0  # a mount that lives answers in milliseconds; its peers are given 2 s
EVERY_S = 1.0


def add(commands: Commands) -> None:
    """Declare the commands."""
    status = command(
        commands,
        "status",
        _status,
        summary="what a mount, or every mount, is doing",
        about="Print what mounts say of themselves, all of this machine if none is named.",
        example="dadafs status /mnt/dada --json",
    )
    _of_mount(status)
    status.add_argument("--json", action="store_true", help="all counters and gauges, as JSON")

    peers = command(
        commands,
        "peers",
        _peers,
        summary="who computes for a mount",
        about="Print the peers of a mount; a single mount need not be named.",
        example="dadafs peers /mnt/dada",
    )
    _of_mount(peers)
    peers.add_argument("--json", action="store_true", help="all they report, as JSON")

    top = command(
        commands,
        "top",
        _top,
        summary="what is read and computed, again and again",
        about="Show a mount at work every second; q or ctrl-C ends.",
        example="dadafs top /mnt/dada",
    )
    _of_mount(top)
    top.add_argument("--once", action="store_true", help="print once and end")

    explain = command(
        commands,
        "explain",
        _explain,
        summary="what a path means, or why it is refused",
        about="Print what PATH means: shape, size, cost; or why it is refused.",
        example="dadafs explain /mnt/dada/scan42/darkfield/horz=51/vert=10.npy",
    )
    explain.add_argument("path", metavar="PATH", type=Path)

    command(
        commands,
        "version",
        _version,
        summary="versions of dadafs and of what it is made of",
        about="Print the versions of dadafs, Python and the packages that matter.",
        example="dadafs version",
    )


def _of_mount(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("mountpoint", metavar="MNT", type=Path, nargs="?")


def _status(options: argparse.Namespace) -> int:
    from dadafs.client.asking.asking import ask
    from dadafs.client.mounting.mountpoint import by_mountpoint
    from dadafs.commands.showing import status_text
    from dadafs.rpc.messages import AskStatus

    if options.json:
        print(ask(chosen_mount(options.mountpoint), AskStatus(), SOON_S), end="")
        return DONE
    known = by_mountpoint()
    chosen = [chosen_mount(options.mountpoint)] if options.mountpoint is not None else list(known)
    if not chosen:
        print("nothing is mounted; `dadafs mount RAW MNT` does")
    code = DONE
    for mountpoint in chosen:
        print(f"{mountpoint}  {known[mountpoint].source if mountpoint in known else ''}")
        try:
            print(status_text(json.loads(ask(mountpoint, AskStatus(), SOON_S))), end="")
        except Unreachable as exc:
            print(f"  {exc}")
            code = SILENT
    return code


def _peers(options: argparse.Namespace) -> int:
    from dadafs.client.asking.asking import ask
    from dadafs.commands.showing import peers_text
    from dadafs.rpc.messages import AskPeers

    told = ask(chosen_mount(options.mountpoint), AskPeers(), SOON_S)
    print(told if options.json else peers_text(json.loads(told)), end="")
    return DONE


def _top(options: argparse.Namespace) -> int:
    from dadafs.commands.showing import top_text

    mountpoint = chosen_mount(options.mountpoint)
    before: dict[str, Any] | None = None
    if options.once or not sys.stdout.isatty():
        print(top_text(mountpoint, *_asked(mountpoint), before), end="")
        return DONE
    with Keys() as keys:
        while True:
            try:
                now, jobs = _asked(mountpoint)
                text = top_text(mountpoint, now, jobs, before)
                before = now
            except DadaError as exc:
                text = f"{exc}\n"
            columns, lines = shutil.get_terminal_size()
            shown = [line[: columns - 1] for line in text.splitlines()[: lines - 1]]
            print("\x1b[H\x1b[J" + "\n".join(shown), end="", flush=True)
            if keys.pressed("q", time.monotonic() + EVERY_S):
                print()
                return DONE


def _asked(mountpoint: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    from dadafs.client.asking.asking import ask
    from dadafs.rpc.messages import AskJobs, AskStatus

    return (
        json.loads(ask(mountpoint, AskStatus(), SOON_S)),
        json.loads(ask(mountpoint, AskJobs(), SOON_S)),
    )


class Keys:
    """Keys of the terminal one by one, while within; as it was afterwards."""

    def __enter__(self) -> Keys:
        import termios
        import tty

        self._fd = sys.stdin.fileno() if sys.stdin.isatty() else -1
        if self._fd >= 0:
            self._before = termios.tcgetattr(self._fd)
            tty.setcbreak(self._fd)
        return self

    def __exit__(self, *_: object) -> None:
        import termios

        if self._fd >= 0:
            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)

    def pressed(self, key: str, until: float) -> bool:
        """Whether the key is pressed before `until`."""
        while (left := until - time.monotonic()) > 0:
            if self._fd < 0:
                time.sleep(left)
            elif select.select([self._fd], [], [], left)[0]:
                read = os.read(self._fd, 1)
                if read in (key.encode(), b""):
                    return True
        return False


def _explain(options: argparse.Namespace) -> int:
    from dadafs.client.asking.asking import ask
    from dadafs.rpc.messages import Explain

    mountpoint, inner = inner_path(options.path)
    try:
        print(ask(mountpoint, Explain(inner)), end="")
    except NoSuchPath as exc:
        print(f"dadafs: {exc}", file=sys.stderr)
        return REFUSED
    return DONE


def _version(options: argparse.Namespace) -> int:
    from dadafs.commands.showing import versions

    print(f"dadafs {__version__}")
    for name, version in versions().items():
        print(f"  {name:<11} {version}")
    return DONE

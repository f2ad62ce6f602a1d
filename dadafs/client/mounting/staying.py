"""The process of a mount: in the foreground, or behind a command that returns when it answers."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import trio

from dadafs import logs, processes
from dadafs.client.mounting.starting import READY
from dadafs.config import MountConfig
from dadafs.errors import DadaError
from dadafs.notify import keep_watchdog, notify
from dadafs.stacks import dump_at_signal


def stay(config: MountConfig) -> None:
    """Mount, and serve until unmounted. UsageError where it cannot be mounted."""
    logs.set_up(logging.WARNING)

    def ready() -> None:
        line = f"{config.source} is mounted at {config.mountpoint}"
        print(line, flush=True)
        notify("READY=1", f"STATUS={line}")

    _serve(config, ready)


def _serve(config: MountConfig, ready: Callable[[], None]) -> None:
    """Run a mount."""
    from dadafs.client.mounting.mount import serve  # loads FUSE, which the log is set up for

    async def watched() -> None:
        dump_at_signal()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_watchdog)
            await serve(config, ready)
            nursery.cancel_scope.cancel()

    processes.run(watched)


def main() -> None:
    """The process behind `starting.start`: its configuration comes in JSON on standard input."""
    parser = argparse.ArgumentParser(prog="dadafs.client.mounting.staying")
    parser.add_argument("--ready-fd", type=int, required=True)
    ready_fd = parser.parse_args().ready_fd
    config = msgspec.json.decode(sys.stdin.buffer.read(), type=MountConfig, dec_hook=_path)
    logs.set_up(logging.WARNING, "%(asctime)s ")
    told = False

    def tell(line: bytes) -> None:
        nonlocal told
        if not told:
            os.write(ready_fd, line)
            os.close(ready_fd)
            told = True

    try:
        _serve(config, lambda: tell(READY))
    except (DadaError, OSError, RuntimeError) as exc:
        logging.getLogger(__name__).error("%s", exc)
        tell(str(exc).encode())
        sys.exit(1)
    except Exception as exc:  # of the installation: the traceback goes to the log
        tell(f"{type(exc).__name__}: {' '.join(str(exc).split())}".encode())
        raise


def _path(kind: type, value: str) -> Path:
    if kind is Path:
        return Path(value)
    raise NotImplementedError(kind)


if __name__ == "__main__":
    main()

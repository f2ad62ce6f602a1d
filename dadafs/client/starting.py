"""Starting a mount: in the foreground, or behind a command that returns when it answers."""

from __future__ import annotations

import argparse
import logging
import os
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import trio

from dadafs import logs, processes
from dadafs.client.mountpoint import prepare
from dadafs.config import MountConfig, runtime_directory
from dadafs.errors import DadaError, UsageError
from dadafs.notify import keep_watchdog, notify
from dadafs.stacks import dump_at_signal

START_S = 60.0  # compiling pyfuse3's and our own modules for the first time takes a few
READY = b"ready"
LOG = "mount.log"


def stay(config: MountConfig) -> None:
    """Mount, and serve until unmounted. UsageError where it cannot be mounted."""
    logs.set_up(logging.WARNING)

    def ready() -> None:
        line = f"{config.source} is mounted at {config.mountpoint}"
        print(line, flush=True)
        notify("READY=1", f"STATUS={line}")

    _serve(config, ready)


def start(config: MountConfig) -> None:
    """Mount in a process of its own; return when it answers. UsageError says why it does not."""
    prepare(config.root, config.mountpoint)  # what can be said at once, is
    runtime = runtime_directory(config.mountpoint)
    runtime.mkdir(mode=0o700, parents=True, exist_ok=True)
    read_fd, write_fd = os.pipe()
    with open(runtime / LOG, "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dadafs.client.starting", f"--ready-fd={write_fd}"],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=(write_fd,),
            start_new_session=True,
            cwd="/",
        )
    os.close(write_fd)
    assert process.stdin is not None
    with process.stdin as stdin:
        stdin.write(msgspec.json.encode(config, enc_hook=os.fspath))
    with open(read_fd, "rb") as pipe:
        said = _line(pipe.fileno())
    if said == READY:
        return
    if said is None:
        process.kill()
        raise UsageError(f"the mount did not answer in {START_S:.0f} s; see {runtime / LOG}")
    raise UsageError(said.decode() or f"the mount ended at once; see {runtime / LOG}")


def _line(fd: int) -> bytes | None:
    """What the mount says once: ready, or why not; None when it says nothing in time."""
    if not select.select([fd], [], [], START_S)[0]:
        return None
    return os.read(fd, 65536)


def _serve(config: MountConfig, ready: Callable[[], None]) -> None:
    """Run a mount."""
    from dadafs.client.mount import serve  # loads FUSE, which a usage error must not wait for

    async def watched() -> None:
        dump_at_signal()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_watchdog)
            await serve(config, ready)
            nursery.cancel_scope.cancel()

    processes.run(watched)


def main() -> None:
    """The process behind `start`: its configuration comes in JSON on standard input."""
    parser = argparse.ArgumentParser(prog="dadafs.client.starting")
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

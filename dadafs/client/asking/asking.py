"""Questions to a running mount, past the mount itself."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import trio

from dadafs.client.mounting.mountpoint import control_socket, process_of, told_of
from dadafs.errors import Unreachable
from dadafs.rpc.calls import Request
from dadafs.rpc.pool import Pool, unix_connector

R = TypeVar("R")
ANSWER_S = 20.0  # a scan of 10 000 files is described in a few seconds


def line_to(mountpoint: Path) -> Pool:
    """Connections to a mount; the caller closes them. Unreachable where nothing listens."""
    path = control_socket(mountpoint)
    if not path.exists():
        raise Unreachable(
            f"nothing answers for {mountpoint}: the mount is another user's, or its process has"
            " died; `dadafs umount` takes that away"
        )
    return Pool(unix_connector(str(path)), name=f"the mount at {mountpoint}")


def ask(mountpoint: Path, request: Request[R], patience_s: float = ANSWER_S) -> R:
    """The answer of the mount at `mountpoint`. Unreachable when there is none in time."""

    async def call() -> R:
        pool = line_to(mountpoint)
        try:
            with trio.fail_after(patience_s):
                answer, _ = await pool.call(request)
                return answer
        except trio.TooSlowError as exc:
            raise Unreachable(silence(mountpoint)) from exc
        finally:
            pool.close()

    return trio.run(call)


def silence(mountpoint: Path) -> str:
    """That a mount does not answer, and what is known of its process."""
    pid = process_of(mountpoint)
    return f"the mount at {mountpoint} does not answer" + (
        f": its process {pid} {told_of(pid)}" if pid is not None else ""
    )

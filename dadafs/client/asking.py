"""One question to a running mount, past the mount itself."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import trio

from dadafs.config import CONTROL, runtime_directory
from dadafs.errors import Unreachable
from dadafs.rpc.calls import Request
from dadafs.rpc.pool import Pool, unix_connector

R = TypeVar("R")
ANSWER_S = 20.0  # a scan of 10 000 files is described in a few seconds


def ask(mountpoint: Path, request: Request[R]) -> R:
    """The answer of the mount at `mountpoint`. Unreachable when there is none in time."""

    async def call() -> R:
        socket = runtime_directory(mountpoint) / CONTROL
        pool = Pool(unix_connector(str(socket)), name=f"the mount at {mountpoint}")
        try:
            with trio.fail_after(ANSWER_S):
                answer, _ = await pool.call(request)
                return answer
        except trio.TooSlowError as exc:
            raise Unreachable(f"the mount at {mountpoint} does not answer") from exc
        finally:
            pool.close()

    return trio.run(call)

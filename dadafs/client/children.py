"""The processes that a mount brings along: started, watched, restarted, ended."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import trio

from dadafs.rpc.service import unix_socket

log = logging.getLogger(__name__)

STOP_S = 3.0  # a child flushes its store and goes
FIRST_RESTART_S = 0.1
LONGEST_RESTART_S = 5.0
LONG_LIFE_S = 10.0  # a child that lived so long did not die of starting


class Child:
    """One process that answers on a Unix socket.

    The socket is bound here and handed to the child, so that while it restarts callers queue
    instead of failing. The child ends when its lifeline, a pipe that only we hold, closes:
    even a mount that is killed leaves no process behind.
    """

    def __init__(self, role: str, directory: Path, options: list[str]) -> None:
        self.role = role
        self.path = directory / f"{role}.sock"
        self.starts = 0
        self.pid = 0
        self._options = options
        self._listener = unix_socket(self.path)

    async def run(self, counters: Counter[str]) -> None:
        """Keep the process alive until cancelled; then end it."""
        pause = FIRST_RESTART_S
        while True:
            began = trio.current_time()
            returncode = await self._run_once()
            counters[f"{self.role}_restarts"] += 1
            if trio.current_time() - began > LONG_LIFE_S:
                pause = FIRST_RESTART_S
            log.error("the %s ended (%s); it is started again", self.role, _cause(returncode))
            await trio.sleep(pause)
            pause = min(2 * pause, LONGEST_RESTART_S)

    async def _run_once(self) -> int:
        lifeline_read, lifeline_write = os.pipe()
        listen_fd = self._listener.fileno()
        command = [sys.executable, "-m", "dadafs.embedded", self.role]
        command += [f"--listen-fd={listen_fd}", f"--lifeline-fd={lifeline_read}", *self._options]
        try:
            process = await trio.lowlevel.open_process(
                command,
                pass_fds=(listen_fd, lifeline_read),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        except BaseException:
            os.close(lifeline_write)
            raise
        finally:
            os.close(lifeline_read)
        self.pid = process.pid
        self.starts += 1
        try:
            return await process.wait()
        finally:
            os.close(lifeline_write)
            if process.returncode is None:
                with trio.CancelScope(shield=True):
                    with trio.move_on_after(STOP_S):
                        await process.wait()
                    if process.returncode is None:
                        process.kill()
                        await process.wait()

    def close(self) -> None:
        """Remove the socket."""
        self._listener.close()
        self.path.unlink(missing_ok=True)


def _cause(returncode: int) -> str:
    return f"signal {-returncode}" if returncode < 0 else f"exit code {returncode}"

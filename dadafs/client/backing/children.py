"""The processes that a mount brings along: started, watched, restarted, ended."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import trio

from dadafs.errors import UsageError
from dadafs.processes import LAST_WORDS_BYTES
from dadafs.rpc.service import unix_socket

log = logging.getLogger(__name__)

STOP_S = 3.0  # a child flushes its store and goes
FIRST_RESTART_S = 0.1
LONGEST_RESTART_S = 5.0
LONG_LIFE_S = 10.0  # a child that lived so long did not die of starting
HOPELESS = 3  # times that a child died of starting: the next will end the same way


class Child:
    """One process that answers on a Unix socket.

    The socket is bound here and handed to the child, so that while it restarts callers queue
    instead of failing. The child ends when its lifeline, a socket that only we hold, closes:
    even a mount that is killed leaves no process behind. What ends it, it says there.
    """

    def __init__(self, role: str, directory: Path, options: list[str]) -> None:
        self.role = role
        self.path = directory / f"{role}.sock"
        self.starts = 0
        self.pid = 0
        self._options = options
        self._listener = unix_socket(self.path)
        self._hopeless = trio.Event()
        self._cause = ""

    async def run(self, counters: Counter[str]) -> None:
        """Keep the process alive until cancelled; then end it."""
        pause, failures = FIRST_RESTART_S, 0
        while True:
            began = trio.current_time()
            self._cause = await self._run_once()
            counters[f"{self.role}_restarts"] += 1
            failures += 1
            if trio.current_time() - began > LONG_LIFE_S:
                pause, failures = FIRST_RESTART_S, 0
            if failures == HOPELESS:
                self._hopeless.set()
            log.error("the %s ended (%s); it is started again", self.role, self._cause)
            await trio.sleep(pause)
            pause = min(2 * pause, LONGEST_RESTART_S)

    async def hopeless(self) -> None:
        """Return never; UsageError, with the cause, when the process does not get to work."""
        await self._hopeless.wait()
        raise UsageError(f"the {self.role} ended {HOPELESS} times at its start: {self._cause}")

    async def _run_once(self) -> str:
        """Start the process, wait until it ends; why it did."""
        lifeline, end = socket.socketpair()
        with lifeline:
            with end:
                process = await self._open(end.fileno())
            self.pid = process.pid
            self.starts += 1
            try:
                returncode = await process.wait()
                return _cause(returncode, _last_words(lifeline))
            finally:
                lifeline.close()
                await self._end(process)

    async def _open(self, lifeline_fd: int) -> trio.Process:
        listen_fd = self._listener.fileno()
        command = [sys.executable, "-m", "dadafs.embedded", self.role]
        command += [f"--listen-fd={listen_fd}", f"--lifeline-fd={lifeline_fd}", *self._options]
        return await trio.lowlevel.open_process(
            command,
            pass_fds=(listen_fd, lifeline_fd),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    async def _end(self, process: trio.Process) -> None:
        """Make sure that a process whose lifeline is closed has ended."""
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


def _last_words(lifeline: socket.socket) -> str:
    """What a process said before it ended; "" where it had no time to."""
    lifeline.setblocking(False)
    try:
        return lifeline.recv(LAST_WORDS_BYTES).decode(errors="replace")
    except OSError:
        return ""


def _cause(returncode: int, words: str) -> str:
    cause = f"signal {-returncode}" if returncode < 0 else f"exit code {returncode}"
    return f"{cause}: {words}" if words else cause

"""Questions to a running mount, past the mount itself."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path
from typing import TypeVar

import trio

from dadafs.config import CONTROL, runtime_directory
from dadafs.errors import Unreachable
from dadafs.rpc.calls import Request
from dadafs.rpc.pool import Pool, unix_connector

R = TypeVar("R")
ANSWER_S = 20.0  # a scan of 10 000 files is described in a few seconds
CONNECT_S = 1.0  # a Unix socket answers at once or is not served
CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: struct ucred of unix(7)
STATES = {"T": "is stopped", "t": "is being traced", "D": "waits for a disk or the network"}
SERVICES = Path("/run/dadafs")  # XDG_RUNTIME_DIR of mounts that systemd starts


def control_socket(mountpoint: Path) -> Path:
    """Where the mount at `mountpoint` answers: as this user's, else as a service of systemd."""
    usual = runtime_directory(mountpoint)
    service = SERVICES / "dadafs" / usual.name
    if not (usual / CONTROL).exists() and os.access(service / CONTROL, os.W_OK):
        return service / CONTROL
    return usual / CONTROL


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
    state = "" if pid is None else STATES.get(state_of(pid), "runs")
    return f"the mount at {mountpoint} does not answer" + (
        f": its process {pid} {state}" if pid is not None else ""
    )


def process_of(mountpoint: Path) -> int | None:
    """The process that listens for questions to a mount, also when it does not answer."""
    with socket.socket(socket.AF_UNIX) as control:
        control.settimeout(CONNECT_S)
        try:
            control.connect(os.fspath(control_socket(mountpoint)))
            about = control.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
        except OSError:
            return None
    return int(CREDENTIALS.unpack(about)[0]) or None


def state_of(pid: int) -> str:
    """The letter of a process's state, see proc(5); "" when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""

"""Mount points: what is mounted where, and taking mounts away."""

from __future__ import annotations

import errno
import os
import re
import select
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from dadafs.config import CONTROL, runtime_directory
from dadafs.errors import Unreachable, UsageError

MOUNT_TABLE = "/proc/self/mountinfo"
FILE_SYSTEM = "fuse.dadafs"
FUSERMOUNT_S = 10.0
BUSY_S = 1.0  # what only looks at a mount, as df and monitors do, has done so by then
BUSY_AGAIN_S = 0.05
END_S = 30.0  # the processes of a mount write their last results and end: a second, if not busy
ELSEWHERE_S = 2.0  # a mount namespace that is there for one command has gone by then
CONNECT_S = 1.0  # a Unix socket answers at once or is not served
STALE_S = 2.0  # the kernel answers for a process that has died at once
STATES = {"T": "is stopped", "t": "is being traced", "D": "waits for a disk or the network"}
SERVICES = Path("/run/dadafs")  # XDG_RUNTIME_DIR of mounts that systemd starts
CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: struct ucred of unix(7)


@dataclass(frozen=True, slots=True)
class Mounted:
    """One line of the kernel's table of mounts."""

    mountpoint: Path
    source: str
    """What is mounted: the raw tree."""
    device: int
    """Minor number, which names the connection under /sys/fs/fuse/connections."""


def mounts() -> list[Mounted]:
    """All dadafs mounts of this machine, in the order in which they were made."""
    return _mounts_in(MOUNT_TABLE)


def by_mountpoint() -> dict[Path, Mounted]:
    """All of them by where they are; of several at one place, the last, which hides the others."""
    return {mount.mountpoint: mount for mount in mounts()}


def _mounts_in(path: str) -> list[Mounted]:
    with open(path, encoding="utf-8", errors="surrogateescape", newline="\n") as table:
        lines = [line.rstrip("\n").split(" ") for line in table]  # only these are escaped in names
    found = []
    for fields in lines:
        separator = fields.index("-")
        if fields[separator + 1] == FILE_SYSTEM:
            device = int(fields[2].partition(":")[2])
            mountpoint = Path(_unescape(fields[4]))
            found.append(Mounted(mountpoint, _unescape(fields[separator + 2]), device))
    return found


def mount_at(mountpoint: Path) -> Mounted | None:
    """The dadafs mount at exactly this path, the topmost one; None if there is none."""
    made = by_mountpoint()
    return next((made[way] for way in _ways_to(mountpoint) if way in made), None)


def mount_above(path: Path) -> Mounted | None:
    """The dadafs mount that holds `path`."""
    made = by_mountpoint()
    above = (made[up] for way in _ways_to(path) for up in (way, *way.parents) if up in made)
    return next(above, None)


def holder_elsewhere(mounted: Mounted) -> int | None:
    """A process in another mount namespace, such as a container's, that has this mount too."""
    here = os.readlink("/proc/self/ns/mnt")
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            if os.readlink(f"/proc/{pid}/ns/mnt") == here:
                continue
            there = _mounts_in(f"/proc/{pid}/mountinfo")
        except OSError:  # it has ended, or is another user's
            continue
        if any(mount.device == mounted.device for mount in there):
            return int(pid)
    return None


def is_stale(mountpoint: Path) -> bool:
    """Whether the process behind a mount has died. One that hangs has not.

    Asks for what the kernel does not remember: a stat it answers by itself for a second more. In a
    thread, which ends with this process whatever it waits for.
    """
    found = []

    def ask() -> None:
        try:
            os.statvfs(mountpoint)
        except OSError as exc:
            found.append(exc.errno)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(STALE_S)
    return bool({errno.ENOTCONN, errno.ECONNABORTED} & set(found))


def prepare(root: Path | None, mountpoint: Path) -> None:
    """Make sure that `root`, or a server, can be mounted here, a stale mount taken away.

    UsageError with one line where it cannot.
    """
    if not os.path.exists("/dev/fuse"):
        raise UsageError("/dev/fuse is missing: `modprobe fuse`; in a container, pass it in")
    if shutil.which("fusermount3") is None:
        raise UsageError("fusermount3 is missing: `apt install fuse3`")
    if root is not None and not os.path.isdir(root):
        raise UsageError(f"{root}: no such directory to mount")
    mounted = mount_at(mountpoint)
    if mounted is not None:
        if not is_stale(mountpoint):
            line = f"{mountpoint} is a dadafs mount already, of {mounted.source}"
            raise UsageError(f"{line}; `dadafs umount {mountpoint}` ends it")
        detach(mountpoint, lazy=True)
    if not os.path.isdir(mountpoint):
        what = "is no directory" if os.path.exists(mountpoint) else "does not exist"
        raise UsageError(f"mount point {mountpoint} {what}; make an empty directory")
    if root is not None:
        inner, outer = mountpoint.resolve(), root.resolve()
        if outer == inner or outer in inner.parents or inner in outer.parents:
            raise UsageError(f"mount point {mountpoint} and raw tree {root} lie within one another")
    try:
        empty = not any(mountpoint.iterdir())
    except OSError as exc:
        raise UsageError(f"mount point {mountpoint} cannot be read: {exc.strerror}") from exc
    if not empty:
        raise UsageError(f"mount point {mountpoint} is not empty")


def detach(mountpoint: Path, *, lazy: bool = False) -> None:
    """Take a mount away. UsageError when it is in use and not `lazy`."""
    command = ["fusermount3", "-u", *(["-z"] if lazy else []), str(mountpoint)]
    deadline = time.monotonic() + BUSY_S
    while (reason := _refusal(command)) and "busy" in reason.lower():
        if time.monotonic() > deadline:
            line = f"{mountpoint} is in use; close what has files or a shell in it, or add --lazy"
            raise UsageError(line)
        time.sleep(BUSY_AGAIN_S)
    if reason:
        raise UsageError(reason)


def _refusal(command: list[str]) -> str:
    """Why fusermount3 does not do it; "" when it does. UsageError when it does not end."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=FUSERMOUNT_S)
    except subprocess.TimeoutExpired:
        raise UsageError(f"{' '.join(command)} does not end") from None
    if not done.returncode:
        return ""
    return done.stderr.strip() or f"fusermount3 ended with {done.returncode}"


def unmount(mountpoint: Path, *, lazy: bool = False) -> None:
    """Take the mount at `mountpoint` away and wait until its process has let go of it.

    UsageError where it cannot be; Unreachable, when it is, for a process that does not end.
    """
    mounted = mount_at(mountpoint)
    if mounted is None:
        raise UsageError(f"{mountpoint} is not a dadafs mount")
    pid = None if lazy else process_of(mounted.mountpoint)
    with ExitStack() as stack:
        process = None
        if pid is not None:
            with suppress(ProcessLookupError):
                process = os.pidfd_open(pid)  # readable when it ends
                stack.callback(os.close, process)
        try:
            detach(mountpoint, lazy=lazy)
        except UsageError:
            if lazy or not is_stale(mountpoint):
                raise
            detach(mountpoint, lazy=True)
        if pid is None or process is None:
            return
        going = told_of(pid) != STATES["T"]
        if _ended(process, ELSEWHERE_S * going):
            return
        other = holder_elsewhere(mounted)
        if other is not None:
            holder = f"process {other}, in another mount namespace, has it too"
            line = f"{mountpoint} is taken away here, but {holder}; `kill {pid}` ends it for all"
            raise Unreachable(line)
        if _ended(process, END_S * going):
            return
    state = told_of(pid)
    end = f"-CONT {pid}` lets it end" if state == STATES["T"] else f"-9 {pid}` ends it"
    raise Unreachable(f"{mountpoint} is taken away, but its process {pid} {state}; `kill {end}")


def _ended(process: int, patience_s: float) -> bool:
    """Whether the process of this descriptor ends within that time."""
    return bool(select.select([process], [], [], patience_s)[0])


def control_socket(mountpoint: Path) -> Path:
    """Where the mount at `mountpoint` answers: as this user's, else as a service of systemd."""
    usual = runtime_directory(mountpoint)
    service = SERVICES / "dadafs" / usual.name
    if not (usual / CONTROL).exists() and os.access(service / CONTROL, os.W_OK):
        return service / CONTROL
    return usual / CONTROL


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


def told_of(pid: int) -> str:
    """What a process is at, in words."""
    return STATES.get(state_of(pid), "runs")


def widen(mountpoint: Path, requests: int, read_ahead_bytes: int) -> None:
    """Let the kernel read ahead for many readers at once, and further: by itself 12 requests of
    128 KiB, each of which costs the mount as much as one of 1 MiB but for the copying.

    Best effort: most systems let only root do it.
    """
    mounted = mount_at(mountpoint)
    if mounted is None:
        return
    connection = Path("/sys/fs/fuse/connections") / str(mounted.device)
    with suppress(OSError):
        (connection / "max_background").write_text(str(requests))
        (connection / "congestion_threshold").write_text(str(requests * 3 // 4))
    set_read_ahead(mounted.device, read_ahead_bytes)


def set_read_ahead(device: int, size: int) -> None:
    """How far the kernel reads ahead in the mount of this (minor) device. Best effort."""
    with suppress(OSError):
        Path(f"/sys/class/bdi/0:{device}/read_ahead_kb").write_text(str(size >> 10))


def _ways_to(path: Path) -> Iterator[Path]:
    """As it is written, then, only if need be, without symlinks: that asks what is mounted."""
    yield Path(os.path.abspath(path))
    yield Path(os.path.realpath(path))


def _unescape(field: str) -> str:
    """Undo the octal escapes of the mount table."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)

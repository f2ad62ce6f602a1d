"""`dadafs bugreport`: what somebody who is to help needs to know, in one file. No raw data."""

from __future__ import annotations

import argparse
import io
import os
import signal
import socket
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

from dadafs import __version__
from dadafs.commands.declaring import DONE, Commands, chosen_mount, command
from dadafs.errors import DadaError

LOG_BYTES = 256 << 10  # the end of a log
SOON_S = 3.0
DUMP_S = 0.5  # a process that lives has written its stacks by then
THREADS_SHOWN = 200
MOUNTS_SHOWN = 20


def add(commands: Commands) -> None:
    """Declare the command."""
    report = command(
        commands,
        "bugreport",
        _bugreport,
        summary="gather what is needed to find a fault, in one file",
        about="Write a tar.gz with versions, settings, mounts, counters, the last errors, logs\n"
        "and stacks. It holds names of files and hosts, but no raw data and no certificates.\n"
        "A mount that does not answer is waited for three seconds.",
        example="dadafs bugreport /mnt/dada --output /tmp/report.tar.gz",
    )
    report.add_argument("mountpoint", metavar="MNT", type=Path, nargs="?", help="(all mounts)")
    report.add_argument("--output", type=Path, metavar="FILE", help="(in this directory)")


def _bugreport(options: argparse.Namespace) -> int:
    from dadafs.client.mounting.mountpoint import by_mountpoint

    if options.mountpoint is not None:
        chosen = [chosen_mount(options.mountpoint)]
    else:
        chosen = list(by_mountpoint())[:MOUNTS_SHOWN]
    stamp = time.strftime("%Y%m%d-%H%M%S")
    name = f"dadafs-{socket.gethostname()}-{stamp}"
    output = options.output or Path(f"{name}.tar.gz")
    pages: dict[str, Callable[[], str]] = {
        "versions.txt": _versions,
        "settings.txt": _settings,
        "mounts.txt": _mounts,
        "machine.txt": _machine,
    }
    for number, mountpoint in enumerate(chosen):
        pages |= {f"mount{number}/{page}": make for page, make in _of_mount(mountpoint).items()}
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as tar:
        for page, make in pages.items():
            try:
                text = make()
            except (DadaError, OSError) as exc:
                text = f"cannot be told: {exc}\n"
            data = text.encode(errors="backslashreplace")
            about = tarfile.TarInfo(f"{name}/{page}")
            about.size, about.mtime = len(data), int(time.time())
            tar.addfile(about, io.BytesIO(data))
    print(f"{output}: {output.stat().st_size} bytes; look into it before you send it on")
    return DONE


def _versions() -> str:
    from dadafs.commands.showing import versions

    lines = [f"dadafs {__version__}", *(f"{name} {text}" for name, text in versions().items())]
    return "\n".join(lines) + "\n"


def _settings() -> str:
    from dadafs import settings

    lines = []
    for section, known in settings.SECTIONS.items():
        for key, one in settings.effective(section, {}, os.environ).items():
            lines.append(f"[{section}] {key} = {settings.shown(one.value, known[key])}")
            lines[-1] += f"  # {one.source}"
    return "\n".join(lines) + "\n"


def _mounts() -> str:
    table = Path("/proc/self/mountinfo").read_text(errors="backslashreplace")
    return "".join(line + "\n" for line in table.splitlines() if " fuse" in line)


def _machine() -> str:
    memory = Path("/proc/meminfo").read_text().splitlines()[:3]
    load = Path("/proc/loadavg").read_text()
    return "\n".join([*memory, f"load {load.strip()}", f"cores {os.cpu_count()}"]) + "\n"


def _of_mount(mountpoint: Path) -> dict[str, Callable[[], str]]:
    """The pages on one mount."""
    from dadafs.client.asking.asking import ask
    from dadafs.client.mounting.mountpoint import control_socket, process_of
    from dadafs.client.mounting.starting import LOG
    from dadafs.rpc.calls import Request
    from dadafs.rpc.messages import AskErrors, AskJobs, AskPeers, AskStatus

    pid = process_of(mountpoint)
    silent = ""

    def asked(request: Request[str]) -> Callable[[], str]:
        def tell() -> str:
            nonlocal silent
            if silent:
                return f"cannot be told: {silent}\n"
            try:
                return ask(mountpoint, request, SOON_S)
            except DadaError as exc:
                silent = str(exc)  # it is not asked again
                raise

        return tell

    return {
        "stats.json": asked(AskStatus()),
        "jobs.json": asked(AskJobs()),
        "peers.json": asked(AskPeers()),
        "errors.log": asked(AskErrors()),
        "about.txt": lambda: f"{mountpoint}\n{silent or 'answers'}\n",
        "process.txt": lambda: "no process\n" if pid is None else _process(pid),
        "mount.log": lambda: _end_of(control_socket(mountpoint).parent / LOG),
    }


def _process(pid: int) -> str:
    """What the kernel knows of a process; it is also asked to write its stacks to its log."""
    lines = [f"pid {pid}"]
    status = Path(f"/proc/{pid}/status").read_text()
    lines += [line for line in status.splitlines() if line.startswith(("State", "Vm", "Threads"))]
    for thread in sorted(os.listdir(f"/proc/{pid}/task"), key=int)[:THREADS_SHOWN]:
        told = []
        for what in ("comm", "wchan"):
            try:
                told.append(Path(f"/proc/{pid}/task/{thread}/{what}").read_text().strip())
            except OSError:
                told.append("?")
        lines.append(f"thread {thread}: {told[0]} in {told[1]}")
    if _handles(status, signal.SIGUSR1):
        os.kill(pid, signal.SIGUSR1)
        time.sleep(DUMP_S)
        lines.append("its stacks are in its log, unless it is stopped")
    return "\n".join(lines) + "\n"


def _handles(status: str, number: int) -> bool:
    """Whether a process has a handler for a signal: it would end by it otherwise. Pure."""
    caught = next((line for line in status.splitlines() if line.startswith("SigCgt")), "x: 0")
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


def _end_of(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - LOG_BYTES))
        return file.read(LOG_BYTES).decode(errors="backslashreplace")

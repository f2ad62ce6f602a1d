"""`dadafs doctor`: whether this machine has what dadafs needs, a line each, and what to do."""

from __future__ import annotations

import argparse
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dadafs.commands.declaring import DONE, REFUSED, SILENT, Commands, absolute, command, typed
from dadafs.errors import DadaError, Unreachable, UsageError

FUSE_DEVICE, FUSE_CONF = Path("/dev/fuse"), Path("/etc/fuse.conf")
KERNELS_S = 120.0  # to compile all kernels on a slow core, the first time
SOON_S = 3.0
MEMORY_BYTES = 1 << 30  # the processes of a mount, with two threads, take about half of it
DISK_BYTES = 1 << 30
FEW_DESCRIPTORS = 256  # a hundred readers and as many connections
MOUNTS_SHOWN = 20
KERNELS = """\
from analysis.kernels import decoder_name
from analysis.warming import warm
warm()
print(decoder_name())
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    what: str
    state: str
    """`ok`, `note`, `SILENT` or `WRONG`."""
    told: str


def add(commands: Commands) -> None:
    """Declare the command."""
    doctor = command(
        commands,
        "doctor",
        _doctor,
        summary="whether this machine has what dadafs needs",
        about="Check FUSE, packages, kernels, memory, disks, mounts, and a server if named:\n"
        "a line each, ok or what to do. Exit code 1 if something is wrong, 3 if all that is\n"
        "wrong is a mount or server that does not answer.",
        example="dadafs doctor --server heinzelfrau:4242 --tls /etc/dadafs/tls",
    )
    doctor.add_argument("--server", metavar="HOST:PORT", help="ask this server too")
    doctor.add_argument(
        "--tls", type=typed(absolute), metavar="DIR", help="certificates, to that server"
    )
    doctor.add_argument("--quick", action="store_true", help="do not load the kernels")


def _doctor(options: argparse.Namespace) -> int:
    wrong, silent = False, False
    for found in _findings(options):
        print(f"{found.state:<6} {found.what:<16} {found.told}", flush=True)
        wrong = wrong or found.state == "WRONG"
        silent = silent or found.state == "SILENT"
    return REFUSED if wrong else SILENT if silent else DONE


def _findings(options: argparse.Namespace) -> Iterator[Finding]:
    yield _device()
    yield _program()
    yield allow_other(FUSE_CONF)
    yield from _packages()
    yield _compiled()
    if not options.quick:
        yield _kernels()
    yield _memory()
    yield descriptors(resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    yield _disk()
    yield from _mounts()
    if options.server:
        yield _server(options.server, options.tls)


def _device() -> Finding:
    if not FUSE_DEVICE.exists():
        return Finding("/dev/fuse", "WRONG", "is missing: `modprobe fuse`; in a container, pass it")
    if not os.access(FUSE_DEVICE, os.R_OK | os.W_OK):
        return Finding("/dev/fuse", "WRONG", "is closed to this user: `chmod 666 /dev/fuse`")
    return Finding("/dev/fuse", "ok", "can be opened")


def _program() -> Finding:
    path = shutil.which("fusermount3")
    if path is None:
        return Finding("fusermount3", "WRONG", "is missing: `apt install fuse3`")
    if os.geteuid() != 0 and not os.stat(path).st_mode & 0o4000:
        return Finding("fusermount3", "WRONG", f"{path} is not setuid root: reinstall fuse3")
    return Finding("fusermount3", "ok", path)


def allow_other(conf: Path) -> Finding:
    """Whether users may let others into their mounts."""
    try:
        lines = conf.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    if any(line.strip() == "user_allow_other" for line in lines):
        return Finding("allow_other", "ok", f"is permitted in {conf}")
    line = f"users cannot use --allow-other: write user_allow_other into {conf} if they are to"
    return Finding("allow_other", "note", line)


def _packages() -> Iterator[Finding]:
    from importlib import metadata

    missing = []
    try:
        wanted = metadata.requires("dadafs") or []
    except metadata.PackageNotFoundError:
        yield Finding("packages", "WRONG", "dadafs is not installed: `pip install -e .`")
        return
    names = [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in wanted if "extra ==" not in line]
    for name in names:
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        yield Finding("packages", "WRONG", f"missing: `pip install {' '.join(missing)}`")
    else:
        yield Finding("packages", "ok", f"all {len(names)} are there, see `dadafs version`")


def _compiled() -> Finding:
    """Where numba keeps compiled kernels, in its own order."""
    import analysis

    chosen = os.environ.get("NUMBA_CACHE_DIR")
    beside = Path(analysis.__path__[0]) / "kernels"
    home = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    for place in [Path(chosen)] if chosen else [beside, home]:
        if os.access(_existing(place), os.W_OK):
            return Finding("compiled code", "ok", f"is kept in {place}")
    told = f"{chosen or beside} is not writable: every start compiles for half a minute"
    return Finding("compiled code", "WRONG", f"{told}; set NUMBA_CACHE_DIR")


def _kernels() -> Finding:
    try:
        done = subprocess.run(
            [sys.executable, "-c", KERNELS], capture_output=True, text=True, timeout=KERNELS_S
        )
    except subprocess.TimeoutExpired:
        return Finding("kernels", "WRONG", f"were not loaded in {KERNELS_S:.0f} s")
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]
        return Finding("kernels", "WRONG", f"cannot be loaded: {last[:200]}")
    return Finding("kernels", "ok", f"are loaded; LZ4 is decoded by {done.stdout.strip()[:100]}")


def _memory() -> Finding:
    from dadafs.commands.showing import size

    with open("/proc/meminfo", encoding="ascii") as lines:
        facts = dict(line.split(":", 1) for line in lines)
    free = int(facts["MemAvailable"].split()[0]) * 1024
    if free < MEMORY_BYTES:
        return Finding("memory", "WRONG", f"{size(free)} are available; 1 GiB is needed")
    return Finding("memory", "ok", f"{size(free)} are available")


def descriptors(hard: int) -> Finding:
    """Whether processes may have enough files and connections open."""
    from dadafs.processes import DESCRIPTORS

    if hard != resource.RLIM_INFINITY and hard < DESCRIPTORS:
        told = f"at most {hard}, {DESCRIPTORS} are good: `ulimit -Hn`, /etc/security/limits.conf"
        return Finding("open files", "WRONG" if hard < FEW_DESCRIPTORS else "note", told)
    return Finding("open files", "ok", f"{DESCRIPTORS} a process are permitted")


def _disk() -> Finding:
    from dadafs.cache.inspecting import stores
    from dadafs.commands.showing import size
    from dadafs.config import caches

    place = caches()
    above = _existing(place)
    about = os.statvfs(above)
    free = about.f_bavail * about.f_frsize
    used = sum((one / "data.mdb").stat().st_blocks * 512 for one in stores(place))
    told = f"{place}: {size(used)} used, {size(free)} free"
    if not os.access(above, os.W_OK):
        return Finding("caches", "WRONG", f"{above} is not writable; set XDG_CACHE_HOME")
    if free < DISK_BYTES:
        return Finding("caches", "WRONG", f"{told}; make room, or `dadafs cache clear`")
    return Finding("caches", "ok", told)


def _existing(place: Path) -> Path:
    """It, or the nearest directory above it that is there."""
    return next(one for one in (place, *place.parents) if one.exists())


def _mounts() -> Iterator[Finding]:
    from dadafs.client.asking.asking import ask
    from dadafs.client.mounting.mountpoint import by_mountpoint
    from dadafs.rpc.messages import AskReport

    found = list(by_mountpoint())
    if not found:
        yield Finding("mounts", "ok", "there is none")
    for mountpoint in found[:MOUNTS_SHOWN]:
        try:
            report = ask(mountpoint, AskReport(), SOON_S)
            yield Finding("mount", "ok", f"{mountpoint} answers, process {report.pid}")
        except Unreachable as exc:
            yield Finding("mount", "SILENT", str(exc))


def _server(server: str, tls: Path | None) -> Finding:
    import trio

    from dadafs.config import address
    from dadafs.rpc.messages import AskReport, ListPeers
    from dadafs.rpc.pool import Pool, tcp_connector
    from dadafs.rpc.security import Credentials

    async def call() -> str:
        credentials = Credentials(tls) if tls is not None else None
        connect = tcp_connector(*address(server), credentials, "server")
        pool = Pool(connect, name=f"the server {server}")
        try:
            with trio.fail_after(SOON_S):
                report, _ = await pool.call(AskReport())
                peers, _ = await pool.call(ListPeers())
        finally:
            pool.close()
        threads = sum(peer.threads for peer in peers)
        return f"{server} answers, process {report.pid}; {len(peers)} peers, {threads} threads"

    try:
        return Finding("server", "ok", trio.run(call))
    except UsageError as exc:
        return Finding("server", "WRONG", str(exc))
    except trio.TooSlowError:
        told = f"{server} does not answer in {SOON_S:.0f} s: is the port open in the firewall?"
        return Finding("server", "SILENT", told)
    except DadaError as exc:
        return Finding("server", "SILENT", f"{exc}; is it running, and is --tls right?")

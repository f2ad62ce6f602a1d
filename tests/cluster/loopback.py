"""A server and peers as real processes on loopback, and callers of all kinds."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import trio

from dadafs.certificates import Node, make_authority, make_node
from dadafs.rpc.calls import Request
from dadafs.rpc.pool import Pool, tcp_connector
from dadafs.rpc.security import Credentials

R = TypeVar("R")
T = TypeVar("T")
HOST = "127.0.0.1"
ROOT = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-m", "dadafs.cli")
ANSWER_S = 20.0
PATIENCE_S = 30.0


def until(look: Callable[[], T], what: str, patience_s: float = PATIENCE_S) -> T:
    """The first true thing that `look` finds. AssertionError when there is none in time."""
    deadline = time.monotonic() + patience_s
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {patience_s:.0f} s: {what}"
        time.sleep(0.02)


def certify(authority: Path, *nodes: str) -> Path:
    """Certificates, `role:name` each, of an authority that is made if need be."""
    make_authority(authority)
    for text in nodes:
        make_node(authority, Node(*text.split(":")))
    return authority


class Daemon:
    """A `dadafs server` or `dadafs peer`, and what it says."""

    def __init__(self, place: Path, *words: str | Path) -> None:
        place.mkdir(parents=True, exist_ok=True)
        self._log = place / "log"
        self._begin = self._log.stat().st_size if self._log.exists() else 0
        self.env = os.environ | {
            "XDG_CACHE_HOME": str(place / "cache"),
            "XDG_RUNTIME_DIR": str(place),
            "PYTHONPATH": str(ROOT),
        }
        self._words = [*COMMAND, *map(str, words)]
        self.process = self._start()
        self.port = int(until(self._port, f"{words[0]} answers: {self.log()}"))

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(self._words, env=self.env, stdout=log, stderr=log)

    def _port(self) -> str:
        assert self.process.poll() is None, self.log()
        found = re.findall(r"answers on \S+:(\d+)", self.log())
        return str(found[-1]) if found else ""

    def log(self) -> str:
        """All it has said."""
        return self._log.read_bytes()[self._begin :].decode()

    def memory_bytes(self) -> int:
        """Resident memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) << 10

    def processor_s(self) -> float:
        """Time of processors that it has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """As an administrator does."""
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        try:
            assert self.process.wait(timeout=20) in (0, -signal.SIGTERM), self.log()
        finally:
            self.process.kill()
            self.process.wait()

    @contextmanager
    def complaint(self, pattern: str) -> Iterator[None]:
        """Assert that it says just one line more within, and that it is like this."""
        before = self.log().splitlines()
        yield
        new = until(lambda: self.log().splitlines()[len(before) :], f"a line with {pattern}")
        assert len(new) == 1, new
        assert re.search(pattern, new[0]), new[0]


@contextmanager
def daemon(place: Path, *words: str | Path) -> Iterator[Daemon]:
    """A daemon that is stopped afterwards."""
    made = Daemon(place, *words)
    try:
        yield made
    finally:
        made.stop()


class Mount:
    """A server mounted by the command, with directories of its own."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.mnt = base / "mnt"
        self.mnt.mkdir()
        self._env = os.environ | {
            "XDG_CACHE_HOME": str(base / "cache"),
            "XDG_RUNTIME_DIR": str(base),
            "PYTHONPATH": str(ROOT),
        }

    def dadafs(self, *words: str | Path) -> str:
        """What a command says that succeeds and complains of nothing."""
        done = subprocess.run(
            [*COMMAND, *map(str, words)], env=self._env, capture_output=True, text=True, timeout=90
        )
        assert (done.returncode, done.stderr) == (0, ""), (words, done.returncode, done.stderr)
        return done.stdout

    def text(self, name: str) -> str:
        """A file of `.dadafs`."""
        return (self.mnt / ".dadafs" / name).read_text()

    def stats(self) -> dict[str, Any]:
        """`stats.json`."""
        found: dict[str, Any] = json.loads(self.text("stats.json"))
        return found

    def peers(self) -> set[str]:
        """Names of those that answer."""
        listed = json.loads(self.text("peers.json"))["peers"]
        return {peer["name"] for peer in listed if peer["answers"]}

    def mounted(self) -> bool:
        """Whether the kernel has a mount there."""
        return f" {self.mnt} " in Path("/proc/self/mountinfo").read_text()


@contextmanager
def mount(source: str | Path, *options: str | Path) -> Iterator[Mount]:
    """A mount that is taken away afterwards."""
    base = Path(tempfile.mkdtemp(prefix="dadal", dir="/tmp"))  # short: for Unix sockets
    made = Mount(base)
    try:
        made.dadafs("mount", source, made.mnt, *options)
        yield made
        made.dadafs("umount", made.mnt)
    finally:
        while made.mounted():
            subprocess.run(["fusermount3", "-u", "-z", str(made.mnt)], check=True, timeout=10)
        shutil.rmtree(base)


def fuse_missing() -> str:
    """Why nothing can be mounted here; empty when it can."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK) or shutil.which("fusermount3") is None:
        return "no FUSE here"
    return ""


def ask(port: int, certificates: Path | None, request: Request[R], role: str = "server") -> R:
    """The answer to a request by the owner of these certificates."""

    async def call() -> R:
        credentials = Credentials(certificates) if certificates is not None else None
        pool = Pool(tcp_connector(HOST, port, credentials, role), name="the daemon")
        try:
            with trio.fail_after(ANSWER_S):
                answer, _ = await pool.call(request)
                return answer
        finally:
            pool.close()

    return trio.run(call)


def connected(port: int) -> socket.socket:
    """A bare connection."""
    return socket.create_connection((HOST, port), timeout=ANSWER_S)


def shaken(port: int, authority: Path, node: Path | None) -> ssl.SSLSocket:
    """A TLS connection with the certificate of `node`, or none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if node is not None:
        context.load_cert_chain(node / "node.pem", node / "node.key")
    return context.wrap_socket(connected(port))


def hung_up(sock: socket.socket) -> bool:
    """Whether the other side ends the connection without a word."""
    try:
        return sock.recv(100) == b""
    except (ConnectionError, ssl.SSLError):
        return True

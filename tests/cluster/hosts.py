"""Hosts of a cluster as network namespaces on one bridge, with real processes on them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
COMMAND = (sys.executable, "-m", "dadafs.cli")
ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 40.0
NETWORK = "10.213.77"
PORT = 4242


def namespaces_missing() -> str:
    """Why hosts cannot be made here; empty when they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None or shutil.which("nsenter") is None:
        return "ip or nsenter is missing: install iproute2 and util-linux"
    if not os.access("/dev/fuse", os.R_OK | os.W_OK) or shutil.which("fusermount3") is None:
        return "FUSE is missing"
    probe = f"dada{os.getpid()}p"
    done = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True)
    if done.returncode:
        return f"ip netns add: {done.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", probe], check=True)
    return ""


def until(look: Callable[[], T], what: str, patience_s: float = PATIENCE_S) -> T:
    """The first true thing that `look` finds. AssertionError when there is none in time."""
    deadline = time.monotonic() + patience_s
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {patience_s:.0f} s: {what}"
        time.sleep(0.05)


def ip(*words: str) -> None:
    """One `ip` command."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"


class Host:
    """A network namespace with an address, and the processes started on it."""

    def __init__(self, cluster: Cluster, name: str, number: int) -> None:
        self.name = name
        self.address = f"{NETWORK}.{number}"
        self.place = cluster.base / name
        self.place.mkdir()
        self.namespace = f"{cluster.tag}{name}"
        self.link = f"v{cluster.tag[-6:]}{number}"
        self.process: subprocess.Popen[bytes] | None = None
        ip("netns", "add", self.namespace)
        ip("link", "add", self.link, "type", "veth", "peer", "name", "eth0", "netns",
           self.namespace)  # fmt: skip
        ip("link", "set", self.link, "master", cluster.bridge, "up")
        self._ip("addr", "add", f"{self.address}/24", "dev", "eth0")
        self._ip("link", "set", "eth0", "up")
        self._ip("link", "set", "lo", "up")
        self.env = os.environ | {
            "XDG_CACHE_HOME": str(self.place / "cache"),
            "XDG_RUNTIME_DIR": str(self.place),
            "PYTHONPATH": str(ROOT),
        }

    def _ip(self, *words: str) -> None:
        ip("-n", self.namespace, *words)

    def command(self, *words: str | Path) -> list[str]:
        """A command on this host; mounts stay visible to all."""
        return ["nsenter", f"--net=/run/netns/{self.namespace}", *map(str, words)]

    def run(self, *words: str | Path, timeout: float = 90) -> subprocess.CompletedProcess[str]:
        """A command, to its end."""
        return subprocess.run(
            self.command(*words), env=self.env, capture_output=True, text=True, timeout=timeout
        )

    def dadafs(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """A dadafs command, to its end."""
        return self.run(*COMMAND, *words)

    def start(self, *words: str | Path) -> None:
        """A dadafs daemon; what it says goes to `log`."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(*COMMAND, *words), env=self.env, stdout=log, stderr=log
            )

    @property
    def log(self) -> Path:
        """What the daemons of this host say."""
        return self.place / "log"

    def signal(self, number: int) -> None:
        """To the daemon."""
        assert self.process is not None
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        """End the daemon at once."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(timeout=20)
            self.process = None

    def stop(self) -> None:
        """End the daemon as an administrator does."""
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            assert self.process.wait(timeout=20) in (0, -signal.SIGTERM)
            self.process = None

    def up(self, state: bool) -> None:
        """Plug its cable in or out."""
        ip("link", "set", self.link, "up" if state else "down")


class Cluster:
    """A bridge, hosts on it, certificates, and a raw tree that only the server is told of."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.tag = f"dada{os.getpid()}"
        self.bridge = f"b{os.getpid()}"
        self.hosts: dict[str, Host] = {}
        self.raw = base / "raw"
        self.raw.mkdir()
        self.certificates = base / "ca"
        self.mnt = base / "mnt"
        self.mnt.mkdir()
        ip("link", "add", self.bridge, "type", "bridge")
        ip("link", "set", self.bridge, "up")

    def host(self, name: str) -> Host:
        """A host of that name, made if need be."""
        if name not in self.hosts:
            self.hosts[name] = Host(self, name, len(self.hosts) + 1)
        return self.hosts[name]

    def certify(self, *nodes: str) -> None:
        """Certificates, `role:name` each."""
        command = [*COMMAND, "certs", self.certificates, *nodes]
        subprocess.run(command, check=True, capture_output=True)

    def start_server(self, *options: str | Path) -> None:
        """The server on its host."""
        host = self.host("server")
        listen = f"{host.address}:{PORT}"
        tls = self.certificates / "server"
        host.start("server", "--root", self.raw, "--listen", listen, "--tls", tls, *options)

    def start_peer(self, name: str, *options: str | Path) -> None:
        """A peer of one thread that knows nothing but the server."""
        host = self.host(name)
        words = ["--name", name, "--listen", f"{host.address}:0", "--threads", "1"]
        tls = self.certificates / name
        server = f"{self.host('server').address}:{PORT}"
        host.start("peer", "--server", server, "--tls", tls, *words, *options)

    def mount(self, *options: str) -> None:
        """The server, mounted on the client's host."""
        client = self.host("client")
        source = f"tcp://{self.host('server').address}:{PORT}"
        tls = self.certificates / "client"
        done = client.dadafs("mount", source, self.mnt, "--tls", tls, *options)
        assert (done.returncode, done.stderr) == (0, "")

    def stats(self) -> dict[str, Any]:
        """`.dadafs/stats.json` of the mount."""
        found: dict[str, Any] = json.loads((self.mnt / ".dadafs/stats.json").read_text())
        return found

    def peers(self) -> set[str]:
        """Names of the peers that the mount has and that answer."""
        listed = json.loads((self.mnt / ".dadafs/peers.json").read_text())["peers"]
        return {peer["name"] for peer in listed if peer["answers"]}

    def processes(self) -> list[int]:
        """All processes of this cluster."""
        found = []
        for entry in os.scandir("/proc"):
            if entry.name.isdecimal() and int(entry.name) != os.getpid():
                try:
                    environment = Path(entry.path, "environ").read_bytes()
                except OSError:
                    continue
                if f"XDG_RUNTIME_DIR={self.base}".encode() in environment:
                    found.append(int(entry.name))
        return found

    def clean(self) -> None:
        """Take everything away, whatever state it is in."""
        for host in self.hosts.values():
            host.kill()
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        while f" {self.mnt} " in Path("/proc/self/mountinfo").read_text():
            subprocess.run(["fusermount3", "-u", "-z", str(self.mnt)], check=True, timeout=10)
        for host in self.hosts.values():
            subprocess.run(["ip", "netns", "del", host.namespace], check=False)
        subprocess.run(["ip", "link", "del", self.bridge], check=False)
        shutil.rmtree(self.base)


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A cluster of its own; nothing of it is left afterwards."""
    made = Cluster(Path(tempfile.mkdtemp(prefix="dadac", dir="/tmp")))
    try:
        yield made
    finally:
        made.clean()

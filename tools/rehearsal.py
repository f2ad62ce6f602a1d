"""Follow docs/operations.md to the letter, on hosts made of namespaces; write what they print.

Each host is a process tree with its own network, host name and file system: this machine's as a
lower layer that it cannot write to. What there is none of here has a stand-in: `systemctl` starts
what a unit says as its user and waits for READY=1; `scp` copies from one host to the other.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tools.scan_maker import make_scan
from tools.wheels import dependencies, make_wheel

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/operations.md"
TRANSCRIPT = ROOT / "docs/transcript.md"
NODES = ("heinzelfrau", "h001", "h002", "lab1")
SYSTEM = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NETWORK = "10.213.78"
STATEMENT_S = 240.0
END_S = 20.0
HEADER = """\
# Transcript

What the hosts print when the shell blocks of [operations](operations.md) are run on them, written
by `tools/rehearse`; where several run the same, what the first prints. There is no systemd there: a
stand-in for `systemctl` starts what the unit says, as its user, and waits until it is ready.
"""
INIT = """
set -e
name=$1; place=$2; shift 2
mount --make-rprivate /
umount -l -a -t fuse.dadafs  # or mounts of this machine would not end as long as this host is there
mount -t tmpfs tmpfs "$place"
mkdir "$place/upper" "$place/work" "$place/root"
mount -t overlay -o "lowerdir=/,upperdir=$place/upper,workdir=$place/work" overlay "$place/root"
cd "$place/root"
mount -t tmpfs tmpfs tmp
mount -t tmpfs tmpfs run
mount -t proc proc proc
chmod o+x root  # a Python of root's may be there
for path in /dev /sys "$@"; do
    mkdir -p ".$path"
    mount --rbind "$path" ".$path"
done
hostname "$name"
exec chroot . bash -c 'echo ready; while :; do sleep 1000 & wait; done'
"""
SYSTEMCTL = '''\
#!/usr/bin/env python3
"""Start what a unit says, and wait until it is ready."""
import os, re, socket, subprocess, sys
words = [word for word in sys.argv[1:] if not word.startswith("-")]
if words == ["daemon-reload"]:
    sys.exit()
name = words[1]
facts = re.findall(r"^(\\w+)=(.*)$", open(f"/etc/systemd/system/{name}.service").read(), re.M)
said = {key: value for key, value in facts}
ready = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
ready.bind(f"/run/{name}.notify")
os.chmod(f"/run/{name}.notify", 0o666)
ready.settimeout(60)
kept = [f"{key}={os.environ[key]}" for key in ("PATH", "PYTHONPATH")]
given = [word for key, value in facts if key == "Environment" for word in value.split()]
user = ["setpriv", f"--reuid={said['User']}", f"--regid={said['Group']}", "--init-groups"]
with open(f"/run/{name}.log", "ab") as log:
    subprocess.Popen(
        [*user, "env", "-i", *kept, f"NOTIFY_SOCKET=/run/{name}.notify", *given,
         *said["ExecStart"].split()],
        stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
    )
try:
    while b"READY=1" not in ready.recv(4096):
        pass
except TimeoutError:
    sys.exit(open(f"/run/{name}.log").read())
'''
SCP = """\
#!/bin/bash
# scp -q FILE... NODE:DIRECTORY/, by way of a directory that all hosts share.
set -e
target=${!#}
node=${target%%:*}
mkdir "$SHARED/$node"
cp "${@:2:$#-2}" "$SHARED/$node/"
echo "${target#*:}" > "$SHARED/$node.target"
"""


@dataclass(frozen=True, slots=True)
class Block:
    """Lines of shell, and who types them."""

    nodes: tuple[str, ...]
    text: str


def blocks(page: str) -> list[Block]:
    """The blocks of a page that begin with `# on NODE`. Pure."""
    found = []
    for nodes, text in re.findall(r"^```sh\n# on ([^\n:]+)[^\n]*\n(.*?)^```$", page, re.M | re.S):
        names = NODES if nodes == "every node" else tuple(re.split(r", | and ", nodes))
        if unknown := set(names) - set(NODES):
            raise ValueError(f"nobody is called {', '.join(sorted(unknown))}")
        found.append(Block(names, text))
    return found


def statements(text: str) -> list[str]:
    """Shell, cut where bash would run what it has read."""
    found, so_far = [], ""
    for line in text.splitlines(keepends=True):
        so_far += line
        read = subprocess.run(["bash", "-n"], input=so_far, capture_output=True, text=True)
        if read.returncode == 0 and not read.stderr:
            found.append(so_far)
            so_far = ""
    if so_far:
        raise ValueError(f"bash does not understand {so_far!r}")
    return found


class Host:
    """One host; it ends with `close`, and everything on it."""

    def __init__(self, site: Rehearsal, name: str, number: int) -> None:
        self.name = name
        self.address = f"{NETWORK}.{number}"
        place = site.base / f"host-{name}"
        place.mkdir()
        self._env = site.env
        seen = dict.fromkeys(map(os.path.realpath, (ROOT, sys.prefix, sys.base_prefix, *site.seen)))
        paths = [path for path in seen if path != "/usr"]
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--uts", "--net", "--pid", "--fork", "--kill-child",
             "bash", "-c", INIT, "init", name, place, *paths],
            stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != "ready\n":
            raise OSError(f"no host {name} can be made here")
        parent = self._holder.pid
        self.init = int(Path(f"/proc/{parent}/task/{parent}/children").read_text())
        self._link = link = f"{site.bridge}{number}"
        ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", str(self.init))
        ip("link", "set", link, "master", site.bridge, "up")
        self.run(f"ip addr add {self.address}/24 dev eth0; ip link set eth0 up; ip link set lo up")

    def run(self, script: str, *, check: bool = True) -> str:
        """What bash and its programs print. CalledProcessError where they fail."""
        done = subprocess.run(
            ["nsenter", f"--target={self.init}", "--mount", "--uts", "--net", "--pid", "--root",
             "--wd", "bash", "-c", f"cd\n{script}"],
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=STATEMENT_S,
        )  # fmt: skip
        if check and done.returncode:
            raise OSError(f"{self.name}: {script}: exit code {done.returncode}: {done.stdout}")
        return done.stdout

    def close(self) -> None:
        """End it: the kernel ends all processes with their first, and what waits for that ends."""
        os.kill(self.init, signal.SIGKILL)
        self._holder.wait(END_S)
        subprocess.run(["ip", "link", "del", self._link], check=False, capture_output=True)
        if self._holder.stdout is not None:
            self._holder.stdout.close()


class Rehearsal:
    """The hosts of the page, with a wheel in root's home and raw data at the server's."""

    def __init__(self, base: Path, wheel: Path, dependencies: Path, raw: Path) -> None:
        self.base = base
        self.bridge = f"r{os.getpid()}"
        self.shared = base / "shared"
        tools = base / "bin"
        for directory in (self.shared, tools):
            directory.mkdir()
        for name, text in (("systemctl", SYSTEMCTL), ("scp", SCP)):
            (tools / name).write_text(text)
            (tools / name).chmod(0o755)
        self.env = {
            "PATH": f"{tools}:{sys.base_prefix}/bin:{SYSTEM}",
            "HOME": "/root",
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(dependencies),
            "PIP_NO_INDEX": "1",
            "SHARED": str(self.shared),
        }
        self.hosts: dict[str, Host] = {}
        self.seen = (base, wheel.parent, dependencies, raw)
        self._wheel, self._raw = wheel, raw

    def begin(self) -> None:
        """Make the hosts. OSError where that cannot be."""
        ip("link", "add", self.bridge, "type", "bridge")
        ip("link", "set", self.bridge, "up")
        for number, name in enumerate(NODES, 1):
            self.hosts[name] = Host(self, name, number)
        known = "\\n".join(f"{host.address} {name}" for name, host in self.hosts.items())
        for host in self.hosts.values():
            host.run(
                f"printf '{known}\\n' >> /etc/hosts; rm -rf /opt/dadafs; cp {self._wheel} /root/"
            )
        self.hosts[NODES[0]].run(f"mkdir -p /data && mount --bind {self._raw} /data")

    def follow(self, page: str) -> str:
        """Run every block; commands and what they print, as a page. OSError where one fails."""
        parts, last = [HEADER], ""
        with ThreadPoolExecutor() as pool:
            for block in blocks(page):
                told = pool.map(partial(self._type, statements(block.text)), block.nodes)
                said, *_ = list(told)
                names = ", ".join(block.nodes)
                parts += [said if names == last else f"\n## On {names}\n\n{said}"]
                last = names
                self._deliver()
        return "".join(parts)

    def _type(self, lines: Sequence[str], name: str) -> str:
        return "".join(
            indented(f"# {line}") + indented(self.hosts[name].run(line)) for line in lines
        )

    def _deliver(self) -> None:
        """What was given to the stand-in for scp."""
        for note in self.shared.glob("*.target"):
            source, target = note.with_suffix(""), note.read_text().strip()
            self.hosts[note.stem].run(f"cp {source}/* {target}")
            shutil.rmtree(source)
            note.unlink()

    def close(self) -> None:
        """Take everything away."""
        for host in self.hosts.values():
            host.close()
        subprocess.run(["ip", "link", "del", self.bridge], check=False)


def ip(*words: str) -> None:
    """One `ip` command. OSError."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")


def indented(text: str) -> str:
    """As a block of Markdown. Pure."""
    return "".join(f"    {line}".rstrip() + "\n" for line in text.splitlines())


@contextmanager
def rehearsal(wheel: Path, dependencies: Path, raw: Path) -> Iterator[Rehearsal]:
    """Hosts, of which nothing is left afterwards."""
    base = Path(tempfile.mkdtemp(prefix="dadar", dir="/tmp"))
    base.chmod(0o755)
    made = Rehearsal(base, wheel, dependencies, raw)
    try:
        made.begin()
        yield made
    finally:
        made.close()
        shutil.rmtree(base)


def main() -> int:
    """Write the transcript."""
    with tempfile.TemporaryDirectory(prefix="dadar", dir="/tmp") as name:
        place = Path(name)
        place.chmod(0o755)
        make_scan(place / "raw", horz=51, vert=20, keep_frames=False)
        with rehearsal(make_wheel(place), dependencies(place / "needed"), place / "raw") as site:
            TRANSCRIPT.write_text(site.follow(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(TRANSCRIPT.relative_to(ROOT))
    return 0

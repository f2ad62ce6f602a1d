"""Use a cluster while its nodes are killed, its lines cut and its pool damaged; see what holds.

A server with a small pool and few results, three peers and two mounts, over TLS on loopback. Rounds
of readers, who compare every byte, and of trouble; at the end of each everything is mended, has to
come to rest, and what the processes hold is noted. Which trouble comes when follows from the seed.
"""

from __future__ import annotations

import errno
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from hashlib import blake2b
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dadafs.certificates import Node as Certified
from dadafs.certificates import make_authority, make_node
from tools.growing import Growing
from tools.nodes import (
    END_S,
    HOST,
    Node,
    answers,
    free_port,
    mounted,
    peer_node,
    server_node,
    wait,
)
from tools.relay import Relay, relaying
from tools.scan_maker import ScanMade, make_scan
from tools.soaked import Told, allowed, grown, judged
from tools.soaking import Held, held

SCANS, HORZ, VERT, FRAMES_A_FILE = 2, 20, 16, 64
DETECTOR = "256x512"
PEERS = ("a", "b", "c")
MOUNTS = ("m1", "m2")
READERS = 2  # at each mount
PAUSE_S = 0.05  # of a reader between two files, at most
PIECE_BYTES = 1 << 18
SMALL = "4MiB"  # of a store, which drops its oldest all the time
POOL = "3MiB"
REST_S = 60.0  # for all to be mended and idle: a job waits a minute for a patch
ROIS = 60
BROKEN = 50  # promises that are told
ENDINGS = ("npy", "tif", "h5", "mat", "csv", "png")


class ClusterSoak:
    """A cluster on loopback, those who read and those who damage."""

    def __init__(self, place: Path, seed: int) -> None:
        self.told = Told(seed)
        self._place = place
        self._raw, self._pool = place / "raw", place / "pool"
        self._seed = seed
        self._lock = threading.Lock()
        self._first: dict[str, bytes] = {}
        """Of each result, the digest of what was read first."""
        self._outages: list[list[float]] = []
        self._round = 0
        self._over = threading.Event()
        self._peers: dict[str, tuple[Node, threading.Lock]] = {}

    @contextmanager
    def cluster(self) -> Iterator[None]:
        """Everything up; nothing is left afterwards."""
        self._make_scans()
        port = free_port()
        certificates = self._place / "ca"
        make_authority(certificates)
        for name, role in (("s", "server"), ("p", "peer"), ("m", "client")):
            make_node(certificates, Certified(role, name))
        self._port = port
        self._server = server_node(
            self._raw, self._place, port, "--tls", certificates / "s",
            "--pool", self._pool, "--pool-size", POOL,
            "--results", self._place / "shared", "--results-size", SMALL,
        )  # fmt: skip
        with self._noting_errors(), ExitStack() as stack:
            self._line: Relay = stack.enter_context(relaying(port))
            address = f"{HOST}:{self._line.port}"
            stack.callback(self._stop, "server", self._server)
            self._start_server()
            for name in PEERS:
                options = ("--tls", certificates / "p", "--results-size", SMALL, "--memory", "4MiB")
                node = peer_node(address, self._place, name, *options)
                self._peers[name] = node, threading.Lock()
                node.start()
                stack.callback(self._stop, f"peer {name}", node)
            small = ("--results-size", SMALL, "--memory", "1MiB", "--raw-memory", "2MiB")
            client = ("--tls", certificates / "m", "--no-local-peer", *small)
            self._mounts = [
                stack.enter_context(mounted(address, self._place, *client, name=name))
                for name in MOUNTS
            ]
            self._until_rest("the start")
            yield
        self._look_what_is_left()

    @contextmanager
    def _noting_errors(self) -> Iterator[None]:
        """A mount that died, or cannot be taken away, ends the soak: a broken promise."""
        try:
            yield
        except (OSError, subprocess.SubprocessError) as exc:
            self._break(f"the soak ended: {exc}")

    def _make_scans(self) -> None:
        self._truth: dict[str, ScanMade] = {}
        self._integrals: dict[str, NDArray[np.int64]] = {}
        for number in range(SCANS):
            scan = make_scan(
                self._raw, name=f"s{number}", horz=HORZ, vert=VERT, detector=DETECTOR, unique=8,
                images_per_file=HORZ * VERT // 2, seed=number, log="spec",
            )  # fmt: skip
            self._truth[f"s{number}"] = scan
            counts = np.where(scan.mask | (scan.frames == 65535), 0, scan.frames)
            sums = counts.cumsum(1, dtype=np.int64).cumsum(2)
            self._integrals[f"s{number}"] = np.pad(sums, ((0, 0), (1, 0), (1, 0)))
            for path in scan.data_files:
                os.utime(path, (1e9, 1e9))  # what is young is not put into the pool
        grown = make_scan(
            self._place / "made", name="g", horz=HORZ, vert=VERT, detector="small", unique=8,
            images_per_file=FRAMES_A_FILE, keep_frames=False,
        )  # fmt: skip
        self._growing = Growing(self._raw, grown)
        self._growing.add()

    def run(self, seconds: float, round_s: float) -> Told:
        """Rounds until the time is over, three at least."""
        rounds = max(3, round(seconds / round_s))
        began = time.monotonic()
        with self.cluster():
            for self._round in range(rounds):
                calm = self._round > rounds // 2  # so that it is seen what a server holds later
                self._one_round(round_s, {"server killed"} if calm else set())
                self.told.seconds = time.monotonic() - began
                for role, one in self._held().items():
                    self.told.held.setdefault(role, []).append((self.told.seconds, one))
            for path in self._growing.complete:
                self._read(self._mounts[0], str(path), self._check_grown)
        for line in grown(self.told):
            self._break(line)
        return self.told

    def _one_round(self, seconds: float, without: set[str]) -> None:
        """Readers and trouble, then nothing but what mends."""
        self._over.clear()
        readers = [
            partial(self._reader, mnt, number) for number, mnt in enumerate(self._mounts * READERS)
        ]
        trouble: dict[str, tuple[Callable[[random.Random], None], float]] = {
            "peer killed": (self._kill_peer, 8),
            "peer stopped": (self._stop_peer, 8),
            "server killed": (self._kill_server, 10),
            "lines cut": (self._cut, 5),
            "bits flipped": (self._flip, 1),
            "scan grows": (self._grow, 6),
            "reader killed": (self._kill_reader, 1),
        }
        troubles = [
            partial(self._trouble, what, *how)
            for what, how in trouble.items()
            if what not in without
        ]
        with ThreadPoolExecutor(len(readers) + len(troubles)) as pool:
            futures = [pool.submit(work) for work in (*readers, *troubles)]
            self._over.wait(seconds)
            self._over.set()
            began = time.monotonic()
            for future in futures:
                future.result()
        self._until_rest(f"round {self._round + 1}")
        self.told.mended.append(time.monotonic() - began)

    # Who reads

    def _reader(self, mnt: Path, number: int) -> None:
        chance = random.Random(f"{self._seed} {self._round} reader {number}")
        while not self._over.wait(chance.uniform(0, PAUSE_S)):
            kind = chance.random()
            if kind < 0.5:
                self._read_raw(mnt, chance)
            elif kind < 0.9 or time.monotonic() < self._growing.seen_from:
                path = self._some_result(chance)
                self._read(mnt, path, partial(self._check_result, path))
            else:
                self._read(mnt, str(self._growing.map), self._growing.wrong_bytes)

    def _read_raw(self, mnt: Path, chance: random.Random) -> None:
        name = f"s{chance.randrange(SCANS)}"
        source = chance.choice(self._truth[name].data_files)
        at, size = chance.randrange(source.stat().st_size), chance.choice((PIECE_BYTES, 1 << 22))
        with source.open("rb", buffering=0) as file:
            truth = os.pread(file.fileno(), size, at)
        self._read(mnt, f"{name}/raw/{source.name}", partial(_differing, truth), at, len(truth))

    def _some_result(self, chance: random.Random) -> str:
        scan, number = f"s{chance.randrange(SCANS)}", chance.randrange(ROIS)
        roi = f"roi={number * 5},{number * 2},200,90"
        line = chance.randrange(VERT)
        ending = chance.choice(ENDINGS)
        name = chance.choice(
            (
                f"darkfield/{roi}/full.npy",
                f"dpc/{roi}/full.{ending}",
                f"orientation/full.{ending}",
                f"radial/bins={20 + number}.{chance.choice(('npy', 'h5'))}",
                f"sum/region=0,{line},{HORZ},1.{ending}",
                f"max/region=0,{line},{HORZ},1.{ending}",
                f"frames/{number * 5:06}.{chance.choice(('npy', 'tif'))}",
            )
        )
        return f"{scan}/{name}"

    def _check_result(self, path: str, data: bytes) -> int:
        """It is what was read first; a dark field, what the frames say."""
        digest = blake2b(data).digest()
        with self._lock:
            first = self._first.setdefault(path, digest)
        right = first == digest
        found = re.match(r"(\w+)/darkfield/roi=(\d+),(\d+),(\d+),(\d+)/", path)
        if found is not None:
            x, y, width, height = map(int, found.groups()[1:])
            whole = self._integrals[found[1]]
            low, high = whole[:, y + height], whole[:, y]
            sums = (low[:, x + width] - low[:, x]) - (high[:, x + width] - high[:, x])
            sums = sums[self._truth[found[1]].which].astype(float)
            right = right and np.array_equal(np.load(BytesIO(data)).ravel(), sums)
        return 0 if right else len(data)

    def _check_grown(self, data: bytes) -> int:
        return self._growing.wrong_bytes(data, complete=True)

    def _read(
        self,
        mnt: Path,
        name: str,
        wrong_bytes: Callable[[bytes], int],
        at: int = 0,
        size: int | None = None,
    ) -> None:
        """Read a file, or part of it, not from the kernel's pages; count what comes of it."""
        began = time.monotonic()
        kind = "raw" if "/raw/" in name else "growing" if name.startswith("grow") else "results"
        try:
            data = _read_anew(mnt / name, at, size)
        except OSError as exc:
            seconds = time.monotonic() - began
            away = self._was_away(began)
            may = allowed(exc.errno, seconds, growing=kind == "growing", away=away)
            with self._lock:
                self.told.errors[errno.errorcode.get(exc.errno or 0, "?"), may] += 1
            if not may:
                since = "while the server was away" if away else ""
                self._break(f"{mnt.name}/{name} after {seconds:.1f} s {since}: {exc.strerror}")
            return
        wrong = wrong_bytes(data)
        if wrong:
            self._break(f"{mnt.name}/{name}: {wrong} of {len(data)} bytes are wrong")
        with self._lock:
            self.told.done.update({kind: 1, "bytes": len(data), "wrong bytes": wrong})
            self.told.longest_s = max(self.told.longest_s, time.monotonic() - began)

    def _was_away(self, since: float) -> bool:
        with self._lock:
            return any(end > since for _, end in self._outages)

    # Who damages

    def _trouble(self, what: str, act: Callable[[random.Random], None], every_s: float) -> None:
        chance = random.Random(f"{self._seed} {self._round} {what}")
        while not self._over.wait(chance.uniform(0.5, 1.5) * every_s):
            print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr)
            act(chance)
            with self._lock:
                self.told.done[what] += 1

    def _kill_peer(self, chance: random.Random) -> None:
        node, lock = self._peers[chance.choice(PEERS[1:])]  # one lives on, to see what it holds
        with lock:
            self._kill(node)
            self._over.wait(chance.uniform(0, 5))
            node.start()

    def _stop_peer(self, chance: random.Random) -> None:
        node, lock = self._peers[chance.choice(PEERS)]
        with lock:
            node.send(signal.SIGSTOP)
            self._over.wait(chance.uniform(0.2, 8))
            node.send(signal.SIGCONT)

    def _kill_server(self, chance: random.Random) -> None:
        outage = [time.monotonic(), float("inf")]
        with self._lock:
            self._outages.append(outage)
        self._kill(self._server)
        self._over.wait(chance.choice((0, 1, 3, 8, 70)))
        self._start_server()
        outage[1] = time.monotonic()

    def _kill(self, node: Node) -> None:
        status = node.kill()
        if status != -signal.SIGKILL:
            self._break(f"{node.log.stem} had ended by itself, with {status}")

    def _start_server(self) -> None:
        self._server.start()
        wait(lambda: answers(self._port), "the server answers", REST_S)

    def _cut(self, chance: random.Random) -> None:
        self._line.cut()

    def _flip(self, chance: random.Random) -> None:
        files = sorted(path for path in self._pool.glob("*/*") if path.suffix != ".tmp")
        for path in chance.sample(files, min(2, len(files))):
            with suppress(FileNotFoundError), path.open("r+b", buffering=0) as file:  # evicted
                at = chance.randrange(max(1, os.fstat(file.fileno()).st_size))
                (byte,) = os.pread(file.fileno(), 1, at) or b"\0"
                os.pwrite(file.fileno(), bytes([byte ^ 1 << chance.randrange(8)]), at)

    def _grow(self, chance: random.Random) -> None:
        self._growing.add()

    def _kill_reader(self, chance: random.Random) -> None:
        path = chance.choice(self._mounts) / self._some_result(chance)
        with subprocess.Popen(
            ["cp", path, self._place / "copy"], stderr=subprocess.DEVNULL
        ) as process:
            self._over.wait(chance.uniform(0, 0.3))
            process.kill()
            process.wait(REST_S)

    # What is left

    def _until_rest(self, when: str) -> None:
        """All peers answer, nothing is open or under way."""
        with suppress(TimeoutError):
            wait(lambda: not self._unrest(), "rest", REST_S)
            return
        self._break(f"no rest {REST_S:.0f} s after {when}: {self._unrest()}")

    def _unrest(self) -> str:
        """What is not at rest, of either mount."""
        for mnt in self._mounts:
            stats = json.loads(_text(mnt, "stats.json"))
            listed = json.loads(_text(mnt, "peers.json"))["peers"]
            here = {peer["name"] for peer in listed if peer["answers"]}
            if here != set(PEERS):
                return f"peers of {mnt.name} are {sorted(here)}"
            gauges = {
                "open files": stats["open"]["open_files"],
                "open directories": stats["open"]["open_directories"],
                "patches in flight": stats["farm"]["in_flight"],
                "jobs": len(json.loads(_text(mnt, "jobs.json"))["jobs"]),
            }
            for name, number in gauges.items():
                if number:
                    return f"{name} of {mnt.name}: {number}"
        return ""

    def _held(self) -> dict[str, Held]:
        pids = {"server": self._server.pid}
        pids |= {f"peer {name}": node.pid for name, (node, _) in self._peers.items()}
        pids |= {mnt.name: json.loads(_text(mnt, "stats.json"))["pid"] for mnt in self._mounts}
        return {role: held(pid) for role, pid in pids.items()}

    def _stop(self, role: str, node: Node) -> None:
        node.send(signal.SIGCONT)
        try:
            status = node.stop()
        except subprocess.TimeoutExpired:
            self._break(f"{role} does not end when it is told to")
            node.kill()
            return
        if status not in (0, -signal.SIGTERM):
            self._break(f"{role} ended with {status}")

    def _look_what_is_left(self) -> None:
        with suppress(TimeoutError):
            wait(lambda: not self._processes(), "no process is left", END_S)
        for pid in self._processes():
            self._break(f"process {pid} is left")
            os.kill(pid, signal.SIGKILL)
        for path in self._place.rglob("*.tmp"):
            self._break(f"left: {path.relative_to(self._place)}")
        logs = {path.stem: path for path in self._place.glob("*.log")}
        logs |= {
            f"mount {path.parent.name}": path for path in self._place.glob("dadafs/*/mount.log")
        }
        for name, path in logs.items():
            self.told.lines[name], wrong = judged(path.read_text(errors="replace"))
            for line in wrong[:5]:
                self._break(f"log of {name}: {line}")

    def _processes(self) -> list[int]:
        """Of this cluster. A mount is told to end: others may have it in a name space of theirs."""
        mark = f"XDG_RUNTIME_DIR={self._place}\0".encode()
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if mark in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
                    os.kill(found[-1], signal.SIGTERM)
        return found

    def _break(self, line: str) -> None:
        with self._lock:
            if len(self.told.broken) < BROKEN:
                print(line, file=sys.stderr)
                self.told.broken.append(line)


def _read_anew(path: Path, at: int, size: int | None) -> bytes:
    """From the mount, not from the kernel's pages."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        left = os.fstat(fd).st_size if size is None else size
        pieces = []
        while left > 0 and (piece := os.pread(fd, min(left, PIECE_BYTES), at)):
            pieces.append(piece)
            at, left = at + len(piece), left - len(piece)
        return b"".join(pieces)
    finally:
        os.close(fd)


def _differing(truth: bytes, data: bytes) -> int:
    if data == truth:
        return 0
    both = min(len(data), len(truth))
    one, other = (np.frombuffer(part, np.uint8, both) for part in (data, truth))
    return int((one != other).sum()) + abs(len(data) - len(truth))


def _text(mnt: Path, name: str) -> str:
    return (mnt / ".dadafs" / name).read_text()


def soak_cluster(seconds: float, round_s: float, seed: int, place: Path | None = None) -> Told:
    """A cluster for so long, of which nothing is left but `place`, with its logs, if given."""
    if place is not None:
        place.mkdir(parents=True)
        return ClusterSoak(place.resolve(), seed).run(seconds, round_s)
    with tempfile.TemporaryDirectory(prefix="dadas", dir="/tmp") as name:
        return ClusterSoak(Path(name), seed).run(seconds, round_s)

"""Callers that may not, or mean ill: refused in one line each, while good ones are answered."""

from __future__ import annotations

import multiprocessing
import os
import random
import select
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from loopback import (
    COMMAND,
    HOST,
    Daemon,
    ask,
    certify,
    connected,
    daemon,
    hung_up,
    shaken,
    until,
)

from dadafs.errors import DadaError, NoSuchPath, NotPermitted, Stale, Unreachable
from dadafs.rpc.calls import Request, encode_request
from dadafs.rpc.framing import HEAD, MAGIC
from dadafs.rpc.messages import (
    Announce,
    AskReport,
    Describe,
    FindResults,
    Identify,
    KeepResults,
    List,
    ListDataFiles,
    ListPeers,
    ListRaw,
    Locate,
    ReadFragments,
    Resolve,
)
from dadafs.rpc.service import MAX_CONNECTIONS
from dadafs.scans.model import Identity
from tools.scan_maker import make_scan

MESSAGES = 100_000
WORKERS = 2
FLIGHT = 64  # connections of a worker at a time
MIB = 1 << 20


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates of one server, peer and client, and of somebody without a role."""
    directory = tmp_path_factory.mktemp("ca")
    return certify(directory, "server:server", "peer:peer", "client:client", "guest:guest")


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates of another authority."""
    return certify(tmp_path_factory.mktemp("foreign"), "server:server", "client:client")


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw tree with a scan, and a secret beside it that a symlink leads to."""
    base = tmp_path_factory.mktemp("site")
    tree = base / "raw"
    tree.mkdir()
    make_scan(tree, name="s", horz=8, vert=2)
    (tree / "d").mkdir()
    (tree / "plain.txt").write_text("plain")
    (base / "secret.txt").write_text("secret")
    (tree / "leak.txt").symlink_to(base / "secret.txt")
    (tree / "leak").symlink_to(base)
    return tree


@pytest.fixture(scope="module")
def guarded(
    authority: Path, raw: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Daemon]:
    """A server that asks for certificates."""
    place = tmp_path_factory.mktemp("server")
    words = ("server", "--root", raw, "--listen", f"{HOST}:0", "--tls", authority / "server")
    with daemon(place, *words, "--results", place / "results", "--results-size", "64MiB") as made:
        yield made
        assert ask(made.port, authority / "client", Resolve(b"")).kind == "directory"


@pytest.fixture(scope="module")
def unguarded(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A server on loopback that asks for none."""
    place = tmp_path_factory.mktemp("open")
    with daemon(place, "server", "--root", raw, "--listen", f"{HOST}:0") as made:
        yield made


@pytest.fixture
def good(guarded: Daemon, authority: Path) -> Iterator[None]:
    """A client is answered before and after, and so it is all the while."""
    with answered(guarded.port, authority / "client"):
        yield


class answered:
    """A client that asks again and again while something happens."""

    def __init__(
        self,
        port: int,
        certificates: Path | None,
        *,
        patience_s: float = 10.0,
        every_s: float = 0.05,
    ) -> None:
        self._every_s = every_s
        self._where = port, certificates
        self._patience_s = patience_s
        self._done = threading.Event()
        self._slowest = 0.0
        self._failed: list[Exception] = []
        self._thread = threading.Thread(target=self._ask, daemon=True)

    def __enter__(self) -> None:
        ask(*self._where, Resolve(b""))
        self._thread.start()

    def __exit__(self, *about: object) -> None:
        self._done.set()
        self._thread.join(60)
        if about[0] is None:
            assert not self._failed, self._failed
            assert self._slowest < self._patience_s, self._slowest
            ask(*self._where, Resolve(b""))

    def _ask(self) -> None:
        while not self._done.wait(self._every_s):
            began = time.monotonic()
            try:
                ask(*self._where, Resolve(b"plain.txt"))
            except (DadaError, trio.TooSlowError) as exc:
                self._failed.append(exc)
                return
            self._slowest = max(self._slowest, time.monotonic() - began)


def framed(header: bytes) -> bytes:
    return HEAD.pack(MAGIC, len(header), 0) + header


@pytest.mark.usefixtures("good")
def test_plain_caller(guarded: Daemon) -> None:
    with guarded.complaint("refused, no certificate"), connected(guarded.port) as sock:
        sock.sendall(framed(encode_request(Resolve(b""))))
        assert hung_up(sock)


@pytest.mark.usefixtures("good")
def test_caller_without_certificate(guarded: Daemon, authority: Path) -> None:
    with (
        guarded.complaint("refused, no certificate: .*did not return a certificate"),
        shaken(guarded.port, authority, None) as sock,
    ):
        assert hung_up(sock)


@pytest.mark.usefixtures("good")
def test_certificate_of_another_authority(guarded: Daemon, authority: Path, foreign: Path) -> None:
    with (
        guarded.complaint("refused, no certificate: .*verify failed"),
        shaken(guarded.port, authority, foreign / "client") as sock,
    ):
        assert hung_up(sock)


@pytest.mark.usefixtures("good")
def test_self_signed_certificate(guarded: Daemon, authority: Path, tmp_path: Path) -> None:
    words = ["-subj", "/OU=client/CN=client", "-days", "2", "-nodes", "-newkey", "ec"]
    words += ["-pkeyopt", "ec_paramgen_curve:prime256v1"]
    files = ["-keyout", tmp_path / "node.key", "-out", tmp_path / "node.pem"]
    subprocess.run(["openssl", "req", "-x509", *words, *files], check=True, capture_output=True)
    with (
        guarded.complaint("refused, no certificate: .*self-signed"),
        shaken(guarded.port, authority, tmp_path) as sock,
    ):
        assert hung_up(sock)


@pytest.mark.usefixtures("good")
def test_certificate_without_role(guarded: Daemon, authority: Path) -> None:
    with guarded.complaint("refused: its certificate has no role"), pytest.raises(Unreachable):
        ask(guarded.port, authority / "guest", Resolve(b""))


@pytest.mark.usefixtures("good")
@pytest.mark.parametrize(
    "request_", [Announce("x", 4243, 1), KeepResults(((b"k" * 32, b"value"),))], ids=["peer", "put"]
)
def test_client_that_acts_as_a_peer(
    guarded: Daemon, authority: Path, request_: Request[None]
) -> None:
    name = type(request_).__name__
    with (
        guarded.complaint(f"refused: a certificate for a client does not allow {name}"),
        pytest.raises(NotPermitted, match=name),
    ):
        ask(guarded.port, authority / "client", request_)
    assert ask(guarded.port, authority / "client", ListPeers()) == ()
    assert ask(guarded.port, authority / "client", FindResults((b"k" * 32,))) == (-1,)


def test_server_that_is_none(authority: Path, foreign: Path, raw: Path, tmp_path: Path) -> None:
    """Who calls is told in one line that the other end is not what it should be."""
    words = ("server", "--root", raw, "--listen", f"{HOST}:0", "--tls")
    with daemon(tmp_path / "client", *words, authority / "client") as made:
        with pytest.raises(Unreachable, match=r"^.*is for a client, not a server$"):
            ask(made.port, authority / "client", Resolve(b""))
        with pytest.raises(Unreachable, match=r"^.*is for a client, not a peer$"):
            ask(made.port, authority / "client", AskReport(), role="peer")
    for node, line in (
        (authority / "guest", "certificate has no role"),
        (foreign / "server", "certificate verify failed.*"),
    ):
        with (
            daemon(tmp_path / line[:16], *words, node) as made,
            pytest.raises(Unreachable, match=f"^.*{line}$"),
        ):
            ask(made.port, authority / "client", Resolve(b""))


PATHS = {
    "up": b"../../etc/passwd",
    "up within": b"d/../../secret.txt",
    "absolute": b"/etc/passwd",
    "symlink": b"leak.txt",
    "symlink in the way": b"leak/secret.txt",
    "nul": b"plain.txt\0.h5",
    "only nul": b"\0",
    "long name": b"n" * 300,
    "long path": b"/".join([b"d" * 200] * 100),
    "many names": b"a/" * (4 * MIB),
    "no text": b"\xff\xfe\n",
}
NONE = Identity(6, 0, 0)


@pytest.mark.usefixtures("good")
@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
def test_paths_that_lead_out(guarded: Daemon, authority: Path, raw: Path, path: bytes) -> None:
    found = (raw.parent / "secret.txt").stat()
    secret = Identity(found.st_size, found.st_mtime_ns, found.st_ino)
    requests: list[Request[object]] = [
        Resolve(path),
        List(path),
        ListRaw(path),
        Describe(path),
        Identify(path, ""),
        ListDataFiles(path),
        Locate(path, 0, 1, ""),
        Locate(path, 0, 1 << 62, ""),
        ReadFragments(path, NONE, 0, 1),
        ReadFragments(path, secret, 0, 1),
    ]
    for request in requests:
        with pytest.raises((NoSuchPath, NotPermitted, Stale)) as caught:
            ask(guarded.port, authority / "client", request)
        assert len(str(caught.value)) < 10_000


@pytest.mark.parametrize(
    ("first", "count"), [(0, 1 << 62), (1 << 62, 1), (-1, 1), (0, -1), (-(1 << 62), 1 << 62)]
)
def test_frames_that_are_not_there(
    guarded: Daemon, authority: Path, first: int, count: int
) -> None:
    with pytest.raises(Stale, match="no frames"):
        ask(guarded.port, authority / "client", Locate(b"s", first, count, ""))
    found = ask(guarded.port, authority / "client", Resolve(b"plain.txt")).attributes
    identity = Identity(found.size, found.mtime_ns, found.inode)
    with pytest.raises(DadaError):
        ask(
            guarded.port,
            authority / "client",
            ReadFragments(b"plain.txt", identity, first + (first == 0), count),
        )


def samples() -> list[bytes]:
    """A valid message of each kind."""
    identity = Identity(5, 1, 1)
    return [
        framed(encode_request(request))
        for request in (
            Resolve(b"s/darkfield/full.npy"),
            List(b""),
            ListRaw(b"s"),
            Describe(b"s"),
            Identify(b"s", ""),
            ListDataFiles(b"s"),
            Locate(b"s", 0, 16, ""),
            ReadFragments(b"plain.txt", identity, 0, 1),
            FindResults((b"k" * 32,)),
            KeepResults(((b"k" * 32, b"v"),)),
            Announce("peer", 1, 1),
            ListPeers(),
            AskReport(),
        )
    ]


NUMBERS = (0, 1, -1, 8, 1 << 20, 1 << 31, -(1 << 31), (1 << 63) - 1, -(1 << 63))


def odd(chance: random.Random) -> bytes:
    """A request as it is, with values that nobody would send."""

    def path() -> bytes:
        begin = chance.choice([b"", b"s", b"s/", b"s/raw/", b"plain.txt", b"leak/", b"../", b"/"])
        end = chance.choice([b"", b"\0", b"\n", b"/" * 9, b"a" * 300, b"a/" * 3000, b"..", b"\xff"])
        return begin + end + chance.randbytes(chance.randrange(8))

    def number() -> int:
        return chance.choice(NUMBERS)

    def identity() -> Identity:
        return Identity(number(), number(), number())

    def text() -> str:
        return chance.choice(["", "peer", "\n", "x" * 200, "\x1b[2J"])

    makers: list[Callable[[], Request[Any]]] = [
        lambda: ReadFragments(path(), identity(), number(), number()),
        lambda: FindResults((chance.randbytes(chance.randrange(40)),) * chance.randrange(300)),
        lambda: KeepResults(((chance.randbytes(chance.randrange(40)), b""),)),
        lambda: Announce(text(), number(), number()),
        lambda: ListPeers(),
        lambda: AskReport(),
    ]
    if chance.random() < 0.05:  # a detour by a thread: four times the time
        makers = [
            *(partial(kind, path()) for kind in (Resolve, List, ListRaw, Describe, ListDataFiles)),
            lambda: Locate(path(), number(), number(), text()),
            lambda: Identify(path(), text()),
        ]
    return framed(encode_request(chance.choice(makers)()))


def mutated(chance: random.Random, good: list[bytes]) -> bytes:
    """Random bytes, or a valid message with a few bytes changed, cut, repeated or added."""
    if chance.random() < 0.15:
        return chance.randbytes(chance.randrange(80))
    data = bytearray(chance.choice(good))
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data))
        match chance.randrange(5):
            case 0:
                data[at] ^= 1 << chance.randrange(8)
            case 1:
                data[at] = chance.randrange(256)
            case 2:
                del data[at + 1 :]
            case 3:
                data[at:at] = data[at : at + chance.randrange(20)]
            case _:
                data += chance.randbytes(chance.randrange(20))
    if chance.random() < 0.5 and len(data) > HEAD.size:  # so that its header is looked into
        data[: HEAD.size] = HEAD.pack(MAGIC, len(data) - HEAD.size, 0)
    return bytes(data)


def storm(port: int, seed: int, messages: int) -> None:
    """Send so many messages on many connections at a time: odd requests, until one that most
    likely is none ends the connection. Each is answered or hung up on."""
    chance = random.Random(seed)
    good = samples()
    poll = select.epoll()
    flying: dict[int, tuple[socket.socket, bytearray]] = {}
    sent = 0

    def send(sock: socket.socket) -> None:
        nonlocal sent
        sent += 1
        try:
            if chance.random() < 0.85:
                sock.sendall(odd(chance))
            else:
                sock.sendall(mutated(chance, good))
                sock.shutdown(socket.SHUT_WR)
        except ConnectionError:
            pass

    while sent < messages or flying:
        while sent < messages and len(flying) < FLIGHT:
            sock = connected(port)
            send(sock)
            flying[sock.fileno()] = sock, bytearray()
            poll.register(sock, select.EPOLLIN | select.EPOLLHUP)
        ready = poll.poll(20)
        assert ready, "the server neither answers nor hangs up"
        for number, _ in ready:
            sock, got = flying[number]
            try:
                data = sock.recv(1 << 20)
            except ConnectionError:
                data = b""
            got += data
            whole = len(got) >= HEAD.size and sum(HEAD.unpack_from(got)[1:]) + HEAD.size
            if data and (not whole or len(got) < whole):
                continue
            if data and sent < messages:
                got.clear()
                send(sock)
            else:
                poll.unregister(sock)
                del flying[number]
                sock.close()


@pytest.mark.slow
def test_storm_of_messages(unguarded: Daemon) -> None:
    storm(unguarded.port, 99, 4000)  # what is allocated once, is
    before = unguarded.memory_bytes()
    lines = len(unguarded.log().splitlines())
    used = unguarded.processor_s()
    with answered(unguarded.port, None, patience_s=20, every_s=0.3):
        context = multiprocessing.get_context("spawn")
        workers = [
            context.Process(target=storm, args=(unguarded.port, seed, MESSAGES // WORKERS))
            for seed in range(WORKERS)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(200)
        assert [worker.exitcode for worker in workers] == [0] * WORKERS
    assert unguarded.processor_s() - used < 60  # 30 s on a quiet machine
    assert unguarded.memory_bytes() - before < 32 * MIB
    log = unguarded.log()
    assert len(log.splitlines()) - lines < 60
    assert "Traceback" not in log


def test_storm_within_tls(guarded: Daemon, authority: Path) -> None:
    chance = random.Random(5)
    good = samples()
    with answered(guarded.port, authority / "client"):
        for _ in range(150):
            with connected(guarded.port) as bare:
                bare.sendall(b"\x16\x03\x01" + chance.randbytes(60))
            with shaken(guarded.port, authority, authority / "client") as sock:
                sock.sendall(mutated(chance, good))
    assert "Traceback" not in guarded.log()


@pytest.mark.slow
def test_more_callers_than_fit(guarded: Daemon, authority: Path) -> None:
    """Those that say nothing give way; memory stays."""
    before = guarded.memory_bytes()
    silent: list[socket.socket] = []
    try:
        with answered(guarded.port, authority / "client"):
            for _ in range(MAX_CONNECTIONS + 200):
                silent.append(connected(guarded.port))
        until(lambda: "a silent one gives way" in guarded.log(), "some give way")
        assert guarded.memory_bytes() - before < 150 * MIB
    finally:
        for sock in silent:
            sock.close()


def test_callers_that_go_in_the_middle(guarded: Daemon, authority: Path) -> None:
    message = framed(encode_request(Describe(b"s")))
    with answered(guarded.port, authority / "client"):
        for at in range(0, len(message), 3):
            with shaken(guarded.port, authority, authority / "client") as sock:
                sock.sendall(message[:at])
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    assert "Traceback" not in guarded.log()


def test_callers_that_go_before_they_are_known(guarded: Daemon, authority: Path) -> None:
    """What looks whether the port answers, or is killed while it shakes hands, is no intruder."""
    hello, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        ssl._create_unverified_context().wrap_bio(hello, out).do_handshake()
    said = out.read()
    before = guarded.log()
    with answered(guarded.port, authority / "client"):
        for linger in (b"\0" * 8, b"\1\0\0\0\0\0\0\0"):
            for at in (0, 3, 100, len(said)):
                with connected(guarded.port) as sock:
                    sock.sendall(said[:at])
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    assert guarded.log() == before


def refused(*words: str | Path) -> str:
    """The one line of a daemon that does not begin."""
    done = subprocess.run(
        [*COMMAND, *map(str, words)], capture_output=True, text=True, timeout=30, env=os.environ
    )
    assert done.returncode in (1, 2), done
    (line,) = done.stderr.splitlines()
    return str(line)


def test_network_without_certificates_is_refused(raw: Path, tmp_path: Path) -> None:
    for words in (
        ("server", "--root", raw, "--cache", tmp_path, "--listen", "0.0.0.0:0"),
        ("peer", "--server", f"{HOST}:1", "--cache", tmp_path, "--listen", "0.0.0.0:0"),
    ):
        line = refused(*words)
        assert "0.0.0.0 can be reached by others" in line
        assert "--tls" in line
        assert "--insecure-network" in line


def test_network_without_certificates_on_demand(raw: Path, tmp_path: Path) -> None:
    words = ("server", "--root", raw, "--listen", "0.0.0.0:0", "--insecure-network")
    with daemon(tmp_path, *words) as made:
        assert ask(made.port, None, Resolve(b"")).kind == "directory"


def test_missing_certificates(raw: Path, authority: Path, tmp_path: Path) -> None:
    words = ("server", "--root", raw, "--cache", tmp_path, "--listen", f"{HOST}:0", "--tls")
    line = refused(*words, tmp_path)
    assert "has no ca.pem, node.pem, node.key; `dadafs certs` makes them" in line
    for name in ("ca.pem", "node.pem"):
        (tmp_path / name).write_bytes((authority / "server" / name).read_bytes())
    (tmp_path / "node.key").write_text("no key")
    assert "certificates in" in refused(*words, tmp_path)


def test_port_in_use(raw: Path, guarded: Daemon, tmp_path: Path) -> None:
    listen = f"{HOST}:{guarded.port}"
    line = refused("server", "--root", raw, "--cache", tmp_path, "--listen", listen)
    assert f"cannot listen on {listen}: " in line
    assert "in use" in line


def test_certificate_is_not_trusted_without_key(authority: Path, guarded: Daemon) -> None:
    """The public part of a certificate is of no use to anybody else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with pytest.raises(ssl.SSLError):
        context.load_cert_chain(authority / "client/node.pem", authority / "guest/node.key")

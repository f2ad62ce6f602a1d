"""The command `dadafs`. Heavy modules are imported by the commands that need them."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from dadafs import __version__
from dadafs.errors import DadaError, NoSuchPath, UsageError

EXIT_REFUSED = 1
EXIT_USAGE = 2
MIB = 1 << 20
UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}

EPILOG = """\
examples:
  dadafs mount /data /mnt/dada                    mount the scans below /data
  cp /mnt/dada/scan42/darkfield/full.tif /tmp/    compute a map by reading it
  dadafs explain /mnt/dada/scan42/dpc/full.npy    what a path means, or why it is refused
  dadafs umount /mnt/dada

exit codes: 0 done, 1 refused (one line says why), 2 wrong command line.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code. A user's mistake prints one line."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except UsageError as exc:
        print(f"dadafs: {exc}", file=sys.stderr)
        return EXIT_USAGE
    except (DadaError, OSError) as exc:
        print(f"dadafs: {exc}", file=sys.stderr)
        return EXIT_REFUSED
    except KeyboardInterrupt:
        return 130
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dadafs",
        description="Mount raw X-ray scans; their analyses are files that are computed when read.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"dadafs {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    mount = commands.add_parser(
        "mount",
        help="mount the scans below a directory",
        description="Mount the scans below RAW at MNT, an empty directory.",
        epilog="example: dadafs mount /data /mnt/dada",
    )
    mount.add_argument("raw", metavar="RAW", help="a directory, or tcp://HOST:PORT of a server")
    mount.add_argument("mountpoint", metavar="MNT", type=Path)
    mount.add_argument("--foreground", action="store_true", help="stay, and log to the terminal")
    mount.add_argument("--cache", type=Path, metavar="DIR", help="of index and results")
    mount.add_argument("--threads", type=_count, metavar="N", help="that compute (one a core)")
    mount.add_argument(
        "--results-size", type=_size, metavar="SIZE", help="of the results kept on disk (8GiB)"
    )
    mount.add_argument("--memory", type=_size, metavar="SIZE", help="of recent values (48MiB)")
    mount.add_argument("--plugins", type=Path, metavar="DIR", help="of your own analyses, *.py")
    mount.add_argument(
        "--raw-memory", type=_size, metavar="SIZE", help="of raw data of a server (128MiB)"
    )
    mount.add_argument("--tls", type=Path, metavar="DIR", help="certificates, to a server")
    mount.add_argument(
        "--no-local-peer", action="store_true", help="do not compute here when no peer is there"
    )
    mount.add_argument("--allow-other", action="store_true", help="let other users in")
    mount.set_defaults(run=_mount)

    server = commands.add_parser(
        "server",
        help="serve a raw tree to a cluster",
        description="Serve the raw tree to peers and mounts: the only node that sees raw files.",
        epilog="example: dadafs server --root /data --listen 0.0.0.0:4242 --pool /ssd/pool"
        " --pool-size 3TiB --results /ssd/results --results-size 128GiB --tls /etc/dadafs/tls",
    )
    server.add_argument("--root", type=Path, required=True, metavar="DIR", help="the raw tree")
    server.add_argument("--listen", default="127.0.0.1:4242", metavar="HOST:PORT")
    server.add_argument(
        "--pool", type=Path, metavar="DIR", help="of fragments, on an SSD"
    )
    server.add_argument("--pool-size", type=_size, default=_size("100GiB"), metavar="SIZE")
    server.add_argument("--results", type=Path, metavar="DIR", help="results that peers share")
    server.add_argument("--results-size", type=_size, default=_size("32GiB"), metavar="SIZE")
    server.add_argument("--cache", type=Path, metavar="DIR", help="of the frame index")
    _network(server)
    server.set_defaults(run=_server)

    peer = commands.add_parser(
        "peer",
        help="compute for a cluster",
        description="Announce this node to a server and compute patches for its mounts.",
        epilog="example: dadafs peer --server heinzelfrau:4242 --tls /etc/dadafs/tls",
    )
    peer.add_argument("--server", required=True, metavar="HOST:PORT")
    peer.add_argument("--listen", default="127.0.0.1:0", metavar="HOST:PORT", help="port 0: any")
    peer.add_argument("--name", help="unique in the cluster (the host's name)")
    peer.add_argument("--threads", type=_count, metavar="N", help="that compute (one a core)")
    peer.add_argument("--cache", type=Path, metavar="DIR", help="of results")
    peer.add_argument("--results-size", type=_size, default=_size("8GiB"), metavar="SIZE")
    peer.add_argument(
        "--memory", type=_size, default=_size("128MiB"), metavar="SIZE", help="of raw data in RAM"
    )
    peer.add_argument("--root", type=Path, metavar="DIR", help="the raw tree, if seen from here")
    peer.add_argument("--plugins", type=Path, metavar="DIR", help="of your own analyses, *.py")
    _network(peer)
    peer.set_defaults(run=_peer)

    umount = commands.add_parser(
        "umount",
        help="take a mount away",
        description="Take the mount at MNT away, also one whose process has died.",
        epilog="example: dadafs umount /mnt/dada",
    )
    umount.add_argument("mountpoint", metavar="MNT", type=Path)
    umount.add_argument("--lazy", action="store_true", help="even if it is in use")
    umount.set_defaults(run=_umount)

    explain = commands.add_parser(
        "explain",
        help="what a path means, or why it is refused",
        description="Print what PATH means: shape, size, cost; or why it is refused.",
        epilog="example: dadafs explain /mnt/dada/scan42/darkfield/horz=51/vert=10.npy",
    )
    explain.add_argument("path", metavar="PATH", type=Path)
    explain.set_defaults(run=_explain)

    status = commands.add_parser(
        "status",
        help="counters and gauges of a mount, as JSON",
        description="Print what a mount says of itself; a single one need not be named.",
        epilog="example: dadafs status /mnt/dada",
    )
    status.add_argument("mountpoint", metavar="MNT", type=Path, nargs="?")
    status.set_defaults(run=_status)
    peers = commands.add_parser(
        "peers",
        help="who computes for a mount, as JSON",
        description="Print the peers of a mount; a single mount need not be named.",
        epilog="example: dadafs peers /mnt/dada",
    )
    peers.add_argument("mountpoint", metavar="MNT", type=Path, nargs="?")
    peers.set_defaults(run=_peers)
    return parser


def _network(command: argparse.ArgumentParser) -> None:
    command.add_argument("--tls", type=Path, metavar="DIR", help="ca.pem, node.pem, node.key")
    command.add_argument(
        "--insecure-network", action="store_true", help="listen beyond this machine without TLS"
    )


def _mount(options: argparse.Namespace) -> int:
    from dadafs.client.starting import start, stay
    from dadafs.config import MountConfig, address, default_cache

    remote = options.raw.startswith("tcp://")
    root = None if remote else _absolute(options.raw)
    server = address(options.raw) if remote else None
    given = {
        "threads": options.threads,
        "results_bytes": options.results_size,
        "memory_bytes": options.memory,
        "raw_bytes": options.raw_memory,
        "allow_other": options.allow_other or None,
        "plugins": _absolute(options.plugins),
        "tls": _absolute(options.tls),
        "local_peer": False if options.no_local_peer else None,
        "server": server,
    }
    source = str(root) if server is None else f"tcp://{server[0]}:{server[1]}"
    config = MountConfig(
        root,
        Path(os.path.realpath(options.mountpoint)),
        _absolute(options.cache) or default_cache(source),
        **{name: value for name, value in given.items() if value is not None},
    )
    if options.foreground:
        stay(config)
    else:
        start(config)
    return 0


def _server(options: argparse.Namespace) -> int:
    from dadafs.config import address, default_cache
    from dadafs.daemons import run_server
    from dadafs.server.serving import ServerConfig

    root = _absolute(options.root)
    assert root is not None
    if not root.is_dir():
        raise UsageError(f"--root {root} is not a directory")
    config = ServerConfig(
        root,
        _absolute(options.cache) or default_cache(f"server of {root}"),
        _absolute(options.pool),
        options.pool_size,
        _absolute(options.results),
        options.results_size,
        _absolute(options.tls),
    )
    run_server(config, address(options.listen), insecure=options.insecure_network)
    return 0


def _peer(options: argparse.Namespace) -> int:
    import socket

    from dadafs.client.peering import PeerConfig
    from dadafs.config import address, cores, default_cache
    from dadafs.daemons import run_peer

    server = address(options.server)
    config = PeerConfig(
        _absolute(options.cache) or default_cache(f"peer of {options.server}"),
        options.results_size,
        options.threads or cores(),
        root=_absolute(options.root),
        server=server,
        tls=_absolute(options.tls),
        plugins=_absolute(options.plugins),
        raw_bytes=options.memory,
        name=options.name or socket.gethostname(),
    )
    listen = address(options.listen, default_port=0)
    run_peer(config, listen, insecure=options.insecure_network)
    return 0


def _peers(options: argparse.Namespace) -> int:
    from dadafs.client.asking import ask
    from dadafs.rpc.messages import AskPeers

    print(ask(_mountpoint(options), AskPeers()), end="")
    return 0


def _umount(options: argparse.Namespace) -> int:
    from dadafs.client.mountpoint import unmount

    unmount(Path(os.path.abspath(options.mountpoint)), lazy=options.lazy)
    return 0


def _explain(options: argparse.Namespace) -> int:
    from dadafs.client.asking import ask
    from dadafs.client.mountpoint import mount_above
    from dadafs.rpc.messages import Explain

    path = Path(os.path.abspath(options.path))
    mount = mount_above(path)
    if mount is None:
        raise UsageError(f"{path} is not within a dadafs mount; `dadafs mount RAW MNT` makes one")
    if not path.is_relative_to(mount.mountpoint):  # it leads there through a symlink
        path = Path(os.path.realpath(path))
    inner = os.fsencode(path.relative_to(mount.mountpoint))
    try:
        print(ask(mount.mountpoint, Explain(b"" if inner == b"." else inner)), end="")
    except NoSuchPath as exc:
        print(f"dadafs: {exc}", file=sys.stderr)
        return EXIT_REFUSED
    return 0


def _status(options: argparse.Namespace) -> int:
    from dadafs.client.asking import ask
    from dadafs.rpc.messages import AskStatus

    print(ask(_mountpoint(options), AskStatus()), end="")
    return 0


def _mountpoint(options: argparse.Namespace) -> Path:
    """The mount that is meant: the one named, else the only one. UsageError."""
    from dadafs.client.mountpoint import mount_at, mounts

    if options.mountpoint is not None:
        mounted = mount_at(Path(os.path.abspath(options.mountpoint)))
        if mounted is None:
            raise UsageError(f"{options.mountpoint} is not a dadafs mount")
        return mounted.mountpoint
    found = [mount.mountpoint for mount in mounts()]
    if len(found) != 1:
        names = ", ".join(map(str, found)) or "there is none"
        raise UsageError(f"say which mount: {names}")
    return found[0]


def _absolute(path: str | Path | None) -> Path | None:
    return None if path is None else Path(os.path.abspath(path))


def _size(text: str) -> int:
    """Bytes from `128MiB`, `8G`, `1000`."""
    number = text.strip().lower().removesuffix("b").removesuffix("i")
    unit = number[-1:] if number[-1:].isalpha() else ""
    try:
        size = int(float(number.removesuffix(unit)) * UNITS[unit])
    except (ValueError, KeyError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text!r} is no size; say for instance 128MiB") from None
    if size < MIB:
        raise argparse.ArgumentTypeError(f"{text!r} is too small; at least 1MiB")
    return size


def _count(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 1024")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())

"""`dadafs server` and `dadafs peer`: the nodes of a cluster."""

from __future__ import annotations

import argparse

from dadafs.commands.declaring import Commands, add_settings, command, values
from dadafs.errors import UsageError


def add(commands: Commands) -> None:
    """Declare the commands."""
    server = command(
        commands,
        "server",
        _server,
        summary="serve a raw tree to a cluster",
        about="Serve the raw tree to peers and mounts: the only node that sees raw files.",
        example="dadafs server --root /data --listen 0.0.0.0:4242 --pool /ssd/pool"
        " --pool-size 3TiB --results /ssd/results --results-size 128GiB --tls /etc/dadafs/tls",
    )
    add_settings(server, "server")
    peer = command(
        commands,
        "peer",
        _peer,
        summary="compute for a cluster",
        about="Announce this node to a server and compute patches for its mounts.",
        example="dadafs peer --server heinzelfrau:4242 --tls /etc/dadafs/tls",
    )
    add_settings(peer, "peer")


def _server(options: argparse.Namespace) -> int:
    told = values(options, "server")
    root = told["root"]
    if root is None:
        raise UsageError("say --root DIR, the raw tree, or root in [server] of dadafs.toml")
    if not root.is_dir():
        raise UsageError(f"--root {root} is not a directory")

    from dadafs.config import address, default_cache
    from dadafs.daemons import run_server
    from dadafs.server.serving import ServerConfig

    config = ServerConfig(
        root,
        told["cache"] or default_cache(f"server of {root}"),
        told["pool"],
        told["pool_size"],
        told["results"],
        told["results_size"],
        told["tls"],
        told["metrics_port"],
    )
    run_server(config, address(told["listen"]), insecure=told["insecure_network"])
    return 0


def _peer(options: argparse.Namespace) -> int:
    told = values(options, "peer")
    if told["server"] is None:
        raise UsageError("say --server HOST:PORT, or server in [peer] of dadafs.toml")

    import socket

    from dadafs.client.computing.peering import PeerConfig
    from dadafs.config import address, cores, default_cache
    from dadafs.daemons import run_peer

    config = PeerConfig(
        told["cache"] or default_cache(f"peer of {told['server']}"),
        told["results_size"],
        told["threads"] or cores(),
        root=told["root"],
        server=address(told["server"]),
        tls=told["tls"],
        plugins=told["plugins"],
        raw_bytes=told["memory"],
        metrics_port=told["metrics_port"],
        name=told["name"] or socket.gethostname(),
    )
    listen = address(told["listen"], default_port=0)
    run_peer(config, listen, insecure=told["insecure_network"])
    return 0

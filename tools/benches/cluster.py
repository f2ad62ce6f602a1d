"""A server, peers and a mount on loopback: raw files, scaling over peers, calls, TLS."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from dadafs.certificates import Node, make_authority, make_node
from tools.benches.figures import told
from tools.benches.mounting import (
    drop_pages,
    read_all,
    read_at_once,
    seconds_of,
    touch_memory,
)
from tools.nodes import mounted, peer, server

HORZ, VERT = 128, 32
ROI = "roi={},0,2000,2167"
ALONE = ("--no-local-peer",)  # whose start would take one of two cores from what is measured


def main(arguments: Sequence[str]) -> int:
    """The command line."""
    return told("cluster", __doc__, measure, arguments, 3, ">12.4g")


def measure(place: Path, rounds: int) -> dict[str, float]:
    """All figures, by a name that carries the unit."""
    raw = place / "raw"
    command = [sys.executable, "-m", "tools.scan_maker", raw, f"--horz={HORZ}", f"--vert={VERT}"]
    subprocess.run(command, check=True, stdout=sys.stderr)
    make_authority(place / "ca")
    for role in ("server", "client"):
        make_node(place / "ca", Node(role, role))
    figures = raw_files(raw, place, rounds)
    figures |= secure_raw_files(raw, place, rounds)
    figures |= scaling(raw, place, rounds)
    return figures


def raw_files(raw: Path, place: Path, rounds: int) -> dict[str, float]:
    """A data file through mount and server: pool cold, pool warm, RAM of the mount warm."""
    source = raw / "scan42_data_000001.h5"
    size = source.stat().st_size
    figures: dict[str, float] = {}
    times: dict[str, list[float]] = {"cold pool": [], "warm pool": [], "warm RAM": [], "plain": []}
    for number in range(rounds):
        here = place / f"raw{number}"
        with ExitStack() as stack:
            address = stack.enter_context(server(raw, here, "--pool", here / "pool"))
            mnt = stack.enter_context(mounted(address, here, *ALONE, "--raw-memory", "2GiB"))
            file = mnt / "scan42/raw" / source.name
            read_all(source)
            file.stat()  # as with sshfs, where it is looked up before it is read
            touch_memory()
            times["cold pool"].append(read_all(file))
            drop_pages(file)
            touch_memory()
            times["warm RAM"].append(read_all(file))
            times["plain"].append(read_all(source))
            again = stack.enter_context(mounted(address, here, *ALONE, name="again"))
            file = again / "scan42/raw" / source.name
            file.stat()
            touch_memory()
            times["warm pool"].append(read_all(file))
            if number == 0:
                figures |= calls(address)
    rates = {name: size / median(taken) / 1e6 for name, taken in times.items()}
    figures |= {f"raw file, {name}, MB/s": rate for name, rate in rates.items()}
    figures |= sshfs(raw, place, source.name, rounds, rates)
    return figures


def secure_raw_files(raw: Path, place: Path, rounds: int) -> dict[str, float]:
    """The same over TLS."""
    source = raw / "scan42_data_000001.h5"
    here = place / "tls"
    taken = []
    with ExitStack() as stack:
        address = stack.enter_context(server(raw, here, "--tls", place / "ca/server"))
        for number in range(rounds):
            options = (*ALONE, "--tls", place / "ca/client")
            with mounted(address, here, *options, name=f"m{number}") as mnt:
                touch_memory()
                taken.append(read_all(mnt / "scan42/raw" / source.name))
    return {"raw file, TLS, MB/s": source.stat().st_size / median(taken) / 1e6}


def calls(address: str) -> dict[str, float]:
    """The time of a call that does nothing."""
    import trio

    from dadafs.config import address as parsed
    from dadafs.rpc.messages import ListPeers
    from dadafs.rpc.pool import Pool, tcp_connector

    async def work() -> list[float]:
        pool = Pool(tcp_connector(*parsed(address), None, "server"), name="server")
        taken = []
        for _ in range(2000):
            began = time.perf_counter()
            await pool.call(ListPeers())
            taken.append(time.perf_counter() - began)
        pool.close()
        return taken

    return {"call to the server and back, ms (0.3 or less)": median(trio.run(work)) * 1e3}


def scaling(raw: Path, place: Path, rounds: int) -> dict[str, float]:
    """Maps by one peer of one thread and by two, raw data through the server; and the bare pass."""
    from tools.benches.map import bare_rate

    one, two, bare = [], [], []
    for number in range(rounds):
        here = place / f"peers{number}"
        with ExitStack() as stack:
            address = stack.enter_context(server(raw, here))
            stack.enter_context(peer(address, here, "a", "--root", raw))
            mnt = stack.enter_context(mounted(address, here, *ALONE))
            compute(mnt, 0)
            one.append(compute(mnt, 1))
            stack.enter_context(peer(address, here, "b", "--root", raw))
            compute(mnt, 2)
            two.append(compute(mnt, 3))
            bare.append(bare_rate(raw, "darkfield", threads=1))
    return {
        "darkfield, one peer of one thread, frames/s": median(one),
        "darkfield, two peers, frames/s": median(two),
        "  ratio (1.85 or more)": median(b / a for a, b in zip(one, two, strict=True)),
        "  one peer, share of the bare pass (0.9 or more)": median(
            a / b for a, b in zip(one, bare, strict=True)
        ),
    }


def compute(mnt: Path, number: int) -> float:
    """Frames a second of a map that nobody has computed.

    It is asked for as a whole. Of what is read through the page cache, the first 32 KiB are asked
    for page by page, with pauses between: all of this map, but hardly anything of a real one.
    """
    path = mnt / f"scan42/darkfield/{ROI.format(number)}/horz={HORZ}/vert={VERT}.npy"
    return HORZ * VERT / seconds_of(lambda: read_at_once(path))


def sshfs(
    raw: Path, place: Path, name: str, rounds: int, rates: dict[str, float]
) -> dict[str, float]:
    """sshfs on loopback, where it is installed and a key lets us in without asking."""
    if shutil.which("sshfs") is None:
        print("bench: sshfs is not installed; no comparison with it", file=sys.stderr)
        return {}
    mnt = place / "sshfs"
    mnt.mkdir()
    command = ["sshfs", f"localhost:{raw}", mnt, "-o", "BatchMode=yes,StrictHostKeyChecking=no"]
    if subprocess.run(command, timeout=30).returncode:
        print("bench: sshfs cannot log in to localhost; no comparison with it", file=sys.stderr)
        return {}
    try:
        taken = []
        for _ in range(rounds):
            drop_pages(mnt / name)
            touch_memory()
            taken.append(read_all(mnt / name))
        rate = (raw / name).stat().st_size / median(taken) / 1e6
    finally:
        subprocess.run(["fusermount3", "-u", mnt], check=True)
    return {
        "raw file, sshfs, MB/s": rate,
        "  ratio, cold pool (3 or more)": rates["cold pool"] / rate,
        "  ratio, warm RAM (6 or more)": rates["warm RAM"] / rate,
    }

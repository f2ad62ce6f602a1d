"""`dadafs certs` and `dadafs install`: what a node of a cluster needs beside the package."""

from __future__ import annotations

import argparse
import os
import shutil
import sysconfig
from pathlib import Path

from dadafs.commands.declaring import DONE, Commands, absolute, command, typed
from dadafs.errors import NotPermitted, UsageError

UNITS = Path(__file__).resolve().parents[1] / "systemd"
PROGRAM = Path("/usr/local/bin/dadafs")
"""What the units start, and where mount(8) finds it."""
SETTINGS = Path("/etc/dadafs/dadafs.toml")


def add(commands: Commands) -> None:
    """Declare the commands."""
    certs = command(
        commands,
        "certs",
        _certs,
        summary="make certificates for the nodes of a cluster",
        about="Make an authority in DIR unless it is there, and in it a directory for each node\n"
        "(roles: server, peer, client) with ca.pem, node.pem and node.key: copy each to its\n"
        "node as /etc/dadafs/tls. Who has ca.key can make nodes: keep it to yourself.",
        example="dadafs certs /root/dadafs-ca server:heinzelfrau peer:h001 client:lab1",
    )
    certs.add_argument("directory", metavar="DIR", type=Path, help="of the authority")
    certs.add_argument("nodes", metavar="ROLE:NAME", nargs="+", help="who gets a certificate")
    install = command(
        commands,
        "install",
        _install,
        summary="put units, man page and completion in their places",
        about="Write the units of systemd, their user and directories, man page, completion of\n"
        "bash, and settings unless there are some; link /usr/local/bin/dadafs to this program.\n"
        "Needs root. Starts nothing; repeat it after an upgrade.",
        example="dadafs install --root /tmp/package",
    )
    install.add_argument(
        "--root", metavar="DIR", type=typed(absolute), help="write below DIR instead of /"
    )


def _certs(options: argparse.Namespace) -> int:
    from dadafs.certificates import make_authority, make_node, node

    nodes = [node(text) for text in options.nodes]
    make_authority(options.directory)
    for one in nodes:
        print(f"{one.role} {one.name}: {make_node(options.directory, one)}")
    return DONE


def _install(options: argparse.Namespace) -> int:
    root = options.root or Path("/")
    program = _program()
    try:
        for target, text in contents().items():
            place = root / target.relative_to("/")
            if target == SETTINGS and place.exists():
                print(f"{place} is kept")
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text, encoding="utf-8")
            print(place)
        link = root / PROGRAM.relative_to("/")
        if link != program:
            _link(link, program)
            print(f"{link} -> {program}")
    except PermissionError as exc:
        line = f"{exc.filename} cannot be written: be root, or say --root DIR"
        raise NotPermitted(line) from exc
    return DONE


def contents() -> dict[Path, str]:
    """Every file that is installed."""
    from dadafs.cli import parser
    from dadafs.manual import completion, man_page

    found = {
        Path("/etc/systemd/system", unit.name): unit.read_text(encoding="utf-8")
        for unit in sorted(UNITS.glob("*.service"))
    }
    for directory in ("sysusers.d", "tmpfiles.d"):
        text = (UNITS / directory / "dadafs.conf").read_text(encoding="utf-8")
        found[Path("/etc", directory, "dadafs.conf")] = text
    found[SETTINGS] = (UNITS / "dadafs.toml.example").read_text(encoding="utf-8")
    found[Path("/usr/local/share/man/man1/dadafs.1")] = man_page(parser())
    found[Path("/etc/bash_completion.d/dadafs")] = completion(parser())
    return found


def _program() -> Path:
    """The command of the package that runs. UsageError where there is none."""
    beside = Path(sysconfig.get_path("scripts"), "dadafs")
    found = str(beside) if beside.exists() else shutil.which("dadafs")
    if found is None:
        raise UsageError("the command dadafs is not installed: `pip install` the package")
    return Path(found)


def _link(link: Path, program: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.exists() and not link.is_symlink():
        raise UsageError(f"{link} is there and no link; remove it if it is an older dadafs")
    new = link.with_name(f".{link.name}.{os.getpid()}")
    new.symlink_to(program)
    os.replace(new, link)

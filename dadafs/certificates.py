"""A certificate authority and the certificates of a cluster's nodes, made by openssl."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from dadafs.errors import UsageError

ROLES = ("server", "peer", "client")
DAYS = 3650
NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,59}")  # of a directory too


@dataclass(frozen=True, slots=True)
class Node:
    """Who a certificate is for."""

    role: str
    """One of ROLES: what other nodes take it for."""
    name: str


def node(text: str) -> Node:
    """`ROLE:NAME`, for instance `peer:h001`. UsageError."""
    role, _, name = text.partition(":")
    if role not in ROLES or not NAME.fullmatch(name):
        raise UsageError(f"{text!r} is no node; say for instance peer:h001 ({', '.join(ROLES)})")
    return Node(role, name)


def make_authority(directory: Path) -> None:
    """A key and a self-signed certificate in `directory`, unless they are there."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if (directory / "ca.pem").exists() and (directory / "ca.key").exists():
        return
    _key(directory / "ca.key")
    _openssl(
        *("req", "-x509", "-new", "-key", directory / "ca.key", "-out", directory / "ca.pem"),
        *("-days", str(DAYS), "-subj", "/CN=dadafs authority"),
        *("-addext", "basicConstraints=critical,CA:TRUE"),
        *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
    )


def make_node(directory: Path, node: Node) -> Path:
    """What `node` needs, in a directory of its name in the authority's; its role is the
    organizational unit of the certificate."""
    place = directory / node.name
    place.mkdir(mode=0o700, exist_ok=True)
    _key(place / "node.key")
    request, extensions = place / "node.csr", place / "node.ext"
    _openssl(
        *("req", "-new", "-key", place / "node.key", "-out", request),
        *("-subj", f"/OU={node.role}/CN={node.name}"),
    )
    extensions.write_text(
        "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n"
        "extendedKeyUsage=serverAuth,clientAuth\n"
    )
    _openssl(
        *("x509", "-req", "-in", request, "-CA", directory / "ca.pem"),
        *("-CAkey", directory / "ca.key", "-CAcreateserial", "-days", str(DAYS)),
        *("-extfile", extensions, "-out", place / "node.pem"),
    )
    request.unlink()
    extensions.unlink()
    shutil.copyfile(directory / "ca.pem", place / "ca.pem")
    return place


def _key(path: Path) -> None:
    path.touch(mode=0o600)
    os.chmod(path, 0o600)
    _openssl("ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", path)


def _openssl(*arguments: str | Path) -> None:
    try:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise UsageError("openssl is missing: install the package openssl") from None
    except subprocess.CalledProcessError as exc:
        raise UsageError(f"openssl: {exc.stderr.strip().splitlines()[-1]}") from exc

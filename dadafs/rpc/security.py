"""Who may speak with whom: mutual TLS with one certificate authority, and roles in certificates."""

from __future__ import annotations

import ipaddress
import ssl
from pathlib import Path

import trio

from dadafs.errors import UsageError
from dadafs.rpc.framing import Stream, hang_up, let_go, socket_of

HANDSHAKE_S = 10.0
ROLES = ("server", "peer", "client")
LOCAL = "local"
"""Role of callers on a Unix socket, which its directory's permissions guard."""
OPEN = "open"
"""Role of callers on a network without TLS: everything is allowed, by the administrator's word."""
FILES = ("ca.pem", "node.pem", "node.key")


class Credentials:
    """The certificate of this node and of the authority, for both ends of connections.

    Host names are not checked: nodes are known by the authority that signed them and by the role
    in their certificate (its organizational unit), whatever address they have.
    """

    def __init__(self, directory: Path) -> None:
        missing = [name for name in FILES if not (directory / name).is_file()]
        if missing:
            raise UsageError(f"{directory} has no {', '.join(missing)}; `dadafs certs` makes them")
        try:
            self.listening = _context(ssl.PROTOCOL_TLS_SERVER, directory)
            self.calling = _context(ssl.PROTOCOL_TLS_CLIENT, directory)
        except (ssl.SSLError, OSError) as exc:
            raise UsageError(f"certificates in {directory}: {exc}") from exc

    async def accept(self, stream: trio.SocketStream) -> trio.SSLStream[trio.SocketStream]:
        """The called end of a handshake. BrokenResourceError or TooSlowError when it fails."""
        return await _shaken(trio.SSLStream(stream, self.listening, server_side=True))

    async def connect(
        self, stream: trio.SocketStream, role: str
    ) -> trio.SSLStream[trio.SocketStream]:
        """The calling end; BrokenResourceError where the other end has not this role."""
        secure = await _shaken(trio.SSLStream(stream, self.calling))
        found = role_of(secure)
        if found != role:
            hang_up(secure)
            what = f"is for a {found}, not a {role}" if found else "has no role"
            raise trio.BrokenResourceError(f"its certificate {what}")
        return secure


def _context(protocol: int, directory: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(directory / "ca.pem")
    context.load_cert_chain(directory / "node.pem", directory / "node.key")
    return context


async def _shaken(
    stream: trio.SSLStream[trio.SocketStream],
) -> trio.SSLStream[trio.SocketStream]:
    try:
        with trio.fail_after(HANDSHAKE_S):
            await stream.do_handshake()
    except BaseException:
        let_go(stream)
        raise
    return stream


def role_of(stream: Stream) -> str:
    """The role in the certificate of the other end; "" where it has none that we know."""
    if isinstance(stream, trio.SocketStream):
        return OPEN if socket_of(stream).family != trio.socket.AF_UNIX else LOCAL
    subject = stream.getpeercert().get("subject", ())
    units = [value for part in subject for key, value in part if key == "organizationalUnitName"]
    return units[0] if len(units) == 1 and units[0] in ROLES else ""


def check_exposure(host: str, secure: bool, insecure_network: bool) -> None:
    """Refuse to listen beyond this machine without TLS. UsageError says how to."""
    if secure or insecure_network or _is_loopback(host):
        return
    raise UsageError(
        f"{host} can be reached by others: give --tls DIR (`dadafs certs` makes certificates),"
        " or --insecure-network if everybody on the network may read everything"
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

"""Telling systemd how a service is: sd_notify(3), and the watchdog from the event loop itself."""

from __future__ import annotations

import os
import socket

import trio

LEAST_S = 0.05  # between two pings, whatever WATCHDOG_USEC says


def notify(*lines: str) -> None:
    """Send lines such as `READY=1`; does nothing where nobody listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        try:
            sender.connect(address)
            sender.send("\n".join(lines).encode(), socket.MSG_DONTWAIT)
        except OSError:  # systemd went away or is busy; the service goes on
            return


def watchdog_s() -> float | None:
    """How often this process has to say that it lives; None where nobody wants to know."""
    usec, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not usec.isdecimal() or int(usec) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(usec) / 1e6


async def keep_watchdog() -> None:
    """Say that the event loop turns, twice in each period, until cancelled."""
    period = watchdog_s()
    if period is None:
        return
    while True:
        notify("WATCHDOG=1")
        await trio.sleep(max(LEAST_S, period / 2))

"""Everything that can go wrong for a user, each with the errno a program sees.

One line says what was wrong and what to do instead; the boundary of the mount maps `errno`.
"""

from __future__ import annotations

import errno


class DadaError(Exception):
    """Root of the errors a user may meet. `str(error)` is one line fit for them."""

    errno: int = errno.EIO


class NoSuchPath(DadaError, FileNotFoundError):
    """The path names nothing: a typo, an unknown parameter, a value out of range."""

    errno = errno.ENOENT


class NoSuchScan(NoSuchPath):
    """There is no such scan, or its files cannot be read as one."""


class NotPermitted(DadaError, PermissionError):
    """The path leads out of the raw tree, or its permissions forbid it."""

    errno = errno.EACCES


class Stale(DadaError, OSError):
    """A raw file is not the one that was indexed; look it up again."""

    errno = errno.ESTALE


class BadData(DadaError, OSError):
    """Raw data cannot be read or decoded."""

    errno = errno.EIO


class ComputationFailed(DadaError, OSError):
    """A peer refused or failed a patch for a reason that another peer would share."""

    errno = errno.EIO


class Stalled(DadaError, TimeoutError):
    """No patch was finished for the stall deadline; the job goes on."""

    errno = errno.ETIMEDOUT


class Unreachable(DadaError, ConnectionError):
    """The other process does not answer."""

    errno = errno.EHOSTUNREACH


class ProtocolError(DadaError, ConnectionError):
    """The other side does not speak as agreed; the connection is dropped."""

    errno = errno.EPROTO


class Unforeseen(DadaError):
    """The process that was asked failed in a way nobody foresaw; another may not."""


class UsageError(DadaError, ValueError):
    """A wrong command line or configuration."""

    errno = errno.EINVAL

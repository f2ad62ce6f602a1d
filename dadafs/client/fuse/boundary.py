"""The one place where errors become errnos: around every FUSE handler."""

from __future__ import annotations

import errno
import functools
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import pyfuse3

from dadafs.errors import DadaError, NoSuchPath

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")


class Named(Protocol):
    """Operations that can say which path a handler's arguments mean, for the log."""

    def path_of(self, handler: str, args: tuple[object, ...]) -> str:
        """A path for people."""


S = TypeVar("S", bound=Named)


def boundary(
    handler: Callable[Concatenate[S, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, R]]:
    """Let nothing but FUSEError leave a handler: in pyfuse3 anything else ends the mount.

    Our errors carry their errno; an OSError keeps its own; anything unforeseen is EIO with a
    traceback in the log. Each is logged once, with path and cause, except for the names that
    desktops probe for (`.Trash`, `.hidden`).
    """

    @functools.wraps(handler)
    async def guarded(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await handler(self, *args, **kwargs)
        except pyfuse3.FUSEError:
            raise
        except Exception as exc:
            path = self.path_of(handler.__name__, args)
            raise pyfuse3.FUSEError(_errno_and_log(handler.__name__, path, exc)) from exc

    return guarded


def _errno_and_log(handler: str, path: str, error: Exception) -> int:
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, DadaError):
        if not (isinstance(error, NoSuchPath) and path.rsplit("/", 1)[-1].startswith(".")):
            log.warning("%s: %s (%s)", path, error, errno.errorcode.get(error.errno, error.errno))
        return error.errno
    if isinstance(error, OSError) and error.errno:
        log.warning("%s: %s: %s", path, handler, error)
        return error.errno
    log.error("%s: %s failed unexpectedly: %r", path, handler, error, exc_info=error)
    return errno.EIO

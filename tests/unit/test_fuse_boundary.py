"""Whatever happens in a handler, FUSE sees an errno and the log one line."""

from __future__ import annotations

import errno
import inspect
import logging

import pyfuse3
import pytest
import trio

from dadafs import errors
from dadafs.client.fuse.boundary import boundary
from dadafs.errors import BadData, DadaError, NoSuchPath, NoSuchScan, NotPermitted, Stale

CLASSES = [
    one for _, one in inspect.getmembers(errors, inspect.isclass) if issubclass(one, DadaError)
]


class Operations:
    """One handler that fails as told."""

    def __init__(self, path: str = "/scan42/dpc/full.npy") -> None:
        self._path = path

    def path_of(self, handler: str, args: tuple[object, ...]) -> str:
        assert handler == "read"
        return f"{self._path} {args[0]}"

    @boundary
    async def read(self, inode: int, error: BaseException | None = None) -> bytes:
        """Read."""
        if error is not None:
            raise error
        return b"data"


def outcome(error: BaseException, path: str = "/scan42/dpc/full.npy") -> int:
    """The errno that FUSE sees."""
    with pytest.raises(pyfuse3.FUSEError) as caught:
        trio.run(Operations(path).read, 7, error)
    assert isinstance(caught.value.errno, int)
    return caught.value.errno


def test_result_passes() -> None:
    assert trio.run(Operations().read, 7) == b"data"
    assert Operations.read.__name__ == "read"
    assert Operations.read.__doc__ == "Read."


@pytest.mark.parametrize("kind", CLASSES)
def test_our_errors_carry_their_errno(
    kind: type[DadaError], caplog: pytest.LogCaptureFixture
) -> None:
    assert outcome(kind("what happened")) == kind.errno
    name = errno.errorcode[kind.errno]
    assert caplog.messages == [f"/scan42/dpc/full.npy 7: what happened ({name})"]
    assert caplog.records[0].levelno == logging.WARNING
    assert caplog.records[0].exc_info is None


def test_an_oserror_keeps_its_errno(caplog: pytest.LogCaptureFixture) -> None:
    assert outcome(OSError(errno.ENOSPC, "No space left")) == errno.ENOSPC
    assert caplog.messages == ["/scan42/dpc/full.npy 7: read: [Errno 28] No space left"]


@pytest.mark.parametrize(
    "error",
    [
        ZeroDivisionError("x"),
        KeyError(5),
        OSError(),
        TimeoutError(),
        AssertionError(),
        ExceptionGroup("two", [Stale("one"), BadData("other")]),
    ],
    ids=repr,
)
def test_unforeseen_is_an_io_error_logged_once_with_its_traceback(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    assert outcome(error) == errno.EIO
    assert len(caplog.records) == 1
    record = caplog.records[0]
    assert record.levelno == logging.ERROR
    assert record.getMessage() == f"/scan42/dpc/full.npy 7: read failed unexpectedly: {error!r}"
    assert record.exc_info is not None
    assert record.exc_info[1] is error


def test_exception_groups_are_unwrapped(caplog: pytest.LogCaptureFixture) -> None:
    error: Exception = NotPermitted("leads out of the tree")
    for _ in range(3):
        error = ExceptionGroup("a nursery", [error])
    assert outcome(error) == errno.EACCES
    assert caplog.messages == ["/scan42/dpc/full.npy 7: leads out of the tree (EACCES)"]


def test_errno_of_fuse_passes_unlogged(caplog: pytest.LogCaptureFixture) -> None:
    assert outcome(pyfuse3.FUSEError(errno.EAGAIN)) == errno.EAGAIN
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("path", "error", "lines"),
    [
        ("/.Trash-1000", NoSuchPath("none"), 0),
        ("/scan42/.hidden", NoSuchScan("none"), 0),
        ("/scan42/.hidden", BadData("bad"), 1),
        ("/.dadafs/x", NoSuchPath("none"), 1),
    ],
)
def test_names_that_desktops_probe_for_are_not_logged(
    path: str, error: DadaError, lines: int, caplog: pytest.LogCaptureFixture
) -> None:
    assert outcome(error, path) == error.errno
    assert len(caplog.messages) == lines


def test_cancellation_passes() -> None:
    async def main() -> bool:
        with trio.CancelScope() as scope:
            scope.cancel()
            await Sleeper().read()
        return scope.cancelled_caught

    class Sleeper(Operations):
        @boundary
        async def read(self) -> None:  # type: ignore[override]
            await trio.sleep_forever()

    assert trio.run(main)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_the_end_of_the_process_passes(error: type[BaseException]) -> None:
    with pytest.raises(error):
        trio.run(Operations().read, 7, error())

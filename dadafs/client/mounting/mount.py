"""A mount from its beginning to its end: the processes behind it, the farm, FUSE."""

from __future__ import annotations

import logging
import os
import select
import signal
from collections.abc import Callable
from contextlib import ExitStack

import pyfuse3
import trio

from dadafs.cache.memory import MemoryCache
from dadafs.cache.store import Store
from dadafs.client.backing.backends import backend_of
from dadafs.client.farming.farm import Farm
from dadafs.client.fuse.demand import WIDEST_BYTES
from dadafs.client.fuse.operations import Operations
from dadafs.client.mounting.mountpoint import prepare, widen
from dadafs.client.telling.auditing import Auditor
from dadafs.client.telling.control import control_service
from dadafs.client.telling.errorlog import ErrorLog
from dadafs.client.telling.status import Status
from dadafs.client.tree.accounts import Accounts
from dadafs.client.tree.inventory import Inventories
from dadafs.client.tree.namespace import Namespace
from dadafs.client.upstream.locator import Locator
from dadafs.config import CONTROL, MountConfig, runtime_directory
from dadafs.plugins import load_plugins
from dadafs.rpc.exposing import expose, metrics_listener
from dadafs.rpc.service import listening, unix_socket

log = logging.getLogger(__name__)

MAX_TASKS = 512  # handlers at work; pyfuse3 has 99, fewer than a hundred readers' read-ahead
WATCH_S = 0.2  # between two looks whether it is unmounted while it answers
FUSE_DEVICE = os.makedev(10, 229)  # /dev/fuse, see the kernel's devices.txt
BACKGROUND = 256  # requests of read-ahead that the kernel has on its way; it has 12


async def serve(config: MountConfig, ready: Callable[[], None]) -> None:
    """Mount, call `ready` once the mount answers, and serve until unmounted or told to stop.

    UsageError where it cannot be mounted. Ends with nothing mounted and no process left.
    """
    with ExitStack() as stack:
        prepare(config.root, config.mountpoint)
        port = config.metrics_port
        metrics = metrics_listener(port) if port is not None else None
        load_plugins(config.plugins)
        errors = ErrorLog()
        logging.getLogger().addHandler(errors)
        stack.callback(logging.getLogger().removeHandler, errors)
        runtime = runtime_directory(config.mountpoint)
        runtime.mkdir(mode=0o700, parents=True, exist_ok=True)
        config.cache.mkdir(parents=True, exist_ok=True)
        results = Store(config.cache / "results", config.results_bytes)
        stack.callback(results.close)
        backend = backend_of(config, stack)
        link = backend.link
        farm = Farm(results, MemoryCache(config.memory_bytes), keep=config.server is not None)
        status = Status(farm, backend, errors)
        locator = Locator(link)
        inventories = Inventories(locator)
        accounts = Accounts(link, inventories, farm, results)
        namespace = Namespace(
            link, locator, farm, results, backend.raw_files, accounts, status.texts()
        )
        status.operations = operations = Operations(namespace)
        auditor = Auditor(namespace, inventories, farm, results, backend.raw_files)
        control = control_service(namespace, accounts, auditor, status)
        listener = listening(unix_socket(runtime / CONTROL))
        stack.callback((runtime / CONTROL).unlink, missing_ok=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(backend.run, farm.crew)
            nursery.start_soon(farm.crew.serve)
            await backend.started()
            _mount(operations, config)
            stack.callback(pyfuse3.close, unmount=True)
            nursery.start_soon(control.serve, listener)
            if metrics is not None:
                nursery.start_soon(expose, metrics, status.metrics)
            nursery.start_soon(_announce, config, ready)
            async with trio.open_nursery() as answering:
                answering.start_soon(_end_at_signals, answering.cancel_scope)
                answering.start_soon(_end_unmounted, answering.cancel_scope)
                await pyfuse3.main(max_tasks=MAX_TASKS)
                answering.cancel_scope.cancel()
            nursery.cancel_scope.cancel()


def _mount(operations: Operations, config: MountConfig) -> None:
    options = set(pyfuse3.default_options)
    options |= {f"fsname={config.source}", "subtype=dadafs", "ro", "nosuid", "nodev"}
    if config.allow_other:
        options.add("allow_other")
    pyfuse3.init(operations, os.fspath(config.mountpoint), options)


async def _announce(config: MountConfig, ready: Callable[[], None]) -> None:
    """Tell whoever waits once the kernel has heard from us.

    Asks the kernel in a thread: nothing here may wait for its own mount.
    """
    await trio.to_thread.run_sync(os.stat, config.mountpoint, abandon_on_cancel=True)
    await trio.to_thread.run_sync(widen, config.mountpoint, BACKGROUND, WIDEST_BYTES)
    ready()


async def _end_at_signals(answering: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            answering.cancel()


async def _end_unmounted(answering: trio.CancelScope) -> None:
    """End what is still being answered once nobody is there to take it.

    pyfuse3 waits for it: for the pages that were read ahead for a reader who was killed, long.
    """
    device = next(fd for fd in map(int, os.listdir("/proc/self/fd")) if _is_fuse(fd))
    looking = select.poll()
    looking.register(device, 0)  # to be told of nothing but its end
    while True:
        await trio.sleep(WATCH_S)
        if looking.poll(0):
            answering.cancel()


def _is_fuse(fd: int) -> bool:
    """Whether this is where the kernel's requests come, which pyfuse3 keeps to itself."""
    try:
        return os.fstat(fd).st_rdev == FUSE_DEVICE
    except OSError:  # that of the listing, closed by now
        return False

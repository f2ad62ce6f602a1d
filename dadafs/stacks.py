"""What a process is at: the stacks of its threads and trio tasks, written when it gets SIGUSR1."""

from __future__ import annotations

import faulthandler
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from types import FrameType

import trio

STDERR = 2  # the descriptor, not whatever stands in for `sys.stderr`
MAX_TASKS = 300  # most of a crowd of readers wait for the same
MAX_FRAMES = 12  # of each, the innermost


def dump_at_signal() -> None:
    """From now on SIGUSR1 writes all stacks to standard error. Call it within trio, at its start.

    That of the thread which gets the signal, mostly the main one, is written in C, so also when the
    event loop is stuck; all others, and the tasks, when Python runs again: to read the stack of a
    thread that goes on meanwhile may crash.
    """
    root = trio.lowlevel.current_root_task()
    assert root is not None

    def dump(_signum: int, _frame: FrameType | None) -> None:
        sys.stderr.write("\n".join([*thread_lines(), *task_lines(root)]) + "\n")
        sys.stderr.flush()

    signal.signal(signal.SIGUSR1, dump)
    faulthandler.register(signal.SIGUSR1, STDERR, all_threads=False, chain=True)


def thread_lines() -> list[str]:
    """Each thread with where it is, the innermost call first."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    lines = []
    for number, frame in sys._current_frames().items():
        lines.append(f"thread {names.get(number, number)} (most recent call first):")
        for place, line in list(traceback.walk_stack(frame))[:MAX_FRAMES]:
            lines.append(f"  {place.f_code.co_filename}:{line} {place.f_code.co_qualname}")
    return lines


def task_lines(root: trio.lowlevel.Task) -> list[str]:
    """The tree of tasks below `root`, each with where it waits; bounded."""
    lines = [f"tasks at {time.strftime('%Y-%m-%d %H:%M:%S')}:"]
    for number, (depth, task) in enumerate(_walk(root, 0)):
        if number == MAX_TASKS:
            lines.append("... and more")
            break
        lines.append(f"{'  ' * depth}{task.name}")
        frames = [(frame, line) for frame, line in task.iter_await_frames()]
        for frame, line in frames[-MAX_FRAMES:]:
            code = frame.f_code
            lines.append(f"{'  ' * depth}  {code.co_filename}:{line} {code.co_qualname}")
    return lines


def _walk(task: trio.lowlevel.Task, depth: int) -> Iterator[tuple[int, trio.lowlevel.Task]]:
    yield depth, task
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield from _walk(child, depth + 1)

"""How kernels are compiled: without the GIL, once per machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit
from numba.extending import intrinsic as _intrinsic

from analysis.kernels import VERSION

Function = TypeVar("Function", bound=Callable[..., Any])

intrinsic: Any = _intrinsic
"""For what is written in LLVM's language."""

inlined: Any = njit(nogil=True)
"""For what is only called by kernels: compiled into each of them."""


def kernel(function: Function) -> Function:
    """Compile an entry point that Python calls, and keep the machine code on disk.

    Numba's cache looks only at the file of the function itself, hence would serve stale code after
    a change in a module it calls. Therefore the digest of all kernels is part of its name.
    Where no directory can be written there is no cache, only a slower start.
    """
    function.__qualname__ += f"_{VERSION}"
    compiled: Any
    try:
        compiled = njit(nogil=True, cache=True)(function)
    except RuntimeError:  # numba: "no locator available"
        compiled = njit(nogil=True)(function)
    result: Function = compiled
    return result

"""Benchmarks, the subcommands of `tools/bench`.

A benchmark is a module here with a docstring, whose first line `tools/bench` lists, and a function
`main(arguments)` that takes the rest of the command line and returns the exit status. Modules
without `main` help the others. A module is imported when it is run, not before, and may set the
environment before it imports what reads it (see `stopwatch.one_thread`).
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

HERE = Path(__file__).resolve().parent


def benchmarks(directory: Path = HERE) -> dict[str, str]:
    """What can be measured: names, and what each is in a line. Imports nothing."""
    found = {}
    for path in sorted(directory.glob("*.py")):
        module = ast.parse(path.read_text(encoding="utf-8"))
        if any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in module.body):
            about = ast.get_docstring(module) or ""
            found[path.stem] = about.partition("\n")[0]
    found.pop("__init__", None)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: the name of a benchmark, then its own arguments."""
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    known = benchmarks()
    if name in ("-h", "--help"):
        print("usage: bench NAME [--help] ...\n")
        for one, about in known.items():
            print(f"  {one:<10} {about}")
        return 0
    if name not in known:
        print(f"bench: no benchmark {name!r}: there is {', '.join(known)}", file=sys.stderr)
        return 2
    status: int = import_module(f"tools.benches.{name}").main(rest)
    return status

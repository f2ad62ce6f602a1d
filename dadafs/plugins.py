"""Finding the analyses that users wrote: in a directory, and in installed packages."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Iterator
from hashlib import blake2b
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from analysis.analyses import ANALYSES
from analysis.plugins import Plugin, PluginReduction
from analysis.reductions import REDUCTIONS
from dadafs.errors import UsageError

log = logging.getLogger(__name__)

GROUP = "dadafs.analyses"
BUILT_IN = frozenset({*ANALYSES, "frames", "raw"})


def load_plugins(directory: Path | None) -> list[str]:
    """Make the plug-ins of installed packages and of `directory` known; their names.

    Call it before anything is mounted or computed. UsageError, one line, where a file cannot be
    loaded or a name is taken: an analysis that silently is not there would be worse.
    """
    plugins = [*_installed(), *(_in_directory(directory) if directory is not None else ())]
    names: dict[str, str] = {}
    for plugin, where in plugins:
        if plugin.name in BUILT_IN:
            raise UsageError(f"{where}: {plugin.name!r} is taken by dadafs; take another name")
        if plugin.name in names:
            raise UsageError(f"{where}: {plugin.name!r} is in {names[plugin.name]} already")
        names[plugin.name] = where
        ANALYSES[plugin.name] = plugin.analysis
        reduction = PluginReduction(plugin)
        REDUCTIONS[reduction.name] = reduction
    return list(names)


def _in_directory(directory: Path) -> Iterator[tuple[Plugin, str]]:
    """The plug-ins of every `*.py` in a directory, in order of their names."""
    if not directory.is_dir():
        raise UsageError(f"plug-ins: {directory} is not a directory")
    for path in sorted(directory.glob("*.py")):
        if path.name.startswith(("_", ".")):
            continue
        source = path.read_bytes()
        digest = blake2b(bytes(path), digest_size=4).hexdigest()
        name = f"dadafs_plugin_{path.stem}_{digest}"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # numba and pickle look functions up there
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as exc:
            line = " ".join(str(exc).split())
            raise UsageError(f"plug-in {path}: {type(exc).__name__}: {line}") from exc
        found = list(_of(module, source, str(path)))
        if not found:
            raise UsageError(f"plug-in {path}: nothing in it is decorated with frame_analysis")
        yield from found


def _installed() -> Iterator[tuple[Plugin, str]]:
    """Those that installed packages name under `dadafs.analyses`: a module or one plug-in."""
    for entry in entry_points(group=GROUP):
        where = f"plug-in {entry.name} ({entry.value})"
        try:
            loaded = entry.load()
            module = loaded if isinstance(loaded, ModuleType) else sys.modules[entry.module]
            source = Path(str(module.__file__)).read_bytes()
        except Exception as exc:
            raise UsageError(f"{where}: {type(exc).__name__}: {exc}") from exc
        if isinstance(loaded, ModuleType):
            yield from _of(loaded, source, where)
        elif isinstance(loaded, Plugin):
            loaded.source = source
            yield loaded, where
        else:
            raise UsageError(f"{where}: is neither a module nor decorated with frame_analysis")


def _of(module: ModuleType, source: bytes, where: str) -> Iterator[tuple[Plugin, str]]:
    for value in vars(module).values():
        if isinstance(value, Plugin):
            value.source = source
            yield value, where

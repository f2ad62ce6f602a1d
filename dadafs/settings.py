"""Settings: files, environment and command line, the later over the earlier.

/etc/dadafs/dadafs.toml < ~/.config/dadafs/dadafs.toml < DADAFS_SECTION_KEY < command line.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dadafs.config import address
from dadafs.errors import UsageError

SYSTEM_FILE = Path("/etc/dadafs/dadafs.toml")
PREFIX = "DADAFS_"
CONFIG_VARIABLE = PREFIX + "CONFIG"
"""Names one file that is read instead of the two."""
FILE_BYTES = 1 << 20  # a configuration is a page; anything longer is not one
MIB = 1 << 20
UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
YES, NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


@dataclass(frozen=True, slots=True)
class Setting:
    """One thing that can be set."""

    read: Callable[[Any], Any]
    """Its value from a text, or from what TOML gives. ValueError, one line."""
    default: Any
    meaning: str
    metavar: str | None = None
    """None for a switch."""


@dataclass(frozen=True, slots=True)
class Value:
    """What a setting is, and who said so."""

    value: Any
    source: str


def size(given: Any) -> int:
    """Bytes from `128MiB`, `8G`, `1048576`. ValueError."""
    if isinstance(given, bool) or not isinstance(given, str | int):
        raise ValueError(f'{given!r} is no size; say for instance "128MiB"')
    number = str(given).strip().lower().removesuffix("b").removesuffix("i")
    unit = number[-1:] if number[-1:].isalpha() else ""
    try:
        found = int(float(number.removesuffix(unit)) * UNITS[unit])
    except (ValueError, KeyError, OverflowError):
        raise ValueError(f"{given!r} is no size; say for instance 128MiB") from None
    if found < MIB:
        raise ValueError(f"{given!r} is too small; at least 1MiB")
    return found


def count(given: Any) -> int:
    """A number of threads. ValueError."""
    text = "" if isinstance(given, bool) else str(given)
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= 1024):
        raise ValueError(f"{given!r} is no number from 1 to 1024")
    return int(text)


def port(given: Any) -> int:
    """A port of this machine. ValueError, also for an address of others."""
    text = "" if isinstance(given, bool) else str(given)
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= 65535):
        raise ValueError(f"{given!r} is no port from 1 to 65535; it answers this machine only")
    return int(text)


def switch(given: Any) -> bool:
    """true or false. ValueError."""
    if isinstance(given, bool):
        return given
    if isinstance(given, str) and given.lower() in YES + NO:
        return given.lower() in YES
    raise ValueError(f"{given!r} is neither true nor false")


def path(given: Any) -> Path:
    """An absolute path, `~` allowed. ValueError."""
    if not isinstance(given, str) or not given:
        raise ValueError(f"{given!r} is no path")
    found = Path(os.path.expanduser(given))
    if not found.is_absolute():
        raise ValueError(f"{given!r} is not an absolute path")
    return found


def text(given: Any) -> str:
    """A word. ValueError."""
    if not isinstance(given, str) or not given.strip():
        raise ValueError(f"{given!r} is no name")
    return given.strip()


def host_port(given: Any) -> str:
    """HOST:PORT, checked. ValueError."""
    try:
        address(text(given))
    except UsageError as exc:
        raise ValueError(str(exc)) from None
    return text(given)


def _metrics() -> dict[str, Setting]:
    return {"metrics_port": Setting(port, None, "of 127.0.0.1, for Prometheus", "PORT")}


def _network() -> dict[str, Setting]:
    return {
        "tls": Setting(path, None, "certificates: ca.pem, node.pem, node.key", "DIR"),
        "insecure_network": Setting(switch, False, "listen beyond this machine without TLS"),
    }


SECTIONS: dict[str, dict[str, Setting]] = {
    "mount": {
        "cache": Setting(path, None, "of index and results", "DIR"),
        "threads": Setting(count, None, "that compute (one a core)", "N"),
        "results_size": Setting(size, 8 << 30, "of the results kept on disk", "SIZE"),
        "memory": Setting(size, 48 << 20, "of recent values", "SIZE"),
        "raw_memory": Setting(size, 128 << 20, "of raw data that come from a server", "SIZE"),
        "plugins": Setting(path, None, "of your own analyses, *.py", "DIR"),
        "tls": Setting(path, None, "certificates, to a server", "DIR"),
        "local_peer": Setting(switch, True, "compute here when no peer is there"),
        "allow_other": Setting(switch, False, "let other users in"),
        **_metrics(),
    },
    "server": {
        "root": Setting(path, None, "the raw tree", "DIR"),
        "listen": Setting(host_port, "127.0.0.1:4242", "where to answer", "HOST:PORT"),
        "pool": Setting(path, None, "of fragments, on an SSD", "DIR"),
        "pool_size": Setting(size, 100 << 30, "of that", "SIZE"),
        "results": Setting(path, None, "results that peers share", "DIR"),
        "results_size": Setting(size, 32 << 30, "of that", "SIZE"),
        "cache": Setting(path, None, "of the frame index", "DIR"),
        **_metrics(),
        **_network(),
    },
    "peer": {
        "server": Setting(host_port, None, "whom to announce to", "HOST:PORT"),
        "listen": Setting(host_port, "127.0.0.1:0", "where to answer; port 0: any", "HOST:PORT"),
        "name": Setting(text, None, "unique in the cluster (the host's name)", "NAME"),
        "threads": Setting(count, None, "that compute (one a core)", "N"),
        "cache": Setting(path, None, "of results", "DIR"),
        "results_size": Setting(size, 8 << 30, "of the results kept on disk", "SIZE"),
        "memory": Setting(size, 128 << 20, "of raw data in RAM", "SIZE"),
        "root": Setting(path, None, "the raw tree, if seen from here", "DIR"),
        "plugins": Setting(path, None, "of your own analyses, *.py", "DIR"),
        **_metrics(),
        **_network(),
    },
}


def files(environ: Mapping[str, str], chosen: Path | None = None) -> list[tuple[Path, bool]]:
    """The files to read, the weaker first, and whether each must be there. Pure."""
    one = str(chosen) if chosen is not None else environ.get(CONFIG_VARIABLE)
    if one:
        return [(Path(one), True)]
    base = environ.get("XDG_CONFIG_HOME") or os.path.join(environ.get("HOME", "/"), ".config")
    return [(SYSTEM_FILE, False), (Path(base) / "dadafs" / "dadafs.toml", False)]


def effective(
    section: str,
    given: Mapping[str, Any],
    environ: Mapping[str, str],
    chosen: Path | None = None,
) -> dict[str, Value]:
    """What holds for a section; `given` is what the command line says, None for nothing.

    All files and variables are checked, also in other sections. UsageError with one line, which
    names the file or variable.
    """
    values = {key: Value(one.default, "default") for key, one in SECTIONS[section].items()}
    for file, required in files(environ, chosen):
        for name, table in _tables(file, required).items():
            read = {key: _value(file, name, key, raw) for key, raw in table.items()}
            if name == section:
                values |= {key: Value(value, str(file)) for key, value in read.items()}
    for variable, (name, key) in _variables(environ).items():
        found = _read(SECTIONS[name][key], environ[variable], variable)
        if name == section:
            values[key] = Value(found, variable)
    for key, value in given.items():
        if key in values and value is not None:
            values[key] = Value(value, "command line")
    return values


def shown(value: Any, setting: Setting) -> str:
    """A value as it would be written in a file. Pure."""
    if value is None:
        return ""
    if setting.read is switch:
        return str(value).lower()
    if setting.read is size:
        for unit, factor in (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20)):
            if value % factor == 0:
                return f'"{value // factor}{unit}"'
        return str(value)
    if setting.read in (count, port):
        return str(value)
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _tables(file: Path, required: bool) -> dict[str, dict[str, Any]]:
    try:
        with file.open("rb") as opened:
            data = opened.read(FILE_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        if required:
            raise UsageError(f"{file}: no such configuration file") from None
        return {}
    except OSError as exc:
        raise UsageError(f"{file}: {exc.strerror}") from exc
    if len(data) > FILE_BYTES:
        raise UsageError(f"{file}: too long for a configuration file")
    try:
        tables = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise UsageError(f"{file}: {' '.join(str(exc).split())}") from exc
    for name, table in tables.items():
        if name not in SECTIONS:
            kind = f"section [{name}]" if isinstance(table, dict) else f"key {name!r} here"
            raise UsageError(f"{file}: no {kind}; {_near(name, SECTIONS)}")
        if not isinstance(table, dict):
            raise UsageError(f"{file}: {name} is a section; write [{name}]")
    return tables


def _value(file: Path, section: str, key: str, raw: Any) -> Any:
    setting = SECTIONS[section].get(key)
    if setting is None:
        raise UsageError(f"{file}: [{section}] has no {key!r}; {_near(key, SECTIONS[section])}")
    return _read(setting, raw, f"{file}: [{section}] {key}")


def _read(setting: Setting, raw: Any, where: str) -> Any:
    try:
        return setting.read(raw)
    except ValueError as exc:
        raise UsageError(f"{where}: {exc}") from None


def _variables(environ: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """The variables that set something: (section, key) by name. UsageError for one that would."""
    found = {}
    for variable in sorted(environ):
        section, _, key = variable.removeprefix(PREFIX).lower().partition("_")
        if variable.startswith(PREFIX) and section in SECTIONS and environ[variable]:
            if key not in SECTIONS[section]:
                names = {f"{PREFIX}{section}_{one}".upper(): None for one in SECTIONS[section]}
                raise UsageError(f"no variable {variable}; {_near(variable, names)}")
            found[variable] = section, key
    return found


def _near(name: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(name, known, 1, 0.5)
    return f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"

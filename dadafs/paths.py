"""The grammar of paths inside a scan. Pure and total: a path parses, or NoSuchPath says why not.

    README.txt scan.json                                what is here
    raw/NAME                                            the scan's own files
    frames/[k=v/...]000123.EXT                          one frame
    ANALYSIS/[k=v/...]k=v.EXT, ANALYSIS/[k=v/...]full.EXT   a result
    .../NAME.json                                       how the result .../NAME.EXT comes about
    .../NAME.EXT.progress                               how far it is computed

Parameters come in any order; `format_node` writes the canonical one, so equal requests have
equal names.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from analysis.parameters import Parameter
from analysis.plan import Roi
from dadafs.errors import NoSuchPath

README = "README.txt"
SCAN_JSON = "scan.json"
RAW = "raw"
FRAMES = "frames"
FULL = "full"
ACCOUNT = "json"
PROGRESS = ".progress"
MAX_PARAMETERS = 32
INSIDE = ":"  # between the name of a file, and the parts of a path in it

Value: TypeAlias = int | float | str | Roi
Parameters: TypeAlias = tuple[tuple[str, Value], ...]
"""Sorted by name, each once."""

_INTEGER = re.compile(r"-?[0-9]{1,15}\Z")
_FLOAT = re.compile(r"-?[0-9]{1,16}(\.[0-9]{0,25})?([eE][+-]?[0-9]{1,3})?\Z")
_FRAME = re.compile(r"[0-9]{1,15}\Z")
_RANGE = re.compile(r"([0-9]{1,15})\.\.([0-9]{1,15})\Z")


@dataclass(frozen=True, slots=True)
class ScanDirectory:
    """The scan itself."""


@dataclass(frozen=True, slots=True)
class ScanText:
    """A text about the scan: README.txt or scan.json."""

    name: str


@dataclass(frozen=True, slots=True)
class RawDirectory:
    """The directory of the scan's own files."""


@dataclass(frozen=True, slots=True)
class RawFile:
    """One of the scan's own files."""

    name: bytes


@dataclass(frozen=True, slots=True)
class ResultDirectory:
    """An analysis, or `frames`, with some parameters set."""

    analysis: str
    parameters: Parameters = ()


@dataclass(frozen=True, slots=True)
class ResultText:
    """The README.txt of an analysis, the same at every depth."""

    analysis: str


@dataclass(frozen=True, slots=True)
class Request:
    """A result in a container."""

    analysis: str
    extension: str
    parameters: Parameters = ()
    frame: int | None = None
    """Only under `frames`."""


@dataclass(frozen=True, slots=True)
class ResultAccount:
    """How a result comes about, as JSON. The extension of the request is `json`: it tells of no
    container."""

    request: Request


@dataclass(frozen=True, slots=True)
class ResultProgress:
    """One line on how far a result is computed."""

    request: Request


Node: TypeAlias = (
    ScanDirectory
    | ScanText
    | RawDirectory
    | RawFile
    | ResultDirectory
    | ResultText
    | Request
    | ResultAccount
    | ResultProgress
)


@dataclass(frozen=True, slots=True)
class Grammar:
    """What may stand in a path: the analyses with their parameters, and the containers."""

    analyses: Mapping[str, Mapping[str, Parameter]]
    """Parameters by name, of every analysis by its name; `frames` is one of them."""
    extensions: tuple[str, ...]
    refusals: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Of an analysis: why it has not a parameter that others have."""

    def parse(self, parts: Sequence[bytes]) -> Node:
        """What the components after a scan's name mean; NoSuchPath with the reason if nothing."""
        if not parts:
            return ScanDirectory()
        if parts[0] == RAW.encode():
            return _parse_raw(parts[1:])
        try:
            names = [part.decode() for part in parts]
        except UnicodeDecodeError:
            raise NoSuchPath(f"{b'/'.join(parts)!r} is not UTF-8") from None
        head, rest = names[0], names[1:]
        if head in (README, SCAN_JSON):
            if rest:
                raise NoSuchPath(f"{head} is a file, nothing follows it")
            return ScanText(head)
        if head not in self.analyses:
            known = [README, SCAN_JSON, RAW, *self.analyses]
            raise NoSuchPath(f"a scan has no {head!r}{nearest(head, known)}")
        return self._parse_result(head, rest)

    def _parse_result(self, analysis: str, names: Sequence[str]) -> Node:
        parameters: dict[str, Value] = {}
        for position, name in enumerate(names):
            last = position == len(names) - 1
            if last and name == README:
                return ResultText(analysis)
            if last and name.endswith(PROGRESS):
                return self._parse_progress(analysis, [*names[:-1], name.removesuffix(PROGRESS)])
            stem, extension = self._split(name)
            if extension is None or self._is_file(analysis, stem, name):
                self._add_parameter(analysis, parameters, name, name)
                continue
            if not last:
                raise NoSuchPath(f"{name!r} is a file, nothing follows it")
            request = self._parse_last(analysis, parameters, stem, extension)
            return ResultAccount(request) if extension == ACCOUNT else request
        return ResultDirectory(analysis, _sorted(parameters))

    def _parse_progress(self, analysis: str, names: Sequence[str]) -> ResultProgress:
        ends = self._split(names[-1])[1] is not None
        of = self._parse_result(analysis, names) if ends else None
        if not isinstance(of, Request):
            raise NoSuchPath(f"{names[-1]!r} is no result; say for instance {self._progress}")
        return ResultProgress(of)

    def _parse_last(
        self, analysis: str, parameters: dict[str, Value], stem: str, extension: str
    ) -> Request:
        if analysis == FRAMES:
            if not _FRAME.match(stem):
                raise NoSuchPath(
                    f"{stem!r} is no frame number; say for instance 000000.{extension}"
                )
            return Request(analysis, extension, _sorted(parameters), int(stem))
        if stem != FULL:
            self._add_parameter(analysis, parameters, stem, f"{stem}.{extension}")
        return Request(analysis, extension, _sorted(parameters))

    def _is_file(self, analysis: str, stem: str, name: str) -> bool:
        """Whether what looks like a container is the ending of a value that is a file's name.

        So `mask=gaps.npy` is a directory, and `mask=gaps.npy.npy` a result in it.
        """
        key, _, value = name.partition("=")
        parameter = self.analyses[analysis].get(key)
        if parameter is None or parameter.kind != "file":
            return False
        return _ends(value, parameter) and not _ends(stem.partition("=")[2], parameter)

    @property
    def _progress(self) -> str:
        """For example."""
        return f"{FULL}.{self.extensions[0]}{PROGRESS}"

    def _split(self, name: str) -> tuple[str, str | None]:
        """Stem and container of a file's name: a value may hold dots, so the longest known wins."""
        known = (*self.extensions, ACCOUNT)
        fitting = [e for e in known if name.endswith("." + e) and len(name) > len(e) + 1]
        if not fitting:
            return name, None
        extension = max(fitting, key=len)
        return name[: -len(extension) - 1], extension

    def _add_parameter(
        self, analysis: str, parameters: dict[str, Value], text: str, whole: str
    ) -> None:
        """Take `NAME=VALUE` up; `whole` is the component that it stands in."""
        name, equals, value = text.partition("=")
        table = self.analyses[analysis]
        if not equals:
            ends = ", ".join("." + e for e in self.extensions)
            files = [*(f"{FULL}.{e}" for e in (*self.extensions, ACCOUNT)), self._progress]
            example = f"000000.{self.extensions[0]}" if analysis == FRAMES else f"{FULL}.*"
            raise NoSuchPath(
                f"{text!r} is neither NAME=VALUE nor {example} (a result ends in {ends})"
                + nearest(whole, [*files, *(f"{name}=" for name in table)])
            )
        if name not in table:
            reason = self.refusals.get(analysis, {}).get(name)
            if reason is not None:
                raise NoSuchPath(f"{analysis} has no {name}=: {reason}")
            raise NoSuchPath(f"{analysis} has no parameter {name!r}{nearest(name, table)}")
        if name in parameters:
            raise NoSuchPath(f"parameter {name!r} is given twice")
        if len(parameters) >= MAX_PARAMETERS:
            raise NoSuchPath(f"more than {MAX_PARAMETERS} parameters")
        parameters[name] = parse_value(table[name], value)


def format_node(node: Node) -> tuple[bytes, ...]:
    """The canonical components of a node; `Grammar.parse` of them gives the node again."""
    match node:
        case ScanDirectory():
            return ()
        case ScanText(name):
            return (name.encode(),)
        case RawDirectory():
            return (RAW.encode(),)
        case RawFile(name):
            return RAW.encode(), name
        case ResultText(analysis):
            return analysis.encode(), README.encode()
        case ResultDirectory(analysis, parameters):
            return analysis.encode(), *(_format_parameter(p) for p in parameters)
        case ResultAccount(request):
            return format_node(request)
        case ResultProgress(request):
            names = format_node(request)
            return *names[:-1], names[-1] + PROGRESS.encode()
        case Request(analysis, extension, parameters, frame):
            stems = [_format_parameter(p) for p in parameters]
            if frame is not None:
                stems.append(b"%06d" % frame)
            elif not stems:
                stems.append(FULL.encode())
            return analysis.encode(), *stems[:-1], stems[-1] + b"." + extension.encode()


def parse_value(parameter: Parameter, text: str) -> Value:
    """The value that `text` means for `parameter`; NoSuchPath where it means none."""
    where = f"{parameter.name}={_quoted(text)}"
    match parameter.kind:
        case "int":
            if not _INTEGER.match(text):
                raise NoSuchPath(f"{where}: {text!r} is no whole number")
            number: int | float = int(text)
        case "float":
            if not _FLOAT.match(text) or not math.isfinite(float(text)):
                raise NoSuchPath(f"{where}: {text!r} is no number")
            number = float(text) + 0.0  # no negative zero: equal requests have equal names
        case "roi":
            return _parse_roi(where, text)
        case "choice":
            if text not in parameter.choices:
                known = ", ".join(parameter.choices)
                hint = nearest(text, parameter.choices)
                raise NoSuchPath(f"{where}: {text!r} is none of {known}{hint}")
            return text
        case "file" | "name":
            return _parse_name(where, text, parameter)
        case "frames":
            return _parse_frames(where, text)
    if parameter.minimum is not None and number < parameter.minimum:
        raise NoSuchPath(f"{where}: must be at least {_short(parameter.minimum)}")
    if parameter.maximum is not None and number > parameter.maximum:
        raise NoSuchPath(f"{where}: must be at most {_short(parameter.maximum)}")
    return number


def format_value(value: Value) -> str:
    """The canonical text of a value."""
    match value:
        case Roi(x, y, w, h):
            return f"{x},{y},{w},{h}"
        case float():
            return _short(value)
        case _:
            return str(value)


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or nothing when nothing known is near."""
    close = difflib.get_close_matches(name[:100], list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _parse_raw(parts: Sequence[bytes]) -> Node:
    if not parts:
        return RawDirectory()
    name = parts[0]
    if len(parts) > 1 or name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
        raise NoSuchPath("raw/ holds the scan's files and no directories")
    return RawFile(name)


def _parse_roi(where: str, text: str) -> Roi:
    fields = text.split(",")
    if len(fields) != 4 or not all(_INTEGER.match(field) for field in fields):
        raise NoSuchPath(f"{where}: a rectangle is four whole numbers x,y,w,h")
    x, y, w, h = map(int, fields)
    if x < 0 or y < 0 or w < 1 or h < 1:
        raise NoSuchPath(f"{where}: x and y must be at least 0, w and h at least 1")
    return Roi(x, y, w, h)


def _parse_name(where: str, text: str, parameter: Parameter) -> str:
    if not text.isprintable() or text.strip() != text or text in ("", ".", ".."):
        raise NoSuchPath(f"{where}: {text!r} is no name")
    if parameter.kind == "file" and not _ends(text, parameter):
        endings = ", ".join("." + ending for ending in parameter.choices)
        raise NoSuchPath(f"{where}: the name of a file that ends in one of {endings} is needed")
    return text


def _ends(value: str, parameter: Parameter) -> bool:
    """Whether `value` has one of the endings that files of this parameter have."""
    return value.partition(INSIDE)[0].lower().endswith(tuple("." + e for e in parameter.choices))


def _parse_frames(where: str, text: str) -> str:
    match = _RANGE.match(text)
    if match is None:
        if not text.isprintable() or text in ("", ".", ".."):
            raise NoSuchPath(f"{where}: give frames such as 0..99, or the name of a scan")
        return text
    first, last = int(match[1]), int(match[2])
    if first > last:
        raise NoSuchPath(f"{where}: the first frame is after the last one")
    return f"{first}..{last}"


def frame_range(text: str) -> range | None:
    """The frames of `0..99`, both ends included; None where it is the name of a scan."""
    match = _RANGE.match(text)
    return None if match is None else range(int(match[1]), int(match[2]) + 1)


def _format_parameter(parameter: tuple[str, Value]) -> bytes:
    name, value = parameter
    return f"{name}={format_value(value)}".encode()


def _sorted(parameters: Mapping[str, Value]) -> Parameters:
    return tuple(sorted(parameters.items()))


def _quoted(text: str) -> str:
    """As it is, or what python shows of it where that would not be one plain line."""
    return text if text.isprintable() else repr(text)


def _short(number: float) -> str:
    """The shortest text that means this number."""
    if number == int(number) and abs(number) < 1e15:
        return str(int(number))
    return repr(float(number))

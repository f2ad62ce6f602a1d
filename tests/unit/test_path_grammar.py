"""Every path inside a scan parses to one node, or is refused in one line."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.parameters import PARAMETERS, Parameter
from analysis.plan import Roi
from dadafs import paths
from dadafs.errors import NoSuchPath
from dadafs.paths import (
    FRAMES,
    Grammar,
    Node,
    RawDirectory,
    RawFile,
    Request,
    ResultDirectory,
    ResultText,
    ScanDirectory,
    ScanText,
    Value,
    format_node,
)

HORZ = Parameter("horz", "int", 1, 10_000_000, "points", "points per line")
FIRST = Parameter("first", "int", 0, None, "", "index of the frame of the first point")
ORDER = Parameter("order", "choice", None, None, "", "", ("raster", "snake"))
MASK = Parameter("mask", "file", None, None, "", "", ("npy", "tif", "h5"))
NORM = Parameter("norm", "name", None, None, "", "")
BACKGROUND = Parameter("background", "frames", None, None, "", "")
CHANNEL = Parameter("channel", "choice", None, None, "", "", ("x", "y"))
RASTER = {"horz": HORZ, "first": FIRST, "order": ORDER}
GRAMMAR = Grammar(
    {
        FRAMES: {name: PARAMETERS[name] for name in ("roi", "bin")},
        "darkfield": {**PARAMETERS, **RASTER, "mask": MASK, "norm": NORM, "background": BACKGROUND},
        "dpc": {**PARAMETERS, **RASTER, "channel": CHANNEL},
    },
    ("npy", "tif", "csv", "npy.gz"),
)
LARGEST = 10**15 - 1
T = TypeVar("T")


def values_of(parameter: Parameter) -> st.SearchStrategy[Value]:
    low, high = parameter.minimum, parameter.maximum
    match parameter.kind:
        case "int":
            whole = st.integers(int(low or 0), LARGEST if high is None else int(high))
            return whole.map(lambda number: number)
        case "float":
            numbers = st.floats(low, high, allow_nan=False, allow_infinity=False)
            return numbers.map(lambda number: number + 0.0)  # there is no negative zero
        case "roi":
            corner, edge = st.integers(0, LARGEST), st.integers(1, LARGEST)
            return st.builds(Roi, corner, corner, edge, edge)
        case "choice":
            return st.sampled_from(parameter.choices)
        case "file":
            stems = st.sampled_from(["gaps", "a b", "x.y", "m=1", "ü"])
            return st.builds("{}.{}".format, stems, st.sampled_from(parameter.choices))
        case "name":
            return st.sampled_from(["ic1", "Two Theta", "a.b", "npy"])
        case "frames":
            return st.sampled_from(["0..99", "7..7", "scan41", "a..b"])


def parameters_of(analysis: str) -> st.SearchStrategy[paths.Parameters]:
    optional = {name: values_of(one) for name, one in GRAMMAR.analyses[analysis].items()}
    return st.fixed_dictionaries({}, optional=optional).map(
        lambda given: tuple(sorted(given.items()))
    )


def requests_of(analysis: str) -> st.SearchStrategy[Request]:
    frame = st.integers(0, LARGEST) if analysis == FRAMES else st.none()
    extension = st.sampled_from(GRAMMAR.extensions)
    return st.builds(Request, st.just(analysis), extension, parameters_of(analysis), frame)


ANALYSES = st.sampled_from(list(GRAMMAR.analyses))
RAW_NAMES = st.binary(min_size=1).filter(
    lambda name: name not in (b".", b"..") and b"/" not in name and b"\0" not in name
)
NODES: st.SearchStrategy[Node] = st.one_of(
    st.just(ScanDirectory()),
    st.sampled_from([ScanText(paths.README), ScanText(paths.SCAN_JSON)]),
    st.just(RawDirectory()),
    RAW_NAMES.map(RawFile),
    ANALYSES.map(ResultText),
    ANALYSES.flatmap(lambda one: st.builds(ResultDirectory, st.just(one), parameters_of(one))),
    ANALYSES.flatmap(requests_of),
    ANALYSES.flatmap(requests_of).map(paths.ResultProgress),
    ANALYSES.flatmap(requests_of).map(
        lambda request: paths.ResultAccount(replace(request, extension=paths.ACCOUNT))
    ),
)


def parse(text: str) -> Node:
    return GRAMMAR.parse([part.encode() for part in text.split("/")] if text else [])


def refusal(text: str) -> str:
    with pytest.raises(NoSuchPath) as caught:
        parse(text)
    return str(caught.value)


def outcome(parsing: Callable[[], T]) -> T | None:
    """What parsing gives; None where it is refused, which takes one line that can be shown."""
    try:
        return parsing()
    except NoSuchPath as exc:
        reason = str(exc)
    assert reason
    assert reason.isprintable()
    return None


@settings(deadline=None, derandomize=True)
@given(NODES)
def test_canonical_path_means_its_node(node: Node) -> None:
    assert GRAMMAR.parse(format_node(node)) == node


@settings(deadline=None, derandomize=True)
@given(st.data(), ANALYSES.flatmap(requests_of))
def test_parameters_come_in_any_order(data: st.DataObject, request: Request) -> None:
    written = [f"{name}={paths.format_value(value)}" for name, value in request.parameters]
    mixed = data.draw(st.permutations(written))
    last = paths.FULL if request.frame is None else str(request.frame)
    assert parse("/".join([request.analysis, *mixed, f"{last}.{request.extension}"])) == request
    if mixed and request.frame is None:
        mixed[-1] += "." + request.extension
        assert parse("/".join([request.analysis, *mixed])) == request


WORDS = st.sampled_from(
    [
        *(
            b"raw",
            b"README.txt",
            b"scan.json",
            b"frames",
            b"darkfield",
            b"dpc",
            b"full.npy",
            b"full",
            b"full.json",
            b"full.npy.progress",
            b"7.npy.progress.progress",
        ),
        *(b"horz=3", b"horz=3.npy", b"qmin=0.05", b"qmin=1e400", b"roi=1,2,3,4", b"roi=1,2,3"),
        *(
            b"bin=2",
            b"channel=x.tif",
            b"order=",
            b"=",
            b"=.npy",
            b".npy",
            b"000001.npy",
            b"x" * 300,
        ),
        *(b"", b".", b"..", b"a/b", b"\0", b"\n", b"horz=1\n2", b"roi=\r", b"order=\xe2\x80\xa8"),
    ]
)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.lists(WORDS | st.binary(max_size=12) | st.text(max_size=8).map(str.encode), max_size=5))
def test_every_path_parses_or_is_refused_in_one_line(parts: list[bytes]) -> None:
    node = outcome(lambda: GRAMMAR.parse(parts))
    if node is not None:
        assert GRAMMAR.parse(format_node(node)) == node


@settings(deadline=None, derandomize=True, max_examples=200)
@given(
    st.sampled_from(list(PARAMETERS.values()) + list(RASTER.values())),
    st.text("0123456789.,-+eE_ x\n", max_size=24),
)
def test_every_value_parses_or_is_refused_in_one_line(parameter: Parameter, text: str) -> None:
    value = outcome(lambda: paths.parse_value(parameter, text))
    if value is not None:
        assert paths.parse_value(parameter, paths.format_value(value)) == value


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("", ScanDirectory()),
        ("README.txt", ScanText("README.txt")),
        ("raw", RawDirectory()),
        ("raw/s_master.h5", RawFile(b"s_master.h5")),
        ("raw/README.txt", RawFile(b"README.txt")),
        ("dpc", ResultDirectory("dpc")),
        ("dpc/README.txt", ResultText("dpc")),
        ("dpc/horz=3/README.txt", ResultText("dpc")),
        ("dpc/full.npy", Request("dpc", "npy")),
        ("dpc/full.npy.gz", Request("dpc", "npy.gz")),
        ("dpc/horz=3.npy.gz", Request("dpc", "npy.gz", (("horz", 3),))),
        ("dpc/horz=007/full.tif", Request("dpc", "tif", (("horz", 7),))),
        ("dpc/qmin=0.05.npy", Request("dpc", "npy", (("qmin", 0.05),))),
        ("dpc/qmin=5e-2/full.npy", Request("dpc", "npy", (("qmin", 0.05),))),
        ("dpc/qmin=1..npy", Request("dpc", "npy", (("qmin", 1.0),))),
        ("dpc/cx=-0.npy", Request("dpc", "npy", (("cx", 0.0),))),
        ("dpc/rmax=1e15.npy", Request("dpc", "npy", (("rmax", 1e15),))),
        ("dpc/channel=x.npy", Request("dpc", "npy", (("channel", "x"),))),
        ("frames/7.npy", Request(FRAMES, "npy", (), 7)),
        ("frames/bin=2/1234567.tif", Request(FRAMES, "tif", (("bin", 2),), 1234567)),
    ],
)
def test_examples(text: str, node: Node) -> None:
    assert parse(text) == node


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("darkfeild", "a scan has no 'darkfeild'; did you mean 'darkfield'?"),
        ("zzz", "a scan has no 'zzz'"),
        ("README.txt/x", "README.txt is a file, nothing follows it"),
        ("dpc/full.npy/x", "'full.npy' is a file, nothing follows it"),
        ("dpc/hozr=3.npy", "dpc has no parameter 'hozr'; did you mean 'horz'?"),
        ("darkfield/channel=x.npy", "darkfield has no parameter 'channel'"),
        ("dpc/horz=3/horz=3.npy", "parameter 'horz' is given twice"),
        ("dpc/horz=0.npy", "horz=0: must be at least 1"),
        ("dpc/horz=10000001.npy", "horz=10000001: must be at most 10000000"),
        ("dpc/horz=3.5.npy", "horz=3.5: '3.5' is no whole number"),
        ("dpc/qmin=nan.npy", "qmin=nan: 'nan' is no number"),
        ("dpc/qmin=1e999.npy", "qmin=1e999: '1e999' is no number"),
        (
            "dpc/order=snaek.npy",
            "order=snaek: 'snaek' is none of raster, snake; did you mean 'snake'?",
        ),
        ("dpc/roi=1,2,3.npy", "roi=1,2,3: a rectangle is four whole numbers x,y,w,h"),
        ("dpc/roi=1,2,0,4.npy", "roi=1,2,0,4: x and y must be at least 0, w and h at least 1"),
        ("frames/full.npy", "'full' is no frame number; say for instance 000000.npy"),
        ("dpc/ful", "'ful' is neither NAME=VALUE nor full.* (a result ends in .npy, .tif, .csv,"),
        ("raw/a/b", "raw/ holds the scan's files and no directories"),
        ("raw/..", "raw/ holds the scan's files and no directories"),
    ],
)
def test_refusals_say_what_to_type_instead(text: str, reason: str) -> None:
    assert refusal(text).startswith(reason)


def test_unknown_extension_names_the_known_ones() -> None:
    assert "did you mean 'full.npy'?" in refusal("dpc/full.npz")


def test_bytes_that_are_no_text() -> None:
    with pytest.raises(NoSuchPath, match="is not UTF-8"):
        GRAMMAR.parse([b"dpc", b"\xff.npy"])
    assert GRAMMAR.parse([b"raw", b"\xff"]) == RawFile(b"\xff")


def test_parameters_are_bounded_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "MAX_PARAMETERS", 2)
    assert refusal("dpc/horz=1/first=1/bin=1/full.npy") == "more than 2 parameters"


@pytest.mark.parametrize(
    "make",
    [
        lambda n: [b"x" * n],
        lambda n: [b"dpc", b"horz=" + b"1" * n],
        lambda n: [b"dpc", b"qmin=0." + b"1" * n + b".npy"],
        lambda n: [b"dpc", b"roi=" + b"1," * n],
        lambda n: [b"dpc", b"order=" + b"snake" * n],
        lambda n: [b"dpc", b".npy" * n],
        lambda n: [b"dpc", *[b"horz=1"] * n],
        lambda n: [b"frames", b"0" * n + b".npy"],
        lambda n: [b"\xff"] * n,
    ],
)
def test_huge_paths_are_refused_quickly(make: Callable[[int], list[bytes]]) -> None:
    parts = make(100_000)
    started = time.process_time()
    with pytest.raises(NoSuchPath):
        GRAMMAR.parse(parts)
    assert time.process_time() - started < 0.5


@settings(deadline=None, derandomize=True)
@given(st.data())
def test_the_grammar_in_use_reads_what_it_writes(data: st.DataObject) -> None:
    requests = pytest.importorskip("dadafs.requests")
    grammar = requests.grammar()
    analysis = data.draw(st.sampled_from(list(grammar.analyses)))
    table = grammar.analyses[analysis]
    optional = {name: values_of(one) for name, one in table.items()}
    given_values = data.draw(st.fixed_dictionaries({}, optional=optional))
    frame = 12 if analysis == FRAMES else None
    extension = data.draw(st.sampled_from(grammar.extensions))
    request = Request(analysis, extension, tuple(sorted(given_values.items())), frame)
    assert grammar.parse(format_node(request)) == request

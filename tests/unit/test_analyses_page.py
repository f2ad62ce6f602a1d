"""The page on analyses says what the registry has, of every analysis, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from analysis.analyses import ANALYSES
from analysis.parameters import CORRECTED
from dadafs.plugins import BUILT_IN

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/analyses.md").read_text()
NAMES = sorted(BUILT_IN - {"frames", "raw"})


def sections() -> dict[str, str]:
    """The text under each heading."""
    parts = re.split(r"^## (\w+)\n", PAGE, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def said(name: str, item: str) -> str:
    """An item of a section's list, as one line."""
    found = re.findall(rf"^- {item}: (.*?)(?=\n- |\n\n|\Z)", sections()[name], re.M | re.S)
    assert len(found) == 1, (name, item)
    return str(found[0])


def names_in(text: str) -> list[str]:
    return re.findall(r"`(\w+)`", text)


def test_every_analysis_has_a_section() -> None:
    assert sorted(sections()) == sorted([*NAMES, "Errors"])


@pytest.mark.parametrize("name", NAMES)
def test_channels(name: str) -> None:
    own, _, errors = said(name, "Channels").partition("by `channel=`:")
    analysis = ANALYSES[name]
    assert names_in(own) == [channel.name for channel in analysis.channels]
    more = analysis.errors.channels if analysis.errors is not None else ()
    assert names_in(errors) == [channel.name for channel in more]
    table = sections()["Errors"]
    for channel in more:
        row = rf"^\| `{name}` [^|]*`{channel.name}`[^|]*\|"
        assert re.search(row, table, re.MULTILINE), (name, channel.name)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_and_their_defaults(name: str) -> None:
    text, analysis = said(name, "Parameters"), ANALYSES[name]
    selection = set(CORRECTED) if text.startswith("selection") else set()
    assert selection | set(names_in(text)) == set(analysis.parameters)
    for parameter, value in analysis.defaults:
        assert re.search(rf"`{parameter}` \({value:g}\b", text), parameter
    assert " ".join(f"`{one}`" for one in CORRECTED) in PAGE


@pytest.mark.parametrize("name", NAMES)
def test_cost_and_source(name: str) -> None:
    analysis = ANALYSES[name]
    cost = said(name, "Cost")
    assert f"pass `{analysis.reduction}`" in cost
    if analysis.errors is not None and analysis.errors.reduction != analysis.reduction:
        assert f"pass `{analysis.errors.reduction}`" in cost
    assert said(name, "Source")
    assert len(sections()[name].split("\n\n")[1]) > 40  # the formula, or a sentence

"""The page on corrections says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from analysis.analyses import ANALYSES
from dadafs.corrections import corrections_of, refusals_of

PAGE = (Path(__file__).resolve().parents[2] / "docs/corrections.md").read_text()


def table() -> dict[str, dict[str, bool]]:
    """Of each analysis: whether the page says that it has a correction."""
    head, _, *rows = re.findall(r"^\|(.+)\|$", PAGE, re.MULTILINE)
    names = [cell.strip(" `") for cell in head.split("|")][1:]
    found = {}
    for row in rows:
        analyses, *cells = (cell.strip() for cell in row.split("|"))
        said = dict(zip(names, (cell != "refused" for cell in cells), strict=True))
        found |= dict.fromkeys(re.findall(r"`(\w+)`", analyses), said)
    return found


def test_table_of_analyses() -> None:
    said = table()
    for name, analysis in ANALYSES.items():
        if analysis.reduction.startswith("plugin"):
            continue
        given = set(corrections_of(analysis)) | set(analysis.parameters)
        assert {one for one, there in said[name].items() if there} == set(said[name]) & given, name


def test_every_correction_has_a_section_and_every_refusal_a_reason() -> None:
    for analysis in ANALYSES.values():
        for name in corrections_of(analysis):
            assert f"\n## {name}=" in PAGE
        assert all(refusals_of(analysis).values())

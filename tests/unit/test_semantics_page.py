"""Every promise of the page on semantics names a test that exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/semantics.md"
NAMED = re.compile(r"(tests/[\w/]+\.py)(?:::(\w+))?")


def test_named_tests_exist() -> None:
    named = NAMED.findall(PAGE.read_text())
    assert len(named) > 30
    for path, name in named:
        assert (ROOT / path).is_file(), path
        if name:
            assert re.search(rf"^(async )?def {name}\(", (ROOT / path).read_text(), re.MULTILINE), (
                f"{path} has no {name}"
            )


def test_every_promise_is_held_by_a_test() -> None:
    text = PAGE.read_text()
    paragraphs = re.split(r"\n(?=- |\| |\n|##)", text)
    for paragraph in paragraphs:
        if paragraph.startswith(("- **", "| ")) and not paragraph.startswith("| fault |"):
            assert NAMED.search(paragraph), paragraph


def test_page_is_short() -> None:
    assert len(PAGE.read_text().splitlines()) <= 120

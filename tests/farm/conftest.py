"""Tasks that could go on at the same time go on in the same order in every run."""

from __future__ import annotations

from typing import Any

import pytest
import trio


@pytest.fixture(autouse=True)
def deterministic(monkeypatch: pytest.MonkeyPatch) -> None:
    """As trio does for hypothesis."""
    run: Any = trio._core._run
    monkeypatch.setattr(run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
    run._r.seed(0)

"""The session in the README prints what stands there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.walkthrough import README, comparable, session, typed


@pytest.mark.mount
@pytest.mark.usefixtures("_fuse_here")
def test_the_session_prints_what_is_written(tmp_path: Path) -> None:
    written = session(README.read_text(encoding="utf-8"))
    assert comparable(typed(tmp_path, written)) == comparable(written), "run tools/make_readme"


def test_only_figures_that_vary_are_left_out() -> None:
    assert comparable("$ a\n  frames 1-64  64 read\n") == comparable("$ a\n  frames 9-7 3 read\n")
    assert comparable("(10, 51)") != comparable("(10, 52)")
    with pytest.raises(ValueError, match="no block"):
        session("```sh\n```\n")

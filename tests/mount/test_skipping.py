"""The rule that CI does not skip what it must run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TESTS = """
import pytest

@pytest.fixture
def absent():
    pytest.skip("it is not here")

@pytest.mark.mount
def test_mount(absent): pass

@pytest.mark.realdata
@pytest.mark.skipif(True, reason="no data")
def test_data(): pass

def test_other(): pytest.skip("so what")
"""


@pytest.mark.parametrize(("ci", "outcome"), [("true", "1 skipped, 2 errors"), ("", "3 skipped")])
def test_with_ci_a_skip_is_a_failure(tmp_path: Path, ci: str, outcome: str) -> None:
    (tmp_path / "test_skips.py").write_text(TESTS)
    options = ["-c", str(ROOT / "pyproject.toml"), "-p", "conftest", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(tmp_path)],
        env=os.environ | {"CI": ci, "PYTHONPATH": str(ROOT / "tests")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert outcome in done.stdout.splitlines()[-1], done.stdout
    assert done.returncode == (1 if ci == "true" else 0)
    if ci == "true":
        assert "CI must run tests marked mount: it is not here" in done.stdout

"""Where the real thing has to be tested, a test of it that is skipped is a failure."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from pluggy import Result

MUST_RUN = ("mount", "realdata")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """With CI=true, turn skips of tests that must run into failures that say why."""
    outcome: Result[pytest.TestReport] = yield  # type: ignore[misc,assignment]
    report = outcome.get_result()
    markers = [name for name in MUST_RUN if item.get_closest_marker(name)]
    expected = hasattr(report, "wasxfail")
    if os.environ.get("CI") == "true" and report.skipped and markers and not expected:
        reason = call.excinfo.value if call.excinfo else "skipped"
        report.outcome = "failed"
        report.longrepr = f"CI must run tests marked {' and '.join(markers)}: {reason}"

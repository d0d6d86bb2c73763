"""Pytest plugin: the table of what the tests have measured.

`record` notes a figure; the file that EARTHGPTX_CHAOS_JSON names gets all of them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

FIGURES: dict[str, float | str] = {}
Record = Callable[[str, float | str], None]


@pytest.fixture
def record() -> Record:
    """Notes a figure for the table and for the file that EARTHGPTX_CHAOS_JSON names."""
    return FIGURES.__setitem__


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.when == "call" and "chaos" in item.keywords:
        FIGURES.setdefault("cells", 0)
        FIGURES.setdefault("cells_wrong", 0)
        FIGURES["cells"] = float(FIGURES["cells"]) + 1
        FIGURES["cells_wrong"] = float(FIGURES["cells_wrong"]) + report.failed


def pytest_sessionfinish() -> None:
    target = os.environ.get("EARTHGPTX_CHAOS_JSON")
    if target and FIGURES:
        Path(target).write_text(json.dumps(FIGURES, indent=1))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for name, value in FIGURES.items():
        terminalreporter.write_line(f"{name}: {value}")

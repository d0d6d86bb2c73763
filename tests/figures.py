"""Pytest plugin: the table of what the tests have measured.

`record` notes a figure. The file that EARTHGPTX_CHAOS_JSON names gets all of them; figures that it
already has of other tests stay. Workers of pytest-xdist hand theirs to the controller in reports.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

FIGURES: dict[str, float | str] = {}
Record = Callable[[str, float | str], None]


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Record:
    """Notes a figure for the table and for the file that EARTHGPTX_CHAOS_JSON names."""

    def note(name: str, value: float | str) -> None:
        request.node.user_properties.append((f"figure {name}", value))

    return note


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Counts the cells of the matrix: a test that could not be set up is a wrong one."""
    if "chaos" not in report.keywords or report.skipped:
        return
    if report.when == "call" or report.failed:
        _add("cells", 1)
        _add("cells_wrong", int(report.failed))
    if report.when == "call":
        for name, value in report.user_properties:
            if name.startswith("figure "):
                assert isinstance(value, float | int | str)
                FIGURES[name.removeprefix("figure ")] = value


def _add(name: str, count: int) -> None:
    FIGURES[name] = int(FIGURES.get(name, 0)) + count


def pytest_sessionfinish(session: pytest.Session) -> None:
    target = Path(os.environ.get("EARTHGPTX_CHAOS_JSON", ""))
    if not target.name or not FIGURES or hasattr(session.config, "workerinput"):
        return
    before = json.loads(target.read_text()) if target.exists() else {}
    for name in ("cells", "cells_wrong"):
        _add(name, before.pop(name, 0))
    target.write_text(json.dumps(before | FIGURES, indent=1) + "\n")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for name, value in FIGURES.items():
        terminalreporter.write_line(f"{name}: {value}")

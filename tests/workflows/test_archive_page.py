"""The commands of `docs/archive.md` run as they stand."""

from __future__ import annotations

from pathlib import Path

import pytest

from earthgptx import open_result
from tests import REPO
from tests.pages import run_page


@pytest.mark.slow
def test_the_page_on_growing_results_runs_as_it_stands(tmp_path: Path) -> None:
    said = run_page(REPO / "docs" / "archive.md", tmp_path)
    assert "nothing to do" in said
    result = open_result(str(tmp_path / "results" / "watch.zarr"))
    assert list(result.slices["state"]) == ["finished"] * 5
    assert list(result.slices["items"]) == [3] * 5
    assert result.objects["track_id"].nunique() < len(result.objects)
    kept = open_result(f"icechunk+{tmp_path / 'results' / 'kept.zarr'}", tag="2026-01-14")
    assert [row.name for row in kept.time_slices] == ["2026-01-14"]

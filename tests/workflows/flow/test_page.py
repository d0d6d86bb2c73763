"""The commands of `docs/workflows.md` run as they stand."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from earthgptx import open_result
from tests import REPO
from tests.pages import run_page


@pytest.mark.slow
def test_the_page_on_flows_runs_as_it_stands(tmp_path: Path) -> None:
    said = run_page(REPO / "docs" / "workflows.md", tmp_path)
    assert "nothing to do: look" in said
    ships, looks = (open_result(str(tmp_path / f"results/{n}.zarr")) for n in ("ships", "look"))
    assert list(ships.slices["state"]) == ["finished"] * 5
    assert list(looks.slices["state"]) == ["finished"] * 3
    assert set(looks.answers["prompt_id"]) <= set(ships.objects["object_id"].astype(str))
    rows = list(csv.DictReader((tmp_path / "tables/ports.csv").open()))
    assert {row["area"] for row in rows} == {"west", "east"}
    assert sum(int(row["objects"]) for row in rows) >= len(ships.objects) * 0.9

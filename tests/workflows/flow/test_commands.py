"""Flows from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from earthgptx.pipeline.errors import Interrupted
from earthgptx.workflows.flow import watching
from tests.archive import Archive
from tests.growing import NAMES, growing_archive
from tests.workflows.flow.test_flow import COUNT, PUBLISH, write_flow
from tests.workflows.test_cli import earthgptx


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, ray_two: None) -> Archive:
    return growing_archive(tmp_path_factory.mktemp("flows"))


def test_plan_run_and_status(archive: Archive, tmp_path: Path) -> None:
    path = write_flow(archive, tmp_path, {"check": {"failed": 0}}, COUNT, PUBLISH)
    archive.publish(NAMES[:3])
    planned = json.loads(earthgptx("workflow", "plan", path, "--json")[0])
    assert [step["step"] for step in planned["steps"]] == [
        "ships",
        "look",
        "check",
        "select",
        "publish",
    ]
    assert planned["jobs"][0]["shares"]["missing"]["slices"] == 2
    assert planned["jobs"][1]["refusal"] == "waits for the objects of ships"
    said, _ = earthgptx("workflow", "run", path)
    assert "done: ships (job" in said
    assert "2 results in" in said
    ran = json.loads(earthgptx("workflow", "run", path, "--json")[0])
    assert [step["outcome"] for step in ran[:3]] == ["nothing to do"] * 3
    states = json.loads(earthgptx("workflow", "status", path, "--json")[0])
    assert [(each["state"], each["slices"]) for each in states] == [("finished", 2)] * 2
    anew = json.loads(earthgptx("workflow", "run", path, "--overwrite", "look", "--json")[0])
    assert [step["outcome"] for step in anew[:2]] == ["nothing to do", "done"]
    _, said = earthgptx("workflow", "run", path, "--overwrite", "loki", code=2)
    assert "'loki' is no job of the flow; there are ships, look" in said


@pytest.mark.slow
def test_a_backfill_goes_through_its_range_and_says_what_is_there(
    archive: Archive, tmp_path: Path
) -> None:
    path = write_flow(archive, tmp_path)
    archive.publish(NAMES)
    said, _ = earthgptx(
        "backfill",
        path,
        "--from",
        "2026-01-01",
        "--to",
        "2026-01-06",
        "--chunk",
        "P2D",
        "--newest-first",
    )
    at = [said.index(f"{number} of 3: 2026-01-0{day}") for number, day in ((1, 5), (2, 3), (3, 1))]
    assert at == sorted(at)
    again = json.loads(
        earthgptx("backfill", path, "--from", "2026-01-01", "--to", "2026-01-06", "--json")[0]
    )
    for each in again:
        assert {state: share["slices"] for state, share in each["shares"].items()} == {
            "complete": 3
        }
    _, said = earthgptx("backfill", path, "--from", "2026", "--to", "2025", code=2)
    assert "ends before it starts" in said


def test_a_watch_looks_again_and_ends_cleanly(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_flow(archive, tmp_path)
    archive.publish(NAMES[:1])
    looks: list[float] = []

    def wait(until: float) -> None:
        looks.append(until)
        archive.publish(NAMES[:3])
        if len(looks) == 2:
            raise Interrupted("interrupted")

    monkeypatch.setattr(watching, "wait", wait)
    said, _ = earthgptx("watch", path, "--every", "PT10M")
    assert said.count("done: ships (job") == 2
    assert said.rstrip().endswith("ended")
    _, said = earthgptx("watch", path, "--every", "10", code=2)
    assert "--every: '10' is no duration" in said


def test_a_schedule_is_printed_or_written(archive: Archive, tmp_path: Path) -> None:
    path = write_flow(archive, tmp_path)
    said, _ = earthgptx("schedule", path, "--every", "0 6 * * *")
    assert said.startswith("0 6 * * * ")
    assert "workflow run" in said
    said, _ = earthgptx(
        "schedule", path, "--every", "0 6 * * *", "--to", "systemd", "--out", tmp_path / "units"
    )
    assert {each.name for each in (tmp_path / "units").iterdir()} == {
        "earthgptx-watch.service",
        "earthgptx-watch.timer",
    }
    _, said = earthgptx("schedule", path, "--every", "often", code=2)
    assert "'often' is no cron line" in said
    _, said = earthgptx("schedule", path, "--every", "0 6 * * *", "--to", "kuberay", code=2)
    assert "is a local path, which a cluster does not reach" in said

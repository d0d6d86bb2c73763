"""Flows over a small archive: what has changed is done, what fails is told, the rest goes on."""

from __future__ import annotations

import csv
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import geopandas as gpd
import pystac
import pytest
import yaml
from structlog.testing import capture_logs

from earthgptx import open_result
from earthgptx.pipeline.engine import run as engine
from earthgptx.pipeline.engine.output import prepare_output
from earthgptx.pipeline.errors import Interrupted, JobError, Outage, OutputError
from earthgptx.workflows.flow.notify import SIGNATURE, tell
from earthgptx.workflows.flow.running import Flow, StepReport, exit_code, run_flow
from earthgptx.workflows.flow.spec import Notify
from earthgptx.workflows.flow.survey import states_of, survey_flow
from tests.archive import Archive
from tests.growing import GRID, NAMES, growing_archive

ASKED = {"from": "ships", "where": "area_m2 > 13000", "grow_m": 30, "within": "PT12H"}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, ray_two: None) -> Archive:
    return growing_archive(tmp_path_factory.mktemp("flows"))


def write_flow(archive: Archive, folder: Path, *steps: dict[str, Any], **more: Any) -> Path:
    """A flow of two jobs, the second of which asks about objects of the first."""
    folder.mkdir(exist_ok=True)
    for name, tasks in (("ships", {"find": ["target"]}), ("look", {"refer": True, "find": []})):
        job = archive.job("x.zarr", grid=GRID, tasks={"find": ["target"]})
        document = job.model_dump(mode="json", by_alias=True, exclude_none=True)
        document |= {"name": name, "output": f"results/{name}.zarr", "tasks": tasks}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(document))
    jobs = [{"job": "ships.yaml"}, {"job": "look.yaml", "prompts": ASKED}]
    flow = {"name": "watch", "steps": [*jobs, *steps], **more}
    (folder / "flow.yaml").write_text(yaml.safe_dump(flow))
    return folder / "flow.yaml"


def outcomes(reports: list[StepReport]) -> dict[str, str]:
    return {report.name: report.outcome for report in reports}


PUBLISH = {"publish": "catalog"}
COUNT = {"select": {"from": "ships", "count_by": ["slice"], "to": "tables/ships.csv"}}


def test_a_flow_grows_with_its_archive_and_publishes(archive: Archive, tmp_path: Path) -> None:
    path = write_flow(archive, tmp_path, {"check": {"failed": 0, "empty": 0.9}}, COUNT, PUBLISH)
    archive.publish([NAMES[0]])
    assert [(each.name, each.refusal) for each in survey_flow(Flow.read(path))] == [
        ("ships", ""),
        ("look", "waits for the objects of ships"),
    ]
    assert [each.state for each in states_of(Flow.read(path))] == ["missing", "missing"]
    first = run_flow(Flow.read(path))
    assert outcomes(first) == dict.fromkeys(["ships", "look", "check", "select", "publish"], "done")
    assert exit_code(first) == 0
    again = outcomes(run_flow(Flow.read(path)))
    assert [again[name] for name in ("ships", "look", "publish")] == ["nothing to do"] * 3

    archive.publish([NAMES[0], NAMES[2]])
    assert survey_flow(Flow.read(path))[0].shares["missing"].slices == 1
    assert outcomes(run_flow(Flow.read(path)))["look"] == "done"
    assert [(each.slices, each.last) for each in states_of(Flow.read(path))] == [
        (2, "2026-01-02"),
        (2, "2026-01-02"),
    ]
    rows = list(csv.DictReader((tmp_path / "tables/ships.csv").open()))
    ships = open_result(str(tmp_path / "results/ships.zarr"))
    assert sum(int(row["objects"]) for row in rows) == len(ships.objects)
    asked = set(open_result(str(tmp_path / "results/look.zarr")).answers["prompt_id"])
    assert asked == set(ships.query(where=ASKED["where"])["object_id"].astype(str))

    catalog = pystac.Catalog.from_file(str(tmp_path / "catalog/catalog.json"))
    items = {item.id: item for item in catalog.get_items(recursive=True)}
    assert set(items) == {"ships", "look"}
    for item in items.values():
        assert item.get_collection().id == "watch"  # type: ignore[union-attr]
        assert Path(item.assets["raster"].get_absolute_href() or "").is_dir()
    (tmp_path / "catalog/catalog.json").write_text('{"type": "Catalog", "id": "other"}')
    foreign = run_flow(Flow.read(path))
    assert outcomes(foreign)["publish"] == "failed"
    assert "was not written by earthgptx" in foreign[-1].said


def test_what_does_not_hold_is_not_published(archive: Archive, tmp_path: Path) -> None:
    path = write_flow(archive, tmp_path, {"check": {"objects": [0, 3]}, "of": ["ships"]}, PUBLISH)
    archive.publish([NAMES[0]])
    reports = run_flow(Flow.read(path))
    assert outcomes(reports) == {
        "ships": "done",
        "look": "done",
        "check": "failed",
        "publish": "skipped",
    }
    # Nor by a run over another time, which finds nothing that is new.
    assert outcomes(run_flow(Flow.read(path, time="2026-01-05")))["publish"] == "skipped"
    assert exit_code(reports) == 1
    assert reports[2].said.startswith("objects ")
    assert "of 2026-01-01 is not 0 to 3" in reports[2].said
    assert not (tmp_path / "catalog").exists()
    assert open_result(str(tmp_path / "results/ships.zarr")).state == "finished"
    # Somebody has looked at it.
    checks = {"check": {"objects": [0, 3], "accept": ["2026-01-01"]}, "of": ["ships"]}
    reports = run_flow(Flow.read(write_flow(archive, tmp_path, checks, PUBLISH)))
    assert outcomes(reports)["publish"] == "done"


def test_objects_are_kept_in_a_table_of_each_kind(archive: Archive, tmp_path: Path) -> None:
    keep = {"from": "ships", "where": "score > 0.6"}
    kinds = [".csv", ".parquet", ".geojson"]
    selects = [{"select": {**keep, "to": f"tables/kept{suffix}"}} for suffix in kinds]
    path = write_flow(archive, tmp_path, *selects)
    archive.publish([NAMES[0]])
    reports = run_flow(Flow.read(path))
    assert [report.outcome for report in reports[2:]] == ["done"] * 3, reports[-1].said
    kept = open_result(str(tmp_path / "results/ships.zarr")).query(where="score > 0.6")
    tables = tmp_path / "tables"
    features = json.loads((tables / "kept.geojson").read_text())["features"]
    found = [
        {row["object_id"] for row in csv.DictReader((tables / "kept.csv").open())},
        set(gpd.read_parquet(tables / "kept.parquet")["object_id"].astype(str)),
        {feature["properties"]["object_id"] for feature in features},
    ]
    assert found == [set(kept["object_id"].astype(str))] * 3
    assert len(list(tables.iterdir())) == 3, "nothing half-written is left"


def test_a_fault_in_one_step_ends_no_other(archive: Archive, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    wrong = {"select": {"from": "ships", "to": "file/x.csv"}, "name": "wrong"}
    areas = {"select": {"from": "ships", "areas": "a.geojson", "to": "x.csv"}, "name": "areas"}
    (tmp_path / "a.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    path = write_flow(archive, tmp_path, wrong, areas, PUBLISH)
    archive.publish([NAMES[0]])
    reports = {report.name: report for report in run_flow(Flow.read(path))}
    assert reports["wrong"].outcome == "failed"
    assert "cannot be written" in reports["wrong"].said
    assert reports["areas"].outcome == "failed"
    assert reports["publish"].outcome == "done"
    item = tmp_path / "results/ships.item.json"
    item.write_text("[]")
    again = {report.name: report for report in run_flow(Flow.read(path))}
    assert again["ships"].outcome == "failed", "it may be somebody else's"
    assert again["publish"].outcome == "skipped"
    item.unlink()
    mended = {report.name: report for report in run_flow(Flow.read(path))}
    assert mended["publish"].outcome in ("done", "nothing to do"), mended["publish"].said


def test_what_fails_is_told_and_the_rest_goes_on(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_flow(archive, tmp_path, {"job": "other.yaml"})
    other = yaml.safe_load((tmp_path / "ships.yaml").read_text()) | {"output": "results/o.zarr"}
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(other))
    archive.publish([NAMES[0]])
    failures: list[Exception] = []

    def failing(plan: Any, *given: Any, **more: Any) -> None:
        if plan.spec.output.endswith("ships.zarr"):
            raise failures[-1]
        prepare_output(plan, *given, **more)

    monkeypatch.setattr(engine, "prepare_output", failing)
    for failure, code in ((Outage("the store is away"), 3), (OutputError("no room for it"), 2)):
        failures.append(failure)
        reports = run_flow(Flow.read(path))
        assert outcomes(reports)["ships"] == "failed"
        assert outcomes(reports)["look"] == "skipped"
        assert outcomes(reports)["other"] in ("done", "nothing to do")
        assert (exit_code(reports), reports[1].said) == (code, "needs ships")
    failures.append(Interrupted("interrupted"))
    with pytest.raises(Interrupted):
        run_flow(Flow.read(path))


def test_a_job_without_items_yet_is_passed_over(archive: Archive, tmp_path: Path) -> None:
    path = write_flow(archive, tmp_path)
    archive.publish([NAMES[0]])
    reports = run_flow(Flow.read(path, time="2020"))
    assert outcomes(reports) == {"ships": "no items", "look": "skipped"}
    assert exit_code(reports) == 0


def test_two_jobs_of_one_output_are_refused(archive: Archive, tmp_path: Path) -> None:
    path = write_flow(archive, tmp_path, {"job": "ships.yaml", "name": "again"})
    with pytest.raises(JobError, match=r"steps 'ships' and 'again' have one output"):
        Flow.read(path)


def test_a_job_file_is_a_flow_of_one_step(archive: Archive, tmp_path: Path) -> None:
    write_flow(archive, tmp_path)
    flow = Flow.read(tmp_path / "ships.yaml", time="2026-01-02")
    assert [node.name for node in flow.nodes] == ["ships"]
    assert flow.jobs["ships"].source.time == "2026-01-02"


@pytest.fixture
def hook() -> Iterator[tuple[str, list[tuple[dict[str, str], bytes]]]]:
    told: list[tuple[dict[str, str], bytes]] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            told.append((dict(self.headers), body))
            self.send_response(302 if self.path == "/moved" else 204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", told
    server.shutdown()


def test_the_end_of_a_run_is_told_and_signed(
    hook: tuple[str, list[tuple[dict[str, str], bytes]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, told = hook
    monkeypatch.setenv("HOOK_KEY", "secret")
    report = StepReport(name="ships", kind="job", outcome="failed", code=3, said="down")
    assert tell(Notify(url=url, secret="HOOK_KEY"), "watch", [report])
    headers, body = told[0]
    assert headers[SIGNATURE] == f"sha256={hmac.new(b'secret', body, hashlib.sha256).hexdigest()}"
    document = json.loads(body)
    assert (document["flow"], document["state"], document["exit_code"]) == ("watch", "error", 3)
    assert document["steps"][0]["said"] == "down"
    assert not tell(Notify(url=f"{url}/moved"), "watch", [report]), "a redirect is not followed"
    with capture_logs() as logged:
        assert not tell(Notify(url="http://127.0.0.1:1/SECRET?token=SECRET"), "watch", [report])
    assert "SECRET" not in str(logged)
    with pytest.raises(JobError, match="no variable NOT_SET"):
        tell(Notify(url=url, secret="NOT_SET"), "watch", [report])

"""What the schedulers that people have are given."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml

from earthgptx.pipeline.errors import JobError
from earthgptx.workflows.flow.running import Flow
from earthgptx.workflows.schedule.cron import calendar_of, parse_cron
from earthgptx.workflows.schedule.kuberay import cluster, manifests
from earthgptx.workflows.schedule.local import crontab_line, systemd_units
from tests import REPO
from tests.infra.test_manifests import schema_of


@pytest.mark.parametrize(
    ("cron", "calendar"),
    [
        ("0 6 * * *", "*-*-* 06:00:00"),
        ("*/20 * * * *", "*-*-* *:00,20,40:00"),
        ("30 4 1,15 * *", "*-*-01,15 04:30:00"),
        ("0 0 * 1-3 mon-fri", "Mon,Tue,Wed,Thu,Fri *-01,02,03-* 00:00:00"),
        ("5 8 * * 7", "Sun *-*-* 08:05:00"),
        ("0 22 * jan,dec *", "*-01,12-* 22:00:00"),
        ("10-59/20 1-5/2 * * *", "*-*-* 01,03,05:10,30,50:00"),
    ],
)
def test_cron_as_a_calendar_of_systemd(cron: str, calendar: str) -> None:
    assert calendar_of(parse_cron(cron)) == calendar
    if shutil.which("systemd-analyze"):
        subprocess.run(["systemd-analyze", "calendar", calendar], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0 6 * *", "has 4 fields, not five"),
        ("daily", "has 1 fields"),
        ("60 6 * * *", "minute 60 is not 0 to 59"),
        ("0 24 * * *", "hour 24 is not 0 to 23"),
        ("0 6 0 * *", "day of the month 0 is not 1 to 31"),
        ("0 6 * 13 *", "month 13 is not 1 to 12"),
        ("0 6 * * 8", "day of the week 8"),
        ("0 6 * * noday", "day of the week noday"),
        ("0 9-6 * * *", "ends before it starts"),
        ("*/0 * * * *", "a step of 0"),
        ("0 6 * * * ; rm", "has 7 fields"),
        ("a|b 6 * * *", "minute 'a|b' cannot be read"),
        ("٣ 6 * * *", "cannot be read"),
        ("5/10 6 * * *", "has a step, but no range"),
    ],
)
def test_a_line_that_is_none_is_refused(text: str, said: str) -> None:
    with pytest.raises(JobError, match=said.replace("|", r"\|")):
        parse_cron(text)


def test_days_of_month_and_week_together_are_no_calendar() -> None:
    with pytest.raises(JobError, match="make two schedules"):
        calendar_of(parse_cron("0 6 1 * mon"))


JOB = """
name: {name}
source:
  catalog: {catalog}
  collections: [made]
  aoi: aoi.geojson
tasks: {{find: [ship]}}
output: {output}
"""
AOI = '{"type": "Polygon", "coordinates": [[[5, 42], [6, 42], [6, 43], [5, 42]]]}'


def flow_file(folder: Path, **more: str) -> Path:
    folder.mkdir(exist_ok=True)
    named = {"catalog": "https://example.com/stac", "output": "s3://bucket/a.zarr"} | more
    (folder / "ships.yaml").write_text(JOB.format(name="ships", **named))
    (folder / "aoi.geojson").write_text(AOI)
    (folder / "flow.yaml").write_text(
        "name: Daily-Ships\nsteps: [{job: ships.yaml}, {check: {failed: 0.1}}, {publish: 's3://bucket/catalog'}]\n"
    )
    return folder / "flow.yaml"


def test_local_schedulers_run_the_flow_wherever_they_stand(tmp_path: Path) -> None:
    flow = flow_file(tmp_path / "a folder with 100% of it")
    cron = parse_cron("0 6 * * *")
    line = crontab_line(flow, cron)
    assert line.startswith("0 6 * * * ")
    assert r"100\% of it/flow.yaml' >> " in line
    assert "%" not in line.replace(r"\%", "")
    units = systemd_units(flow, "daily", cron)
    assert "OnCalendar=*-*-* 06:00:00" in units["earthgptx-daily.timer"]
    assert "RestartForceExitStatus=3" in units["earthgptx-daily.service"]
    assert "100%% of it\nEnvironmentFile" in units["earthgptx-daily.service"]
    assert '100%% of it/flow.yaml"' in units["earthgptx-daily.service"]
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    for name, text in units.items():
        (tmp_path / name).write_text(text)
    found = subprocess.run(
        ["systemd-analyze", "--user", "verify", *map(str, tmp_path.glob("earthgptx-*"))],
        capture_output=True,
        text=True,
        check=False,
    )
    ours = [line for line in found.stderr.splitlines() if "earthgptx-" in line]
    assert not ours, ours


def test_the_manifests_are_what_kuberay_takes(tmp_path: Path, data: Path) -> None:
    path = flow_file(tmp_path / "flow")
    text = manifests(
        path, Flow.read(path), parse_cron("0 6 * * *"), zone="Etc/UTC", image="earthgptx:latest"
    )
    settings, job = yaml.safe_load_all(text)
    assert set(settings["data"]) == {"flow.yaml", "ships.yaml", "aoi.geojson"}
    schema = schema_of(data / "kuberay-crds" / "ray.io_raycronjobs.yaml", "v1")
    jsonschema.validate(job, schema)
    assert job["spec"]["jobTemplate"]["entrypoint"] == "earthgptx workflow run /flow/flow.yaml"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**job, "spec": {**job["spec"], "schedule": 6}}, schema)


def test_names_and_zones_are_those_of_kubernetes(tmp_path: Path) -> None:
    path = flow_file(tmp_path / "flow")
    odd = path.rename(path.with_name("my flow;id.yaml"))
    cron = parse_cron("0 6 * * *")
    settings, job = yaml.safe_load_all(
        manifests(odd, Flow.read(odd), cron, zone="Etc/UTC", image="x")
    )
    assert "my_flow_id.yaml" in settings["data"]
    assert job["spec"]["jobTemplate"]["entrypoint"].endswith(" /flow/my_flow_id.yaml")
    path = odd.rename(path)
    with pytest.raises(JobError, match="is no time zone"):
        manifests(path, Flow.read(path), cron, zone="Mars/Olympus", image="x")
    path.write_text(path.read_text().replace("Daily-Ships", f"2026.{'x' * 90}"))
    _, job = yaml.safe_load_all(manifests(path, Flow.read(path), cron, zone="Etc/UTC", image="x"))
    assert re.fullmatch(r"flow-2026-x{30,}", job["metadata"]["name"])
    assert len(job["metadata"]["name"]) <= 40


def test_the_cluster_is_that_of_the_manifest_that_is_written_by_hand() -> None:
    by_hand = yaml.safe_load((REPO / "infra/rayjob.yaml").read_text())["spec"]["rayClusterSpec"]
    text = yaml.safe_dump(by_hand).replace("/job", "/flow").replace("harbour", "flow")
    text = text.replace("name: job\n", "name: flow\n")
    assert yaml.safe_load(text) == cluster("flow", "earthgptx:latest")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"catalog": "archive/catalog.json"}, "source.catalog .* is a local path"),
        ({"output": "results/a.zarr"}, "output .* is a local path"),
        ({"output": "icechunk+results/a.zarr"}, "output .* is a local path"),
        ({"output": "s3://bucket/a.zarr\nmodel: weights/nano"}, "model .* is a local path"),
    ],
)
def test_what_a_cluster_cannot_reach_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, str], said: str
) -> None:
    (tmp_path / "weights/nano").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    path = flow_file(tmp_path / "flow", **more)
    with pytest.raises(JobError, match=said):
        manifests(path, Flow.read(path), parse_cron("0 6 * * *"), zone="Etc/UTC", image="x")

"""Jobs through a real Ray job server: sent with what they need, listed, followed, canceled; and
what Prometheus hears of them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import urlopen

import geopandas as gpd
import pytest
import shapely
import yaml

from earthgptx import open_result
from tests import REPO
from tests.archive import Archive, targets
from tests.clusters import JobServer, free_port, job_server
from tests.growing import GRID


@pytest.fixture(scope="module")
def server() -> Iterator[JobServer]:
    with (
        job_server(RAY_metrics_report_interval_ms="1000") as made,
        pytest.MonkeyPatch.context() as m,
    ):
        for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_ADDRESS", "PYTHONPATH"):
            m.setenv(name, made.environment[name])
        m.setenv("RAY_API_SERVER_ADDRESS", made.address)
        yield made


@pytest.fixture
def scene(archive: Archive) -> Archive:
    archive.add("a", targets(3)[:300, :500], nodata=None)
    archive.save()
    return archive


def earthgptx(*arguments: object, code: int = 0, **env: str) -> tuple[str, str]:
    """What a command says; in a process of its own, as Ray reads the token once in a process."""
    ended = subprocess.run(
        [sys.executable, "-m", "earthgptx", *map(str, arguments)],
        env=os.environ | env,
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ended.returncode == code, ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr
    return ended.stdout, ended.stderr


def job_file(archive: Archive, folder: Path, name: str = "out", **more: Any) -> Path:
    """A job whose AOI is a file beside it; its catalog and output lie in `folder`."""
    path = folder / f"{name}.yaml"
    job = archive.job(folder / f"{name}.zarr", name=name, **more)
    document = job.model_dump(mode="json", by_alias=True, exclude_none=True)
    ground = shapely.from_wkt(document["source"]["aoi"]["wkt"])
    aoi = gpd.GeoDataFrame(geometry=[ground], crs="OGC:CRS84")
    aoi.to_file(folder / "aoi.geojson")
    document["source"]["aoi"] = "aoi.geojson"
    path.write_text(yaml.safe_dump(document))
    return path


def jobs() -> dict[str, dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(earthgptx("jobs", "--json")[0])
    return {each["name"]: each for each in reversed(found)}  # the newest of each name


def test_a_job_is_sent_with_its_aoi_and_its_log_and_code_come_back(
    server: JobServer, scene: Archive, tmp_path: Path
) -> None:
    job = job_file(scene, tmp_path, "first")
    said, _ = earthgptx("submit", job, "--wait", "--shared", tmp_path)
    assert "submitted raysubmit_" in said
    assert "12 tiles analysed" in said
    assert open_result(str(tmp_path / "first.zarr")).state == "finished"
    listed = jobs()["first"]
    assert (listed["state"], listed["exit_code"]) == ("finished", 0)
    assert listed["outputs"] == str(tmp_path / "first.zarr")
    assert "12 tiles analysed" in earthgptx("jobs", "logs", listed["id"])[0]

    other = job_file(scene, tmp_path, "first", tasks={"find": ["other"]})
    said, _ = earthgptx("submit", other, "--wait", "--shared", tmp_path, code=2)
    assert "holds the result of another series" in said
    earthgptx("jobs", "wait", jobs()["first"]["id"], code=2)

    deadline = time.monotonic() + 30
    while 'job_name="first"' not in (told := scraped(server)):
        assert time.monotonic() < deadline, "nothing is counted"
        time.sleep(0.5)
    counts = re.findall(r'^ray_earthgptx_tiles_total{.*outcome="(\w+)".*} (\S+)$', told, re.M)
    assert {name: float(count) for name, count in counts}["done"] == 12


def scraped(server: JobServer) -> str:
    with urlopen(f"http://127.0.0.1:{server.metrics_port}/metrics") as answer:
        text: str = answer.read().decode()
    return text


@pytest.mark.slow
def test_a_running_job_has_metrics_and_is_canceled(
    server: JobServer, archive: Archive, tmp_path: Path
) -> None:
    archive.add("a", targets(3, (1000, 1000)), nodata=None)
    archive.save()
    job = job_file(archive, tmp_path, "slow", model="tests.analysts:Sleeping", grid=GRID)
    said, _ = earthgptx("submit", job, "--shared", tmp_path)
    assert "earthgptx jobs logs raysubmit_" in said
    job_id = said.split()[1]
    check_queries(server)
    assert earthgptx("jobs", "cancel", job_id)[0] == f"{job_id} ends\n"
    assert "was canceled" in earthgptx("jobs", "wait", job_id, code=1)[1]
    assert jobs()["slow"]["state"] == "canceled"
    assert "had ended: canceled" in earthgptx("jobs", "cancel", job_id)[0]
    assert open_result(str(tmp_path / "slow.zarr")).state == "canceled"


def check_queries(server: JobServer) -> None:
    """Prometheus scrapes the run; each query of the dashboard has an answer, and no rule fires."""
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed")
    dashboard = json.loads((REPO / "infra/grafana/dashboards/earthgptx.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    variables = {"$job_name": ".*", "$__rate_interval": "1m", "$__range": "5m"}
    with prometheus(server.metrics_port) as ask:
        deadline = time.monotonic() + 60
        for query in sorted(queries, key=lambda query: "state" not in query):
            for variable, value in variables.items():
                query = query.replace(variable, value)
            if any(word in query for word in ("gram", "failed", "failures")):
                ask(query)  # nothing failed, and there is no GPU
                continue
            while not ask(query):  # a rate needs two scrapes
                assert time.monotonic() < deadline, query
                time.sleep(1)
        rules = yaml.safe_load((REPO / "infra/prometheus/alerts.yml").read_text())
        for rule in rules["groups"][0]["rules"]:
            waits = "for" in rule  # it may begin for a moment
            assert waits or not ask(rule["expr"]), f"{rule['alert']} fires on a run that is well"


@contextmanager
def prometheus(target: int) -> Iterator[Callable[[str], list[Any]]]:
    """A Prometheus that scrapes one port of this machine; yields what asks it by PromQL."""
    port = free_port()
    config = {
        "global": {"scrape_interval": "1s"},
        "scrape_configs": [
            {"job_name": "ray", "static_configs": [{"targets": [f"127.0.0.1:{target}"]}]}
        ],
    }

    def ask(query: str) -> list[Any]:
        url = f"http://127.0.0.1:{port}/api/v1/query?query={quote(query)}"
        with urlopen(url) as answer:
            found: list[Any] = json.load(answer)["data"]["result"]
        return found

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            deadline = time.monotonic() + 30
            while not _answers(ask):
                assert time.monotonic() < deadline, "Prometheus does not start"
                time.sleep(0.2)
            yield ask
        finally:
            process.kill()
            process.wait()


def _answers(ask: Callable[[str], list[Any]]) -> bool:
    try:
        ask("up")
    except OSError:
        return False
    return True


def test_what_is_wrong_is_said_in_a_sentence(
    server: JobServer, scene: Archive, tmp_path: Path
) -> None:
    job = job_file(scene, tmp_path)
    said = earthgptx("submit", job, code=2)[1]
    assert "is a local path, which a cluster does not reach; name a URL" in said
    assert "has no job nowhere" in earthgptx("jobs", "logs", "nowhere", code=2)[1]
    away = f"http://127.0.0.1:{free_port()}"
    assert "does not answer" in earthgptx("jobs", "logs", "x", "--address", away, code=3)[1]
    assert "refuses" in earthgptx("jobs", code=2, RAY_AUTH_TOKEN="a-wrong-token")[1]
    assert "is no http:// or https:// address" in earthgptx("jobs", "--address", "x:1", code=2)[1]

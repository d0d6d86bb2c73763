"""A flow on a real Prefect server: deployed by the command, run by a worker, tried again after an
outage.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from tests import PATH, REPO
from tests.archive import Archive
from tests.clusters import free_port
from tests.growing import NAMES, growing_archive
from tests.workflows.flow.test_flow import write_flow

prefect = pytest.importorskip("prefect")


class Server:
    """A Prefect server in a process of its own."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}/api"
        self.environment = os.environ | {
            "PREFECT_HOME": str(folder),
            "PREFECT_API_URL": self.url,
            "PREFECT_LOGGING_LEVEL": "WARNING",
            "DO_NOT_TRACK": "1",
            "PYTHONPATH": PATH,
            "RAY_ADDRESS": "",
        }
        arguments = ["server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui"]
        self._process = self.start(*arguments)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "prefect", *arguments],
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def ask(self, path: str, **body: Any) -> Any:
        data = json.dumps(body).encode()
        request = Request(f"{self.url}{path}", data, {"Content-Type": "application/json"})
        with urlopen(request) as answer:
            return json.load(answer)

    def wait(self) -> None:
        deadline = time.monotonic() + 90
        while True:
            try:
                self.ask("/flows/filter")
                return
            except OSError:
                assert time.monotonic() < deadline, "the Prefect server does not start"
                time.sleep(0.5)

    def end(self) -> None:
        self._process.terminate()
        self._process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("prefect"))
    try:
        made.wait()
        yield made
    finally:
        made.end()


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return growing_archive(tmp_path_factory.mktemp("flows"))


def schedule(server: Server, flow: Path, *, code: int = 0, **env: str) -> str:
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "earthgptx", "schedule", str(flow)),
            *("--every", "0 6 * * *", "--to", "prefect", "--zone", "Europe/Berlin"),
        ],
        env=server.environment | env,
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == code, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


@pytest.mark.slow
def test_a_flow_is_deployed_and_run_by_a_worker(
    server: Server, archive: Archive, tmp_path: Path
) -> None:
    path = write_flow(archive, tmp_path, {"check": {"failed": 0}})
    archive.publish(NAMES[:2])
    said = schedule(server, path)
    assert "deployed: earthgptx/watch" in said
    assert "prefect worker start --pool earthgptx" in said
    [deployed] = server.ask("/deployments/filter")
    [planned] = deployed["schedules"]
    assert planned["schedule"]["cron"] == "0 6 * * *"
    assert planned["schedule"]["timezone"] == "Europe/Berlin"
    schedule(server, path)
    assert len(server.ask("/deployments/filter")) == 1, "the same name replaces it"

    run = server.ask(
        f"/deployments/{deployed['id']}/create_flow_run",
        parameters={"path": str(path), "time": "2026-01-01/2026-01-01"},
    )
    worker = server.start("worker", "start", "--pool", "earthgptx", "--run-once")
    try:
        ended = ended_run(server, run["id"])
    finally:
        worker.terminate()
        worker.wait()
    assert ended["state"]["type"] == "COMPLETED", ended["state"]
    assert ended["name"] == "watch 2026-01-01/2026-01-01"
    assert "ships: 1 time slices made" in ended["state"]["message"]
    tasks = server.ask("/task_runs/filter", flow_runs={"id": {"any_": [run["id"]]}})
    assert sorted(each["name"] for each in tasks) == [
        "check (check)",
        "look (job)",
        "ships (job)",
    ]
    assert (tmp_path / "results/ships.zarr").exists()


def ended_run(server: Server, name: str) -> dict[str, Any]:
    deadline = time.monotonic() + 180
    while True:
        [found] = server.ask("/flow_runs/filter", flow_runs={"id": {"any_": [name]}})
        if found["state"]["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
            return dict(found)
        assert time.monotonic() < deadline, found["state"]
        time.sleep(1)


AGAIN = """
import sys
from earthgptx.workflows.flow import running
from earthgptx.workflows.flow.running import StepReport
from earthgptx.workflows.schedule import on_prefect

on_prefect.PAUSES_S[:] = [0.0] * on_prefect.TRIES
for given in sys.argv[2:]:
    codes = [int(code) for code in given.split(",")]
    tried = []

    def run_step(flow, node, before, how):
        tried.append(node.name)
        code = codes.pop(0) if node.name == "ships" else 0
        return StepReport(
            name=node.name, kind="job", code=code, outcome="failed" if code else "done"
        )

    running.run_step = run_step
    state = on_prefect.run_file(sys.argv[1], return_state=True)
    print(state.type.value, *tried)
"""
ENDS = {
    "3,3,0": "COMPLETED ships ships ships look",
    "1": "FAILED ships look",
    "2": "FAILED ships look",
    "3,1": "FAILED ships ships look",
}
"""How a run ends, by the exit codes of its first step, one after the other."""


def test_an_outage_is_tried_again_and_nothing_else(
    server: Server, archive: Archive, tmp_path: Path
) -> None:
    path = write_flow(archive, tmp_path)
    ended = subprocess.run(
        [sys.executable, "-c", AGAIN, str(path), *ENDS],
        env=server.environment,
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.stdout.splitlines() == list(ENDS.values()), ended.stderr


def test_a_server_that_is_away_or_none_is_said(
    server: Server, archive: Archive, tmp_path: Path
) -> None:
    path = write_flow(archive, tmp_path)
    away = f"http://127.0.0.1:{free_port()}/api"
    assert "does not answer" in schedule(server, path, code=3, PREFECT_API_URL=away)
    said = schedule(server, path, code=2, PREFECT_API_URL="")
    assert "no Prefect server is configured: set PREFECT_API_URL" in said

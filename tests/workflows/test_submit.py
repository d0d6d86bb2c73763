"""A job through a real Ray job server: its log streamed, its exit code passed on."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from earthgptx import open_result
from tests import PATH, REPO
from tests.archive import Archive, targets

TOKEN = "a-token-for-a-test"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    bin_folder = str(Path(sys.executable).parent)
    return os.environ | {
        "PYTHONPATH": PATH,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": TOKEN,
        "RAY_ADDRESS": "",
        "PATH": f"{bin_folder}:{os.environ['PATH']}",
    }


@pytest.fixture(scope="module")
def server(environment: dict[str, str]) -> Iterator[str]:
    """A cluster of one node with a job server that wants a token."""
    port, folder = free_port(), tempfile.mkdtemp(prefix="ray", dir="/tmp")
    ray = str(Path(sys.executable).parent / "ray")
    head = subprocess.Popen(
        [
            ray,
            "start",
            "--head",
            "--block",
            f"--port={free_port()}",
            f"--dashboard-port={port}",
            f"--dashboard-agent-listen-port={free_port()}",
            "--dashboard-host=127.0.0.1",
            "--node-ip-address=127.0.0.1",
            "--num-cpus=2",
            f"--temp-dir={folder}",
            "--include-dashboard=true",
            "--disable-usage-stats",
        ],
        env={key: value for key, value in environment.items() if key != "RAY_ADDRESS"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{port}"
    # The server answers before the node's agent has registered, and takes no job until then.
    ready = (
        "import sys; from ray.job_submission import JobSubmissionClient as Client\n"
        "Client(sys.argv[1]).submit_job(entrypoint='true')"
    )
    deadline = time.monotonic() + 120
    while subprocess.run(
        [sys.executable, "-c", ready, address], env=environment, capture_output=True, check=False
    ).returncode:
        assert time.monotonic() < deadline, "the job server does not start"
        time.sleep(0.5)
    yield address
    os.killpg(head.pid, signal.SIGKILL)
    head.wait()
    shutil.rmtree(folder, ignore_errors=True)


def submit(job: Path, server: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "earthgptx", "submit", str(job), "--address", server, "--wait"],
        env=environment,
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def job_file(archive: Archive, folder: Path, **more: object) -> Path:
    path = folder / "job.yaml"
    document = archive.job(folder / "out.zarr", **more).model_dump(
        mode="json", by_alias=True, exclude_none=True
    )
    path.write_text(yaml.safe_dump(document))
    return path


def test_a_submitted_job_streams_its_log_and_passes_its_code_on(
    server: str, environment: dict[str, str], archive: Archive, tmp_path: Path
) -> None:
    archive.add("a", targets(3)[:300, :500], nodata=None)
    archive.save()
    ended = submit(job_file(archive, tmp_path), server, environment)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "submitted raysubmit_" in ended.stdout
    assert "12 tiles analysed" in ended.stdout
    assert open_result(str(tmp_path / "out.zarr")).state == "finished"
    refused = submit(job_file(archive, tmp_path, tasks={"find": ["other"]}), server, environment)
    assert refused.returncode == 2
    assert "holds the result of another series" in refused.stdout


def test_without_the_token_nothing_is_taken(
    server: str, environment: dict[str, str], archive: Archive, tmp_path: Path
) -> None:
    archive.add("a", targets(3)[:300, :500], nodata=None)
    archive.save()
    ended = submit(
        job_file(archive, tmp_path), server, environment | {"RAY_AUTH_TOKEN": "a-wrong-token"}
    )
    assert ended.returncode == 2
    assert "does not take the job" in ended.stderr
    assert "Traceback" not in ended.stderr

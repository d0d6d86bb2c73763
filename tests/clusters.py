"""A Ray cluster with a job server, in processes of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests import PATH

BIN = Path(sys.executable).parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True)
class JobServer:
    address: str
    metrics_port: int
    environment: dict[str, str]
    """What a client and the cluster have in common."""


@contextmanager
def job_server(token: str = "a-token-for-a-test", **settings: str) -> Iterator[JobServer]:
    """A cluster of one node that wants a token; `settings` are added to its environment."""
    port, metrics, folder = free_port(), free_port(), tempfile.mkdtemp(prefix="ray", dir="/tmp")
    environment = os.environ | {
        "PYTHONPATH": PATH,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        "RAY_ADDRESS": "",
        "PATH": f"{BIN}:{os.environ['PATH']}",
        **settings,
    }
    head = subprocess.Popen(
        [
            str(BIN / "ray"),
            "start",
            "--head",
            "--block",
            f"--port={free_port()}",
            f"--dashboard-port={port}",
            f"--dashboard-agent-listen-port={free_port()}",
            f"--metrics-export-port={metrics}",
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
    try:
        while subprocess.run(
            [sys.executable, "-c", ready, address],
            env=environment,
            capture_output=True,
            check=False,
        ).returncode:
            assert time.monotonic() < deadline, "the job server does not start"
            time.sleep(0.5)
        yield JobServer(address, metrics, environment)
    finally:
        os.killpg(head.pid, signal.SIGKILL)
        head.wait()
        shutil.rmtree(folder, ignore_errors=True)

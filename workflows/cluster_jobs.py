"""Jobs on a Ray cluster, by Ray Jobs: submitted, listed, followed, ended.

Their states are those of openEO's batch jobs.
"""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import aiohttp
from ray.exceptions import RayError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from earthgptx.pipeline.errors import JobError, Outage, OutputError, RunFailed
from earthgptx.workflows.flow.packing import pack
from earthgptx.workflows.flow.running import Flow

MOST_BYTES = 50_000_000
"""Bytes of all files of a job together; what is larger belongs to an address."""
STOP_S = 60
"""Seconds that a job may take to end when it is told to, before it is killed."""
OURS = "earthgptx"
"""Key of a Ray job's metadata with the command that it runs; jobs without are somebody else's."""
RAY_API_SERVER_ADDRESS = "RAY_API_SERVER_ADDRESS"
STATES = {
    JobStatus.PENDING: "queued",
    JobStatus.RUNNING: "running",
    JobStatus.STOPPED: "canceled",
    JobStatus.SUCCEEDED: "finished",
    JobStatus.FAILED: "error",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterJob:
    """A job that a cluster knows."""

    id: str
    name: str
    state: str
    """queued, running, canceled, finished or error."""
    submitted: str
    """Time in UTC, ISO 8601."""
    seconds: float | None
    """How long it has run; None if it has not begun."""
    exit_code: int | None
    """Exit code of its command; None while it runs, or if it was killed."""
    outputs: str
    """Addresses of its results, separated by spaces."""

    @classmethod
    def of(cls, details: JobDetails) -> ClusterJob:
        """Returns a job as Ray describes it, times in ms."""
        assert details.submission_id is not None, "only submitted jobs have our metadata"
        begun, ended = details.start_time, details.end_time
        now = datetime.now(UTC).timestamp() * 1000
        moment = datetime.fromtimestamp((begun or now) / 1000, UTC)
        state = STATES[details.status]
        return cls(
            id=details.submission_id,
            name=details.metadata.get("name", "") if details.metadata else "",
            state=state,
            submitted=f"{moment:%Y-%m-%dT%H:%M:%SZ}" if begun else "",
            seconds=round(((ended or now) - begun) / 1000, 1) if begun else None,
            exit_code=details.driver_exit_code if ended else None,
            outputs=details.metadata.get("outputs", "") if details.metadata else "",
        )


class ClusterJobs:
    """The jobs of a cluster.

    All that asks its server raises `Outage` if that does not answer, `OutputError` if it refuses.
    """

    def __init__(self, address: str) -> None:
        """Sets the URL of a cluster's job server. Ray reads the token from the environment.

        Raises:
            JobError: it is no http:// or https:// address.
        """
        if not address.startswith(("http://", "https://")):
            raise JobError(f"'{address}' is no http:// or https:// address of a job server")
        self.address = address
        logging.getLogger("ray.dashboard.modules.job.sdk").setLevel(logging.WARNING)

    @cached_property
    def _client(self) -> JobSubmissionClient:
        """The connection; asked for within `_answering`."""
        # Ray would take the address that the environment names before the one that is given.
        os.environ[RAY_API_SERVER_ADDRESS] = self.address
        return JobSubmissionClient(self.address)

    def submit(self, path: Path, *, shared: Sequence[str] = ()) -> str:
        """Submits a job file or a flow file, with the small files that it names; returns its id.

        The machines of the cluster have this package installed.

        Args:
            path: path of the file, which is validated before it is sent.
            shared: folders that all machines of the cluster share.

        Raises:
            JobError: the file is invalid, or names what the cluster does not reach.
        """
        flow = Flow.read(path)
        packed = pack(path, flow, most_bytes=MOST_BYTES, shared=shared)
        command = f"earthgptx {'run' if packed.is_job else 'workflow run'} {packed.main}"
        with tempfile.TemporaryDirectory() as folder, self._answering():
            for name, data in packed.files.items():
                (Path(folder) / name).write_bytes(data)
            found: str = self._client.submit_job(
                entrypoint=f"python -m {command}",
                runtime_env={
                    "working_dir": folder,
                    "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_S)},
                },
                metadata={
                    OURS: command,
                    "name": flow.spec.name,
                    "outputs": " ".join(job.output for job in flow.jobs.values()),
                },
            )
        return found

    def all(self) -> list[ClusterJob]:
        """Returns the jobs that this package has submitted, the newest first."""
        with self._answering():
            found = self._client.list_jobs()
        ours = [each for each in found if each.metadata and OURS in each.metadata]
        return [ClusterJob.of(each) for each in sorted(ours, key=_begun, reverse=True)]

    def get(self, job_id: str) -> ClusterJob:
        """Returns a job.

        Raises:
            JobError: there is none of this id.
        """
        for each in self.all():
            if each.id == job_id:
                return each
        raise JobError(f"{self.address} has no job {job_id}; `earthgptx jobs` lists those it has")

    def logs(self, job_id: str) -> str:
        """Returns what a job has printed until now."""
        self.get(job_id)
        with self._answering():
            found: str = self._client.get_job_logs(job_id)
        return found

    def cancel(self, job_id: str) -> ClusterJob:
        """Has a job end as by Ctrl-C, and keep what is finished; returns it as it was before."""
        job = self.get(job_id)
        if job.state in ("queued", "running"):
            with self._answering():
                self._client.stop_job(job_id)
        return job

    def wait(self, job_id: str, say: Callable[[str], None] = lambda _: None) -> int:
        """Waits until a job has ended; returns its exit code.

        Args:
            job_id: id of the job.
            say: called with pieces of its log.

        Raises:
            RunFailed: the job was stopped, or killed.
        """
        self.get(job_id)

        async def follow() -> None:
            async for lines in self._client.tail_job_logs(job_id):
                say(lines)

        with self._answering(RuntimeError):
            asyncio.run(follow())
        job = self.get(job_id)
        if job.state == "canceled":
            raise RunFailed(f"{job_id} was canceled; finished blocks are kept")
        if job.state in ("queued", "running"):
            raise Outage(f"{self.address} has ended the log of {job_id}, which still runs")
        return 0 if job.state == "finished" else job.exit_code or 1

    @contextmanager
    def _answering(self, *passing: type[Exception]) -> Iterator[None]:
        """Names the server in what goes wrong between it and us.

        Args:
            passing: errors that are outages beside those of the connection.
        """
        try:
            yield
        except (*passing, OSError, aiohttp.ClientError) as error:  # type: ignore[misc]
            raise Outage(
                f"the Ray job server at {self.address} does not answer: {_reason(error)}"
            ) from error
        except (RuntimeError, ValueError, RayError) as error:
            raise OutputError(
                f"the Ray job server at {self.address} refuses: {_reason(error)}"
            ) from error


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _begun(details: JobDetails) -> float:
    return float(details.start_time or 0)

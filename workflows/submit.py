"""Runs a job on a Ray cluster through Ray Jobs; streams its log and returns its exit code."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import yaml
from ray.exceptions import RayError
from ray.job_submission import JobStatus, JobSubmissionClient

from earthgptx.pipeline.errors import Outage, OutputError, RunFailed
from earthgptx.pipeline.job.spec import JobSpec


def submit_job(job: Path, address: str, *, wait: bool, say: Callable[[str], None]) -> int:
    """Submits a job file to a cluster whose machines have this package installed.

    Catalogs, AOIs and outputs that are local paths must be reachable from the cluster.

    Args:
        job: path of the job file, which is validated before it is sent.
        address: URL of the cluster's job server.
        wait: whether to wait until the job has ended.
        say: called with pieces of text to print, such as the log.

    Returns:
        The job's exit code; 0 if `wait` is False.

    Raises:
        JobError: the job file is invalid.
        Outage: the server does not answer.
        OutputError: the server rejects the job.
        RunFailed: the job was stopped from outside.
    """
    spec = JobSpec.from_yaml(job)
    document = yaml.safe_dump(
        spec.model_dump(mode="json", by_alias=True, exclude_none=True), sort_keys=False
    )
    try:
        client = JobSubmissionClient(address)
        job_id = client.submit_job(
            # The job file is sent as text; the paths in it are already absolute.
            entrypoint="python -m earthgptx.workflows.submitted_job",
            runtime_env={"env_vars": {"EARTHGPTX_JOB": document}},
            metadata={"name": spec.name},
        )
    except (ConnectionError, RuntimeError, ValueError, RayError) as error:
        reason = " ".join(str(error).split())
        kind = Outage if isinstance(error, ConnectionError) else OutputError
        raise kind(f"the Ray job server at {address} does not take the job: {reason}") from error
    say(f"submitted {job_id}\n")
    if not wait:
        say(f"follow it with: ray job logs --address {address} --follow {job_id}\n")
        return 0

    async def follow() -> None:
        async for lines in client.tail_job_logs(job_id):
            say(lines)

    asyncio.run(follow())
    info = client.get_job_info(job_id)
    if info.status == JobStatus.STOPPED:
        raise RunFailed(f"{job_id} was stopped; finished blocks are kept")
    if info.status == JobStatus.SUCCEEDED:
        return 0
    return info.driver_exit_code or 1

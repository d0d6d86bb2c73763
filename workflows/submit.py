"""A job on a Ray cluster, through Ray Jobs: its log streamed, its exit code passed on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import yaml
from ray.exceptions import RayError
from ray.job_submission import JobStatus, JobSubmissionClient

from pipeline.errors import OutputError, RunFailed
from pipeline.job import JobSpec


def submit_job(job: Path, address: str, *, wait: bool, say: Callable[[str], None]) -> int:
    """Submit a job file; the cluster's machines have this package installed.

    Catalogs, AOIs and outputs that are local paths must be reachable from the cluster.

    Args:
        job: the file; it is checked here before anything is sent.
        address: of the cluster's job server.
        wait: stay until the job has ended.
        say: told the log.

    Returns:
        The job's exit code; 0 where nobody waits for it.

    Raises:
        JobError: the file is wrong.
        OutputError: the server does not answer.
        RunFailed: the job was stopped from outside.
    """
    spec = JobSpec.from_yaml(job)
    document = yaml.safe_dump(spec.model_dump(mode="json", by_alias=True, exclude_none=True), sort_keys=False)
    try:
        client = JobSubmissionClient(address)
        job_id = client.submit_job(
            # The file arrives as text: the paths in it are already absolute.
            entrypoint="python -m workflows.job_text",
            runtime_env={"env_vars": {"EARTHGPTX_JOB": document}},
            metadata={"name": spec.name},
        )
    except (ConnectionError, RuntimeError, ValueError, RayError) as error:
        reason = " ".join(str(error).split())
        raise OutputError(f"the Ray job server at {address} does not take the job: {reason}") from error
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

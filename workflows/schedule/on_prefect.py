"""A flow on Prefect: one task run for each step; an outage is tried again, nothing else.

The only module that imports Prefect. A worker imports it to run what `deploy` has deployed.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import httpx
from prefect import State, flow, get_client, runtime, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.deployments.runner import DeploymentApplyError, RunnerDeployment
from prefect.exceptions import ObjectAlreadyExists, PrefectException
from prefect.schedules import Cron as Schedule
from prefect.settings import get_current_settings
from prefect.states import Completed
from prefect.types.entrypoint import EntrypointType

from earthgptx.pipeline.errors import JobError, Outage, OutputError
from earthgptx.workflows.flow.notify import tell
from earthgptx.workflows.flow.order import Node
from earthgptx.workflows.flow.running import (
    NOTHING,
    SKIPPED,
    Flow,
    StepReport,
    exit_code,
    run_flow,
)
from earthgptx.workflows.schedule.cron import Cron, check_zone

TRIES = 6
"""How often a step is tried again after an outage."""
PAUSES_S: list[float] = [60, 300, 600, 1800, 3600, 7200]
"""Seconds before each of them."""
OUTAGE = 3
"""Exit code of what may pass."""


class StepFailed(Exception):
    """A step has failed; its message is what has come of it."""


def _run_name() -> str:
    """Returns the name of a run: that of the flow, and the time that it is about."""
    given = runtime.flow_run.parameters
    start = runtime.flow_run.scheduled_start_time or datetime.now(UTC)
    name = given.get("name") or Path(given["path"]).stem
    return f"{name} {given.get('time') or f'{start:%Y-%m-%d %H:%M}'}"


@flow(name="earthgptx", flow_run_name=_run_name)
def run_file(
    path: str,
    time: str | None = None,
    *,
    name: str = "",  # noqa: ARG001  `_run_name` reads it
    retry_failed: bool = False,
) -> State:
    """Runs a flow of jobs; a step is a task.

    Args:
        path: path of the flow file.
        time: interval that replaces that of all jobs; empty to keep theirs.
        name: name of the flow, for that of the run; empty for that of the file.
        retry_failed: whether to infer blocks with quarantined tiles again.
    """
    read = Flow.read(Path(path), time=time)
    reports = run_flow(read, retry_failed=retry_failed, around=_tried)
    if read.spec.notify:
        tell(read.spec.notify, read.spec.name, reports)
    code = exit_code(reports)
    said = "; ".join(f"{each.name}: {each.said or each.outcome}" for each in reports)
    if code:
        raise OutputError(f"exit code {code}: {said}")
    return Completed(message=said)


def _tried(node: Node, do: Callable[[], StepReport]) -> StepReport:
    """Does a step as a task, which is tried again while outages may pass."""
    last: list[StepReport] = []

    def step() -> State:
        last[:] = [do()]
        if last[0].code:
            raise StepFailed(last[0].said)
        name = {SKIPPED: "Skipped", NOTHING: "NothingToDo"}.get(last[0].outcome, "Completed")
        return Completed(name=name, message=last[0].said)

    made = task(
        name=node.name,
        task_run_name=f"{node.name} ({node.step.kind})",
        cache_policy=NO_CACHE,
        retries=TRIES,
        retry_delay_seconds=PAUSES_S,
        retry_condition_fn=lambda *_: bool(last) and last[0].code == OUTAGE,
    )(step)
    state = made(return_state=True)
    if not last:
        state.result()  # raises: the run was ended
    return last[0]


def deploy(path: Path, name: str, cron: Cron, *, zone: str, pool: str) -> str:
    """Deploys a flow file to the Prefect server that is configured; returns the deployment's name.

    Args:
        path: path of the flow file, which the workers of the pool reach.
        name: name of the deployment; an older one of this name is replaced.
        cron: when it runs.
        zone: time zone of the schedule.
        pool: work pool, which is made, for processes, if there is none.

    Raises:
        JobError: no server is configured.
        Outage: the server does not answer.
        OutputError: the server refuses.
    """
    check_zone(zone)
    url = get_current_settings().api.url
    if not url:
        raise JobError(
            "no Prefect server is configured: set PREFECT_API_URL, such as "
            "http://127.0.0.1:4200/api of `prefect server start`"
        )
    try:
        with get_client(sync_client=True) as client, suppress(ObjectAlreadyExists):
            client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
        made = RunnerDeployment.from_flow(
            run_file,
            name=name,
            schedules=[Schedule(cron.text, timezone=zone)],
            parameters={"path": str(path.absolute()), "name": name},
            work_pool_name=pool,
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        made.apply()
    except Exception as error:
        if not isinstance(error, PrefectException | httpx.HTTPError | RuntimeError):
            raise
        causes = (error, error.__cause__, error.__context__)
        refused = isinstance(error, PrefectException | httpx.HTTPStatusError | DeploymentApplyError)
        if refused and not any(isinstance(each, httpx.TransportError) for each in causes):
            raise OutputError(f"the Prefect server at {url} refuses: {error}") from error
        raise Outage(f"the Prefect server at {url} does not answer: {error}") from error
    return f"{run_file.name}/{name}"

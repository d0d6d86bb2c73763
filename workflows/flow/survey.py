"""What a flow would do, and what its results are."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

from earthgptx.pipeline.engine.plan import plan
from earthgptx.pipeline.engine.survey import Share, survey
from earthgptx.pipeline.errors import PipelineError
from earthgptx.pipeline.results.result import open_result
from earthgptx.pipeline.results.slices_group import SliceState
from earthgptx.pipeline.results.store import exists
from earthgptx.pipeline.storage.errors import storage_errors
from earthgptx.workflows.exit_codes import OURS, code_of
from earthgptx.workflows.flow.running import Flow

WORDS = {
    "new": "missing",
    "changed": "stale",
    "unfinished": "running",
    "done": "complete",
    "failed": "failed",
    "gone": "gone",
}
"""What a time slice is, to whoever watches over it, by what it is to a run."""


@dataclass(frozen=True, slots=True)
class JobSurvey:
    """What a job of a flow would do."""

    name: str
    shares: dict[str, Share] = field(default_factory=dict)
    """Time slices by one of the values of `WORDS`."""
    refusal: str = ""
    """Why it would do nothing; empty if it would."""
    code: int = 0
    """Exit code of a run that ends with this refusal; 0 while it waits for another job."""


def survey_flow(flow: Flow) -> list[JobSurvey]:
    """Returns what each job of a flow would do now; one that waits for another's result says so."""
    found = []
    for node in flow.nodes:
        if node.step.kind != "job":
            continue
        name, job = node.name, flow.jobs[node.name]
        source = node.step.prompts.origin if node.step.prompts else ""
        if source and not exists(flow.jobs[source].output):
            found.append(JobSurvey(name, refusal=f"waits for the objects of {source}"))
            continue
        try:
            seen = survey(plan(job))
        except OURS as error:
            found.append(JobSurvey(name, refusal=str(error), code=code_of(error)))
            continue
        shares = {WORDS[state]: share for state, share in seen.shares.items()}
        found.append(JobSurvey(name, shares, seen.refusal, 2 if seen.refusal else 0))
    return found


@dataclass(frozen=True, slots=True)
class ResultState:
    """What the result of a job of a flow is."""

    name: str
    state: str
    """As in openEO, "missing", or why it cannot be read."""
    slices: int = 0
    """Finished time slices."""
    last: str = ""
    """Name of the latest of them."""
    failed_tiles: int = 0
    objects: int = 0


def unfinished_in(flow: Flow) -> list[tuple[datetime, datetime]]:
    """Returns start and end of the time slices that runs have left unfinished."""
    found = []
    for job in flow.jobs.values():
        with suppress(PipelineError), storage_errors(job.output):
            rows = open_result(job.output).as_runs_left_it().rows
            found += [(row.start, row.end) for row in rows if row.state == SliceState.RUNNING]
    return found


def states_of(flow: Flow) -> list[ResultState]:
    """Returns what the result of each job is, without asking its catalog."""
    found = []
    for name, job in flow.jobs.items():
        try:
            with storage_errors(job.output):
                if not exists(job.output):
                    found.append(ResultState(name, "missing"))
                    continue
                result = open_result(job.output).as_runs_left_it()
                rows = [row for row in result.rows if row.finished]
        except PipelineError as error:
            found.append(ResultState(name, str(error)))
            continue
        last = max(rows, key=lambda row: row.start).name if rows else ""
        failed, objects = sum(row.failed for row in rows), sum(row.objects for row in rows)
        found.append(ResultState(name, result.state, len(rows), last, failed, objects))
    return found

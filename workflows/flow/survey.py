"""What a flow would do, and what its results are."""

from __future__ import annotations

from dataclasses import dataclass, field

from earthgptx.catalogs.errors import CatalogError
from earthgptx.pipeline.engine.plan import plan
from earthgptx.pipeline.engine.survey import Share, survey
from earthgptx.pipeline.errors import OutputError, PipelineError
from earthgptx.pipeline.results.result import open_result
from earthgptx.pipeline.results.store import exists
from earthgptx.pipeline.storage.errors import storage_errors
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
        except (PipelineError, CatalogError) as error:
            found.append(JobSurvey(name, refusal=str(error)))
            continue
        shares = {WORDS[state]: share for state, share in seen.shares.items()}
        found.append(JobSurvey(name, shares, seen.refusal))
    return found


@dataclass(frozen=True, slots=True)
class ResultState:
    """What the result of a job of a flow is."""

    name: str
    state: str
    """As in openEO, or "missing"."""
    slices: int = 0
    """Finished time slices."""
    last: str = ""
    """Name of the latest of them."""
    failed_tiles: int = 0
    objects: int = 0


def states_of(flow: Flow) -> list[ResultState]:
    """Returns what the result of each job is, without asking its catalog."""
    found = []
    for name, job in flow.jobs.items():
        try:
            with storage_errors(job.output):
                result = open_result(job.output).as_runs_left_it()
        except OutputError:
            found.append(ResultState(name, "missing"))
            continue
        rows = [row for row in result.rows if row.finished]
        last = max(rows, key=lambda row: row.start).name if rows else ""
        failed, objects = sum(row.failed for row in rows), sum(row.objects for row in rows)
        found.append(ResultState(name, result.state, len(rows), last, failed, objects))
    return found

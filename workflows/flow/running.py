"""Runs a flow step by step: what fails is told, and the rest goes on where it can."""

from __future__ import annotations

import time as clock
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import structlog

from earthgptx.catalogs.errors import NoItems
from earthgptx.catalogs.interval import parse_interval
from earthgptx.catalogs.redaction import redact, redacted
from earthgptx.pipeline.engine.output import beside
from earthgptx.pipeline.engine.plan import plan
from earthgptx.pipeline.engine.report import Progress, RunReport
from earthgptx.pipeline.engine.run import run
from earthgptx.pipeline.engine.sharing import shared_ray
from earthgptx.pipeline.engine.spending import Spending
from earthgptx.pipeline.errors import Interrupted, JobError
from earthgptx.pipeline.job.spec import JobSpec
from earthgptx.pipeline.results.result import open_result
from earthgptx.pipeline.storage.blobs import plain
from earthgptx.pipeline.storage.errors import storage_errors
from earthgptx.workflows.exit_codes import OURS, code_of
from earthgptx.workflows.flow.catalog import publish
from earthgptx.workflows.flow.checks import check
from earthgptx.workflows.flow.order import Node, ordered
from earthgptx.workflows.flow.selection import select
from earthgptx.workflows.flow.spec import FlowSpec, job_of, read_flow
from earthgptx.workflows.parents import make_parent

log = structlog.get_logger()

DONE, NOTHING, FAILED, SKIPPED = "done", "nothing to do", "failed", "skipped"
EMPTY = "no items"
"""Outcome of a job that has no result yet, and finds no Item."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """What has come of a step."""

    name: str
    kind: str
    outcome: str = DONE
    """done, nothing to do, no items, failed or skipped."""
    said: str = ""
    """What was done, or why not."""
    code: int = 0
    """Exit code, as of a command that does this step alone."""
    seconds: float = 0.0
    output: str = ""
    """Result of a job."""
    cost: float | None = None
    """What its replicas cost, if the job says what an hour of one does."""


@dataclass(frozen=True, slots=True)
class Flow:
    """A flow with its steps in order and its jobs."""

    spec: FlowSpec
    folder: Path
    nodes: tuple[Node, ...]
    jobs: dict[str, JobSpec]
    """Job of each step that is one, by name."""

    @classmethod
    def read(cls, path: Path, *, time: str | None = None) -> Flow:
        """Reads a flow file and its job files.

        Args:
            path: path of the flow file, or of a job file.
            time: interval that replaces that of all jobs; None to keep theirs.

        Raises:
            JobError: one of the files is wrong, or steps cannot be put in order.
        """
        spec, folder = read_flow(path)
        nodes = ordered(spec.steps)
        now = datetime.now(UTC)
        outputs: dict[str, str] = {}
        jobs: dict[str, JobSpec] = {}
        for node in nodes:
            if node.step.kind == "job":
                jobs[node.name] = _at(job_of(node.step, folder, outputs, time), now)
                outputs[node.name] = jobs[node.name].output
        _refuse_shared(nodes, outputs)
        for node in nodes:
            asked = node.step.select
            if asked and asked.of == "replies" and not jobs[asked.origin].tasks.ask:
                raise JobError(
                    f"step '{node.name}' takes the replies of '{asked.origin}', which asks no "
                    "questions; set tasks.ask in its job file"
                )
        return cls(spec, folder, tuple(nodes), jobs)


def _at(job: JobSpec, now: datetime) -> JobSpec:
    """Returns a job whose time does not depend on when a step is done: all have the same now."""
    if "-P" not in job.source.time:
        return job
    start, end = parse_interval(job.source.time, now)
    text = "/".join(moment.isoformat() if moment else ".." for moment in (start, end))
    return job.model_copy(update={"source": job.source.model_copy(update={"time": text})})


def _refuse_shared(nodes: Sequence[Node], outputs: dict[str, str]) -> None:
    """Refuses steps that write to one place.

    Raises:
        JobError: two do.
    """
    places: dict[str, str] = {}
    for node in nodes:
        if node.name in outputs:
            place = plain(outputs[node.name])
        elif node.step.select:
            place = node.step.select.to
        else:
            continue
        if place in places:
            raise JobError(f"steps '{places[place]}' and '{node.name}' have one output, {place}")
        places[place] = node.name
    for node in nodes:
        ids = [
            beside(outputs[name], "").rsplit("/", 1)[-1] for name in node.jobs if name in outputs
        ]
        double = next((each for each in ids if ids.count(each) > 1), None)
        if node.step.publish and double:
            raise JobError(
                f"step '{node.name}' publishes two results called '{double}'; rename one"
            )


def run_flow(
    flow: Flow,
    *,
    retry_failed: bool = False,
    overwrite: Collection[str] = (),
    spending: Spending | None = None,
    on_step: Callable[[StepReport], None] = lambda _: None,
    on_progress: Callable[[str, Progress], None] = lambda _, __: None,
    around: Callable[[Node, Callable[[], StepReport]], StepReport] = lambda _, do: do(),
) -> list[StepReport]:
    """Runs the steps of a flow, each after what it needs; returns what has come of each.

    Args:
        flow: the flow.
        retry_failed: whether to infer blocks with quarantined tiles again.
        overwrite: names of the jobs whose results are made anew.
        spending: what all jobs may cost, and what has been spent; None for any.
        on_step: called with the report of each step.
        on_progress: called with the name of a job and its progress.
        around: called with each step and what does it; may do it again, and returns its report.
    """
    unknown = sorted(set(overwrite) - flow.jobs.keys())
    if unknown:
        raise JobError(f"'{unknown[0]}' is no job of the flow; there are {', '.join(flow.jobs)}")
    how = How(retry_failed, frozenset(overwrite), spending or Spending(), on_progress)
    reports: dict[str, StepReport] = {}
    most = max((job.engine.most for job in flow.jobs.values()), default=1)
    with shared_ray(most):
        for node in flow.nodes:
            reports[node.name] = around(node, partial(run_step, flow, node, reports, how))
            on_step(reports[node.name])
    return list(reports.values())


@dataclass(frozen=True, slots=True)
class How:
    """How jobs are run; see `run_flow`."""

    retry_failed: bool
    overwrite: frozenset[str]
    spending: Spending
    on_progress: Callable[[str, Progress], None]


def run_step(flow: Flow, node: Node, before: Mapping[str, StepReport], how: How) -> StepReport:
    """Does a step if what it needs is done; returns what has come of it.

    Args:
        flow: the flow.
        node: the step.
        before: reports of the steps before it, by name.
        how: how jobs are run.

    Raises:
        Interrupted: it was interrupted.
    """
    began = clock.monotonic()
    report = StepReport(name=node.name, kind=node.step.kind)
    missing = [n for n in sorted(node.needs) if before[n].outcome in (FAILED, SKIPPED, EMPTY)]
    if missing:
        return replace(report, outcome=SKIPPED, said=f"needs {', '.join(missing)}")
    try:
        with storage_errors(f"step {node.name}"):
            report = _do(flow, node, report, how)
    except Interrupted:
        raise
    except NoItems as error:
        report = replace(report, outcome=EMPTY, said=str(error))
    except OURS as error:
        report = replace(report, outcome=FAILED, said=str(error), code=code_of(error))
    except Exception as error:  # a fault of this package ends no other step
        log.exception("a step failed", step=node.name)
        said = redact(f"{type(error).__name__}: {error}")
        report = replace(report, outcome=FAILED, said=said, code=1)
    return replace(report, seconds=round(clock.monotonic() - began, 1))


def exit_code(reports: Sequence[StepReport]) -> int:
    """Returns the exit code of a flow: 2 for a mistake, else 1 for a failure, else 3 for an outage.

    An outage alone may pass by itself, so that a scheduler tries again only then.
    """
    codes = {report.code for report in reports}
    return next((code for code in (2, 1, 3) if code in codes), 0)


def _do(flow: Flow, node: Node, report: StepReport, how: How) -> StepReport:
    """Does a step."""
    match node.step.kind:
        case "job":
            return _run_job(flow.jobs[node.name], report, how)
        case "check":
            return _check(flow, node, report)
        case "select":
            return _select(flow, node, report)
        case "publish":
            return _publish(flow, node, report)


def _run_job(job: JobSpec, report: StepReport, how: How) -> StepReport:
    make_parent(job.output)
    anew = report.name in how.overwrite
    ran = run(
        plan(job, anew=anew),
        overwrite=anew,
        retry_failed=how.retry_failed,
        spending=how.spending,
        on_progress=lambda progress: how.on_progress(report.name, progress),
    )
    outcome = DONE if ran.slices or ran.slices_gone else NOTHING
    return replace(report, outcome=outcome, said=_said(ran), output=ran.output, cost=ran.cost)


def _said(ran: RunReport) -> str:
    failed = f", {ran.failed_tiles} tiles quarantined" if ran.failed_tiles else ""
    failed += " (--retry-failed tries them again)" if ran.passing_tiles else ""
    return (
        f"{ran.slices} time slices made, {ran.slices_before} as they were, {ran.tiles} tiles "
        f"analysed, {ran.objects} objects{failed}"
    )


def _check(flow: Flow, node: Node, report: StepReport) -> StepReport:
    assert node.step.check is not None, "the step is a check"
    found = [check(open_result(flow.jobs[name].output), node.step.check) for name in node.jobs]
    checked = sum(slices for slices, _ in found)
    wrong = [finding.sentence for _, findings in found for finding in findings]
    if wrong:
        more = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        return replace(report, outcome=FAILED, code=1, said="; ".join(wrong[:3]) + more)
    outcome = DONE if checked else NOTHING
    return replace(report, outcome=outcome, said=f"{checked} time slices hold that had not passed")


def _select(flow: Flow, node: Node, report: StepReport) -> StepReport:
    assert node.step.select is not None, "the step is a selection"
    asked = node.step.select
    rows = select(open_result(flow.jobs[asked.origin].output), asked, flow.folder)
    return replace(report, said=f"{rows} rows in {asked.to}")


def _publish(flow: Flow, node: Node, report: StepReport) -> StepReport:
    assert node.step.publish is not None, "the step is a publication"
    items = [beside(flow.jobs[name].output, ".item.json") for name in node.jobs]
    where = node.step.publish
    target = where if "://" in where else str(flow.folder / where)
    changed = publish(target, flow.spec.name, items)
    said = f"{len(items)} results in {redacted(target)}"
    return replace(report, outcome=DONE if changed else NOTHING, said=said)

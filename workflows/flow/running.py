"""Runs a flow step by step: what fails is told, and the rest goes on where it can."""

from __future__ import annotations

import time as clock
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from earthgptx.catalogs.errors import CatalogDown, CatalogError, NoItems
from earthgptx.catalogs.interval import Interval, parse_interval
from earthgptx.model.interface.errors import ModelError
from earthgptx.pipeline.engine.output import beside
from earthgptx.pipeline.engine.plan import plan
from earthgptx.pipeline.engine.report import Progress, RunReport
from earthgptx.pipeline.engine.run import run
from earthgptx.pipeline.engine.sharing import shared_ray
from earthgptx.pipeline.errors import Interrupted, JobError, PipelineError
from earthgptx.pipeline.job.spec import JobSpec
from earthgptx.pipeline.results.result import open_result
from earthgptx.workflows.flow.catalog import publish
from earthgptx.workflows.flow.checks import check
from earthgptx.workflows.flow.order import Node, ordered
from earthgptx.workflows.flow.selection import select
from earthgptx.workflows.flow.spec import FlowSpec, job_of, read_flow
from earthgptx.workflows.parents import make_parent

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
        outputs: dict[str, str] = {}
        jobs: dict[str, JobSpec] = {}
        for node in nodes:
            if node.step.kind == "job":
                jobs[node.name] = job_of(node.step, folder, outputs, time)
                outputs[node.name] = jobs[node.name].output
        _refuse_shared(outputs)
        return cls(spec, folder, tuple(nodes), jobs)


def _refuse_shared(outputs: dict[str, str]) -> None:
    for name, output in outputs.items():
        others = [other for other, there in outputs.items() if there == output and other != name]
        if others:
            raise JobError(f"steps '{name}' and '{others[0]}' have one output, {output}")


def run_flow(
    flow: Flow,
    *,
    on_step: Callable[[StepReport], None] = lambda _: None,
    on_progress: Callable[[str, Progress], None] = lambda _, __: None,
) -> list[StepReport]:
    """Runs the steps of a flow, each after what it needs; returns what has come of each.

    Args:
        flow: the flow.
        on_step: called with the report of each step.
        on_progress: called with the name of a job and its progress.
    """
    reports: dict[str, StepReport] = {}
    most = max((job.engine.most for job in flow.jobs.values()), default=1)
    with shared_ray(most):
        for node in flow.nodes:
            reports[node.name] = _report(flow, node, reports, on_progress)
            on_step(reports[node.name])
    return list(reports.values())


def _report(
    flow: Flow,
    node: Node,
    before: Mapping[str, StepReport],
    on_progress: Callable[[str, Progress], None],
) -> StepReport:
    """Does a step if what it needs is done; returns what has come of it."""
    began = clock.monotonic()
    report = StepReport(name=node.name, kind=node.step.kind)
    missing = [n for n in sorted(node.needs) if before[n].outcome in (FAILED, SKIPPED, EMPTY)]
    if missing:
        return replace(report, outcome=SKIPPED, said=f"needs {', '.join(missing)}")
    try:
        report = _do(flow, node, report, on_progress)
    except Interrupted:
        raise
    except NoItems as error:
        report = replace(report, outcome=EMPTY, said=str(error))
    except (PipelineError, CatalogError, ModelError) as error:
        report = replace(report, outcome=FAILED, said=str(error), code=code_of(error))
    return replace(report, seconds=round(clock.monotonic() - began, 1))


def code_of(error: Exception) -> int:
    """Returns the exit code of a command that ends with an error of this package."""
    if isinstance(error, PipelineError):
        return error.exit_code
    return 3 if isinstance(error, CatalogDown) else 2


def exit_code(reports: Sequence[StepReport]) -> int:
    """Returns the exit code of a flow: 2 for a mistake, else 1 for a failure, else 3 for an outage.

    An outage alone may pass by itself, so that a scheduler tries again only then.
    """
    codes = {report.code for report in reports}
    return next((code for code in (2, 1, 3) if code in codes), 0)


def _do(
    flow: Flow, node: Node, report: StepReport, on_progress: Callable[[str, Progress], None]
) -> StepReport:
    """Does a step."""
    match node.step.kind:
        case "job":
            return _run_job(flow.jobs[node.name], report, on_progress)
        case "check":
            return _check(flow, node, report)
        case "select":
            return _select(flow, node, report)
        case "publish":
            return _publish(flow, node, report)


def _run_job(
    job: JobSpec, report: StepReport, on_progress: Callable[[str, Progress], None]
) -> StepReport:
    make_parent(job.output)
    ran = run(plan(job), on_progress=lambda progress: on_progress(report.name, progress))
    outcome = DONE if ran.slices or ran.slices_gone else NOTHING
    return replace(report, outcome=outcome, said=_said(ran), output=ran.output)


def _said(ran: RunReport) -> str:
    failed = f", {ran.failed_tiles} tiles quarantined" if ran.failed_tiles else ""
    return (
        f"{ran.slices} time slices made, {ran.slices_before} as they were, {ran.tiles} tiles "
        f"analysed, {ran.objects} objects{failed}"
    )


def _check(flow: Flow, node: Node, report: StepReport) -> StepReport:
    assert node.step.check is not None, "the step is a check"
    findings = [
        finding
        for name in node.jobs
        for finding in check(
            open_result(flow.jobs[name].output), node.step.check, interval_of(flow.jobs[name])
        )
    ]
    wrong = [finding.sentence for finding in findings if not finding.holds]
    if wrong:
        more = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        return replace(report, outcome=FAILED, code=1, said="; ".join(wrong[:3]) + more)
    slices = len({(finding.slice) for finding in findings})
    return replace(report, said=f"{len(findings)} measures of {slices} time slices hold")


def interval_of(job: JobSpec) -> Interval:
    """Returns the time that a job is about now."""
    return parse_interval(job.source.time)


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
    said = f"{len(items)} results in {target}"
    return replace(report, outcome=DONE if changed else NOTHING, said=said)

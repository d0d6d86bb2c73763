"""Commands that run flows of jobs: workflow run, plan and status; backfill, watch."""

from __future__ import annotations

import time as clock
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from earthgptx.workflows.terminal import (
    AsJson,
    MaxCost,
    err,
    interrupts_in_words,
    job_bar,
    out,
    print_json,
    print_table,
    ray_log,
)

if TYPE_CHECKING:
    from earthgptx.pipeline.engine.spending import Spending
    from earthgptx.workflows.flow.running import Flow, StepReport

app = typer.Typer()
workflow = typer.Typer(
    help="Run flows of jobs, and see what they would do.",
    epilog="Example: earthgptx workflow run watch.yaml",
    no_args_is_help=True,
)
app.add_typer(workflow, name="workflow")
FlowFile = Annotated[
    Path, typer.Argument(metavar="FLOW.yaml", help="The flow file; a job file is a flow too.")
]
Time = Annotated[
    str | None,
    typer.Option(metavar="A/B", help="Replaces the time of all jobs; -P30D/.. is relative."),
]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Infer blocks with quarantined tiles again.")
]
MISTAKE = 2
"""Exit code of what no other try will mend."""
PASSES = 2
"""Times that a backfill goes through its range, at most."""
COLOURS = {
    "done": "green",
    "nothing to do": "green",
    "no items": "yellow",
    "failed": "red",
    "skipped": "yellow",
}


@workflow.command("run", epilog="Example: earthgptx workflow run watch.yaml --time -P3D/..")
def run_command(
    flow: FlowFile,
    time: Time = None,
    retry_failed: RetryFailed = False,
    overwrite: Annotated[
        list[str] | None,
        typer.Option(metavar="STEP", help="Begin the result of this job anew; may be repeated."),
    ] = None,
    max_cost: MaxCost = None,
    as_json: AsJson = False,
) -> None:
    """Run the steps of a flow: what has changed is done, a failure is told, the rest goes on.

    Exit code 0: done, 1: a job or a check failed, 2: a mistake, 3: outages alone, try again.
    """
    from earthgptx.pipeline.engine.spending import Spending
    from earthgptx.workflows.flow.running import Flow, exit_code

    with interrupts_in_words():
        reports = _run(
            Flow.read(flow, time=time),
            as_json=as_json,
            retry_failed=retry_failed,
            overwrite=overwrite or (),
            spending=Spending(max_cost),
        )
    if as_json:
        print_json([asdict(report) for report in reports])
    raise typer.Exit(exit_code(reports))


def _run(
    flow: Flow,
    *,
    as_json: bool = False,
    retry_failed: bool = False,
    overwrite: Sequence[str] = (),
    spending: Spending | None = None,
) -> list[StepReport]:
    """Runs a flow, prints what comes of each step, and tells the webhook."""
    from earthgptx.workflows.flow.notify import key_of, tell
    from earthgptx.workflows.flow.running import run_flow

    if flow.spec.notify:
        key_of(flow.spec.notify)  # raises if there is none, before anything runs
    with ray_log(), job_bar() as update:
        reports = run_flow(
            flow,
            retry_failed=retry_failed,
            overwrite=overwrite,
            spending=spending,
            on_step=(lambda _: None) if as_json else _print_step,
            on_progress=lambda name, progress: update(f"{name}: {progress.stage}", progress),
        )
    if flow.spec.notify:
        tell(flow.spec.notify, flow.spec.name, reports)
    return reports


def _print_step(report: StepReport) -> None:
    out.print(
        f"[bold {COLOURS[report.outcome]}]{report.outcome}[/]: {escape(report.name)} "
        f"({report.kind}, {report.seconds:.1f} s)",
        soft_wrap=True,
    )
    if report.said:
        out.print(f"  {report.said}", markup=False, soft_wrap=True)


@workflow.command("plan", epilog="Example: earthgptx workflow plan watch.yaml")
def plan_command(flow: FlowFile, time: Time = None, as_json: AsJson = False) -> None:
    """Show the steps in order and what each job would do. Changes nothing."""
    from earthgptx.workflows.flow.running import Flow
    from earthgptx.workflows.flow.survey import survey_flow

    read = Flow.read(flow, time=time)
    with err.status("searching"):
        found = survey_flow(read)
    steps = [
        {"step": node.name, "kind": node.step.kind, "needs": ", ".join(sorted(node.needs))}
        for node in read.nodes
    ]
    if as_json:
        print_json({"steps": steps, "jobs": [asdict(each) for each in found]})
    else:
        print_table(f"steps of {read.spec.name}", steps)
        print_table("time slices", _share_rows(found))
    raise typer.Exit(max(each.code for each in found))


def _share_rows(found: list[Any]) -> list[dict[str, Any]]:
    """Returns a row for each job and state of its time slices."""
    return [
        {
            "job": each.name,
            "state": state,
            "slices": share.slices if share else "",
            "blocks to infer": share.blocks if share else "",
            "tiles to infer": share.tiles if share else "",
        }
        for each in found
        for state, share in [
            *each.shares.items(),
            *([(escape(each.refusal), None)] if each.refusal else []),
        ]
    ]


@workflow.command("status", epilog="Example: earthgptx workflow status watch.yaml")
def status_command(flow: FlowFile, as_json: AsJson = False) -> None:
    """Show what the results of a flow's jobs are, without asking a catalog."""
    from earthgptx.workflows.flow.running import Flow
    from earthgptx.workflows.flow.survey import states_of

    rows = [asdict(each) for each in states_of(Flow.read(flow))]
    if as_json:
        print_json(rows)
        return
    print_table("", rows)


@app.command(
    epilog="Example: earthgptx backfill watch.yaml --from 2024-01 --to 2025-12 --newest-first"
)
def backfill(
    flow: FlowFile,
    first: Annotated[str, typer.Option("--from", metavar="A", help="Start: a day, month, year.")],
    last: Annotated[str, typer.Option("--to", metavar="B", help="End, which is part of it.")],
    chunk: Annotated[
        str, typer.Option(metavar="P1M", help="How much is done at once, an ISO 8601 duration.")
    ] = "P1M",
    newest_first: Annotated[
        bool, typer.Option("--newest-first", help="Begin with the last chunk.")
    ] = False,
    retry_failed: RetryFailed = False,
    max_cost: MaxCost = None,
    as_json: AsJson = False,
) -> None:
    """Run a flow over a range of time, chunk by chunk; the same command goes on where it was.

    What earlier runs have left unfinished comes first. A second pass follows where jobs have found
    objects that others ask about. Ends with a table of time slices: complete, missing, failed,
    stale, running; exit code 0 if all are complete.
    """
    from earthgptx.pipeline.engine.spending import Spending
    from earthgptx.workflows.flow.ranges import chunks, unfinished_first
    from earthgptx.workflows.flow.running import Flow, exit_code
    from earthgptx.workflows.flow.survey import survey_flow, unfinished_in

    intervals = chunks(first, last, chunk, newest_first=newest_first)
    left = unfinished_in(Flow.read(flow))
    code, found, spending = 0, [], Spending(max_cost)
    with interrupts_in_words():
        for _ in range(PASSES):
            for number, interval in enumerate(unfinished_first(intervals, left), start=1):
                if not as_json:
                    out.print(f"[bold]{number} of {len(intervals)}[/]: {interval}", soft_wrap=True)
                read = Flow.read(flow, time=interval)
                reports = _run(read, as_json=as_json, retry_failed=retry_failed, spending=spending)
                ended = exit_code(reports)
                code = code or ended
                if ended == MISTAKE:
                    raise typer.Exit(ended)
                if spending.reached:
                    break
            found = survey_flow(Flow.read(flow, time=f"{first}/{last}"))
            if code or not any("stale" in each.shares for each in found):
                break
    if as_json:
        print_json([asdict(each) for each in found])
    else:
        print_table("time slices", _share_rows(found))
    undone = any(each.shares.keys() - {"complete", "gone"} for each in found)
    raise typer.Exit(code or max((each.code for each in found), default=0) or int(undone))


@app.command(epilog="Example: earthgptx watch watch.yaml --every PT10M")
def watch(
    flow: FlowFile,
    every: Annotated[
        str, typer.Option(metavar="PT10M", help="Time from look to look, an ISO 8601 duration.")
    ] = "PT10M",
) -> None:
    """Look for new Items again and again, and run the flow; Ctrl-C or SIGTERM ends it.

    What fails is told and tried again at the next look; only a mistake ends it.
    """
    from earthgptx.pipeline.errors import Interrupted
    from earthgptx.workflows.flow.running import Flow, exit_code
    from earthgptx.workflows.flow.watching import pause_of, wait

    pause = pause_of(every)
    Flow.read(flow)
    try:
        with interrupts_in_words():
            while True:
                began = clock.monotonic()
                if exit_code(_run(Flow.read(flow))) == MISTAKE:
                    raise typer.Exit(MISTAKE)
                wait(began + pause)
    except Interrupted:
        out.print("ended")

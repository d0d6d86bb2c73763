"""Terminal output that the commands share: consoles, tables, progress, and the report of a run."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

out = Console()
err = Console(stderr=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a machine to read.")]


def print_json(document: Any) -> None:
    """Prints a document for a machine: one line of JSON, whatever the terminal's width."""
    print_text(json.dumps(document))


def print_text(text: str) -> None:
    """Prints a text as it is, without markup or wrapping."""
    sys.stdout.write(f"{text}\n")


def print_table(title: str, rows: list[dict[str, Any]]) -> None:
    """Prints rows as a table; the keys of the first row are its columns."""
    table = Table(title=title)
    for name in rows[0] if rows else ("nothing found",):
        table.add_column(name.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    out.print(table)


def print_report(report: Any) -> None:
    """Prints a run's report: what was done, what failed or was refused and why, and the output."""
    before = f" ({report.blocks_before} by an earlier run)" if report.blocks_before else ""
    out.print(
        f"[bold green]done[/bold green]: {report.blocks} blocks{before}, "
        f"{report.tiles} tiles analysed, {report.empty_tiles} empty, "
        f"{report.objects} objects, {report.seconds:.1f} s",
        soft_wrap=True,
    )
    if report.failed_tiles:
        out.print(
            f"[bold yellow]not done[/bold yellow]: {report.failed_tiles} tiles are quarantined, "
            "marked in the status layer",
            soft_wrap=True,
        )
        for sentence in report.failures[:3]:
            out.print(f"  {sentence}", markup=False, soft_wrap=True)
    if report.refused_prompts:
        name, reason = next(iter(report.refused_prompts.items()))
        out.print(
            f"[bold yellow]not asked[/bold yellow]: {len(report.refused_prompts)} prompts, "
            f"for example {name}: {reason}",
            soft_wrap=True,
        )
    out.print(f"result:  {report.output}", soft_wrap=True)


@contextmanager
def bar(name: str) -> Iterator[Callable[[int, int], None]]:
    """Shows a progress bar; yields a function of the numbers of finished and of all steps."""
    with progress_bar() as progress:
        task = progress.add_task(name, total=None, rate="")
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def job_bar() -> Iterator[Callable[[str, Any], None]]:
    """Shows a job's progress bar; yields a function of the stage and the engine's `Progress`."""
    started = time.monotonic()
    with progress_bar() as progress:
        task = progress.add_task("starting Ray", total=None, rate="")

        def update(stage: str, at: Any) -> None:
            rate = at.tiles / max(time.monotonic() - started, 1e-3)
            progress.update(
                task,
                description=stage,
                completed=at.done,
                total=at.total,
                rate=f"{rate:.1f} tiles/s",
            )

        yield update


class StepLines:
    """Prints lines of a training run's progress: step, time left, losses."""

    def __init__(self, steps: int, every: int, say: Callable[[str], None]) -> None:
        """Creates the printer of one run.

        Args:
            steps: number of steps of the run.
            every: number of steps per line; the last step always gets a line.
            say: function that prints a line.
        """
        self._steps, self._every, self._say = steps, every, say
        self._first: tuple[int, float] | None = None
        """Number of the first reported step, and its time; None before it.

        The time left is estimated from the steps after it: earlier steps belong to an earlier
        start, and this step includes the wait for data.
        """

    def __call__(self, step: int, losses: dict[str, float]) -> None:
        """Reports a step; call it for every step."""
        now = time.monotonic()
        began, when = self._first = self._first or (step, now)
        if step % self._every and step != self._steps:
            return
        seconds = (now - when) / max(step - began, 1) * (self._steps - step)
        said = ", ".join(f"{name} {value:.3f}" for name, value in losses.items())
        self._say(f"step {step} of {self._steps}, {timedelta(seconds=round(seconds))} left: {said}")


def progress_bar() -> Progress:
    """Returns a progress bar on stderr whose tasks need a field `rate`, a text."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("eta"),
        TimeRemainingColumn(),
        console=err,
    )

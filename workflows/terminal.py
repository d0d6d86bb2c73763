"""What the commands share at a terminal: where they write, tables, progress, and the words of a run's end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

out = Console()
err = Console(stderr=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a machine to read.")]


def print_table(title: str, rows: list[dict[str, Any]]) -> None:
    """Rows as a table; the first one's names are its columns."""
    table = Table(title=title)
    for name in rows[0] if rows else ("nothing found",):
        table.add_column(name.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    out.print(table)


def print_report(report: Any) -> None:
    """The last lines of a run: what was done, what was not and why, and where the result is."""
    before = f" ({report.blocks_before} by an earlier run)" if report.blocks_before else ""
    out.print(
        f"[bold green]done[/bold green]: {report.blocks} blocks{before}, {report.tiles} tiles analysed, "
        f"{report.empty_tiles} empty, {report.objects} objects, {report.seconds:.1f} s", soft_wrap=True
    )  # fmt: skip
    if report.failed_tiles:
        out.print(
            f"[bold yellow]not done[/bold yellow]: {report.failed_tiles} tiles are quarantined, marked in the status layer",
            soft_wrap=True,
        )
        for sentence in report.failures[:3]:
            out.print(f"  {sentence}", markup=False, soft_wrap=True)
    if report.refused_prompts:
        name, reason = next(iter(report.refused_prompts.items()))
        out.print(
            f"[bold yellow]not asked[/bold yellow]: {len(report.refused_prompts)} prompts, for example {name}: {reason}",
            soft_wrap=True,
        )
    out.print(f"result:  {report.output}", soft_wrap=True)


@contextmanager
def bar(name: str) -> Iterator[Callable[[int, int], None]]:
    """Progress that is told what is done and what is to do."""
    with progress_bar() as progress:
        task = progress.add_task(name, total=None, rate="")
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def job_bar() -> Iterator[Callable[[str, Any], None]]:
    """Progress of a job, by its stage and the engine's own counts."""
    started = time.monotonic()
    with progress_bar() as progress:
        task = progress.add_task("starting Ray", total=None, rate="")

        def update(stage: str, at: Any) -> None:
            rate = at.tiles / max(time.monotonic() - started, 1e-3)
            progress.update(task, description=stage, completed=at.done, total=at.total, rate=f"{rate:.1f} tiles/s")

        yield update


class StepLines:
    """Lines that a training run says at a terminal and leaves in a log: steps, time left, losses."""

    def __init__(self, steps: int, every: int, say: Callable[[str], None]) -> None:
        """Of a run of so many steps, a line every so many of them."""
        self._steps, self._every, self._say = steps, every, say
        self._first: tuple[int, float] | None = None
        """The first step that was told, and when: the ones before are another start's, and itself it waited for data."""

    def __call__(self, step: int, losses: dict[str, float]) -> None:
        """Told of every step."""
        now = time.monotonic()
        began, when = self._first = self._first or (step, now)
        if step % self._every and step != self._steps:
            return
        seconds = (now - when) / max(step - began, 1) * (self._steps - step)
        said = ", ".join(f"{name} {value:.3f}" for name, value in losses.items())
        self._say(f"step {step} of {self._steps}, {timedelta(seconds=round(seconds))} left: {said}")


def progress_bar() -> Progress:
    """Its tasks have a `rate`, in words."""
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(), TextColumn("eta"), TimeRemainingColumn(), console=err,
    )  # fmt: skip

"""Terminal output that the commands share: consoles, tables, progress, and the report of a run."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, TextIO, cast

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

from earthgptx.pipeline.engine.interrupts import terminate_as_interrupt
from earthgptx.pipeline.errors import Interrupted

out = Console()
err = Console(stderr=True)

MaxCost = Annotated[
    float | None,
    typer.Option(metavar="AMOUNT", help="End before it costs more; go on with the same command."),
]
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


def print_warnings(sentences: Iterable[str]) -> None:
    """Prints what a plan is not sure of."""
    for sentence in sentences:
        err.print(f"warning: {sentence}", style="yellow", markup=False, soft_wrap=True)


def print_report(report: Any) -> None:
    """Prints a run's report: what was done, what failed or was refused and why, and the output."""
    if not (report.slices or report.slices_gone):
        out.print(
            f"[bold green]nothing to do[/bold green]: {report.slices_before} time slices are "
            f"as the archive has them, {report.objects} objects",
            soft_wrap=True,
        )
    before = f" ({report.blocks_before} by an earlier run)" if report.blocks_before else ""
    out.print(
        f"[bold green]done[/bold green]: {report.blocks} blocks{before}, "
        f"{report.tiles} tiles analysed, {report.empty_tiles} empty, "
        f"{report.objects} objects, {report.seconds:.1f} s{_price(report.cost)}",
        soft_wrap=True,
    )
    if report.failed_tiles:
        again = (
            f"; {report.passing_tiles} of them may pass: run it with --retry-failed"
            if report.passing_tiles
            else ""
        )
        out.print(
            f"[bold yellow]not done[/bold yellow]: {report.failed_tiles} tiles are quarantined, "
            f"marked in the status layer{again}",
            soft_wrap=True,
        )
        for sentence in report.failures[:3]:
            out.print(f"  {sentence}", markup=False, soft_wrap=True)
    if report.unanswered_prompts:
        out.print(
            f"[bold yellow]no answer[/bold yellow]: {report.unanswered_prompts} times in "
            f"{report.slices} time slices the tile of a prompt saw no valid pixel or failed; the "
            "result's `answers` says of which",
            soft_wrap=True,
        )
    if report.refused_prompts:
        name, reason = next(iter(report.refused_prompts.items()))
        out.print(
            f"[bold yellow]not asked[/bold yellow]: {len(report.refused_prompts)} prompts, "
            f"for example {name}: {reason}",
            soft_wrap=True,
        )
    out.print(f"result:  {report.output}", soft_wrap=True)


def _price(cost: float | None) -> str:
    return "" if cost is None else f", cost {cost:.2f}"


@contextmanager
def interrupts_in_words() -> Iterator[None]:
    """Ends a command with a sentence on Ctrl-C or SIGTERM, whatever it is doing.

    Raises:
        Interrupted: it was interrupted.
    """
    with terminate_as_interrupt():
        try:
            yield
        except KeyboardInterrupt:
            raise Interrupted("interrupted. Run the same command again to go on") from None


@contextmanager
def ray_log() -> Iterator[None]:
    """Sends what Ray prints to a file, which is named if the command fails and removed if not.

    Ray's libraries write to the process's standard streams. They get the file in their place, and
    this package's consoles go on with the streams of before.
    """
    if not _is_plain():
        yield
        return
    kept = {stream: os.dup(stream) for stream in (1, 2)}
    number, path = tempfile.mkstemp(prefix="earthgptx-ray-", suffix=".log")
    sys.stdout.flush()
    for stream in kept:
        os.dup2(number, stream)
    out.file, err.file = (os.fdopen(kept[each], "w", buffering=1) for each in (1, 2))
    try:
        yield
    except BaseException:
        if Path(path).stat().st_size:
            err.print(f"Ray's log: {path}", markup=False, highlight=False, soft_wrap=True)
        raise
    else:
        Path(path).unlink()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for stream, copy in kept.items():
            os.dup2(copy, stream)
        for console in (out, err):
            console.file.close()
            console.file = cast("TextIO", None)  # the streams of the process again
        os.close(number)


def _is_plain() -> bool:
    """Whether the standard streams are the process's own, and not those of a test."""
    try:
        return (sys.stdout.fileno(), sys.stderr.fileno()) == (1, 2)
    except (OSError, ValueError):
        return False


class ErrStream:
    """File object that writes to wherever the console of errors writes now."""

    def write(self, text: str) -> int:
        """Writes a text."""
        return err.file.write(text)

    def flush(self) -> None:
        """Flushes the stream."""
        err.file.flush()


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

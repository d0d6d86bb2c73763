"""The command line `earthgptx`.

Exit code 0: done; 1: the job failed; 2: a mistake of the user; 3: an outage, try again. Errors of
this package are printed as sentences, without a traceback.
"""

from __future__ import annotations

import sys
import warnings
from importlib.metadata import version
from typing import Annotated, TextIO, cast

import structlog
import typer
from obstore.exceptions import BaseError

from earthgptx.pipeline.engine.interrupts import terminate_as_interrupt
from earthgptx.pipeline.storage.cloud import cloud_error
from earthgptx.pipeline.storage.versions import version_error
from earthgptx.workflows.commands import (
    cluster,
    flows,
    jobs,
    models,
    queries,
    results,
    schedules,
    view,
)
from earthgptx.workflows.exit_codes import OURS, code_of
from earthgptx.workflows.terminal import ErrStream, err, out

app = typer.Typer(
    help=(
        "Ask questions of whole satellite archives: one job over a region, every object outlined "
        "and described, as Zarr."
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for commands in (jobs, results, view, queries, flows, schedules, cluster, models):
    app.add_typer(commands.app)


def _print_version(wanted: bool) -> None:
    if wanted:
        out.print(version("earthgptx"), highlight=False)
        raise typer.Exit


@app.callback()
def options(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Options that precede a command."""


def main() -> None:
    """Runs a command; turns the package's own errors into a message and an exit code."""
    _quiet()
    try:
        with terminate_as_interrupt():
            app(standalone_mode=True)
    except BaseError as error:
        _end(cloud_error("the object store", error), 3)
    except OURS as error:
        _end(error, code_of(error))
    except Exception as error:
        raised = version_error("the object store", error)
        if raised is None:
            raise
        _end(raised, raised.exit_code)


def _end(error: Exception, code: int) -> None:
    """Prints an error, with a full stop after each line, and exits."""
    lines = str(error).splitlines()
    # A mistake has one sentence a line; the text of another program may have any lines.
    for number in range(len(lines)) if code == 2 else [-1]:
        if lines and lines[number].strip() and lines[number][-1] not in ".?!:":
            lines[number] += "."
    err.print("[bold red]error:[/bold red] ", end="")
    err.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
    sys.exit(code)


def _quiet() -> None:
    """Silences Python warnings, and sends structlog's messages to stderr."""
    warnings.simplefilter("ignore")
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
            structlog.dev.ConsoleRenderer(colors=False),
        ],
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", ErrStream())),
    )


if __name__ == "__main__":
    main()

"""Commands for jobs on a Ray cluster: submit, and jobs with logs, cancel and wait."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from earthgptx.pipeline.errors import JobError
from earthgptx.workflows.terminal import (
    AsJson,
    interrupts_in_words,
    out,
    print_json,
    print_table,
    print_text,
)

app = typer.Typer()
jobs = typer.Typer(
    help="List the jobs of a Ray cluster; show their logs, cancel them, wait for them.",
    epilog="Example: earthgptx jobs --address http://127.0.0.1:8265",
    invoke_without_command=True,
)
app.add_typer(jobs, name="jobs")
Address = Annotated[
    str,
    typer.Option(
        metavar="http://HEAD:8265",
        envvar="RAY_API_SERVER_ADDRESS",
        help="The cluster's job server.",
    ),
]
JobId = Annotated[str, typer.Argument(metavar="ID", help="As `earthgptx jobs` shows it.")]
HERE = "http://127.0.0.1:8265"


def _say(text: str) -> None:
    out.print(text, end="", markup=False, highlight=False, soft_wrap=True)


@app.command(
    epilog="Example: earthgptx submit examples/harbour.yaml --address http://127.0.0.1:8265 --wait"
)
def submit(
    job: Annotated[Path, typer.Argument(metavar="FILE.yaml", help="The job or flow file.")],
    address: Address = HERE,
    wait: Annotated[
        bool, typer.Option("--wait", help="Stream the log and pass the exit code on.")
    ] = False,
    shared: Annotated[
        list[str] | None,
        typer.Option(metavar="DIR", help="A folder that all machines share; may be repeated."),
    ] = None,
) -> None:
    """Run a job or a flow on a Ray cluster through Ray Jobs.

    Its file, AOI and prompts are sent; catalogs and outputs are addresses that the cluster reaches.
    """
    from earthgptx.workflows.cluster_jobs import ClusterJobs

    cluster = ClusterJobs(address)
    job_id = cluster.submit(job, shared=shared or ())
    _say(f"submitted {job_id}\n")
    if not wait:
        _say(f"follow it with: earthgptx jobs logs {job_id} --follow --address {address}\n")
        return
    with interrupts_in_words():
        raise typer.Exit(cluster.wait(job_id, _say))


@jobs.callback()
def list_jobs(context: typer.Context, address: Address = HERE, as_json: AsJson = False) -> None:
    """List the jobs of a Ray cluster; show their logs, cancel them, wait for them."""
    from earthgptx.workflows.cluster_jobs import ClusterJobs

    if context.invoked_subcommand is not None:
        source = context.get_parameter_source("address")
        if as_json or (source is not None and source.name == "COMMANDLINE"):
            raise JobError(f"give options behind it: earthgptx jobs {context.invoked_subcommand}")
        return
    rows = [asdict(each) for each in ClusterJobs(address).all()]
    if as_json:
        print_json(rows)
        return
    print_table(
        f"jobs of {address}",
        [{name: value for name, value in row.items() if name != "outputs"} for row in rows],
    )


@jobs.command(epilog="Example: earthgptx jobs logs raysubmit_x --follow")
def logs(
    job_id: JobId,
    address: Address = HERE,
    follow: Annotated[bool, typer.Option("--follow", help="Until the job ends.")] = False,
) -> None:
    """Print what a job has printed."""
    from earthgptx.workflows.cluster_jobs import ClusterJobs

    cluster = ClusterJobs(address)
    if not follow:
        print_text(cluster.logs(job_id).rstrip("\n"))
        return
    with interrupts_in_words():
        raise typer.Exit(cluster.wait(job_id, _say))


@jobs.command(epilog="Example: earthgptx jobs cancel raysubmit_x")
def cancel(job_id: JobId, address: Address = HERE) -> None:
    """End a job as by Ctrl-C: finished blocks are kept, and the same job goes on later."""
    from earthgptx.workflows.cluster_jobs import ClusterJobs

    job = ClusterJobs(address).cancel(job_id)
    ends = job.state in ("queued", "running")
    _say(f"{job_id} {'ends' if ends else f'had ended: {job.state}'}\n")


@jobs.command(epilog="Example: earthgptx jobs wait raysubmit_x")
def wait(job_id: JobId, address: Address = HERE) -> None:
    """Wait until a job has ended; pass its exit code on."""
    from earthgptx.workflows.cluster_jobs import ClusterJobs

    with interrupts_in_words():
        raise typer.Exit(ClusterJobs(address).wait(job_id))

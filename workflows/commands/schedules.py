"""The command that gives a flow to the user's own scheduler."""

from __future__ import annotations

from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from earthgptx.pipeline.errors import JobError
from earthgptx.workflows.commands.flows import FlowFile
from earthgptx.workflows.terminal import out, print_text

if TYPE_CHECKING:
    from earthgptx.workflows.schedule.cron import Cron

app = typer.Typer()


class Target(StrEnum):
    """Schedulers that a flow can be given to."""

    CRON = "cron"
    SYSTEMD = "systemd"
    KUBERAY = "kuberay"
    PREFECT = "prefect"


@app.command(
    epilog='Example: earthgptx schedule watch.yaml --every "0 6 * * *" --to systemd --out .'
)
def schedule(
    flow: FlowFile,
    every: Annotated[str, typer.Option(metavar="CRON", help="When: '0 6 * * *' is daily at six.")],
    to: Annotated[Target, typer.Option(help="What runs it.")] = Target.CRON,
    folder: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Write files there instead of printing them."),
    ] = None,
    zone: Annotated[
        str, typer.Option(help="Time zone of a RayCronJob or a Prefect deployment.")
    ] = "Etc/UTC",
    image: Annotated[str, typer.Option(help="Image of a RayCronJob.")] = "earthgptx:latest",
    pool: Annotated[str, typer.Option(help="Work pool of a Prefect deployment.")] = "earthgptx",
) -> None:
    """Print what your own scheduler runs: a crontab line, a systemd timer, a KubeRay RayCronJob.

    With --to prefect the flow is deployed to the server at PREFECT_API_URL.

    A flow that is still running when the next one starts is left alone: that one ends with 3.
    """
    from earthgptx.workflows.flow.running import Flow
    from earthgptx.workflows.schedule.cron import parse_cron
    from earthgptx.workflows.schedule.kuberay import manifests
    from earthgptx.workflows.schedule.local import crontab_line, systemd_units

    cron, read = parse_cron(every), Flow.read(flow)
    name = read.spec.name
    if to is Target.PREFECT:
        _deploy(flow, name, cron, zone=zone, pool=pool)
        return
    match to:
        case Target.CRON:
            files = {f"{name}.crontab": crontab_line(flow, cron) + "\n"}
        case Target.SYSTEMD:
            files = systemd_units(flow, name, cron)
        case Target.KUBERAY:
            files = {f"{name}.yaml": manifests(flow, read, cron, zone=zone, image=image)}
    for file, text in files.items():
        if folder is None:
            print_text(f"# {file}\n{text}" if len(files) > 1 else text.rstrip("\n"))
        else:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(text)
            out.print(f"wrote: {folder / file}", soft_wrap=True)


def _deploy(flow: Path, name: str, cron: Cron, *, zone: str, pool: str) -> None:
    """Deploys a flow to Prefect, and says how it is run."""
    if find_spec("prefect") is None:
        raise JobError("Prefect is not installed: pip install 'earthgptx[prefect]'")
    from earthgptx.workflows.schedule.on_prefect import deploy

    deployment = deploy(flow, name, cron, zone=zone, pool=pool)
    out.print(f"deployed: {deployment}", highlight=False, soft_wrap=True)
    for line in (
        f"run its schedule: prefect worker start --pool {pool}",
        f"run it now:       prefect deployment run '{deployment}'",
        f"another time:     prefect deployment run '{deployment}' -p time=2026-01-01/2026-01-31",
    ):
        out.print(line, highlight=False, markup=False, soft_wrap=True)

"""Commands that create and run jobs: init, sample, demo, search, plan, run."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from earthgptx.workflows.parents import make_parent
from earthgptx.workflows.terminal import (
    AsJson,
    MaxCost,
    bar,
    err,
    interrupts_in_words,
    job_bar,
    out,
    print_json,
    print_report,
    print_table,
    print_warnings,
    ray_log,
)

if TYPE_CHECKING:
    from earthgptx.pipeline.engine.survey import Survey
    from earthgptx.pipeline.planning.estimate import Speed
    from earthgptx.pipeline.planning.plan import Plan

app = typer.Typer()
JobFile = Annotated[Path, typer.Argument(metavar="JOB.yaml", help="The job file.")]

Time = Annotated[
    str | None,
    typer.Option(metavar="A/B", help="Replaces the time of the job file; -P30D/.. is relative."),
]


class Origin(StrEnum):
    """Sources of imagery that `init` can write a job file for."""

    SAMPLE = "sample"
    STAC_API = "stac-api"
    DRONE = "drone"


@app.command(epilog="Example: earthgptx init --from drone --image field.tif field.yaml")
def init(
    job: Annotated[Path, typer.Argument(metavar="JOB.yaml", help="The file to write.")],
    origin: Annotated[
        Origin, typer.Option("--from", help="Where the imagery comes from.")
    ] = Origin.SAMPLE,
    image: Annotated[
        Path | None,
        typer.Option(metavar="FILE.tif", help="With --from drone: your georeferenced image."),
    ] = None,
) -> None:
    """Write a commented job file that runs, with the archive that it needs."""
    from earthgptx.workflows.init import write_job

    if origin is Origin.SAMPLE:
        with bar("rendering the sample archive") as update:
            written = write_job(job, origin.value, image=image, on_scene=update)
    else:
        written = write_job(job, origin.value, image=image)
    for path in written:
        out.print(f"wrote: {path}", soft_wrap=True)
    out.print(f"next:  earthgptx run {job}", soft_wrap=True)


@app.command(epilog="Example: earthgptx sample archive --scale 2")
def sample(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the archive is written.")],
    scale: Annotated[int, typer.Option(min=1, help="Length of the coast, in multiples.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the coast.")] = 0,
) -> None:
    """Render a small archive of optical, SAR and infrared scenes with ground truth.

    It is a static STAC catalog of COGs.
    """
    from earthgptx.workflows.sample import make_sample

    with bar("rendering scenes") as update:
        catalog = make_sample(folder, scale=scale, seed=seed, on_scene=update)
    out.print(f"catalog: {catalog}\ntruth:   {folder / 'truth.parquet'}", soft_wrap=True)


@app.command(epilog="Example: earthgptx demo --out demo")
def demo(
    folder: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Where everything is written.")
    ] = Path("demo"),
) -> None:
    """Run the main job on the sample archive: render it, find and describe objects, draw them.

    Ships, aircraft and storage tanks are searched in optical, SAR and infrared.
    """
    from earthgptx.workflows.demo import run_demo

    folder.mkdir(parents=True, exist_ok=True)
    with (
        interrupts_in_words(),
        ray_log(),
        bar("rendering the sample archive") as scenes,
        job_bar() as update,
    ):
        shown = run_demo(
            folder,
            on_scene=scenes,
            on_progress=lambda name, progress: update(f"{name}: {progress.stage}", progress),
        )
    for one in shown:
        print_report(one.report)
        out.print(f"picture: {one.picture}", soft_wrap=True)
    first = shown[0].report.output
    opened = f"xarray.open_datatree('{first}', engine='zarr')"
    for line in (
        f"\nask it:  earthgptx query {first} --label ship --min-score 0.4",
        f"         earthgptx why {first} 5.96 42.995",
        f'         python -c "import xarray; print({opened})"',
        f"see it:  earthgptx serve {' '.join(one.report.output for one in shown)} --open",
    ):
        out.print(line, soft_wrap=True)


@app.command(epilog="Example: earthgptx search examples/harbour.yaml")
def search(job: JobFile, as_json: AsJson = False) -> None:
    """Search the job's catalog, freeze the Items beside the output, and print a table of them."""
    from earthgptx.catalogs.geoparquet import frozen
    from earthgptx.catalogs.interval import parse_interval
    from earthgptx.catalogs.moments import start_of
    from earthgptx.catalogs.search import search as find
    from earthgptx.pipeline.engine.output import refuse_foreign
    from earthgptx.pipeline.job.spec import JobSpec, items_beside
    from earthgptx.pipeline.job.vectors import read_aoi
    from earthgptx.pipeline.results.store import exists
    from earthgptx.pipeline.storage.blobs import split

    spec = JobSpec.from_yaml(job)
    source = spec.source
    doubts: list[str] = []
    with err.status("searching") as status:
        items = find(
            source.catalog,
            collections=tuple(source.collections),
            aoi=read_aoi(source.aoi),
            time=parse_interval(source.time),
            filter=source.filter,
            opening=spec.opening(),
            warn=doubts.append,
            tell=status.update,
        )
    print_warnings(doubts)
    path: str | None = None
    if exists(spec.output):  # its Items are those that its slices are made of
        err.print(f"{spec.output} exists, and keeps its own frozen items", soft_wrap=True)
    else:
        path = items_beside(spec.output)
        make_parent(path)
        refuse_foreign(path)
        files, name = split(path)
        files.put(name, frozen(items))
    rows = [
        {
            "collection": item.collection_id,
            "id": item.id,
            "time": start_of(item).isoformat(),
            "cloud_cover": item.properties.get("eo:cloud_cover"),
            "crs": item.properties.get("proj:code") or item.properties.get("proj:epsg"),
        }
        for item in items
    ]
    if as_json:
        print_json({"items": rows, "frozen": path})
        return
    print_table(f"{len(rows)} items", rows)
    if path:
        out.print(f"frozen: {path}", soft_wrap=True)


@app.command(epilog="Example: earthgptx plan examples/harbour.yaml")
def plan(job: JobFile, time: Time = None, as_json: AsJson = False) -> None:
    """Show what a job would do: counts, bytes, memory bound, time. Changes nothing."""
    from earthgptx.pipeline.engine.plan import plan as make_plan
    from earthgptx.pipeline.engine.spending import cost_of
    from earthgptx.pipeline.engine.survey import survey
    from earthgptx.pipeline.job.spec import JobSpec
    from earthgptx.pipeline.planning.estimate import measure, replicas_of

    spec = JobSpec.from_yaml(job, time=time)
    with err.status("searching") as status:
        made = make_plan(spec, tell=status.update)
        status.update("comparing with the output")
        found = survey(made)
        status.update("measuring the model")
        speed = measure(made)
    facts = _facts(made, found, speed)
    if as_json:
        print_json(facts)
        return
    print_warnings(made.warnings)
    if found.refusal:
        print_warnings([found.refusal])
    start = cost_of(spec.engine, speed.start_s * replicas_of(made, found.blocks))
    if start is not None and spec.engine.max_cost is not None and start >= spec.engine.max_cost:
        print_warnings(
            [
                f"engine.max_cost {spec.engine.max_cost:g} does not even pay the start of the "
                f"replicas, about {start:.2f}: such a run never gets further"
            ]
        )
    table = Table(title=f"plan of {made.spec.name}", show_header=False)
    for name, value in _lines(made, facts).items():
        table.add_row(name, value)
    out.print(table)
    print_table(
        "time slices",
        [
            {
                "state": state,
                "slices": share.slices,
                "blocks to infer": share.blocks,
                "tiles to infer": share.tiles,
            }
            for state, share in found.shares.items()
        ],
    )


def _facts(made: Plan, found: Survey, speed: Speed) -> dict[str, Any]:
    """Returns the figures of a plan, ready for JSON."""
    from earthgptx.pipeline.engine.spending import cost_of
    from earthgptx.pipeline.planning.estimate import replicas_of

    seconds = speed.seconds(made, found.blocks, found.tiles)
    cost = cost_of(made.spec.engine, seconds * replicas_of(made, found.blocks))
    prompts: int | str = made.spec.prompts.origin
    if made.spec.prompts.is_file:
        prompts = sum(len(found) for found in made.prompts.values())
    return {
        "series": made.series,
        "items": len(made.items),
        "time_slices": len(made.slices),
        "slices": {state: asdict(share) for state, share in found.shares.items()},
        "refusal": found.refusal,
        "grids": {
            name: {
                "crs": grid.crs if len(grid.crs) < 20 else name,
                "pixel": abs(grid.transform[0]),
                "rows": grid.shape[0],
                "cols": grid.shape[1],
            }
            for name, grid in made.grids.items()
        },
        "blocks": len(made.blocks),
        "tiles": made.tile_count,
        "blocks_to_infer": found.blocks,
        "tiles_to_infer": found.tiles,
        "prompts": prompts,
        "refused_prompts": made.refused_prompts,
        "refused_items": made.refused_items,
        "warnings": list(made.warnings),
        "bytes_to_read": made.bytes_to_read,
        "replica_memory_bytes": made.replica_bytes,
        "seconds_per_tile": round(speed.tile_s, 4),
        "start_seconds": round(speed.start_s, 1),
        "seconds": round(seconds, 1),
        "cost": None if cost is None else round(cost, 2),
    }


def _lines(made: Plan, facts: dict[str, Any]) -> dict[str, str]:
    """Returns the rows of a plan's table: text by heading."""
    size = made.spec.grid.resolution
    how = "" if isinstance(size, float) else f" ({size})"
    grids = (
        f"{g['crs']} {g['rows']} x {g['cols']} px of {g['pixel']:g}{how}"
        for g in facts["grids"].values()
    )
    refused = f", {len(made.refused_prompts)} refused" if made.refused_prompts else ""
    memory = f"{made.replica_bytes / 1e6:,.0f} MB a replica"
    measured = (
        f"{facts['seconds_per_tile'] * 1000:.0f} ms a tile and {facts['start_seconds']:.0f} s to "
        "start, measured just now on a made tile; without waiting for imagery"
    )
    return {
        "series": made.series,
        "items": f"{len(made.items)} in {len(made.slices)} time slices",
        "grids": ", ".join(grids),
        "blocks": f"{len(made.blocks):,}",
        "tiles": f"{made.tile_count:,}",
        "prompts": f"{facts['prompts']}{refused}",
        "to read": f"{made.bytes_to_read / 1e6:,.0f} MB uncompressed",
        "memory bound": f"{memory}, {made.spec.engine.most} replicas, beside the model",
        "time": f"about {facts['seconds']:,.0f} s ({measured})",
        "cost": _cost(made, facts["cost"]),
    }


def _cost(made: Plan, cost: float | None) -> str:
    """Returns what a plan costs, in words."""
    engine = made.spec.engine
    if cost is None:
        return "set engine.price_per_replica_hour to know it"
    most = "" if engine.max_cost is None else f", at most {engine.max_cost:,.2f} a run"
    return f"about {cost:,.2f}{most} ({engine.price_per_replica_hour:g} an hour of a replica)"


@app.command(epilog="Example: earthgptx run examples/harbour.yaml --output results/harbour.zarr")
def run(
    job: JobFile,
    output: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Replaces the output of the job file."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Begin anew, in place of any earlier result.")
    ] = False,
    time: Time = None,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="Infer blocks with quarantined tiles again."),
    ] = False,
    max_cost: MaxCost = None,
) -> None:
    """Make the output equal to what the job finds: what is missing or has changed is done.

    Ctrl-C ends cleanly and keeps finished blocks. Exit code 0: done, 1: the job failed, 2: a
    mistake, 3: an outage, try again.
    """
    from earthgptx.pipeline.engine.plan import plan as make_plan
    from earthgptx.pipeline.engine.run import run as run_plan
    from earthgptx.pipeline.engine.spending import Spending
    from earthgptx.pipeline.job.spec import JobSpec

    with interrupts_in_words():
        spec = JobSpec.from_yaml(job, output=output, time=time)
        with err.status("searching") as status:
            made = make_plan(spec, anew=overwrite, tell=status.update)
        print_warnings(made.warnings)
        make_parent(spec.output)
        with ray_log(), job_bar() as update:
            report = run_plan(
                made,
                overwrite=overwrite,
                retry_failed=retry_failed,
                spending=Spending(max_cost),
                on_progress=lambda progress: update(progress.stage, progress),
            )
    print_report(report)

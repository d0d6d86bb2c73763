"""The command line. Exit code 0: done; 1: the job failed; 2: the user's mistake."""

from __future__ import annotations

import json
import sys
import warnings
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import structlog
import typer
from rich.table import Table

from catalogs.errors import CatalogError
from model.errors import ModelError
from pipeline.errors import PipelineError, RunFailed, RunLost
from workflows.cli_models import app as models
from workflows.terminal import AsJson, bar, err, job_bar, out, print_report, print_table

app = typer.Typer(
    help="Ask questions of whole satellite archives: one job over a region, every object outlined and described, as Zarr.",
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich",
)  # fmt: skip
JobFile = Annotated[Path, typer.Argument(metavar="JOB.yaml", help="The job file.")]
Output = Annotated[str, typer.Argument(metavar="OUTPUT", help="A result: any fsspec URL that ends in .zarr.")]


class Format(StrEnum):
    """How answers are written."""

    TABLE = "table"
    GEOJSON = "geojson"
    PARQUET = "parquet"


@app.command(epilog="Example: earthgptx sample archive --scale 2")
def sample(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the archive is written.")],
    scale: Annotated[int, typer.Option(min=1, help="So many times the coast.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, another coast.")] = 0,
) -> None:
    """Render a small archive with ground truth: optical, SAR and infrared COGs in a static STAC catalog."""
    from workflows.sample import make_sample

    with bar("rendering scenes") as update:
        catalog = make_sample(folder, scale=scale, seed=seed, on_scene=update)
    out.print(f"catalog: {catalog}\ntruth:   {folder / 'truth.parquet'}")


@app.command(epilog="Example: earthgptx demo --out demo")
def demo(
    folder: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where everything is written.")] = Path("demo"),
) -> None:
    """Run the main job end to end on the sample archive: ships, aircraft and tanks in optical, SAR and infrared."""
    from workflows.demo import run_demo

    folder.mkdir(parents=True, exist_ok=True)
    with bar("rendering the sample archive") as scenes, job_bar() as update:
        shown = run_demo(
            folder, on_scene=scenes, on_progress=lambda name, progress: update(f"{name}: {progress.stage}", progress)
        )
    for one in shown:
        print_report(one.report)
        out.print(f"picture: {one.picture}", soft_wrap=True)
    first = shown[0].report.output
    out.print(f"\nask it:  earthgptx query {first} --label ship --min-score 0.4", soft_wrap=True)
    out.print(f"         earthgptx why {first} 5.96 42.995", soft_wrap=True)
    out.print(
        f"         python -c \"import xarray; print(xarray.open_datatree('{first}', engine='zarr'))\"", soft_wrap=True
    )


@app.command(epilog="Example: earthgptx search examples/harbour.yaml")
def search(job: JobFile, as_json: AsJson = False) -> None:
    """Search the job's catalog, freeze the Items beside the output, and print a table of them."""
    from catalogs.search import freeze, parse_interval, start_of
    from catalogs.search import search as find
    from pipeline.job import JobSpec, items_beside
    from pipeline.vectors import read_aoi

    spec = JobSpec.from_yaml(job)
    source = spec.source
    items = find(
        source.catalog, collections=tuple(source.collections), aoi=read_aoi(source.aoi), time=parse_interval(source.time),
        filter=source.filter,
    )  # fmt: skip
    path = items_beside(spec.output)
    _make_parent(path)
    freeze(items, path)
    rows = [
        {
            "collection": item.collection_id, "id": item.id, "time": start_of(item).isoformat(),
            "cloud_cover": item.properties.get("eo:cloud_cover"), "crs": item.properties.get("proj:code") or item.properties.get("proj:epsg"),
        }
        for item in items
    ]  # fmt: skip
    if as_json:
        print(json.dumps({"items": rows, "frozen": path}))  # noqa: T201
        return
    print_table(f"{len(rows)} items", rows)
    out.print(f"frozen: {path}", soft_wrap=True)


@app.command(epilog="Example: earthgptx plan examples/harbour.yaml")
def plan(job: JobFile, as_json: AsJson = False) -> None:
    """Show what a job would do: counts, bytes, memory bound, time. Changes nothing."""
    from pipeline.estimate import seconds_per_tile
    from pipeline.job import JobSpec
    from pipeline.plan import plan as make_plan

    made = make_plan(JobSpec.from_yaml(job))
    per_tile = seconds_per_tile(made)
    facts: dict[str, Any] = {
        "plan_id": made.plan_id,
        "items": len(made.items),
        "time_slices": len(made.slices),
        "grids": {
            name: {"crs": grid.crs if len(grid.crs) < 20 else name, "rows": grid.shape[0], "cols": grid.shape[1]}
            for name, grid in made.grids.items()
        },
        "blocks": len(made.blocks),
        "tiles": made.tile_count,
        "prompts": sum(len(found) for found in made.prompts.values())
        if made.spec.prompts.is_file
        else made.spec.prompts.origin,
        "refused_prompts": made.refused_prompts,
        "bytes_to_read": made.bytes_to_read,
        "replica_memory_bytes": made.replica_bytes,
        "seconds_per_tile": round(per_tile, 4),
        "seconds": round(per_tile * made.tile_count / made.spec.engine.replicas + 8, 1),
    }
    if as_json:
        print(json.dumps(facts))  # noqa: T201
        return
    table = Table(title=f"plan of {made.spec.name}", show_header=False)
    grids = ", ".join(f"{g['crs']} {g['rows']} x {g['cols']} px" for g in facts["grids"].values())
    lines = {
        "plan id": made.plan_id,
        "items": f"{len(made.items)} in {len(made.slices)} time slices",
        "grids": grids,
        "blocks": f"{len(made.blocks):,}",
        "tiles": f"{made.tile_count:,}",
        "prompts": f"{facts['prompts']}" + (f", {len(made.refused_prompts)} refused" if made.refused_prompts else ""),
        "to read": f"{made.bytes_to_read / 1e6:,.0f} MB uncompressed",
        "memory bound": f"{made.replica_bytes / 1e6:,.0f} MB a replica, {made.spec.engine.replicas} replicas, beside the model",
        "time": f"about {facts['seconds']:,.0f} s ({per_tile * 1000:.0f} ms a tile, measured just now on a made tile; 8 s to start)",
    }
    for name, value in lines.items():
        table.add_row(name, value)
    out.print(table)


@app.command(epilog="Example: earthgptx run examples/harbour.yaml --output results/harbour.zarr")
def run(
    job: JobFile,
    output: Annotated[str | None, typer.Option(metavar="URL", help="Takes the place of the job file's output.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a result of another plan.")] = False,
) -> None:
    """Run a job, or go on with what an earlier run left. Ctrl-C ends cleanly and keeps finished blocks."""
    from pipeline.engine import run as run_plan
    from pipeline.job import JobSpec
    from pipeline.plan import plan as make_plan

    spec = JobSpec.from_yaml(job, output=output)
    with err.status("searching and planning"):
        made = make_plan(spec)
    _make_parent(spec.output)
    with job_bar() as update:
        report = run_plan(made, overwrite=overwrite, on_progress=lambda progress: update(progress.stage, progress))
    print_report(report)


@app.command(epilog="Example: earthgptx status results/harbour.zarr")
def status(output: Output, as_json: AsJson = False) -> None:
    """Say how far a result is."""
    from pipeline.query import open_result
    from pipeline.status import state_of

    facts = asdict(state_of(open_result(output)))
    if as_json:
        print(json.dumps(facts))  # noqa: T201
        return
    out.print(
        f"{output}: [bold]{facts['state']}[/bold], {facts['blocks']} of {facts['blocks_total']} blocks, {facts['failed_tiles']} tiles quarantined",
        soft_wrap=True,
    )
    print_table("", [{"pixels": word, "share": f"{100 * part:.2f} %"} for word, part in facts["pixels"].items()])


@app.command(epilog="Example: earthgptx why results/harbour.zarr 5.96 42.995")
def why(
    output: Output,
    lon: Annotated[float, typer.Argument(help="Degrees east.")],
    lat: Annotated[float, typer.Argument(help="Degrees north.")],
    as_json: AsJson = False,
) -> None:
    """Say what the result knows of one place, and if nothing, why."""
    from pipeline.query import open_result

    answers = [asdict(answer) for answer in open_result(output).why(lon, lat)]
    if as_json:
        print(json.dumps(answers))  # noqa: T201
        return
    print_table(f"lon {lon}, lat {lat}", [{**answer, "object_id": answer["object_id"] or ""} for answer in answers])


@app.command(epilog='Example: earthgptx query results/harbour.zarr --label ship --text "north-south" --min-score 0.9')
def query(
    output: Output,
    label: Annotated[str | None, typer.Option(help="Exactly this label.")] = None,
    text: Annotated[str | None, typer.Option(help="Words in the label or caption.")] = None,
    bbox: Annotated[
        tuple[float, float, float, float] | None, typer.Option(metavar="W S E N", help="Lon/lat bounds.")
    ] = None,
    within: Annotated[Path | None, typer.Option(metavar="FILE", help="Vector file of an area.")] = None,
    time: Annotated[str | None, typer.Option(metavar="A/B", help="Time range.")] = None,
    min_score: Annotated[float, typer.Option(min=0.0, max=1.0, help="Least score.")] = 0.0,
    format: Annotated[Format, typer.Option(help="How the answer is written.")] = Format.TABLE,
    out_file: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Where it is written.")] = None,
    as_json: AsJson = False,
) -> None:
    """Find objects by label, words, place, time and score."""
    from pipeline.errors import JobError
    from pipeline.job import BboxAoi
    from pipeline.query import open_result
    from pipeline.vectors import read_aoi

    if bbox and within:
        raise JobError("--bbox and --within exclude one another; give one")
    if (format is Format.TABLE and not as_json) and out_file:
        raise JobError("--out goes with --format geojson or parquet")
    area = None
    if bbox:
        west, south, east, north = bbox
        if not (west < east and south < north):
            raise JobError(f"--bbox {west} {south} {east} {north} is not west south east north")
        area = read_aoi(BboxAoi(bbox=bbox))
    elif within:
        area = read_aoi(str(within))
    found = open_result(output).query(label=label, text=text, within=area, time=time, min_score=min_score)
    if format is Format.PARQUET:
        if out_file is None:
            raise JobError("--format parquet needs --out FILE")
        found.to_parquet(out_file, schema_version="1.1.0", write_covering_bbox=True, index=False)
    elif format is Format.GEOJSON or as_json:
        # Ids have 63 bits; a JSON number keeps 53 in many readers.
        document = found.assign(
            object_id=found["object_id"].astype(str), time=found["time"].dt.strftime("%Y-%m-%dT%H:%M:%SZ")
        ).to_json()
        if out_file:
            out_file.write_text(document)
        else:
            print(document)  # noqa: T201
    else:
        rows = [
            {
                "id": f"{row.object_id:x}"[:8],
                "time": f"{row.time:%Y-%m-%d}",
                "label": row.label,
                "score": f"{row.score:.2f}",
                "caption": row.caption,
            }
            for row in found.head(50).itertuples()
        ]
        print_table(f"{len(found)} objects" + (", the first 50" if len(found) > 50 else ""), rows)


@app.command(epilog="Example: earthgptx show results/harbour.zarr --png harbour.png")
def show(
    output: Output,
    png: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the picture is written; beside the result by default.")
    ] = None,
) -> None:
    """Draw the scene with outlines, boxes and captions."""
    from pipeline.picture import draw
    from pipeline.query import open_result

    path = png or Path(output.rstrip("/").removesuffix(".zarr").rsplit("/", 1)[-1] + ".png")
    draw(open_result(output), path)
    out.print(f"picture: {path}", soft_wrap=True)


@app.command(epilog="Example: earthgptx export results/harbour.zarr gis")
def export(
    output: Output, folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the files are written.")]
) -> None:
    """Write the layers as COGs for GIS programs."""
    from pipeline.export import export_cogs
    from pipeline.query import open_result

    for path in export_cogs(open_result(output), folder):
        out.print(str(path), soft_wrap=True)


@app.command(epilog="Example: earthgptx submit examples/harbour.yaml --address http://127.0.0.1:8265 --wait")
def submit(
    job: JobFile,
    address: Annotated[str, typer.Option(metavar="http://HEAD:8265", help="The cluster's job server.")],
    wait: Annotated[bool, typer.Option("--wait", help="Stream the log and pass the exit code on.")] = False,
) -> None:
    """Run a job on a Ray cluster through Ray Jobs."""
    from workflows.submit import submit_job

    code = submit_job(
        job, address, wait=wait, say=lambda line: out.print(line, end="", markup=False, highlight=False, soft_wrap=True)
    )
    raise typer.Exit(code)


app.add_typer(models)


def main() -> None:
    """Entry point: mistakes become one sentence and an exit code, never a traceback."""
    _quiet()
    try:
        app(standalone_mode=True)
    except (RunFailed, RunLost) as error:
        _end(error, 1)
    except (PipelineError, CatalogError, ModelError) as error:
        _end(error, 2)
    except KeyboardInterrupt:
        err.print("interrupted")
        sys.exit(1)


def _end(error: Exception, code: int) -> None:
    err.print("[bold red]error:[/bold red] ", end="")
    err.print(str(error), markup=False, highlight=False, soft_wrap=True)
    sys.exit(code)


def _quiet() -> None:
    """Our own words on the terminal, and only warnings of others that a user can act on."""
    warnings.simplefilter("ignore")
    structlog.configure(
        processors=[
            structlog.processors.add_log_level, structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
            structlog.dev.ConsoleRenderer(colors=False),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )  # fmt: skip


def _make_parent(url: str) -> None:
    if "://" not in url:
        try:
            Path(url).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            from pipeline.errors import OutputError

            raise OutputError(f"{Path(url).parent} cannot be created: {error.strerror}") from error


if __name__ == "__main__":
    main()

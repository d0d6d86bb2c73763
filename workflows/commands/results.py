"""Commands that inspect results: status, why, query, show, export."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from earthgptx.workflows.terminal import AsJson, out, print_json, print_table, print_text

if TYPE_CHECKING:
    import geopandas as gpd
    from shapely.geometry.base import BaseGeometry

app = typer.Typer()
Output = Annotated[
    str, typer.Argument(metavar="OUTPUT", help="A result: any fsspec URL that ends in .zarr.")
]
ROWS = 50
"""Largest number of objects that a table shows."""


class Format(StrEnum):
    """Output formats of `query`."""

    TABLE = "table"
    GEOJSON = "geojson"
    PARQUET = "parquet"


@app.command(epilog="Example: earthgptx status results/harbour.zarr")
def status(output: Output, as_json: AsJson = False) -> None:
    """Print how much of a result is done."""
    from earthgptx.pipeline.results.query import open_result
    from earthgptx.pipeline.results.status import state_of

    facts = asdict(state_of(open_result(output)))
    if as_json:
        print_json(facts)
        return
    blocks = f"{facts['blocks']} of {facts['blocks_total']} blocks"
    out.print(
        f"{output}: [bold]{facts['state']}[/bold], {blocks}, "
        f"{facts['failed_tiles']} tiles quarantined",
        soft_wrap=True,
    )
    shares = facts["pixels"].items()
    print_table("", [{"pixels": word, "share": f"{100 * part:.2f} %"} for word, part in shares])


@app.command(epilog="Example: earthgptx why results/harbour.zarr 5.96 42.995")
def why(
    output: Output,
    lon: Annotated[float, typer.Argument(help="Degrees east.")],
    lat: Annotated[float, typer.Argument(help="Degrees north.")],
    as_json: AsJson = False,
) -> None:
    """Print what the result knows of one place, and if nothing, why."""
    from earthgptx.pipeline.results.query import open_result

    answers = [asdict(answer) for answer in open_result(output).why(lon, lat)]
    if as_json:
        print_json(answers)
        return
    rows = [{**answer, "object_id": answer["object_id"] or ""} for answer in answers]
    print_table(f"lon {lon}, lat {lat}", rows)


@app.command(
    epilog="Example: earthgptx query results/harbour.zarr "
    '--label ship --text "north-south" --min-score 0.9'
)
def query(
    output: Output,
    label: Annotated[str | None, typer.Option(help="Label, exactly.")] = None,
    text: Annotated[str | None, typer.Option(help="Words in the label or caption.")] = None,
    bbox: Annotated[
        tuple[float, float, float, float] | None,
        typer.Option(metavar="W S E N", help="Lon/lat bounds."),
    ] = None,
    within: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Vector file of an area.")
    ] = None,
    time: Annotated[str | None, typer.Option(metavar="A/B", help="Time range.")] = None,
    min_score: Annotated[float, typer.Option(min=0.0, max=1.0, help="Lowest score.")] = 0.0,
    format: Annotated[Format, typer.Option(help="Output format.")] = Format.TABLE,
    out_file: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Output file.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Find objects by label, words, place, time and score."""
    from earthgptx.pipeline.errors import JobError
    from earthgptx.pipeline.results.query import open_result

    if (format is Format.TABLE and not as_json) and out_file:
        raise JobError("--out goes with --format geojson or parquet")
    area = _area(bbox, within)
    found = open_result(output).query(
        label=label, text=text, within=area, time=time, min_score=min_score
    )
    if format is Format.PARQUET:
        if out_file is None:
            raise JobError("--format parquet needs --out FILE")
        found.to_parquet(out_file, schema_version="1.1.0", write_covering_bbox=True, index=False)
    elif format is Format.GEOJSON or as_json:
        document = _geojson(found)
        if out_file:
            out_file.write_text(document)
        else:
            print_text(document)
    else:
        more = f", the first {ROWS}" if len(found) > ROWS else ""
        print_table(f"{len(found)} objects{more}", _rows(found))


def _area(
    bbox: tuple[float, float, float, float] | None, within: Path | None
) -> BaseGeometry | None:
    """Returns the area that a query is limited to; None for the whole result."""
    from earthgptx.pipeline.errors import JobError
    from earthgptx.pipeline.job.spec import BboxAoi
    from earthgptx.pipeline.job.vectors import read_aoi

    if bbox and within:
        raise JobError("--bbox and --within exclude one another; give one")
    if bbox:
        west, south, east, north = bbox
        if not (west < east and south < north):
            raise JobError(f"--bbox {west} {south} {east} {north} is not west south east north")
        return read_aoi(BboxAoi(bbox=bbox))
    return read_aoi(str(within)) if within else None


def _geojson(found: gpd.GeoDataFrame) -> str:
    # Ids have 63 bits, but many JSON readers keep only 53 bits of a number.
    ids = found["object_id"].astype(str)
    times = found["time"].dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    return str(found.assign(object_id=ids, time=times).to_json())


def _rows(found: gpd.GeoDataFrame) -> list[dict[str, str]]:
    return [
        {
            "id": f"{row.object_id:x}"[:8],
            "time": f"{row.time:%Y-%m-%d}",
            "label": row.label,
            "score": f"{row.score:.2f}",
            "caption": row.caption,
        }
        for row in found.head(ROWS).itertuples()
    ]


@app.command(epilog="Example: earthgptx show results/harbour.zarr --png harbour.png")
def show(
    output: Output,
    png: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Where the picture is written; the working folder by default."
        ),
    ] = None,
) -> None:
    """Draw the scene with outlines, boxes and captions."""
    from earthgptx.pipeline.results.picture import draw
    from earthgptx.pipeline.results.query import open_result

    path = png or Path(output.rstrip("/").removesuffix(".zarr").rsplit("/", 1)[-1] + ".png")
    draw(open_result(output), path)
    out.print(f"picture: {path}", soft_wrap=True)


@app.command(epilog="Example: earthgptx export results/harbour.zarr gis")
def export(
    output: Output,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the files are written.")],
) -> None:
    """Write the layers as COGs for GIS programs."""
    from earthgptx.pipeline.results.export import export_cogs
    from earthgptx.pipeline.results.query import open_result

    for path in export_cogs(open_result(output), folder):
        out.print(str(path), soft_wrap=True)

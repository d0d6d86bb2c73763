"""Commands that ask results: query, diff."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from earthgptx.workflows.commands.results import AsOf, Output, Snapshot, Tag, opened
from earthgptx.workflows.terminal import AsJson, print_json, print_table, print_text

if TYPE_CHECKING:
    import pyarrow as pa
    from shapely.geometry.base import BaseGeometry

app = typer.Typer()
ROWS = 50
"""Largest number of objects that a table shows."""


class Format(StrEnum):
    """Output formats of `query` and `diff`."""

    TABLE = "table"
    GEOJSON = "geojson"
    PARQUET = "parquet"


@app.command(
    epilog="Example: earthgptx query results/harbour.zarr "
    '--label ship --text "north-south" --order=-length_m --limit 10'
)
def query(
    outputs: Annotated[
        list[str],
        typer.Argument(
            metavar="OUTPUT...", help="Results, or a STAC catalog (.json) of their Items."
        ),
    ],
    label: Annotated[str | None, typer.Option(help="Label, exactly.")] = None,
    text: Annotated[
        str | None, typer.Option(help="Words in the label or caption, singular or plural.")
    ] = None,
    bbox: Annotated[
        tuple[float, float, float, float] | None,
        typer.Option(metavar="W S E N", help="Lon/lat bounds."),
    ] = None,
    within: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Vector file of an area.")
    ] = None,
    near: Annotated[
        tuple[float, float, float] | None,
        typer.Option(metavar="LON LAT METRES", help="Objects no farther than this from a place."),
    ] = None,
    time: Annotated[
        str | None, typer.Option(metavar="A/B", help="When the objects were seen.")
    ] = None,
    min_score: Annotated[float, typer.Option(min=0.0, max=1.0, help="Lowest score.")] = 0.0,
    length: Annotated[
        tuple[float, float] | None, typer.Option(metavar="A B", help="Length in metres.")
    ] = None,
    track: Annotated[
        int | None, typer.Option(metavar="ID", help="Objects of a track, from slice to slice.")
    ] = None,
    where: Annotated[
        str,
        typer.Option(
            metavar="CQL2", help='More conditions, such as "width_m > 20 OR score > 0.9".'
        ),
    ] = "",
    order: Annotated[
        str,
        typer.Option(
            metavar="COLUMN",
            help="Sort by score, time, area_m2, length_m, width_m or distance_m, replies by"
            " likelihood or time. With - before it, the largest come first.",
        ),
    ] = "",
    rank: Annotated[
        bool,
        typer.Option(
            "--rank", help="Any of the words of --text will do; the best match comes first."
        ),
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Largest number of objects.")] = None,
    count_by: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Count instead, by label, slice, day, month, year, item or result;"
            " replies also by question, reply or about.",
        ),
    ] = None,
    replies: Annotated[
        bool,
        typer.Option("--replies", help="Replies to the questions of tasks.ask, not objects."),
    ] = False,
    format: Annotated[Format, typer.Option(help="Output format.")] = Format.TABLE,
    out_file: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Output file.")
    ] = None,
    snapshot: Snapshot = "",
    tag: Tag = "",
    as_of: AsOf = "",
    as_json: AsJson = False,
) -> None:
    """Find or count objects by label, words, place, time, score and size."""
    from earthgptx.pipeline.errors import JobError
    from earthgptx.pipeline.results.formats import geojson, write_geoparquet
    from earthgptx.pipeline.results.object_table import OBJECTS, REPLIES, to_frame
    from earthgptx.pipeline.results.query import count_objects, find_objects

    asked_format = _asked(format, out_file, as_json=as_json)
    results = [
        opened(url, snapshot, tag, as_of) for output in outputs for url in _results_of(output)
    ]
    rows = REPLIES if replies else OBJECTS
    asked: dict[str, Any] = {
        "rows": rows,
        "label": label,
        "text": text,
        "within": _area(bbox, within),
        "near": near,
        "time": time,
        "min_score": min_score,
        "length_m": length,
        "track": track,
        "where": where,
    }
    if count_by is not None:
        if order or rank or limit or out_file or format is not Format.TABLE:
            raise JobError(
                "--count-by prints counts; leave out --order, --rank, --limit, --format, --out"
            )
        names = [name.strip() for name in count_by.split(",") if name.strip()]
        _print_counts(count_objects(results, *names, **asked), as_json=as_json)
        return
    _refuse_unwritable(asked_format, out_file)
    found = find_objects(results, order=order, limit=limit, rank=rank, **asked)
    if asked_format is Format.TABLE:
        more = f", the first {ROWS}" if len(found) > ROWS else ""
        print_table(f"{len(found)} {rows.name}{more}", _rows(found))
    elif asked_format is Format.PARQUET:
        write_geoparquet(to_frame(found), out_file)
    else:
        _print_or_write(geojson(found), out_file)


@app.command(
    epilog="Example: earthgptx diff results/harbour.zarr --from 2026-01-01 --to 2026-01-05"
)
def diff(
    output: Output,
    before: Annotated[
        str, typer.Option("--from", metavar="SLICE", help="A time slice: its name, or a time.")
    ],
    after: Annotated[str, typer.Option("--to", metavar="SLICE", help="The other time slice.")],
    label: Annotated[str | None, typer.Option(help="Label, exactly.")] = None,
    bbox: Annotated[
        tuple[float, float, float, float] | None,
        typer.Option(metavar="W S E N", help="Lon/lat bounds."),
    ] = None,
    min_score: Annotated[float, typer.Option(min=0.0, max=1.0, help="Lowest score.")] = 0.0,
    moved_m: Annotated[
        float, typer.Option(min=0.0, help="Metres that an object may have moved.")
    ] = 200.0,
    format: Annotated[Format, typer.Option(help="Output format.")] = Format.TABLE,
    out_file: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Output file.")
    ] = None,
    snapshot: Snapshot = "",
    tag: Tag = "",
    as_of: AsOf = "",
    as_json: AsJson = False,
) -> None:
    """Show which objects appeared, vanished, moved or stayed between two time slices."""
    from earthgptx.pipeline.results.formats import write_geoparquet

    format = _asked(format, out_file, as_json=as_json)
    _refuse_unwritable(format, out_file)
    asked = {"label": label, "within": _area(bbox, None), "min_score": min_score}
    found = opened(output, snapshot, tag, as_of).diff(before, after, moved_m=moved_m, **asked)
    if format is Format.TABLE:
        counts = ", ".join(f"{n} {change}" for change, n in found["change"].value_counts().items())
        shown = found[found["change"] != "stayed"].drop(columns="geometry").head(ROWS)
        print_table(counts or "no objects", [_changed(row) for _, row in shown.iterrows()])
    elif format is Format.PARQUET:
        write_geoparquet(found, out_file)
    else:
        _print_or_write(found.astype({"before_id": str, "after_id": str}).to_json(), out_file)


def _changed(row: Any) -> dict[str, str]:
    return {
        "change": row["change"],
        "id": f"{row['after_id'] or row['before_id']:x}"[:8],
        "label": row["label"],
        "score": f"{row['score']:.2f}",
        "moved": f"{row['moved_m']:,.0f} m" if row["moved_m"] else "",
        "caption": row["caption"],
    }


def _asked(format: Format, out_file: Path | None, *, as_json: bool) -> Format:
    """Returns the format that is asked for: `--json` without another one means GeoJSON.

    Raises:
        JobError: a file is named for a table.
    """
    from earthgptx.pipeline.errors import JobError

    if format is not Format.TABLE or as_json:
        return Format.GEOJSON if format is Format.TABLE else format
    if out_file:
        raise JobError("--out goes with --format geojson or parquet")
    return format


def _refuse_unwritable(format: Format, out_file: Path | None) -> None:
    """Refuses Parquet without a file.

    Raises:
        JobError: no file is named.
    """
    from earthgptx.pipeline.errors import JobError

    if format is Format.PARQUET and out_file is None:
        raise JobError("--format parquet needs --out FILE")


def _print_or_write(text: str, out_file: Path | None) -> None:
    if out_file:
        out_file.write_text(text)
    else:
        print_text(text)


def _results_of(output: str) -> list[str]:
    """Returns the URLs of the results that an argument names: itself, or those of a catalog."""
    if not output.endswith(".json"):
        return [output]
    from earthgptx.catalogs.publish import published_results
    from earthgptx.pipeline.storage.blobs import ICECHUNK

    return [
        f"{ICECHUNK if versioned else ''}{address}"
        for address, versioned in published_results(output)
    ]


def _print_counts(counted: pa.Table, *, as_json: bool) -> None:
    from earthgptx.pipeline.results.formats import plain_value

    rows = counted.to_pylist()
    if as_json:
        print_json([{name: plain_value(value) for name, value in row.items()} for row in rows])
        return
    name = counted.column_names[-1]
    print_table(
        f"{sum(row[name] for row in rows):,} {name}",
        [{name: str(value) for name, value in row.items()} for row in rows],
    )


def _area(
    bbox: tuple[float, float, float, float] | None, within: Path | None
) -> BaseGeometry | None:
    """Returns the area that a query is limited to; None for the whole result."""
    from earthgptx.pipeline.errors import JobError
    from earthgptx.pipeline.job.lonlat import bbox_area, is_bbox

    if bbox and within:
        raise JobError("--bbox and --within exclude one another; give one")
    if bbox and not is_bbox(*bbox):
        edges = " ".join(f"{edge:g}" for edge in bbox)
        raise JobError(f"--bbox {edges} is not west south east north in degrees")
    if bbox:
        return bbox_area(*bbox)
    if within is None:
        return None
    from earthgptx.pipeline.job.vectors import read_aoi

    return read_aoi(str(within))


def _rows(found: pa.Table) -> list[dict[str, str]]:
    import pyarrow as pa

    extra = [name for name in ("distance_m", "rank", "result") if name in found.column_names]
    if "reply" in found.column_names:
        return _reply_rows(found, extra)
    names = ["object_id", "time", "label", "score", "caption", *extra]
    shown = found.select(names).slice(0, ROWS)
    # As texts: for times pyarrow loads pandas, which takes longer than most questions.
    shown = shown.set_column(1, "time", shown["time"].cast(pa.string()))
    return [
        {
            "id": f"{row['object_id']:x}"[:8],
            "time": row["time"][:10],
            "label": row["label"],
            "score": f"{row['score']:.2f}",
            "caption": row["caption"],
            **{name: _short(row[name]) for name in extra},
        }
        for row in shown.to_pylist()
    ]


def _reply_rows(found: pa.Table, extra: list[str]) -> list[dict[str, str]]:
    import pyarrow as pa

    names = ["object_id", "time", "label", "question", "reply", "likelihood", *extra]
    shown = found.select(names).slice(0, ROWS)
    shown = shown.set_column(1, "time", shown["time"].cast(pa.string()))
    return [
        {
            "of": f"{row['label']} {row['object_id']:x}"[:16] if row["object_id"] else "tile",
            "time": row["time"][:10],
            "question": row["question"],
            "reply": row["reply"],
            "likelihood": f"{row['likelihood']:.2f}",
            **{name: _short(row[name]) for name in extra},
        }
        for row in shown.to_pylist()
    ]


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return str(value).rsplit("/", 1)[-1]

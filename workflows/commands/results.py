"""Commands that inspect results: status, why, versions, show, export."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from earthgptx.pipeline.results.vectors import Format
from earthgptx.workflows.terminal import AsJson, out, print_json, print_table

if TYPE_CHECKING:
    from earthgptx.pipeline.results.result import Result

app = typer.Typer()
Output = Annotated[
    str, typer.Argument(metavar="OUTPUT", help="A result: any fsspec URL that ends in .zarr.")
]
Snapshot = Annotated[
    str, typer.Option(metavar="ID", help="An earlier state of the result; see `versions`.")
]
Tag = Annotated[
    str, typer.Option(metavar="SLICE", help="The state in which a time slice was finished.")
]
AsOf = Annotated[str, typer.Option(metavar="TIME", help="The state that readers saw then.")]


def opened(output: str, snapshot: str, tag: str, as_of: str) -> Result:
    """Opens a result, or an earlier state of it."""
    from earthgptx.pipeline.results.result import open_result

    return open_result(output, snapshot=snapshot, tag=tag, as_of=as_of or None)


@app.command(epilog="Example: earthgptx status results/harbour.zarr")
def status(
    output: Output,
    snapshot: Snapshot = "",
    tag: Tag = "",
    as_of: AsOf = "",
    as_json: AsJson = False,
) -> None:
    """Print how much of a result is done."""
    from earthgptx.pipeline.results.status import state_of

    result = opened(output, snapshot, tag, as_of)
    if not (snapshot or tag or as_of):
        result = result.as_runs_left_it()
    facts = asdict(state_of(result))
    if as_json:
        print_json(facts)
        return
    blocks = f"{facts['blocks']} of {facts['blocks_total']} blocks"
    out.print(
        f"{output}: [bold]{facts['state']}[/bold], {blocks}, "
        f"{facts['failed_tiles']} tiles quarantined; time slices: "
        + (", ".join(f"{count} {state}" for state, count in facts["slices"].items()) or "none"),
        soft_wrap=True,
    )
    shares = facts["pixels"].items()
    print_table("", [{"pixels": word, "share": f"{100 * part:.2f} %"} for word, part in shares])


@app.command(epilog="Example: earthgptx why results/harbour.zarr 5.96 42.995")
def why(
    output: Output,
    lon: Annotated[float, typer.Argument(help="Degrees east.")],
    lat: Annotated[float, typer.Argument(help="Degrees north.")],
    snapshot: Snapshot = "",
    tag: Tag = "",
    as_of: AsOf = "",
    as_json: AsJson = False,
) -> None:
    """Print what the result knows of one place, and if nothing, why."""
    result = opened(output, snapshot, tag, as_of)
    answers = [asdict(answer) for answer in result.why(lon, lat)]
    if as_json:
        print_json(answers)
        return
    rows = [{**answer, "object_id": answer["object_id"] or ""} for answer in answers]
    print_table(f"lon {lon}, lat {lat}", rows)


@app.command(epilog="Example: earthgptx versions icechunk+s3://bucket/harbour.zarr")
def versions(output: Output, as_json: AsJson = False) -> None:
    """Print the states of a result that keeps them, the last one first."""
    from earthgptx.pipeline.results.result import open_result

    found = open_result(output).versions
    rows = [
        {
            "snapshot": snapshot,
            "time": f"{time:%Y-%m-%dT%H:%M:%S.%fZ}",  # as a state is asked for
            "message": message,
            "tags": tags,
        }
        for snapshot, time, message, tags in found.itertuples(index=False)
    ]
    if as_json:
        print_json(rows)
        return
    print_table("", [{**row, "tags": " ".join(row["tags"])} for row in rows])


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
    from earthgptx.pipeline.results.png_file import check_png
    from earthgptx.pipeline.results.result import open_result
    from earthgptx.pipeline.storage.blobs import plain

    name = plain(output.rstrip("/")).removesuffix(".zarr").rsplit("/", 1)[-1]
    path = png or Path(f"{name}.png")
    check_png(path)
    draw(open_result(output), path)
    out.print(f"picture: {path}", soft_wrap=True)


class As(StrEnum):
    """How time slices become files."""

    SLICES = "slices"
    STACK = "stack"


@app.command(epilog="Example: earthgptx export results/harbour.zarr gis --as stack")
def export(
    output: Output,
    folder: Annotated[
        str, typer.Argument(metavar="DIR", help="A new folder, where the files are written.")
    ],
    how: Annotated[
        As, typer.Option("--as", help="A COG for each time slice, or one with slices as bands.")
    ] = As.SLICES,
    formats: Annotated[
        list[Format] | None,
        typer.Option(
            "--objects", help="Format of the objects; may be repeated. By default fgb and csv."
        ),
    ] = None,
    snapshot: Snapshot = "",
    tag: Tag = "",
    as_of: AsOf = "",
) -> None:
    """Write layers as COGs, objects as files, a QGIS project and a STAC Collection."""
    from earthgptx.pipeline.results.export import export as write
    from earthgptx.pipeline.results.export import local_folder

    result = opened(output, snapshot, tag, as_of)
    for path in write(result, local_folder(folder), stack=how == As.STACK, formats=formats or ()):
        out.print(str(path), soft_wrap=True)

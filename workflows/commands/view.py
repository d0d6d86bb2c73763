"""Commands that look at results before they are used: serve, inspect."""

from __future__ import annotations

import os
import socket
import threading
import webbrowser
from collections.abc import Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from earthgptx.pipeline.errors import JobError, PipelineError
from earthgptx.workflows.commands.results import Output, opened
from earthgptx.workflows.terminal import AsJson, out, print_json, print_table, print_warnings

if TYPE_CHECKING:
    from earthgptx.pipeline.results.inspection import Measure
    from earthgptx.workflows.view.served import Served

app = typer.Typer()


@app.command(epilog="Example: earthgptx serve demo/results/sar.zarr --open")
def serve(
    outputs: Annotated[list[str], typer.Argument(metavar="OUTPUT...", help="Results.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any that is free.")] = 8080,
    host: Annotated[
        str, typer.Option(help="Address to listen on; beyond this machine the page has a token.")
    ] = "127.0.0.1",
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Show results as a map in the browser; Ctrl-C ends it.

    Nothing is uploaded, and nothing is fetched from the internet but the imagery of the results.
    """
    if find_spec("starlette") is None or find_spec("uvicorn") is None:
        raise JobError("the map's server is not installed: pip install 'earthgptx[view]'")
    import uvicorn

    from earthgptx.workflows.view.app import make_app, token_for
    from earthgptx.workflows.view.served import Served

    served = [Served(output) for output in outputs]
    _refuse_if_none_opens(served)
    token = token_for(host)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listening:
        if os.name == "posix":  # elsewhere it lets a port be taken twice
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
            listening.listen()  # a browser that is opened now waits for the server
        except OSError as error:
            raise JobError(
                f"port {port} of {host} cannot be used ({error.strerror}); give another --port"
            ) from error
        name = socket.gethostname() if host in ("0.0.0.0", "::") else host  # noqa: S104
        name = f"[{name}]" if ":" in name else name
        address = f"http://{name}:{listening.getsockname()[1]}/{f'{token}/' if token else ''}"
        out.print(f"map: {address}", highlight=False, soft_wrap=True)
        if open_page:
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
        config = uvicorn.Config(make_app(served, token=token), log_level="warning", lifespan="off")
        uvicorn.Server(config).run(sockets=[listening])


def _refuse_if_none_opens(served: Sequence[Served]) -> None:
    """Warns of results that cannot be opened; the page says it of each.

    What the page asks of a result first is asked here too, so that the page need not wait for it.

    Raises:
        PipelineError: none can be.
    """
    reasons = []
    for each in served:
        try:
            each.about()
        except PipelineError as error:
            reasons.append(error)
    if len(reasons) == len(served):
        raise reasons[0]
    print_warnings(map(str, reasons))


def _verdict(found: Measure) -> str:
    if not found.holds:
        return "DOES NOT HOLD"
    return "holds" if found.value <= found.bound else "too few to be sure"


@app.command(epilog="Example: earthgptx inspect results/harbour.zarr --png inspected.png")
def inspect(
    output: Output,
    slice_names: Annotated[
        list[str] | None,
        typer.Option("--slice", metavar="NAME", help="A time slice; may be repeated."),
    ] = None,
    seam: Annotated[
        float, typer.Option(min=1, help="Most changes on borders, relative to inside.")
    ] = 1.5,
    holes: Annotated[int, typer.Option(min=0, help="Most pixels without any answer.")] = 0,
    step: Annotated[
        float, typer.Option(min=0, max=1, help="Largest mean step of scores between blocks.")
    ] = 0.05,
    drift: Annotated[
        float, typer.Option(min=0, max=1, help="Largest distance of scores from slices before.")
    ] = 0.2,
    duplicates: Annotated[
        float, typer.Option(min=0, max=1, help="Largest share of objects that are there twice.")
    ] = 0.01,
    cut: Annotated[
        float, typer.Option(min=1, help="Most straight edges on borders, relative to elsewhere.")
    ] = 2.0,
    png: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Write a picture of where it is.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Look for seams, holes, drift, duplicates and cut objects; exit code 1 if there are some."""
    from earthgptx.pipeline.results.inspection import Bounds
    from earthgptx.pipeline.results.inspection import inspect as measure
    from earthgptx.pipeline.results.png_file import check_png

    if png is not None:
        check_png(png)
    bounds = Bounds(seam, holes, step, drift, duplicates, cut)
    result = opened(output, "", "", "")
    found = measure(result, bounds, slice_names or ())
    if png is not None:
        from earthgptx.pipeline.results.inspection_picture import draw_places

        draw_places(result, found, png)
    if as_json:
        print_json([asdict(each) for each in found])
    else:
        print_table(
            f"{sum(not each.holds for each in found)} of {len(found)} measures do not hold",
            [
                {
                    "slice": each.slice,
                    "zone": each.zone,
                    "measure": each.measure,
                    "value": f"{each.value:.3g}",
                    "at most": f"{each.bound:g}",
                    "": _verdict(each),
                }
                for each in found
            ],
        )
        if png is not None:
            out.print(f"picture: {png}", soft_wrap=True)
    raise typer.Exit(int(any(not each.holds for each in found)))

"""The command that shows results as a map in the browser: serve."""

from __future__ import annotations

import socket
import webbrowser
from importlib.util import find_spec
from typing import Annotated

import typer

from earthgptx.pipeline.errors import JobError
from earthgptx.workflows.terminal import out

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
    token = token_for(host)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
            listening.listen()  # a browser that is opened now waits for the server
        except OSError as error:
            raise JobError(
                f"port {port} of {host} cannot be used ({error.strerror}); give another --port"
            ) from error
        name = f"[{host}]" if ":" in host else host
        address = f"http://{name}:{listening.getsockname()[1]}/{f'{token}/' if token else ''}"
        out.print(f"map: {address}", highlight=False, soft_wrap=True)
        if open_page:
            webbrowser.open(address)
        config = uvicorn.Config(make_app(served, token=token), log_level="warning", lifespan="off")
        uvicorn.Server(config).run(sockets=[listening])

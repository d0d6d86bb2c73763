"""Where a picture may be written, and writing it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from earthgptx.pipeline.errors import JobError, OutputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def check_png(png: Path) -> None:
    """Lets a path pass that a picture can be written to.

    Raises:
        JobError: it does not end in .png, is a folder, or lies in none.
    """
    if png.suffix.lower() != ".png":
        raise JobError(f"a picture is a PNG: '{png}' does not end in .png")
    if png.is_dir():
        raise JobError(f"{png} is a folder; name a file")
    if not png.absolute().parent.is_dir():
        raise JobError(f"there is no folder {png.absolute().parent} for {png.name}")


def save(figure: Figure, png: str | Path) -> None:
    """Writes a figure as PNG.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        figure.savefig(png, dpi=120, format="png")
    except OSError as error:
        raise OutputError(f"{png} cannot be written: {error.strerror or error}") from error

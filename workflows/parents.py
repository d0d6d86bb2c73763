"""Creates the folders in which results are written."""

from __future__ import annotations

from pathlib import Path

from earthgptx.pipeline.errors import OutputError
from earthgptx.pipeline.storage.blobs import is_local, plain


def make_parent(url: str) -> None:
    """Creates the parent folder of an output that is a local path.

    Raises:
        OutputError: it cannot be created.
    """
    if not is_local(url):
        return
    path = Path(plain(url).removeprefix("file://"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path.parent} cannot be created: {error.strerror}") from error

"""Where the GeoParquet files of a result's objects and answers lie, by time slice."""

from __future__ import annotations

import re

from earthgptx.pipeline.storage.blobs import plain
from earthgptx.pipeline.storage.local import PARTIAL

_NAME = re.compile(r"slice=[0-9A-Za-z-]+/\d+(-[0-9a-f]{8})?\.parquet")
_LEFTOVER = re.compile(_NAME.pattern + r"\.[0-9a-f]{32}" + re.escape(PARTIAL))


def rows_beside(output: str, name: str) -> str:
    """Returns the URL of the folder of a result's `objects` or `answers`."""
    return f"{plain(output).removesuffix('.zarr')}.{name}"


def partition(slice_name: str, number: int, version: str = "") -> str:
    """Returns the name of one of a slice's files in such a folder.

    Args:
        slice_name: name of the slice.
        number: number of the file, from 0.
        version: what tells files apart that are kept for several states of a result.
    """
    return f"slice={slice_name}/{number}{version and '-'}{version}.parquet"


def is_partition(name: str) -> bool:
    """Whether a file in such a folder is named as `partition` names one."""
    return bool(_NAME.fullmatch(name))


def is_leftover(name: str) -> bool:
    """Whether a file in such a folder is one that a dead process left unfinished."""
    return bool(_LEFTOVER.fullmatch(name))

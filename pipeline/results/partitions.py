"""Where the GeoParquet files of a result's objects and answers lie, one of each a time slice."""

from __future__ import annotations

import re

from earthgptx.pipeline.storage.local import PARTIAL

_NAME = re.compile(r"slice=[0-9A-Za-z-]+/0\.parquet")
_LEFTOVER = re.compile(_NAME.pattern + r"\.[0-9a-f]{32}" + re.escape(PARTIAL))


def objects_beside(output: str) -> str:
    """Returns the URL of the folder of a result's objects, a GeoParquet file a time slice."""
    return rows_beside(output, "objects")


def rows_beside(output: str, name: str) -> str:
    """Returns the URL of the folder of a result's `objects` or `answers`."""
    return f"{output.removesuffix('.zarr')}.{name}"


def partition(slice_name: str) -> str:
    """Returns the name of a slice's file in such a folder."""
    return f"slice={slice_name}/0.parquet"


def is_partition(name: str) -> bool:
    """Whether a file in such a folder is named as `partition` names one."""
    return bool(_NAME.fullmatch(name))


def is_leftover(name: str) -> bool:
    """Whether a file in such a folder is one that a dead process left unfinished."""
    return bool(_LEFTOVER.fullmatch(name))

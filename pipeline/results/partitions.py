"""Where the GeoParquet files of a result's objects and answers lie, by time slice."""

from __future__ import annotations

import re

from earthgptx.pipeline.storage.local import PARTIAL

_NAME = re.compile(r"slice=[0-9A-Za-z-]+/\d+\.parquet")
_LEFTOVER = re.compile(_NAME.pattern + r"\.[0-9a-f]{32}" + re.escape(PARTIAL))


def rows_beside(output: str, name: str) -> str:
    """Returns the URL of the folder of a result's `objects` or `answers`."""
    return f"{output.removesuffix('.zarr')}.{name}"


def partition(slice_name: str, number: int) -> str:
    """Returns the name of one of a slice's files in such a folder, counted from 0."""
    return f"slice={slice_name}/{number}.parquet"


def is_partition(name: str) -> bool:
    """Whether a file in such a folder is named as `partition` names one."""
    return bool(_NAME.fullmatch(name))


def is_leftover(name: str) -> bool:
    """Whether a file in such a folder is one that a dead process left unfinished."""
    return bool(_LEFTOVER.fullmatch(name))

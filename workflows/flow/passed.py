"""Which time slices of a result have passed a check, so that none is published that has not.

A file beside the result, `NAME.checks.json`: by the hash of the bounds, the content of each slice
that kept to them. A slice that has changed since is checked again.
"""

from __future__ import annotations

import hashlib
import json

from earthgptx.pipeline.engine.output import beside
from earthgptx.pipeline.results.slices_group import SliceRow
from earthgptx.pipeline.storage.blobs import split
from earthgptx.workflows.flow.spec import Bounds

ENDING = ".checks.json"


class Passed:
    """The slices of a result that have passed a check of these bounds."""

    def __init__(self, output: str, bounds: Bounds) -> None:
        """Reads what is known of the result at this address."""
        self._blobs, self._name = split(beside(output, ENDING))
        told = bounds.model_dump_json(exclude={"accept"})
        self._key = hashlib.sha256(told.encode()).hexdigest()[:16]
        try:
            found = json.loads(self._blobs.get(self._name).data)
        except (FileNotFoundError, ValueError):
            found = {}
        self._all: dict[str, dict[str, str]] = found if isinstance(found, dict) else {}

    def has(self, row: SliceRow) -> bool:
        """Whether a slice has passed as it is now."""
        return self._all.get(self._key, {}).get(row.name) == _content(row)

    def add(self, rows: list[SliceRow]) -> None:
        """Notes that slices have passed as they are now."""
        if rows:
            mine = self._all.get(self._key, {}) | {row.name: _content(row) for row in rows}
            self._all[self._key] = mine
            self._blobs.put(self._name, json.dumps(self._all, indent=1).encode())


def _content(row: SliceRow) -> str:
    return f"{row.key} {row.failed} {row.objects} {row.object_digest}"

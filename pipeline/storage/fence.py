"""Fenced writer: every write of a run checks that the run still holds its output.

The check reads the lease's record, at most once in `CHECK_S`. A process that was frozen reads it
again when it wakes, as the clock that counts `CHECK_S` does not stop; a run that has lost its
output writes nothing more. What remains is a write that is frozen between the check and the system
call, for as long as a lease lasts.
"""

from __future__ import annotations

import asyncio
import functools
import json
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

from obstore.exceptions import BaseError
from zarr.storage import WrapperStore

from earthgptx.pipeline.errors import DiskFull, Outage, RunLost
from earthgptx.pipeline.storage.blobs import Blob, Blobs, open_blobs, split

HOLDER = "run/holder.json"
"""Name of the lease's record in the scratch folder."""
CHECK_S = 0.5
"""Seconds for which a check holds."""
PAUSES_S = (1.0, 2.0, 4.0, 8.0)
"""Pauses between the attempts of a write during an outage."""


def parts_of(output: str) -> str:
    """Returns the URL of the scratch folder of an output."""
    return output.removesuffix(".zarr") + ".parts"


def memory_of(output: str) -> str:
    """Returns the URL of the folder that keeps what blocks of an output have seen."""
    return output.removesuffix(".zarr") + ".memory"


class Fence:
    """Checks that the run with this token still holds its output."""

    def __init__(self, blobs: Blobs, token: str) -> None:
        """Sets the scratch folder of the output, and the run's token."""
        self._blobs, self.token = blobs, token
        self._checked = -CHECK_S
        self._counting = threading.Lock()
        self._written = 0

    def check(self) -> None:
        """Checks the lease, unless that was done a moment ago.

        Raises:
            RunLost: another run holds the output, or nobody does.
        """
        now = _now()
        if now - self._checked < CHECK_S:
            return
        found = read_holder(self._blobs)
        if found.get("token") != self.token:
            raise RunLost(
                f"{self._blobs.url}: another run holds the output now "
                f"({found.get('host', 'its record is gone')}, process {found.get('pid')}); "
                "this run writes nothing more"
            )
        self._checked = now

    def note_written(self, count: int) -> None:
        """Counts bytes that were written behind the fence."""
        with self._counting:
            self._written += count

    def take_written(self) -> int:
        """Returns the bytes written since the last call."""
        with self._counting:
            count, self._written = self._written, 0
        return count


def _now() -> float:
    """Returns seconds of a clock that goes on while the machine is suspended, if there is one."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)


def read_holder(blobs: Blobs) -> dict[str, Any]:
    """Returns the record of the run that holds an output; empty if it is missing or torn."""
    try:
        return decoded(blobs.get(HOLDER))
    except FileNotFoundError:
        return {}


def decoded(blob: Blob) -> dict[str, Any]:
    """Returns a lease's record; empty if it is torn, so that its holder counts as alive for now."""
    try:
        record = json.loads(blob.data)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


class FencedBlobs:
    """A folder whose writes check the lease; see `Blobs`.

    A write that fails for an outage is repeated, each time after a check.
    """

    def __init__(self, blobs: Blobs, fence: Fence) -> None:
        """Wraps a folder."""
        self._blobs, self._fence = blobs, fence
        self.url, self.delete_batch = blobs.url, blobs.delete_batch

    def get(self, name: str) -> Blob:
        return self._blobs.get(name)

    def open(self, name: str) -> Any:
        return self._blobs.open(name)

    def put(self, name: str, data: bytes) -> None:
        self._repeated(lambda: self._blobs.put(name, data))
        self._fence.note_written(len(data))

    def delete(self, names: Iterable[str]) -> None:
        listed = list(names)
        for start in range(0, len(listed), self.delete_batch):
            batch = listed[start : start + self.delete_batch]
            self._repeated(functools.partial(self._blobs.delete, batch))

    def _repeated(self, write: Callable[[], None]) -> None:
        for pause in (*PAUSES_S, None):
            self._fence.check()
            try:
                return write()
            except Outage as error:
                if pause is None or isinstance(error, DiskFull):
                    raise
                time.sleep(pause)
        return None

    def names(self, folder: str = "") -> list[str]:
        return self._blobs.names(folder)

    def sizes(self) -> dict[str, int]:
        return self._blobs.sizes()

    def leftovers(self) -> list[str]:
        return self._blobs.leftovers()

    def tidy(self) -> None:
        self._blobs.tidy()

    def zarr_store(self) -> Any:
        return FencedStore(
            self._blobs.zarr_store(read_only=False),
            self._blobs.zarr_store(read_only=True),
            self._fence,
        )


def put_fenced(url: str, data: bytes, fence: Fence) -> None:
    """Writes a file atomically if the run still holds its output."""
    blobs, name = split(url)
    FencedBlobs(blobs, fence).put(name, data)


def fenced(url: str, fence: Fence) -> FencedBlobs:
    """Returns the folder at a URL whose writes check the lease."""
    return FencedBlobs(open_blobs(url), fence)


class FencedStore(WrapperStore[Any]):
    """A zarr store whose writes check the lease; an outage is waited out as in `FencedBlobs`."""

    def __init__(self, store: Any, reader: Any, fence: Fence) -> None:
        """Wraps a zarr store for writing, and one of the same files for reading."""
        super().__init__(store)
        self._reader, self._fence = reader, fence

    def _with_store(self, store: Any) -> FencedStore:
        return type(self)(store, self._reader, self._fence)

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        return await self._reader.get(key, prototype, byte_range)

    async def get_partial_values(self, prototype: Any, key_ranges: Any) -> Any:
        return await self._reader.get_partial_values(prototype, key_ranges)

    async def exists(self, key: str) -> bool:
        return bool(await self._reader.exists(key))

    def list(self) -> AsyncIterator[str]:
        return self._reader.list()

    def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        return self._reader.list_prefix(prefix)

    def list_dir(self, prefix: str) -> AsyncIterator[str]:
        return self._reader.list_dir(prefix)

    async def set(self, key: str, value: Any) -> None:
        await self._write(lambda: self._store.set(key, value))
        self._fence.note_written(len(value))

    async def set_if_not_exists(self, key: str, value: Any) -> None:
        await self._write(lambda: self._store.set_if_not_exists(key, value))

    async def _set_many(self, values: Iterable[tuple[str, Any]]) -> None:
        await asyncio.gather(*(self.set(key, value) for key, value in values))

    async def delete(self, key: str) -> None:
        await self._write(lambda: self._store.delete(key))

    async def delete_dir(self, prefix: str) -> None:
        await self._write(lambda: self._store.delete_dir(prefix))

    async def clear(self) -> None:
        await self._write(self._store.clear)

    async def _write(self, operation: Callable[[], Awaitable[None]]) -> None:
        for pause in (*PAUSES_S, None):
            self._fence.check()
            try:
                return await operation()
            except BaseError:
                if pause is None:
                    raise
                await asyncio.sleep(pause)
        return None

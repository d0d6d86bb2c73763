"""Who is writing an output, and which blocks of it are committed.

A run holds a token; every commit checks it, so that a worker given up for dead cannot commit into a
later run. The ledger itself is the group `blocks` of the store: an entry is a chunk, written last.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from enum import IntEnum

import numpy as np
import psutil
import zarr

from pipeline.errors import OutputBusy, RunLost
from pipeline.grid import BlockKey
from pipeline.plan import Plan
from pipeline.scratch import Scratch
from pipeline.store import array_at, group_path

LEASE_S = 60.0
"""A holder on another machine that has not been heard of for so long is taken for dead."""
BEAT_S = 5.0
_KIND, _NAME = "run", "holder.json"


class BlockState(IntEnum):
    """How far a block is."""

    OPEN = 0
    COMMITTED = 1


class Lease:
    """The right to write an output. A context manager; holds while its process lives."""

    def __init__(self, scratch: Scratch) -> None:
        """Name what is to be held; `__enter__` takes it."""
        self._scratch = scratch
        self.token = uuid.uuid4().hex
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)

    def __enter__(self) -> Lease:
        """Take the lease.

        Raises:
            OutputBusy: another run holds it.
        """
        path = self._scratch.path(_KIND, _NAME)
        self._scratch.fs.makedirs(f"{self._scratch.root}/{_KIND}", exist_ok=True)
        try:
            self._scratch.fs.pipe_file(path, self._record(), mode="create")
        except FileExistsError:
            self._take_over()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Give it back."""
        self._stop.set()
        self._thread.join(timeout=BEAT_S)
        if holder(self._scratch).get("token") == self.token:
            self._scratch.drop(_KIND, [_NAME])

    def _take_over(self) -> None:
        found = holder(self._scratch)
        here = found.get("host") == socket.gethostname()
        alive = _lives(found) if here else time.time() - float(found.get("beat", 0)) < LEASE_S
        if alive:
            raise OutputBusy(
                f"{self._scratch.url.removesuffix('.parts')}.zarr is being written by another run (host "
                f"{found.get('host')}, process {found.get('pid')}); wait for it, or choose another output"
            )
        self._scratch.put(_KIND, _NAME, self._record())
        check(self._scratch, self.token)

    def _record(self) -> bytes:
        me = psutil.Process()
        return json.dumps(
            {
                "token": self.token, "host": socket.gethostname(), "pid": os.getpid(),
                "started": me.create_time(), "beat": time.time(),
            }
        ).encode()  # fmt: skip

    def _keep(self) -> None:
        while not self._stop.wait(BEAT_S):
            if holder(self._scratch).get("token") != self.token:
                return
            self._scratch.put(_KIND, _NAME, self._record())


def holder(scratch: Scratch) -> dict[str, str | int | float]:
    """Who holds an output; empty where nobody does."""
    try:
        record: dict[str, str | int | float] = json.loads(scratch.get(_KIND, _NAME))
    except (FileNotFoundError, ValueError):
        return {}
    return record


def check(scratch: Scratch, token: str) -> None:
    """Refuse to go on without the lease.

    Raises:
        RunLost: another run holds the output.
    """
    found = holder(scratch)
    if found.get("token") != token:
        raise RunLost(f"{scratch.url}: another run holds the output now ({found.get('host')}, {found.get('pid')})")


def commit(
    root: zarr.Group, plan: Plan, key: BlockKey, scratch: Scratch, token: str, *, tiles: int, failed: int
) -> None:
    """Enter a block as committed; everything of it must have been written before.

    Raises:
        RunLost: another run holds the output.
    """
    check(scratch, token)
    blocks = group_path(plan, "blocks", key.grid)
    at = (key.time, key.row, key.col)
    for name, value in (("tiles", tiles), ("failed", failed), ("state", BlockState.COMMITTED)):
        array_at(root, f"{blocks}/{name}")[at] = value


def committed(root: zarr.Group, plan: Plan) -> set[BlockKey]:
    """Blocks that are committed."""
    found: set[BlockKey] = set()
    for name in plan.grids:
        state = array_at(root, f"{group_path(plan, 'blocks', name)}/state")[...]
        at = np.argwhere(np.asarray(state) == BlockState.COMMITTED)
        found.update(BlockKey(name, *place) for place in at.tolist())
    return found & plan.block_set


def failed_tiles(root: zarr.Group, plan: Plan) -> int:
    """Tiles quarantined in the committed blocks."""
    paths = [f"{group_path(plan, 'blocks', name)}/failed" for name in plan.grids]
    return sum(int(np.asarray(array_at(root, path)[...]).sum()) for path in paths)


def _lives(record: dict[str, str | int | float]) -> bool:
    try:
        process = psutil.Process(int(record["pid"]))
        return abs(process.create_time() - float(record["started"])) < 1.0 and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, KeyError, ValueError):
        return False

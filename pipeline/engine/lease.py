"""Lease on an output: grants one run the right to write.

A holder renews its lease with heartbeats, and tasks check the lease before they write.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid

import psutil

from earthgptx.pipeline.engine.scratch import Scratch
from earthgptx.pipeline.errors import OutputBusy, RunLost

LEASE_S = 60.0
"""Seconds without a heartbeat after which a holder on another machine counts as dead."""

BEAT_S = 5.0
"""Seconds between heartbeats."""

_KIND, _NAME = "run", "holder.json"


class Lease:
    """Context manager that holds the right to write an output while its process lives."""

    def __init__(self, scratch: Scratch) -> None:
        """Prepares a lease on the output of a scratch; `__enter__` takes it."""
        self._scratch = scratch
        self.token = uuid.uuid4().hex
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)

    def __enter__(self) -> Lease:
        """Takes the lease.

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
        """Releases the lease."""
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
                f"{self._scratch.url.removesuffix('.parts')}.zarr is being written by another run "
                f"(host {found.get('host')}, process {found.get('pid')}); "
                "wait for it, or choose another output"
            )
        self._scratch.put(_KIND, _NAME, self._record())
        check(self._scratch, self.token)

    def _record(self) -> bytes:
        me = psutil.Process()
        return json.dumps(
            {
                "token": self.token,
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "started": me.create_time(),
                "beat": time.time(),
            }
        ).encode()

    def _keep(self) -> None:
        while not self._stop.wait(BEAT_S):
            if holder(self._scratch).get("token") != self.token:
                return
            self._scratch.put(_KIND, _NAME, self._record())


def holder(scratch: Scratch) -> dict[str, str | int | float]:
    """Returns the record of the run that holds an output; empty if there is none."""
    try:
        record: dict[str, str | int | float] = json.loads(scratch.get(_KIND, _NAME))
    except (FileNotFoundError, ValueError):
        return {}
    return record


def check(scratch: Scratch, token: str) -> None:
    """Checks that the lease with this token still holds.

    Raises:
        RunLost: another run holds the output.
    """
    found = holder(scratch)
    if found.get("token") != token:
        raise RunLost(
            f"{scratch.url}: another run holds the output now "
            f"({found.get('host')}, {found.get('pid')})"
        )


def _lives(record: dict[str, str | int | float]) -> bool:
    try:
        process = psutil.Process(int(record["pid"]))
        return (
            abs(process.create_time() - float(record["started"])) < 1.0
            and process.status() != psutil.STATUS_ZOMBIE
        )
    except (psutil.Error, KeyError, ValueError):
        return False

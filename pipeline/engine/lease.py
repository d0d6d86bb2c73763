"""Lease on an output: grants one run the right to write.

The lease is a file that only conditional writes create or change. Its holder changes it every few
seconds. No clock of one machine is compared with that of another: a lease lapses when a watcher has
seen its version unchanged for `LEASE_S` by the watcher's own clock, or when its process is gone
from the watcher's own machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from pathlib import Path
from typing import Any, Self

import psutil
import structlog

from earthgptx.pipeline.engine.scratch import MAGIC
from earthgptx.pipeline.errors import (
    Outage,
    OutputBusy,
    OutputError,
    PipelineError,
    RunLost,
    WaitedFor,
)
from earthgptx.pipeline.storage.blobs import Blob, Blobs, Conflict, open_blobs
from earthgptx.pipeline.storage.fence import HOLDER, Fence, decoded, parts_of

log = structlog.get_logger()

LEASE_S = 60.0
"""Seconds without a change after which a lease lapses; EARTHGPTX_LEASE_S overrides it."""
BEATS = 12
"""Changes of a live lease within `LEASE_S`."""
MARK = "earthgptx"
"""Key of a record that says that the folder is scratch of this package."""


class Lease:
    """Context manager that holds the right to write an output while its process lives."""

    def __init__(self, output: str) -> None:
        """Prepares a lease on an output; `__enter__` takes it.

        Args:
            output: URL of the result; ends in .zarr.
        """
        self._output = output
        self._blobs: Blobs = open_blobs(parts_of(output))
        self._version = ""
        self._record: dict[str, Any] = {}
        self._stop = threading.Event()
        self._guard = threading.Lock()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self.lease_s = float(os.environ.get("EARTHGPTX_LEASE_S", LEASE_S))
        self.fence = Fence(self._blobs, uuid.uuid4().hex)
        self.finished = False
        """Whether the result is finished; set by whoever finishes it."""

    @property
    def token(self) -> str:
        """Token that names this run in the lease's record."""
        return self.fence.token

    @property
    def owned_series(self) -> str:
        """Plan whose store this folder's runs have created; empty if there is none."""
        return str(self._record.get("series", ""))

    def __enter__(self) -> Self:
        """Takes the lease.

        Raises:
            OutputBusy: another run holds it.
            OutputError: the folder beside the output is not ours.
        """
        while True:
            try:
                found = self._blobs.get(HOLDER)
            except FileNotFoundError:
                self._refuse_foreign()
                if self._create():
                    break
                continue
            if self._free(found) and self._take_over(found):
                break
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        """Releases the lease.

        The record goes if the result is finished and scratch is empty. Else it stays, released: it
        says that the folder and an unfinished store are ours. A store that has not answered for
        minutes is not asked again: the lease lapses.
        """
        self._stop.set()
        if any(isinstance(each, WaitedFor) for each in raised):
            return
        self._thread.join(timeout=2.0)
        with self._guard, contextlib.suppress(Conflict, PipelineError, FileNotFoundError):
            unfinished = self.owned_series and not self.finished
            if unfinished or [n for n in self._blobs.names() if not n.startswith("run/")]:
                self._write(self._record | {"token": ""})
            else:
                self._blobs.delete_if(HOLDER, self._version)
                self._blobs.delete([f"{HOLDER}.lock"])
                self._blobs.tidy()

    def own(self, series: str) -> None:
        """Notes that the store beside this folder is ours, made for this series.

        Raises:
            RunLost: another run holds the output.
        """
        with self._guard:
            try:
                self._write(self._record | {"series": series})
            except Conflict:
                raise RunLost(
                    f"{self._output}: another run holds the output now; "
                    "this run writes nothing more"
                ) from None

    def _refuse_foreign(self) -> None:
        """Refuses a folder without a record, unless it holds nothing but sealed files of ours."""
        names = [name for name in self._blobs.names() if not name.startswith(f"{HOLDER}.")]
        if names and not all(self._is_sealed(name) for name in names[:100]):
            raise OutputError(
                f"{self._blobs.url} exists and is no scratch folder of earthgptx (it holds "
                f"{names[0]}); move it away or choose another output"
            )

    def _is_sealed(self, name: str) -> bool:
        with self._blobs.open(name) as file:
            return bool(file.read(len(MAGIC)) == MAGIC)

    def _create(self) -> bool:
        self._record = self._fresh(1, "")
        try:
            self._version = self._blobs.put_new(HOLDER, _encoded(self._record))
        except Conflict:
            return self._is_mine()
        return True

    def _free(self, found: Blob) -> bool:
        """Whether a lease is released, or its holder is gone or silent for `LEASE_S`."""
        record = decoded(found)
        if record.get("token") == "" or (record.get("alone") and _is_gone(record)):
            return True
        where = f"host {record.get('host')}, process {record.get('pid')}"
        log.warning(
            "waiting to see whether the run that holds the output is alive",
            output=self._output,
            holder=where,
            seconds=self.lease_s,
        )
        seen = since = time.monotonic()
        while seen - since < self.lease_s:
            time.sleep(min(1.0, self.lease_s / BEATS))
            try:
                version = self._blobs.get(HOLDER).version
            except FileNotFoundError:
                return False
            before, seen = seen, time.monotonic()
            if seen - before > self.lease_s / 4:
                since = seen  # nobody could read or write for a while, the holder included
            if version != found.version:
                raise OutputBusy(
                    f"{self._output} is being written by another run ({where}); wait for it, or "
                    "choose another output"
                )
        return True

    def _take_over(self, found: Blob) -> bool:
        old = decoded(found)
        self._record = self._fresh(int(old.get("epoch", 0)) + 1, str(old.get("series", "")))
        try:
            self._version = self._blobs.put_if(HOLDER, _encoded(self._record), found.version)
        except (Conflict, FileNotFoundError):
            return self._is_mine()
        return True

    def _is_mine(self) -> bool:
        """Whether a conditional write that failed had succeeded before, with its answer lost."""
        try:
            found = self._blobs.get(HOLDER)
        except FileNotFoundError:
            return False
        if decoded(found).get("token") != self.token:
            return False
        self._version = found.version
        return True

    def _fresh(self, epoch: int, series: str) -> dict[str, Any]:
        return {
            MARK: 1,
            "token": self.token,
            "epoch": epoch,
            "series": series,
            "host": socket.gethostname(),
            "machine": _machine(),
            "pid": os.getpid(),
            # Replicas on other machines may outlive the driver by the time of a write.
            "alone": not os.environ.get("RAY_ADDRESS"),
            "started": _start_of(os.getpid()),
            "beat": 0,
        }

    def _write(self, record: dict[str, Any]) -> None:
        """Replaces the own record.

        Raises:
            Conflict: it is another run's.
        """
        try:
            self._version = self._blobs.put_if(HOLDER, _encoded(record), self._version)
        except Conflict:
            if not self._is_mine():
                raise
        self._record = record

    def _keep(self) -> None:
        """Changes the record until the lease is released or lost; an outage does not end it."""
        while not self._stop.wait(self.lease_s / BEATS):
            with self._guard:
                if self._stop.is_set():
                    return
                try:
                    self._write(self._record | {"beat": self._record["beat"] + 1})
                except Conflict:
                    return  # the next check of the fence says so
                except (Outage, OutputError, OSError) as error:
                    log.warning("the lease could not be renewed; trying again", why=str(error))


def _encoded(record: dict[str, Any]) -> bytes:
    return json.dumps(record).encode()


def _machine() -> str:
    """Returns what two processes share if they see one another: host, boot and PID namespace."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(Path("/proc/self/ns/pid").stat().st_ino))
    return " ".join(parts)


def _start_of(pid: int) -> float:
    """Returns when a process started: since boot where the system says so, as clocks are set."""
    try:
        return float(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return round(psutil.Process(pid).create_time(), 1)


def _is_gone(record: dict[str, Any]) -> bool:
    """Whether the holder ran on this machine and its process has ended."""
    if record.get("machine") != _machine():
        return False
    try:
        process = psutil.Process(int(record["pid"]))
        same = _start_of(process.pid) == record["started"]
        return not same or process.status() == psutil.STATUS_ZOMBIE
    except (psutil.Error, KeyError, ValueError, OSError):
        return True

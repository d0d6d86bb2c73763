"""Files on a local or mounted disk.

A file is written beside its target and then renamed, so that a reader sees the old content or the
new one. A conditional write holds a lock file while it compares and renames.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import zarr

from earthgptx.pipeline.errors import DiskFull, Outage, OutputError, PipelineError
from earthgptx.pipeline.storage.blobs import Blob, Conflict

PARTIAL = ".partial"
"""Ending of a file that is being written; one that is left over belongs to a process that died."""
LOCK = ".lock"
TRIES = 50
LOCK_S = 10.0
"""Seconds to wait for the lock file of a conditional write."""


class LocalBlobs:
    """A folder on a disk; see `Blobs`."""

    delete_batch = 1

    def __init__(self, path: str) -> None:
        """Sets the folder, without creating it."""
        self.url = path
        self._root = Path(path)

    def get(self, name: str) -> Blob:
        with disk_errors(self.url):
            data = (self._root / name).read_bytes()
        return Blob(data, _version(data))

    def put(self, name: str, data: bytes) -> None:
        with disk_errors(self.url), self._written(name, data) as partial:
            partial.replace(self._root / name)

    def put_new(self, name: str, data: bytes) -> str:
        with disk_errors(self.url), self._written(name, data) as partial:
            try:
                os.link(partial, self._root / name)  # unlike a rename, fails if the target exists
            except FileExistsError:
                raise Conflict(name) from None
        return _version(data)

    def put_if(self, name: str, data: bytes, version: str) -> str:
        with disk_errors(self.url), self._locked(name):
            self._expect(name, version)
            self.put(name, data)
        return _version(data)

    def delete(self, names: Iterable[str]) -> None:
        with disk_errors(self.url):
            for name in names:
                (self._root / name).unlink(missing_ok=True)

    def delete_if(self, name: str, version: str) -> None:
        with disk_errors(self.url), self._locked(name):
            self._expect(name, version)
            self.delete([name])

    def tidy(self) -> None:
        for where, _, _ in os.walk(self._root, topdown=False):
            with contextlib.suppress(OSError):  # it is not empty
                Path(where).rmdir()

    def names(self, folder: str = "") -> list[str]:
        with disk_errors(self.url):
            base = self._root / folder if folder else self._root
            return sorted(
                str(Path(where, name).relative_to(self._root))
                for where, _, files in os.walk(base)
                for name in files
            )

    def sizes(self) -> dict[str, int]:
        with disk_errors(self.url):
            return {name: (self._root / name).stat().st_size for name in self.names()}

    def leftovers(self) -> list[str]:
        return [name for name in self.names() if name.endswith(PARTIAL)]

    def open(self, name: str) -> Any:
        return (self._root / name).open("rb")

    def zarr_store(self, *, read_only: bool) -> Any:
        return zarr.storage.LocalStore(self._root, read_only=read_only)

    def _expect(self, name: str, version: str) -> None:
        try:
            found = self.get(name).version
        except FileNotFoundError:
            found = ""
        if found != version:
            raise Conflict(name)

    @contextmanager
    def _written(self, name: str, data: bytes) -> Iterator[Path]:
        """Writes a file beside its target; removes it at the end if it is still there."""
        path = self._root / name
        partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}{PARTIAL}")
        try:
            for attempt in range(TRIES):
                try:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    partial.write_bytes(data)
                    break
                except (FileNotFoundError, FileExistsError):  # another run has just tidied up
                    if attempt == TRIES - 1:
                        raise
            yield partial
        finally:
            with contextlib.suppress(OSError):
                partial.unlink()

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Holds the lock file beside a file. The system frees the lock of a process that dies."""
        path = self._root / f"{name}{LOCK}"
        path.parent.mkdir(parents=True, exist_ok=True)
        limit = time.monotonic() + LOCK_S
        with path.open("w") as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > limit:
                        raise Conflict(name) from None
                    time.sleep(0.02)
            # A holder that ends may remove the file; then another one guards the name now.
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_ino == os.fstat(lock.fileno()).st_ino:
                    yield
                    return
        raise Conflict(name)


@contextmanager
def disk_errors(url: str) -> Iterator[None]:
    """Turns an OSError into `Outage` or `OutputError`, except that a file does not exist."""
    try:
        yield
    except (FileNotFoundError, PipelineError):
        raise
    except OSError as error:
        raise disk_error(url, error) from error


def disk_error(url: str, error: OSError) -> PipelineError:
    """Returns the error to raise for an OSError that a disk gave."""
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(
            f"{url} cannot be written: {reason}. Finished blocks are kept; make room and run the "
            "same command again"
        )
    if error.errno in (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EMFILE):
        return Outage(
            f"{url} cannot be reached: {reason}. Finished blocks are kept; run the same command "
            "again"
        )
    return OutputError(f"{url} cannot be written: {reason}; check the path and its rights")


def _version(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]

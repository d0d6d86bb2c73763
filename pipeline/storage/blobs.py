"""Protocol of a folder of small files, on a local disk or an object store, with conditional writes.

A conditional write succeeds only if nobody else has written the file since it was read. All that
must have a single writer rests on it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from earthgptx.pipeline.errors import OutputError

CLOUD = ("s3", "s3a", "gs", "az", "abfs", "abfss")
"""Schemes of the object stores that a result can be written to."""
ICECHUNK = "icechunk+"
"""Beginning of the address of a result in an Icechunk repository; the rest is its place."""


class Conflict(Exception):
    """A conditional write found another version of the file than it expected."""


@dataclass(frozen=True, slots=True)
class Blob:
    """Content of a file, and the version that a conditional write compares."""

    data: bytes
    version: str


class Blobs(Protocol):
    """A folder of files. A name may contain slashes.

    All methods raise `Outage` if the storage does not answer or is full, and `OutputError` if it
    refuses the access.
    """

    url: str
    """Address of the folder."""
    delete_batch: int
    """Files to delete at once, before the lease is checked again."""

    def get(self, name: str) -> Blob:
        """Reads a file.

        Raises:
            FileNotFoundError: the file does not exist.
        """
        ...

    def put(self, name: str, data: bytes) -> None:
        """Writes a file atomically; replaces an existing one."""
        ...

    def put_new(self, name: str, data: bytes) -> str:
        """Writes a file that does not exist yet; returns its version.

        Raises:
            Conflict: the file exists.
        """
        ...

    def put_if(self, name: str, data: bytes, version: str) -> str:
        """Replaces a file that still has this version; returns its new version.

        Raises:
            Conflict: the file has another version, or does not exist.
        """
        ...

    def delete(self, names: Iterable[str]) -> None:
        """Removes files; missing ones are ignored."""
        ...

    def names(self, folder: str = "") -> list[str]:
        """Returns the names of all files in a folder and below it."""
        ...

    def sizes(self) -> dict[str, int]:
        """Returns the size in bytes of all files, by name."""
        ...

    def leftovers(self) -> list[str]:
        """Returns the files that processes which died have left half written."""
        ...

    def open(self, name: str) -> Any:
        """Opens a file for reading, as a binary file object that can seek.

        Raises:
            FileNotFoundError: the file does not exist.
        """
        ...

    def delete_if(self, name: str, version: str) -> None:
        """Removes a file that still has this version, as far as the storage can tell.

        Raises:
            Conflict: the file has another version, or does not exist.
        """
        ...

    def tidy(self) -> None:
        """Removes the folder, and folders in it, as far as they are empty."""
        ...

    def zarr_store(self, *, read_only: bool) -> Any:
        """Returns the zarr store of this folder; for writing, without long retries."""
        ...


def is_versioned(url: str) -> bool:
    """Whether a result lies in an Icechunk repository."""
    return url.startswith(ICECHUNK)


def plain(url: str) -> str:
    """Returns the place of a result, or of a file beside it, whatever its Zarr store is in."""
    return url.removeprefix(ICECHUNK)


def is_local(url: str) -> bool:
    """Whether a result, or a file beside it, lies on a disk of this machine."""
    scheme, separator, _ = plain(url).partition("://")
    return not separator or scheme == "file"


def open_blobs(url: str) -> Blobs:
    """Returns the folder at a local path, or at a URL of S3, GCS or Azure.

    Raises:
        OutputError: a result cannot be written to an address of this kind.
    """
    from earthgptx.pipeline.storage.cloud import CloudBlobs
    from earthgptx.pipeline.storage.local import LocalBlobs

    url = plain(url)
    scheme, separator, rest = url.partition("://")
    if not separator:
        return LocalBlobs(url)
    if scheme == "file":
        return LocalBlobs(rest)
    if scheme in CLOUD:
        return CloudBlobs(url)
    raise OutputError(
        f"{url} cannot be written: results go to a local path or to s3://, gs:// or az://"
    )


def split(url: str) -> tuple[Blobs, str]:
    """Returns the folder that holds a file, and the file's name in it."""
    folder, _, name = url.rpartition("/")
    return open_blobs(folder or ("/" if url.startswith("/") else ".")), name

"""Objects on S3, GCS and Azure, by obstore.

Reads that fail are repeated for `READ_S`, writes for `WRITE_S`: less than a lease lasts, as the
lease is checked before the first attempt. The fence repeats a write with a new check. The version
of an object is its ETag, and the server compares it. A conditional write whose answer is lost fails
when it is repeated, though the first one succeeded: the object is read to see whose it is.
"""

from __future__ import annotations

import asyncio
import io
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import obstore
import zarr
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    GenericError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
    UnknownConfigurationKeyError,
)
from obstore.store import from_url
from zarr.storage import WrapperStore

from earthgptx.pipeline.errors import Outage, OutputError, PipelineError, WaitedFor
from earthgptx.pipeline.storage.blobs import Blob, Conflict

Result = TypeVar("Result")
READ_S = 120
"""Seconds for which a read that fails is repeated."""
WRITE_S = 20
"""Seconds for which a write that fails is repeated."""
PAUSE_S = 0.5
"""Seconds between the attempts of a conditional write."""
BODY_PAUSES_S = (0.5, 1.0, 2.0, 4.0)
"""Pauses before an object is asked for again whose body broke off."""
REQUEST_S = 30
"""Seconds that one request may take."""
_REFUSED = (PermissionDeniedError, UnauthenticatedError, UnknownConfigurationKeyError)


class CloudBlobs:
    """A prefix of an object store; see `Blobs`."""

    delete_batch = 500

    def __init__(self, url: str) -> None:
        """Opens the store; credentials come from the environment or, on S3, from botocore.

        Raises:
            OutputError: the address or the environment's settings are not valid.
        """
        self.url = url
        try:
            self._store = _open(url, READ_S)
            self._writer = _open(url, WRITE_S)
        except (BaseError, ValueError) as error:
            raise OutputError(f"{url} cannot be opened: {_first_line(error)}") from error

    def get(self, name: str) -> Blob:
        def read() -> Blob:
            found = obstore.get(self._store, name)
            return Blob(bytes(found.bytes()), str(found.meta["e_tag"]))

        with cloud_errors(self.url):
            return _patient(read)

    def put(self, name: str, data: bytes) -> None:
        with cloud_errors(self.url, writes=True):
            # In one request: parts of an upload could be completed after the lease has lapsed.
            obstore.put(self._writer, name, data, use_multipart=False)

    def put_new(self, name: str, data: bytes) -> str:
        return self._put_if(name, data, "create")

    def put_if(self, name: str, data: bytes, version: str) -> str:
        return self._put_if(name, data, {"e_tag": version})

    def delete(self, names: Iterable[str]) -> None:
        listed = list(names)
        for start in range(0, len(listed), self.delete_batch):
            self._delete(listed[start : start + self.delete_batch])

    def _delete(self, batch: list[str]) -> None:
        """Deletes objects; obstore does not repeat the request, which is a POST."""
        limit = time.monotonic() + WRITE_S
        while True:
            try:
                with cloud_errors(self.url, writes=True):
                    return obstore.delete(self._writer, batch)
            except Outage:
                if time.monotonic() > limit:
                    raise
                time.sleep(PAUSE_S)

    def delete_if(self, name: str, version: str) -> None:
        if self.get(name).version != version:
            raise Conflict(name)
        self.delete([name])  # obstore has no conditional delete

    def tidy(self) -> None:
        pass  # an object store has no folders

    def names(self, folder: str = "") -> list[str]:
        def read() -> list[str]:
            pages = obstore.list(self._store, folder or None)
            return sorted(entry["path"] for page in pages for entry in page)

        with cloud_errors(self.url):
            return _patient(read)

    def sizes(self) -> dict[str, int]:
        def read() -> dict[str, int]:
            pages = obstore.list(self._store)
            return {entry["path"]: entry["size"] for page in pages for entry in page}

        with cloud_errors(self.url):
            return _patient(read)

    def leftovers(self) -> list[str]:
        return []  # an object is there as a whole or not at all

    @contextmanager
    def open(self, name: str) -> Iterator[Any]:
        # As a whole: obstore's reader is no context manager, and pyarrow wants one that is a file.
        yield io.BytesIO(self.get(name).data)

    def zarr_store(self, *, read_only: bool) -> Any:
        if read_only:
            return PatientReader(zarr.storage.ObjectStore(self._store, read_only=True))
        return zarr.storage.ObjectStore(self._writer, read_only=False)

    def _put_if(self, name: str, data: bytes, mode: Any) -> str:
        """Writes conditionally. obstore does not repeat such a request, as its answer may be lost.

        Whoever finds its own data there has written it; no two writers write the same.
        """
        limit = time.monotonic() + WRITE_S
        while True:
            try:
                return str(obstore.put(self._writer, name, data, mode=mode)["e_tag"])
            except (AlreadyExistsError, PreconditionError):
                version = self._version_if(name, data)
                if version is None:
                    raise Conflict(name) from None
                return version
            except FileNotFoundError as error:
                if mode != "create":
                    raise Conflict(name) from None
                raise OutputError(
                    f"{self.url}: the bucket does not exist; create it first"
                ) from error
            except BaseError as error:
                if time.monotonic() > limit:
                    raise cloud_error(self.url, error) from error
                time.sleep(PAUSE_S)
                version = self._version_if(name, data)
                if version is not None:
                    return version

    def _version_if(self, name: str, data: bytes) -> str | None:
        """Returns the version of an object that has this content; None if it has not."""
        try:
            found = self.get(name)
        except FileNotFoundError:
            return None
        return found.version if found.data == data else None


def _patient(read: Callable[[], Result]) -> Result:
    """Reads again what breaks off in the middle: obstore repeats only what has not begun.

    What obstore has repeated for `READ_S` is not repeated here.
    """
    limit = time.monotonic() + READ_S / 2
    for pause in BODY_PAUSES_S:
        try:
            return read()
        except GenericError:
            if time.monotonic() > limit:
                raise
            time.sleep(pause)
    return read()


class PatientReader(WrapperStore[Any]):
    """A zarr store for reading that asks again for an object whose body breaks off.

    obstore repeats a request that fails, but not one whose answer has begun.
    """

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        return await self._patient(lambda: self._store.get(key, prototype, byte_range))

    async def get_partial_values(self, prototype: Any, key_ranges: Any) -> Any:
        ranges = list(key_ranges)
        return await self._patient(lambda: self._store.get_partial_values(prototype, ranges))

    async def exists(self, key: str) -> bool:
        return bool(await self._patient(lambda: self._store.exists(key)))

    async def list(self) -> AsyncIterator[str]:
        for name in await self._patient(lambda: _all(self._store.list())):
            yield name

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        for name in await self._patient(lambda: _all(self._store.list_prefix(prefix))):
            yield name

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        for name in await self._patient(lambda: _all(self._store.list_dir(prefix))):
            yield name

    async def _patient(self, read: Callable[[], Awaitable[Any]]) -> Any:
        limit = time.monotonic() + READ_S / 2
        for pause in BODY_PAUSES_S:
            try:
                return await read()
            except GenericError:
                if time.monotonic() > limit:
                    raise
                await asyncio.sleep(pause)
        return await read()


async def _all(names: AsyncIterator[str]) -> list[str]:
    return [name async for name in names]


@contextmanager
def cloud_errors(url: str, *, writes: bool = False) -> Iterator[None]:
    """Turns the errors of obstore into `Outage` or `OutputError`.

    Args:
        url: address for the message.
        writes: whether a missing object means that the bucket is missing.
    """
    try:
        yield
    except FileNotFoundError as error:
        if writes or "NoSuchBucket" in str(error):
            raise OutputError(f"{url}: the bucket does not exist; create it first") from error
        raise
    except BaseError as error:
        raise cloud_error(url, error) from error


def cloud_error(url: str, error: BaseError) -> PipelineError:
    """Returns the error to raise for one of obstore."""
    reason = _first_line(error)
    if isinstance(error, _REFUSED):
        return OutputError(f"{url} refuses the access ({reason}); check the credentials")
    if "bucket" in reason.lower() and " 400 " in reason:
        return OutputError(f"{url} is refused: {reason}")
    return WaitedFor(
        f"{url} does not answer: {reason}. Finished blocks are kept; run the same command again"
    )


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split("Debug source")[0].split())[:300]


def file_system(url: str) -> Any:
    """Returns an fsspec file system for an object store, opened as a result there is."""
    from obstore.fsspec import FsspecStore

    kind: Any = FsspecStore
    return kind(url.partition("://")[0], **_options(url, READ_S))


def _open(url: str, retry_s: float) -> Any:
    return from_url(url.replace("s3a://", "s3://", 1), **_options(url, retry_s))


def _options(url: str, retry_s: float) -> dict[str, Any]:
    return {
        "config": _settings(url),
        "client_options": {"allow_http": True, "timeout": timedelta(seconds=REQUEST_S)},
        "retry_config": {
            # Time alone is the limit: the pauses are random, and 60 of them lasted 40 s.
            "max_retries": 10_000,
            "backoff": {
                "base": 2,
                "init_backoff": timedelta(seconds=0.2),
                "max_backoff": timedelta(seconds=5),
            },
            "retry_timeout": timedelta(seconds=retry_s),
        },
        "credential_provider": _credentials(url),
    }


def _settings(url: str) -> dict[str, str]:
    """Returns what obstore does not read from the environment by itself."""
    return s3_settings() if url.startswith("s3") else {}


def s3_settings() -> dict[str, str]:
    """Returns the endpoint and region of S3 that the environment or botocore name."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    found = {"endpoint": endpoint} if endpoint else {}
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if not region:
        from botocore.session import get_session

        region = get_session().get_config_variable("region")
    return found | ({"region": region} if region else {})


def _credentials(url: str) -> Any:
    """Returns a provider that asks botocore, as other S3 clients do: profiles, SSO, roles."""
    if not url.startswith("s3") or "AWS_ACCESS_KEY_ID" in os.environ:
        return None
    from botocore.session import get_session

    found = get_session().get_credentials()
    if found is None:
        return None

    def provide() -> dict[str, Any]:
        frozen = found.get_frozen_credentials()
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": getattr(found, "_expiry_time", None),
        }

    return provide

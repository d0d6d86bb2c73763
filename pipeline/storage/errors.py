"""Turns what storage raises into errors of this package, at one place for all kinds of storage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from obstore.exceptions import BaseError

from earthgptx.pipeline.errors import Outage, PipelineError
from earthgptx.pipeline.storage.cloud import cloud_error
from earthgptx.pipeline.storage.local import disk_error
from earthgptx.pipeline.storage.versions import version_error


@contextmanager
def storage_errors(url: str) -> Iterator[None]:
    """Raises `Outage` or `OutputError` for an error of a disk or an object store.

    That a file does not exist is left to the caller.

    Args:
        url: address for the message.
    """
    try:
        yield
    except (PipelineError, FileNotFoundError):
        raise
    except BaseError as error:
        raise cloud_error(url, error) from error
    except ConnectionError as error:
        raise Outage(
            f"{url}: a connection failed ({error}). Finished blocks are kept; run the same command "
            "again"
        ) from error
    except OSError as error:
        raise disk_error(url, error) from error
    except Exception as error:
        raised = version_error(url, error)
        if raised is None:
            raise
        raise raised from error

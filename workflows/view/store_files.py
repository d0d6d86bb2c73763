"""Bytes of a result's Zarr store for the browser, by range requests, wherever the store lies."""

from __future__ import annotations

import re
from dataclasses import dataclass

import zarr
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_KEY = re.compile(r"[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)*")


class BadRange(ValueError):
    """A range that cannot be served."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A file of a store, or part of one."""

    data: bytes
    start: int
    size: int
    """Bytes of the whole file."""


def piece_of(root: zarr.Group, key: str, asked: str) -> Piece | None:
    """Returns a file of a store, or the part that a request asks for; None if there is none.

    Args:
        root: root group of the store.
        key: name of the file in the store.
        asked: header `Range` of the request; empty for the whole file.

    Raises:
        BadRange: the range is none, or lies outside the file.
    """
    if not _KEY.fullmatch(key) or any(part in (".", "..") for part in key.split("/")):
        return None
    store = root.store
    prototype = default_buffer_prototype()
    if not asked:
        found = sync(store.get(key, prototype))
        return None if found is None else Piece(found.to_bytes(), 0, len(found))
    try:
        size = sync(store.getsize(key))
    except FileNotFoundError:
        return None
    request = _request(asked, size)
    found = sync(store.get(key, prototype, request))
    if found is None:
        return None
    data = found.to_bytes()
    start = (
        size - len(data)
        if isinstance(request, SuffixByteRequest)
        else request.offset
        if isinstance(request, OffsetByteRequest)
        else request.start
    )
    return Piece(data, start, size)


def _request(asked: str, size: int) -> ByteRequest:
    match = _RANGE.fullmatch(asked.strip())
    if match is None or not any(match.groups()):
        raise BadRange(asked)
    first, last = match.groups()
    if not first:
        return SuffixByteRequest(min(int(last), size))
    start = int(first)
    if start >= size or (last and int(last) < start):
        raise BadRange(asked)
    return RangeByteRequest(start, min(int(last) + 1, size)) if last else OffsetByteRequest(start)

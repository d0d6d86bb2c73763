"""Bytes of a result's Zarr store for the browser, whole or in part, wherever the store lies."""

from __future__ import annotations

import re
from dataclasses import dataclass

import zarr
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)
_KEY = re.compile(r"(?:[A-Za-z0-9_.-]{1,100}/){0,8}(?:zarr\.json|c(?:/\d{1,9}){0,6})", re.ASCII)
"""Documents and chunks; no other file of a store concerns a reader."""


class BadRange(ValueError):
    """A range that lies outside its file."""

    def __init__(self, size: int) -> None:
        """Sets the bytes of the file."""
        self.size = size


@dataclass(frozen=True, slots=True)
class Piece:
    """A file of a store, or part of one."""

    data: bytes
    start: int
    size: int
    """Bytes of the whole file."""

    @property
    def is_part(self) -> bool:
        """Whether it is less than the file."""
        return len(self.data) < self.size


def size_of(root: zarr.Group, key: str) -> int | None:
    """Returns the bytes of a file of a store; None if there is none."""
    if not _KEY.fullmatch(key) or ".." in key:
        return None
    try:
        return sync(root.store.getsize(key)) or None
    except FileNotFoundError:
        return None


def piece_of(root: zarr.Group, key: str, asked: str) -> Piece | None:
    """Returns a file of a store, or the part that a request asks for; None if there is none.

    Args:
        root: root group of the store.
        key: name of the file in the store.
        asked: header `Range` of the request; what is not one range of bytes asks for the file.

    Raises:
        BadRange: the range lies outside the file.
    """
    match = _RANGE.fullmatch(asked.strip())
    size = size_of(root, key)
    if size is None:
        return None
    request = None
    if match is not None and any(match.groups()):
        request = _request(match[1], match[2], size)
    found = sync(root.store.get(key, default_buffer_prototype(), request))
    if found is None:
        return None
    data = found.to_bytes()
    match request:
        case SuffixByteRequest():
            start = size - len(data)
        case OffsetByteRequest(offset=start) | RangeByteRequest(start=start):
            pass
        case _:
            start, size = 0, len(data)
    return Piece(data, start, size)


def _request(first: str, last: str, size: int) -> ByteRequest | None:
    if not first:
        if not int(last):
            raise BadRange(size)
        return SuffixByteRequest(min(int(last), size))
    start = int(first)
    if last and int(last) < start:
        return None  # no range at all, says RFC 9110
    if start >= size:
        raise BadRange(size)
    return RangeByteRequest(start, min(int(last) + 1, size)) if last else OffsetByteRequest(start)

"""Takes passwords, tokens and signatures out of addresses and of texts that hold addresses."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit, urlunsplit

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s\"<>]+")
"""Greedy: a secret may hold any character that is not blank; what follows it is lost with it."""
_NO_SCHEME = re.compile(r"(?<=with url: )\S+")
"""How urllib3 shows an address: without its scheme and host."""
_QUERY = re.compile(r"(?<=[\w/.-])\?[^\s\"<>=?]*=[^\s\"<>]*")
"""A query whose address has lost its scheme, as in `Max retries exceeded with url: /a?sig=...`."""


def redacted(address: str) -> str:
    """Returns an address without user info, query, fragment and path parameters."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return address.split("?", 1)[0].rpartition("@")[2]
    if not parts.scheme or not parts.netloc:
        return re.split(r"[?#]\w+=", address, maxsplit=1)[0]
    path = "/".join(step.partition(";")[0] for step in parts.path.split("/"))
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], path, "", ""))


def redact(text: str) -> str:
    """Returns a text whose addresses are redacted."""
    text = _NO_SCHEME.sub(lambda found: re.split(r"[?#;]", found[0], maxsplit=1)[0], text)
    return _QUERY.sub("", _ADDRESS.sub(lambda found: redacted(found[0]), text))


def redact_all(value: Any) -> Any:
    """Returns a JSON document whose texts are redacted."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {key: redact_all(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [redact_all(inner) for inner in value]
    return value

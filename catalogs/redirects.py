"""Follows the redirects of imagery by a job's rules, before GDAL would follow them by its own.

GDAL cannot be told not to follow a redirect, nor where it may lead. It gets the address at the end.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING
from urllib.parse import urljoin

from earthgptx.catalogs.address import Reach, host_of, scheme_of
from earthgptx.catalogs.errors import AddressRefused, CatalogDown, CatalogError
from earthgptx.catalogs.redaction import redacted

if TYPE_CHECKING:
    from earthgptx.catalogs.access import Opening

OBJECT_STORES = (
    "*.blob.core.windows.net",
    "*.s3.amazonaws.com",
    "*.s3.*.amazonaws.com",
    "s3.*.amazonaws.com",
    "storage.googleapis.com",
)
"""Hosts that do not redirect to addresses of others; they are not asked."""
MOST_REDIRECTS = 5
KEPT_S = 300.0
"""How long it is remembered that an address does not redirect. A destination is not remembered: it
may be signed for a minute."""
MOST_KEPT = 10_000
TIMEOUT_S = 30.0
"""Longest silence of a server."""
MOST_SECONDS = 90.0
"""Time for all redirects of an address."""
TRIES = 3
BUSY = (429, 503)
MOST_PAUSE_S = 30.0
"""Longest pause before a busy server is asked again, whatever its header Retry-After says."""

_Key = tuple[Reach, tuple[tuple[str, str], ...], str]
_kept: dict[_Key, float] = {}
_guard = threading.Lock()


def destination(address: str, opening: Opening) -> str:
    """Returns the address that an address of imagery leads to; not signed.

    An error that a server answers is for whoever opens the file to report.

    Args:
        address: checked, not signed.
        opening: what the job may open.

    Raises:
        AddressRefused: it, or a redirect, leads where the job may not open files.
        CatalogDown: the server does not answer.
        CatalogError: the address is none, or there are too many redirects.
    """
    if scheme_of(address) not in ("http", "https") or _is_object_store(address, opening):
        return address
    key = (opening.reach, tuple(sorted(opening.headers.items())), address)
    with _guard:
        if time.monotonic() < _kept.get(key, 0.0):
            return address
    found = _within(MOST_SECONDS, lambda: _follow(address, opening), address)
    if found == address:
        with _guard:
            if len(_kept) >= MOST_KEPT:
                _kept.clear()
            _kept[key] = time.monotonic() + KEPT_S
    return found


def _is_object_store(address: str, opening: Opening) -> bool:
    """Whether an address is at an object store; not if headers of the job go there."""
    if opening.headers and opening.reach.knows(address):
        return False
    return any(fnmatchcase(host_of(address), each) for each in OBJECT_STORES)


def _within(seconds: float, step: Callable[[], str], address: str) -> str:
    """Returns what a step returns, if it does so in time.

    requests bounds the time between two bytes, and a server may send a byte now and then. The
    thread of a step that is late is left behind.

    Raises:
        CatalogDown: it takes longer.
    """
    ended: list[str | BaseException] = []

    def work() -> None:
        try:
            ended.append(step())
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if not ended:
        raise CatalogDown(f"{redacted(address)} takes more than {seconds:.0f} s to answer")
    if isinstance(ended[0], BaseException):
        raise ended[0]
    return ended[0]


def _follow(address: str, opening: Opening) -> str:
    where = address
    for _ in range(MOST_REDIRECTS + 1):
        location = _location(where, opening)
        if location is None:
            return where
        try:
            where = urljoin(where, location)
        except ValueError as error:
            raise AddressRefused(f"{redacted(where)} redirects to what is no address") from error
        opening.reach.check(where)
    raise CatalogError(f"{redacted(address)} redirects more than {MOST_REDIRECTS} times")


def _location(address: str, opening: Opening) -> str | None:
    """Returns what a server redirects an address to; None if it does not.

    Every answer of 300 to 399 with a location counts: GDAL would follow it.
    """
    import requests
    from urllib3.exceptions import LocationParseError

    for number in range(TRIES):
        try:
            with requests.get(
                opening.signed(address),
                headers={"Range": "bytes=0-0", **_headers(address, opening)},
                # A header of the job goes before what .netrc has for the host.
                auth=(lambda asked: asked) if _headers(address, opening) else None,
                proxies=_proxies(),
                verify=os.environ.get("GDAL_HTTP_UNSAFESSL", "NO").upper() != "YES",
                timeout=TIMEOUT_S,
                allow_redirects=False,
                stream=True,
            ) as answer:
                if answer.status_code not in BUSY or number == TRIES - 1:
                    leads_on = 300 <= answer.status_code < 400
                    return answer.headers.get("location") if leads_on else None
                pause = _pause(answer.headers, number)
        except (LocationParseError, ValueError) as error:  # InvalidURL, InvalidSchema are such
            raise AddressRefused(f"{redacted(address)} is no address that can be asked") from error
        except requests.RequestException as error:
            if number == TRIES - 1:
                # Their texts hold addresses without a scheme, and values of headers.
                raise CatalogDown(
                    f"{redacted(address)} does not answer ({type(error).__name__})"
                ) from error
            pause = _pause({}, number)
        time.sleep(pause)
    raise AssertionError("unreachable")


def _headers(address: str, opening: Opening) -> Mapping[str, str]:
    return opening.headers if opening.reach.knows(address) else {}


def _pause(headers: Mapping[str, str], number: int) -> float:
    """Returns the seconds to wait before a busy server is asked again."""
    asked = retry_after(headers)
    return 0.5 * 2.0**number if asked is None else min(asked, MOST_PAUSE_S)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Returns the seconds after which a server wants to be asked again; None if it gives none."""
    with suppress(KeyError, ValueError):
        asked = float(headers["Retry-After"])
        if math.isfinite(asked):
            return max(asked, 0.0)
    return None


def _proxies() -> dict[str, str]:
    """Returns the proxies that GDAL is told of; requests knows the usual variables itself."""
    names = {"http": "GDAL_HTTP_PROXY", "https": "GDAL_HTTPS_PROXY"}
    return {scheme: os.environ[name] for scheme, name in names.items() if name in os.environ}

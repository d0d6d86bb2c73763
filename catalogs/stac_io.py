"""Reads STAC documents from every URL that fsspec supports, and retries when an API is busy."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import fsspec
import pystac
from pystac.stac_io import DefaultStacIO

from earthgptx.catalogs.access import Opening
from earthgptx.catalogs.address import Reach
from earthgptx.catalogs.errors import CatalogDown
from earthgptx.catalogs.redaction import redacted

if TYPE_CHECKING:
    from pystac_client.stac_api_io import StacApiIO
    from requests import Request, Response

MOST_BYTES = 64 * 2**20
"""Characters of a STAC document that are read."""
MOST_REDIRECTS = 5
RETRIES = 2
TIMEOUT_S = 30.0


class FsspecIO(DefaultStacIO):
    """pystac I/O for every URL that fsspec supports."""

    def __init__(self, reach: Reach | None = None) -> None:
        """Takes what may be opened; None for any address, which a user gave."""
        super().__init__()
        self._reach = reach

    def read_text_from_href(self, href: str) -> str:
        """Returns the text of the document at `href`.

        Raises:
            AddressRefused: the job may not open it.
            CatalogDown: the document cannot be read, or is larger than any STAC document.
        """
        if self._reach:
            self._reach.check(href)
        try:
            with fsspec.open(href, "r", encoding="utf-8") as file:
                text: str = file.read(MOST_BYTES)
        except Exception as error:  # fsspec's backends have no common error type
            raise CatalogDown(
                f"cannot read {redacted(href)} ({type(error).__name__}: {error}); check the address"
            ) from error
        if len(text) == MOST_BYTES:
            raise CatalogDown(f"{redacted(href)} is larger than {MOST_BYTES / 2**20:.0f} MiB")
        return text

    def write_text_to_href(self, href: str, txt: str) -> None:
        """Writes the text `txt` to `href`."""
        with fsspec.open(href, "w", encoding="utf-8") as file:
            file.write(txt)


def api_io(opening: Opening) -> StacApiIO:
    """Returns pystac-client I/O that retries 429 and 5xx with back-off and has a timeout.

    Args:
        opening: what may be opened, as the links of an API may point anywhere; and its headers.
    """
    from pystac_client.stac_api_io import StacApiIO
    from urllib3 import Retry

    retry = Retry(
        total=RETRIES,
        backoff_factor=0.5,
        status_forcelist=[429, 500, 502, 503, 504],
        allowed_methods=None,
        respect_retry_after_header=True,
    )

    def checked(request: Request) -> None:
        opening.reach.check(str(request.url))
        if opening.reach.knows(str(request.url)):
            request.headers = {**request.headers, **opening.headers}

    def redirected(response: Response, **_: object) -> None:
        if response.is_redirect:
            opening.reach.check(urljoin(response.url, response.headers["location"]))

    io = StacApiIO(max_retries=retry, timeout=TIMEOUT_S, request_modifier=checked)
    io.session.hooks["response"].append(redirected)
    io.session.max_redirects = MOST_REDIRECTS
    return io


def read_json(href: str) -> dict[str, Any]:
    """Reads a STAC document as JSON.

    Raises:
        CatalogDown: the document cannot be read, or is not a JSON object with a `type`.
    """
    text = FsspecIO().read_text_from_href(href)
    try:
        document = json.loads(text)
    except ValueError as error:
        raise CatalogDown(
            f"{redacted(href)} is not JSON ({error}); is it a STAC catalog?"
        ) from error
    if not isinstance(document, dict) or "type" not in document:
        raise CatalogDown(
            f"{redacted(href)} is no STAC document; give a catalog.json or an API's address"
        )
    return document


def read_static(href: str, reach: Reach) -> pystac.Catalog:
    """Reads a static catalog or collection; its links are followed within `reach`.

    Raises:
        CatalogDown: the document cannot be read, or is neither a Catalog nor a Collection.
    """
    try:
        found = pystac.read_file(href, stac_io=FsspecIO(reach))
    except pystac.STACTypeError as error:
        raise CatalogDown(
            f"{redacted(href)} is no STAC document; give a Catalog or Collection"
        ) from error
    if not isinstance(found, pystac.Catalog):
        raise CatalogDown(
            f"{redacted(href)} is a {type(found).__name__}; give a Catalog or Collection"
        )
    return found

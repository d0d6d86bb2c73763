"""Reads STAC documents from every URL that fsspec supports, and retries when an API is busy."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import fsspec
import pystac
from pystac.stac_io import DefaultStacIO

from earthgptx.catalogs.errors import CatalogDown

if TYPE_CHECKING:
    from pystac_client.stac_api_io import StacApiIO

RETRIES = 2
TIMEOUT_S = 30.0


class FsspecIO(DefaultStacIO):
    """pystac I/O for every URL that fsspec supports."""

    def read_text_from_href(self, href: str) -> str:
        """Returns the text of the document at `href`.

        Raises:
            CatalogDown: the document cannot be read.
        """
        try:
            with fsspec.open(href, "r", encoding="utf-8") as file:
                text: str = file.read()
        except Exception as error:  # fsspec's backends have no common error type
            raise CatalogDown(
                f"cannot read {without_query(href)} ({type(error).__name__}: {error}); "
                "check the address"
            ) from error
        return text

    def write_text_to_href(self, href: str, txt: str) -> None:
        """Writes the text `txt` to `href`."""
        with fsspec.open(href, "w", encoding="utf-8") as file:
            file.write(txt)


def api_io() -> StacApiIO:
    """Returns pystac-client I/O that retries 429 and 5xx with back-off and has a timeout."""
    from pystac_client.stac_api_io import StacApiIO
    from urllib3 import Retry

    retry = Retry(
        total=RETRIES,
        backoff_factor=0.5,
        status_forcelist=[429, 500, 502, 503, 504],
        allowed_methods=None,
        respect_retry_after_header=True,
    )
    return StacApiIO(max_retries=retry, timeout=TIMEOUT_S)


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
            f"{without_query(href)} is not JSON ({error}); is it a STAC catalog?"
        ) from error
    if not isinstance(document, dict) or "type" not in document:
        raise CatalogDown(
            f"{without_query(href)} is no STAC document; give a catalog.json or an API's address"
        )
    return document


def without_query(href: str) -> str:
    """Returns an address without its query, which may hold a signature."""
    return href.split("?", 1)[0]


def read_static(href: str) -> pystac.Catalog:
    """Reads a static catalog or collection.

    Raises:
        CatalogDown: the document cannot be read, or is neither a Catalog nor a Collection.
    """
    try:
        found = pystac.read_file(href, stac_io=FsspecIO())
    except pystac.STACTypeError as error:
        raise CatalogDown(
            f"{without_query(href)} is no STAC document; give a Catalog or Collection"
        ) from error
    if not isinstance(found, pystac.Catalog):
        raise CatalogDown(
            f"{without_query(href)} is a {type(found).__name__}; give a Catalog or Collection"
        )
    return found

"""Reading STAC documents from anywhere fsspec reaches, with patience for servers that are busy."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import fsspec
import pystac
from pystac.stac_io import DefaultStacIO

from catalogs.errors import CatalogDown

if TYPE_CHECKING:
    from pystac_client.stac_api_io import StacApiIO

RETRIES = 4
TIMEOUT_S = 30.0


class FsspecIO(DefaultStacIO):
    """pystac's reader, for every URL that fsspec knows."""

    def read_text_from_href(self, href: str) -> str:
        """The document at `href`.

        Raises:
            CatalogDown: it cannot be read.
        """
        try:
            with fsspec.open(href, "r", encoding="utf-8") as file:
                text: str = file.read()
        except Exception as error:  # fsspec's backends raise anything
            raise CatalogDown(
                f"cannot read {without_query(href)} ({type(error).__name__}: {error}); check the address"
            ) from error
        return text

    def write_text_to_href(self, href: str, txt: str) -> None:
        """Write a document."""
        with fsspec.open(href, "w", encoding="utf-8") as file:
            file.write(txt)


def api_io() -> StacApiIO:
    """pystac-client's reader: tries again with back-off on 429 and 5xx, and never waits for ever."""
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
    """A JSON document.

    Raises:
        CatalogDown: it cannot be read or is no JSON object.
    """
    text = FsspecIO().read_text_from_href(href)
    try:
        document = json.loads(text)
    except ValueError as error:
        raise CatalogDown(f"{without_query(href)} is not JSON ({error}); is it a STAC catalog?") from error
    if not isinstance(document, dict) or "type" not in document:
        raise CatalogDown(f"{without_query(href)} is no STAC document; give a catalog.json or an API's address")
    return document


def without_query(href: str) -> str:
    """An address without its query, where signatures stand."""
    return href.split("?", 1)[0]


def read_static(href: str) -> pystac.Catalog:
    """A static catalog or collection."""
    try:
        found = pystac.read_file(href, stac_io=FsspecIO())
    except pystac.STACTypeError as error:
        raise CatalogDown(f"{without_query(href)} is no STAC document; give a Catalog or Collection") from error
    if not isinstance(found, pystac.Catalog):
        raise CatalogDown(f"{without_query(href)} is a {type(found).__name__}; give a Catalog or Collection")
    return found

"""Reads STAC documents from every URL that fsspec supports, and retries when an API is busy."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import fsspec
import pystac
from pystac.stac_io import DefaultStacIO

from earthgptx.catalogs.access import Opening
from earthgptx.catalogs.address import scheme_of
from earthgptx.catalogs.errors import CatalogDown, CatalogError
from earthgptx.catalogs.redaction import redacted
from earthgptx.catalogs.redirects import MOST_REDIRECTS, retry_after

if TYPE_CHECKING:
    from pystac_client.stac_api_io import StacApiIO
    from requests import Response

MOST_BYTES = 64 * 2**20
"""Bytes of a STAC document, or of a page of a search, that are read."""
MOST_SECONDS = 120.0
"""Time that one of them may take."""
RETRIES = 2
BUSY = (429, 500, 502, 503, 504)
MOST_PAUSE_S = 60.0
"""Longest pause before an API is asked again, whatever its header Retry-After says."""
TIMEOUT_S = 30.0


class FsspecIO(DefaultStacIO):
    """pystac I/O for every URL that fsspec supports; HTTP by requests, which shows redirects."""

    def __init__(self, opening: Opening) -> None:
        """Takes how files are opened, and which may be."""
        super().__init__()
        self._opening = opening

    def read_text_from_href(self, href: str) -> str:
        """Returns the text of the document at `href`.

        Raises:
            AddressRefused: the job may not open it.
            CatalogDown: the server does not answer.
            CatalogError: the document does not exist, is refused, or is larger than any of STAC.
        """
        self._opening.reach.check(href)
        try:
            if scheme_of(href) in ("http", "https"):
                return _get(href, self._opening)
            options = self._opening.fsspec(href)
            with fsspec.open(href, "r", encoding="utf-8", **options) as file:
                text: str = file.read(MOST_BYTES)
        except CatalogError:
            raise
        except PermissionError as error:
            raise CatalogError(
                f"{href} is refused ({error}); {self._opening.hint(href)}"
            ) from error
        except (FileNotFoundError, IsADirectoryError) as error:
            raise CatalogError(f"{href} does not exist; check the address") from error
        except Exception as error:  # fsspec's backends have no common error type
            raise CatalogDown(
                f"cannot read {redacted(href)} ({type(error).__name__}: {error}); check the address"
            ) from error
        if len(text) >= MOST_BYTES:
            raise CatalogError(f"{href} is larger than {MOST_BYTES / 2**20:.0f} MiB")
        return text

    def write_text_to_href(self, href: str, txt: str) -> None:
        """Writes the text `txt` to `href`."""
        with fsspec.open(href, "w", encoding="utf-8") as file:
            file.write(txt)


def _get(href: str, opening: Opening) -> str:
    """Returns a document by HTTP; redirects are checked, and headers go only where they belong."""
    import requests

    where = href
    for _ in range(MOST_REDIRECTS + 1):
        headers = dict(opening.headers) if opening.reach.knows(where) else {}
        answer = requests.get(
            opening.signed(where),
            headers=headers,
            timeout=TIMEOUT_S,
            allow_redirects=False,
            stream=True,
            hooks={"response": lambda found, **_: take(found)},  # before requests reads it itself
        )
        if answer.is_redirect:
            where = urljoin(where, answer.headers["location"])
            opening.reach.check(where)
            continue
        if answer.status_code in (401, 403):
            raise CatalogError(
                f"{href} is refused (HTTP {answer.status_code}); set a token under "
                "source.access.headers"
            )
        if answer.status_code in (400, 404, 410):
            raise CatalogError(f"{href} does not exist (HTTP {answer.status_code})")
        answer.raise_for_status()
        return _decoded(answer.content, href)
    raise CatalogDown(f"{href} redirects more than {MOST_REDIRECTS} times")


def _decoded(content: bytes, href: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CatalogError(f"{href} is no text in UTF-8; is it a STAC document?") from error


class TooMuch(CatalogDown):
    """A document is larger, or takes longer, than any should; a smaller page of it may not."""


def take(answer: Response) -> None:
    """Reads the body of an answer that was asked for as a stream, as far as a document may go.

    Raises:
        RequestException: it breaks off.
        TooMuch: it is larger, or takes longer.
    """
    from requests import RequestException
    from urllib3.exceptions import HTTPError

    end = time.monotonic() + MOST_SECONDS
    pieces, size = [], 0
    try:
        # What has come so far, and not a full buffer: a server may send a byte now and then.
        while piece := answer.raw.read1(2**16, decode_content=True):
            pieces.append(piece)
            size += len(piece)
            if size >= MOST_BYTES:
                raise TooMuch(f"{answer.url} is larger than {MOST_BYTES / 2**20:.0f} MiB")
            if time.monotonic() > end:
                raise TooMuch(f"{answer.url} takes more than {MOST_SECONDS:.0f} s; try again later")
    except HTTPError as error:
        raise RequestException(str(error), response=answer) from error
    finally:
        answer.close()
    answer._content, answer._content_consumed = b"".join(pieces), True


def api_io(opening: Opening) -> StacApiIO:
    """Returns pystac-client I/O that repeats 429 and 5xx with back-off and bounds every answer.

    urllib3 would repeat them too, but reads the body of each without a bound.

    Args:
        opening: what may be opened, as the links of an API may point anywhere; and its headers.
    """
    from pystac_client.exceptions import APIError
    from pystac_client.stac_api_io import StacApiIO
    from urllib3 import Retry

    class GuardedIO(StacApiIO):
        """Checks every address; `Client.open` drops the modifier that `StacApiIO` is given."""

        def update(self, *args: Any, **more: Any) -> None:
            super().update(*args, **more)
            self.timeout = TIMEOUT_S

        def request(
            self,
            href: str,
            method: str | None = None,
            headers: dict[str, str] | None = None,
            parameters: dict[str, Any] | None = None,
        ) -> str:
            opening.reach.check(href)
            if opening.reach.knows(href):
                headers = {**(headers or {}), **opening.headers}
            for number in range(RETRIES + 1):
                try:
                    return super().request(href, method, headers, parameters)
                except APIError as error:
                    if isinstance(error.__context__, CatalogError):  # of the hook below
                        raise error.__context__ from None
                    if number == RETRIES or getattr(error, "status_code", None) not in BUSY:
                        raise
                asked = pauses.pop() if pauses else None
                time.sleep(min(0.5 * 2**number if asked is None else asked, MOST_PAUSE_S))
            raise AssertionError("unreachable")

    def checked(response: Response, **_: object) -> None:
        if response.is_redirect:
            opening.reach.check(urljoin(response.url, response.headers["location"]))
        take(response)
        pauses[:] = [retry_after(response.headers)]

    pauses: list[float | None] = []
    """What the last answer says of when to ask again, in s."""
    retry = Retry(
        total=RETRIES,
        backoff_factor=0.5,
        allowed_methods=None,
        respect_retry_after_header=False,
    )
    io = GuardedIO(max_retries=retry, timeout=TIMEOUT_S)
    io.session.stream = True
    io.session.hooks["response"].append(checked)
    io.session.max_redirects = MOST_REDIRECTS
    return io


def read_json(href: str, opening: Opening) -> dict[str, Any]:
    """Reads a STAC document as JSON.

    Raises:
        CatalogDown: the server does not answer.
        CatalogError: the document is not there, or is not a JSON object with a `type`.
    """
    text = FsspecIO(opening).read_text_from_href(href)
    try:
        document = json.loads(text)
    except ValueError as error:
        raise CatalogError(
            f"{redacted(href)} is not JSON ({error}); is it a STAC catalog?"
        ) from error
    if not isinstance(document, dict) or "type" not in document:
        raise CatalogError(
            f"{redacted(href)} is no STAC document; give a catalog.json or an API's address"
        )
    return document


def read_static(href: str, opening: Opening) -> pystac.Catalog:
    """Reads a static catalog or collection; its links are followed where they may lead.

    Raises:
        CatalogError: the document cannot be read, or is neither a Catalog nor a Collection.
    """
    try:
        found = pystac.read_file(href, stac_io=FsspecIO(opening))
    except pystac.STACTypeError as error:
        raise CatalogError(
            f"{redacted(href)} is no STAC document; give a Catalog or Collection"
        ) from error
    if not isinstance(found, pystac.Catalog):
        raise CatalogError(
            f"{redacted(href)} is a {type(found).__name__}; give a Catalog or Collection"
        )
    return found

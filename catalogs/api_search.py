"""Searches a STAC API page by page.

pystac-client makes the requests. What it does not do: it asks for a page again with fewer Items if
the server cannot bear it, and sees pages that repeat Items or drop them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pystac
import shapely
from shapely.geometry.base import BaseGeometry

from earthgptx.catalogs.access import Opening
from earthgptx.catalogs.errors import CatalogDown, CatalogError
from earthgptx.catalogs.redaction import redacted
from earthgptx.catalogs.stac_io import TooMuch, api_io

if TYPE_CHECKING:
    import cql2
    from pystac_client import Client
    from pystac_client.exceptions import APIError

PAGE = 250
"""Items asked for at once."""
SMALLEST_PAGE = 10
TRIES = 4
"""Times that a page is asked for, beside the repetitions of one request (`api_io`)."""
PAUSE_S = 1.0
"""Pause before the second try; it doubles."""
MOST_PAGES = 100_000
MOST_SECONDS = 4 * 3600.0
"""Time that all pages may take."""
HEAVY = (413, 500, 502, 503, 504, None)
"""Status codes after which a page of half the size is asked for; None: no answer in time."""
ACCESS = (401, 403, 407)


def api_items(
    catalog: str,
    *,
    collections: tuple[str, ...],
    aoi: BaseGeometry,
    interval: tuple[Any, Any],
    expression: cql2.Expr | None,
    opening: Opening,
    warn: Callable[[str], None],
) -> Iterator[dict[str, Any]]:
    """Yields the Items that a STAC API finds, as dicts; each once.

    Args:
        catalog: address of the API.
        collections: collection ids.
        aoi: area of interest, lon/lat.
        interval: closed interval, UTC; None for an open end.
        expression: filter; left out where the server does not announce that it can filter.
        opening: how the API is opened, and where its links may lead.
        warn: takes a sentence if the server's count does not fit what came.

    Raises:
        CatalogDown: a page does not come, however often it is asked for.
        CatalogError: the server refuses the search.
    """
    from pystac_client import Client

    client = Client.open(catalog, stac_io=api_io(opening))
    asked = _request(client, collections, aoi, interval, expression)
    seen: set[tuple[str, str]] = set()
    matched, repeated = None, 0
    for page in _ahead(_pages(client, *asked)):
        matched = _matched(page) if matched is None else matched
        for item in page.get("features") or ():
            if not isinstance(item, dict):
                warn(f"{redacted(catalog)} gave something that is no item")
                continue
            key = (str(item.get("collection")), str(item.get("id")))
            if key in seen:
                repeated += 1
                continue
            seen.add(key)
            yield item
    place = redacted(catalog)
    if repeated:
        warn(f"{place} gave {repeated} items twice: it changes, or its pages overlap")
    if matched is not None and len(seen) < matched:
        warn(f"{place} counts {matched} items and gave {len(seen)}; some may be missing")


def _request(
    client: Client,
    collections: tuple[str, ...],
    aoi: BaseGeometry,
    interval: tuple[Any, Any],
    expression: cql2.Expr | None,
) -> tuple[str, str, dict[str, Any]]:
    """Returns address, method and parameters of the first page."""
    method, language = _dialect(client)
    filters: dict[str, Any] = {}
    if expression is not None and language:
        text = expression.to_text() if language == "cql2-text" else expression.to_json()
        filters = {"filter": text, "filter_lang": language}
    search = client.search(
        method=method,
        collections=list(collections),
        intersects=shapely.geometry.mapping(aoi),
        datetime=list(interval) if any(interval) else None,
        limit=PAGE,
        **filters,
    )
    return search.url, method, search.get_parameters()


def _dialect(client: Client) -> tuple[str, str]:
    """Returns the method of a search, and the language of its filter; empty if there is none.

    A server that does not announce filtering may find nothing for a filtered search.
    """
    methods = {
        str(link.extra_fields.get("method", "GET")).upper()
        for link in client.links
        if link.rel == "search"
    }
    method = "GET" if methods == {"GET"} else "POST"
    classes = client.get_conforms_to()
    if not any("item-search#filter" in each for each in classes):
        return method, ""
    spoken = [
        each.rpartition("/")[2].lower() for each in classes if "cql2-" in each.rpartition("/")[2]
    ]
    # By default: JSON in a body, text in an address.
    wanted = "cql2-json" if method == "POST" else "cql2-text"
    return method, wanted if wanted in spoken or not spoken else ""


def _ahead(pages: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yields pages, and asks for the next one while the last is worked on."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, pages, None)
        while (page := coming.result()) is not None:
            coming = pool.submit(next, pages, None)
            yield page


def _pages(
    client: Client, url: str, method: str, asked: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Yields pages to the last one."""
    here: Any = url
    parameters = asked
    followed: set[str] = set()
    end = time.monotonic() + MOST_SECONDS
    for _ in range(MOST_PAGES):
        if time.monotonic() > end:
            raise CatalogDown(
                f"the search of {redacted(url)} takes more than {MOST_SECONDS / 3600:.0f} hours; "
                "narrow source.aoi or source.time"
            )
        page = _page(client, here, method, parameters)
        yield page
        links = [each for each in page.get("links") or () if isinstance(each, dict)]
        following = next((each for each in links if each.get("rel") == "next"), None)
        if following is None or not page.get("features"):
            return
        where = json.dumps(following, sort_keys=True)
        if where in followed:
            raise CatalogDown(
                f"catalog {redacted(url)} gives the same next page again and again; "
                "nothing was kept, try again later"
            )
        followed.add(where)
        if not following.get("href"):
            raise CatalogDown(f"catalog {redacted(url)} gives a next page without an address")
        here = pystac.Link.from_dict(following)
        parameters = asked
    raise CatalogDown(f"catalog {redacted(url)} gives more than {MOST_PAGES} pages")


def _page(client: Client, here: Any, method: str, asked: dict[str, Any]) -> dict[str, Any]:
    """Returns one page; asks again, and for less, if the server fails."""
    from pystac_client.exceptions import APIError

    io = client._stac_io
    assert io is not None
    pause = PAUSE_S
    for number in range(TRIES):
        try:
            more: dict[str, Any] = {} if isinstance(here, pystac.Link) else {"method": method}
            found = io.read_json(here, parameters=asked, **more)
            if not isinstance(found, dict):
                raise CatalogDown(f"catalog {client.self_href} answers with no JSON object")
            return found
        except TooMuch:
            if int(asked.get("limit", PAGE)) <= SMALLEST_PAGE:
                raise
            asked = _smaller(asked, here)
        except ValueError as error:
            raise CatalogDown(
                f"catalog {client.self_href} answers with no JSON: {error}"
            ) from error
        except APIError as error:
            status = getattr(error, "status_code", None)
            if status is not None and 400 <= status < 500 and status not in (408, 413, 429):
                raise _refusal(client.self_href, status, error) from error
            if number + 1 == TRIES:
                raise
            if status in HEAVY:
                asked = _smaller(asked, here)
        time.sleep(pause)
        pause *= 2
    raise AssertionError("unreachable")


def _smaller(asked: dict[str, Any], here: Any) -> dict[str, Any]:
    """Halves the number of Items of a page, in the parameters and in the link to it."""
    limit = max(int(asked.get("limit", PAGE)) // 2, SMALLEST_PAGE)
    if isinstance(here, pystac.Link) and "limit" in here.extra_fields.get("body", {}):
        here.extra_fields["body"]["limit"] = limit
    return asked | {"limit": limit}


def _refusal(place: str, status: int, error: APIError) -> CatalogError:
    """Returns the error of a search that the server refuses, with its reason."""
    text = " ".join(str(error).split())
    try:
        document = json.loads(str(error))
        found = [document.get(key) for key in ("description", "detail", "message", "title")]
        text = next(
            (json.dumps(each) if not isinstance(each, str) else each for each in found if each),
            text,
        )
    except (ValueError, AttributeError):
        pass
    hint = (
        "it wants to know who asks; see source.access"
        if status in ACCESS
        else "check source.collections, source.aoi, source.time and source.filter"
    )
    return CatalogError(
        f"catalog {redacted(place)} refuses the search (HTTP {status}: {text[:300]}); {hint}"
    )


def _matched(page: dict[str, Any]) -> int | None:
    """Returns how many Items the server says there are."""
    found = page.get("numberMatched", (page.get("context") or {}).get("matched"))
    return found if isinstance(found, int) else None

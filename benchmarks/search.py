"""How long a search of 20,000 Items takes, against pystac-client's dicts.

The server is stac-fastapi over pgstac, on this machine; both ask for pages of the same size.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import shapely
from pystac_client import Client

from benchmarks.plan import items
from benchmarks.report import arguments, report
from earthgptx.catalogs.api_search import PAGE
from earthgptx.catalogs.interval import parse_interval
from earthgptx.catalogs.search import search
from tests.catalogs.pgstac import pgstac

WORLD = shapely.box(-180, -90, 180, 90)
COLLECTION = "sentinel-2-l2a"


def ours(url: str) -> tuple[float, int]:
    started = time.perf_counter()
    found = search(url, collections=(COLLECTION,), aoi=WORLD, time=parse_interval("../.."))
    return time.perf_counter() - started, len(found)


def theirs(url: str) -> tuple[float, int]:
    started = time.perf_counter()
    asked = Client.open(url).search(
        collections=[COLLECTION], intersects=shapely.geometry.mapping(WORLD), limit=PAGE
    )
    count = sum(1 for _ in asked.items_as_dicts())
    return time.perf_counter() - started, count


def main() -> None:
    args = arguments(__doc__)
    days = 20 if args.quick else 556
    documents = (
        item.to_dict(include_self_link=False) | {"links": []} for item in items(6, 6, days)
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        pgstac(Path(folder) / "pgstac", documents) as url,
    ):
        theirs(url)  # the server's first search is slower
        runs = [(theirs(url), ours(url)) for _ in range(1 if args.quick else 3)]
    counts = {count for run in runs for _, count in run}
    assert len(counts) == 1, f"they do not find the same: {counts}"
    client_s = min(first for (first, _), _ in runs)
    search_s = min(second for _, (second, _) in runs)
    report(
        "a search",
        {
            "items": float(counts.pop()),
            "pystac_client_s": client_s,
            "search_s": search_s,
            "search_ratio": client_s / search_s,
        },
        args.json,
    )


if __name__ == "__main__":
    main()

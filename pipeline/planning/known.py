"""What an output tells a plan: the lattices of its series, and the Items that it is made of."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pystac

from earthgptx.catalogs.errors import CatalogError
from earthgptx.catalogs.geoparquet import thaw_series
from earthgptx.catalogs.interval import Interval
from earthgptx.catalogs.moments import by_time, meets
from earthgptx.catalogs.publish import MARK
from earthgptx.pipeline.errors import PipelineError
from earthgptx.pipeline.job.sections import Slicing
from earthgptx.pipeline.job.spec import items_beside
from earthgptx.pipeline.planning.grids import Known, Lattice
from earthgptx.pipeline.planning.slices import slice_name
from earthgptx.pipeline.storage.versions import document


def known_grids(output: str, series: str) -> Known:
    """Returns what an output has fixed of a series; nothing if there is no such output.

    Args:
        output: URL of the store.
        series: the series.
    """
    try:
        mark = document(output, "zarr.json")["attributes"][MARK]
        if mark["series"] != series:
            return Known()
        lattices = {crs: Lattice(*steps) for crs, steps in mark["lattices"].items()}
        return Known(lattices, frozenset(mark["grids"]))
    except PipelineError:
        raise
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return Known()  # a run says why the output cannot be used


def with_known(
    found: Sequence[pystac.Item],
    output: str,
    slicing: Slicing,
    interval: Interval,
    assets: Collection[str],
    series: str,
) -> tuple[list[pystac.Item], frozenset[str]]:
    """Returns Items with those that an earlier run knew of the same slices, outside an interval.

    A month that is searched in part keeps its other days. Returns also the names of the slices
    that had an Item inside the interval.

    Args:
        found: Items of a search, sorted by time.
        output: URL of a store of the same series.
        slicing: how Items make slices.
        interval: what was searched.
        assets: keys of the assets to keep.
        series: the series.

    Raises:
        CatalogError: what earlier runs knew cannot be read.
    """
    if slicing == "item" or interval == (None, None):
        return list(found), frozenset()
    url = items_beside(output)
    known = thaw_series(url, series, assets)
    if known is None:
        if not _has_slices(output):
            return list(found), frozenset()
        raise CatalogError(
            f"{url} is missing, so that nobody knows which other items its time slices are made "
            "of; run the job once over all of its time (--time ../..)"
        )
    searched = {slice_name(slicing, item) for item in known if meets(item, interval)}
    names = searched | {slice_name(slicing, item) for item in found}
    there = {(item.collection_id, item.id) for item in found}
    kept = [
        item
        for item in known
        if slice_name(slicing, item) in names
        and not meets(item, interval)
        and (item.collection_id, item.id) not in there
    ]
    return by_time([*found, *kept]), frozenset(searched)


def _has_slices(output: str) -> bool:
    """Whether a run has noted the time slices of an output."""
    try:
        document(output, "slices/name/zarr.json")
    except FileNotFoundError:
        return False
    return True

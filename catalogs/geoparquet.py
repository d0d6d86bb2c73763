"""Items as stac-geoparquet: written as `frozen` files beside a result, and read as a catalog.

`frozen` gives the Items of a plan, so that it can be repeated without the catalog. `thaw` filters
the Arrow table before it makes Items: a dict for each of 20,000 Items takes gigabytes.
"""

from __future__ import annotations

import io
import uuid
from collections.abc import Collection, Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any

import fsspec
import numpy as np
import pystac
from shapely.geometry.base import BaseGeometry

from earthgptx.catalogs.errors import CatalogDown, CatalogError
from earthgptx.catalogs.interval import Interval
from earthgptx.catalogs.moments import by_time, meets
from earthgptx.catalogs.publish import mark_in, marked_parquet
from earthgptx.catalogs.redaction import redact_all, redacted

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 500
"""Items that are dicts at the same time."""


def frozen(items: Iterable[pystac.Item], series: str = "1") -> bytes:
    """Returns Items as a stac-geoparquet file, with redacted texts and without links.

    Args:
        items: the Items.
        series: series of the result that they are for, which the file's mark says.
    """
    from pyarrow.fs import FSSpecHandler, PyFileSystem
    from stac_geoparquet.arrow import parse_stac_items_to_arrow, to_parquet

    bare = [
        _unsigned(item.to_dict(include_self_link=False, transform_hrefs=False)) for item in items
    ]
    table = parse_stac_items_to_arrow(bare)
    memory = fsspec.filesystem("memory")
    name = f"/{uuid.uuid4().hex}.parquet"
    try:
        to_parquet(table, name, filesystem=PyFileSystem(FSSpecHandler(memory)))
        return marked_parquet(io.BytesIO(memory.cat_file(name)), series)
    finally:
        memory.rm(name)


def frozen_with(
    url: str, items: Iterable[pystac.Item], series: str, searched: Interval | None
) -> bytes:
    """Returns Items as `frozen` does, with those of an earlier file of the same series.

    Args:
        url: address of the earlier file, which need not exist.
        items: Items of a search.
        series: the series of the result that they are for.
        searched: closed interval that was searched, whose other Items are left out; None to leave
            out none.

    Raises:
        CatalogDown: the storage does not answer.
        CatalogError: the earlier file is damaged.
    """
    found = list(items)
    mine = {(item.collection_id, item.id) for item in found}
    known = thaw_series(url, series) if searched != (None, None) else []
    kept = [
        item
        for item in known or []
        if (item.collection_id, item.id) not in mine
        and (searched is None or not meets(item, searched))
    ]
    return frozen(by_time([*kept, *found]), series)


def thaw_series(url: str, series: str, assets: Collection[str] = ()) -> list[pystac.Item] | None:
    """Returns the Items that were frozen for a series; None if there is no such file.

    Args:
        url: address of the file.
        series: the series; a file of another one counts as missing.
        assets: keys of the assets to keep; empty for all.

    Raises:
        CatalogDown: the storage does not answer.
        CatalogError: the file is damaged.
    """
    try:
        with fsspec.open(url, "rb") as file:
            if mark_in(file) != series:
                return None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CatalogDown(f"cannot read {url} ({type(error).__name__}: {error})") from error
    except ValueError as error:
        raise CatalogError(f"{redacted(url)} is damaged ({error})") from error
    return thaw(url, assets=assets)


def thaw(
    url: str,
    *,
    collections: Collection[str] = (),
    aoi: BaseGeometry | None = None,
    time: tuple[datetime | None, datetime | None] = (None, None),
    assets: Collection[str] = (),
) -> list[pystac.Item]:
    """Reads Items from stac-geoparquet, made by `frozen` or by any other tool.

    Items that cannot match are left out; whether the others do is for the caller to decide.

    Args:
        url: address of the file.
        collections: collection ids; empty for all.
        aoi: area of interest, lon/lat; None for everywhere.
        time: closed interval, UTC; None for an open end.
        assets: keys of the assets to keep; empty for all.

    Raises:
        CatalogDown: the storage does not answer.
        CatalogError: the file is not there, or cannot be read as stac-geoparquet.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from stac_geoparquet.arrow import stac_table_to_items

    try:
        with fsspec.open(url, "rb") as file:
            table = _with_boxes(pq.read_table(file))
        table = table.filter(_may_match(table, collections, aoi, time))
        table = _with_assets(table, assets)
        found = []
        for batch in table.to_batches(max_chunksize=ROWS):
            rows = stac_table_to_items(pa.Table.from_batches([batch], table.schema))
            found += [item_of(_without_nulls(row)) for row in rows]
        return found
    except (IsADirectoryError, NotADirectoryError, PermissionError) as error:
        raise CatalogError(f"{redacted(url)} cannot be opened ({type(error).__name__})") from error
    except FileNotFoundError as error:
        if _is_down(error):
            raise CatalogDown(f"cannot read {redacted(url)}: its server does not answer") from error
        raise CatalogError(f"{url} does not exist; check the address") from error
    except OSError as error:
        raise CatalogDown(f"cannot read {url} ({type(error).__name__}: {error})") from error
    except (pa.ArrowException, KeyError, ValueError, TypeError, AttributeError) as error:
        raise CatalogError(
            f"{redacted(url)} cannot be read as stac-geoparquet ({type(error).__name__}: {error})"
        ) from error


def _is_down(error: BaseException) -> bool:
    """Whether a file is said to be missing since its server did not answer.

    For http fsspec says so of whatever goes wrong when it asks for the size of a file.
    """
    cause = error.__cause__ or error.__context__
    if cause is None:
        return False
    status = getattr(cause, "status", None)
    if status is not None:
        return bool(status >= 500 or status == 429)
    return (isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError)) or _is_down(
        cause
    )


def item_of(document: dict[str, Any]) -> pystac.Item:
    """Returns an Item of a document, which it takes over.

    Only documents of old versions are migrated: that costs more than all the rest.
    """
    old = not str(document.get("stac_version", "")).startswith("1.")
    return pystac.Item.from_dict(document, migrate=old, preserve_dict=False)


def _with_boxes(table: pa.Table) -> pa.Table:
    """GeoParquet before 1.1 and Planetary Computer store bbox as a list of four numbers."""
    import pyarrow as pa

    at = table.schema.get_field_index("bbox")
    if at < 0 or not pa.types.is_list(table.schema.types[at]):
        return table
    edges = np.array([_flat(box) for box in table.column(at).to_pylist()], float).T
    boxes = pa.StructArray.from_arrays(
        [pa.array(edge) for edge in edges], ["xmin", "ymin", "xmax", "ymax"]
    )
    return table.set_column(at, "bbox", boxes)


def _flat(box: list[float] | None) -> list[float]:
    """Returns west, south, east, north of a box of four or six numbers; NaN if there is none."""
    if box is None or len(box) not in (4, 6):
        return [np.nan] * 4
    half = len(box) // 2
    return [box[0], box[1], box[half], box[half + 1]]


def _may_match(
    table: pa.Table,
    collections: Collection[str],
    aoi: BaseGeometry | None,
    time: tuple[datetime | None, datetime | None],
) -> Any:
    """Returns a mask of the rows that may match; a value that is null decides nothing."""
    import pyarrow as pa
    import pyarrow.compute as pc

    keep = pa.chunked_array([pa.array(np.ones(table.num_rows, bool))])
    names = set(table.schema.names)
    if collections and "collection" in names:
        keep = pc.and_(keep, pc.is_in(table["collection"], pa.array(list(collections))))
    if aoi is not None and "bbox" in names:
        west, south, east, north = aoi.bounds
        box = {
            name: pc.struct_field(table["bbox"], name) for name in ("xmin", "ymin", "xmax", "ymax")
        }
        meets = pc.and_(
            pc.and_(pc.less_equal(box["ymin"], north), pc.greater_equal(box["ymax"], south)),
            pc.or_(
                pc.and_(pc.less_equal(box["xmin"], east), pc.greater_equal(box["xmax"], west)),
                pc.greater(box["xmin"], box["xmax"]),  # across the antimeridian
            ),
        )
        # A box of no numbers decides nothing.
        known = pc.is_finite(
            pc.add(pc.add(box["xmin"], box["xmax"]), pc.add(box["ymin"], box["ymax"]))
        )
        keep = pc.and_(
            keep, pc.or_(pc.fill_null(meets, True), pc.invert(pc.fill_null(known, False)))
        )
    first, last = time
    begins = [table[name] for name in ("start_datetime", "datetime") if name in names]
    ends = [table[name] for name in ("end_datetime", "datetime") if name in names]
    if first and ends:
        keep = pc.and_(keep, pc.fill_null(pc.greater_equal(pc.coalesce(*ends), first), True))
    if last and begins:
        keep = pc.and_(keep, pc.fill_null(pc.less_equal(pc.coalesce(*begins), last), True))
    return keep


def _with_assets(table: pa.Table, assets: Collection[str]) -> pa.Table:
    """Returns a table whose Items have only some assets."""
    import pyarrow as pa
    import pyarrow.compute as pc

    at = table.schema.get_field_index("assets")
    if not assets or at < 0:
        return table
    kept = [each.name for each in table.schema.types[at] if each.name in assets]
    if not kept:
        return table  # the plan says what the Items lack
    column = table.column(at)
    chunks = [
        pa.StructArray.from_arrays([pc.struct_field(chunk, name) for name in kept], kept)
        for chunk in (column.chunks or [pa.array([], column.type)])
    ]
    return table.set_column(at, "assets", pa.chunked_array(chunks))


def _unsigned(document: dict[str, Any]) -> dict[str, Any]:
    for asset in document["assets"].values():
        asset["href"] = redacted(asset["href"])
    document = redact_all(document)
    # A parquet column has one type, but links differ between catalogs. A plan does not need them.
    document["links"] = []
    return document


def _without_nulls(value: Any) -> Any:
    """Drops keys that are null because parquet adds them when other Items have them."""
    if isinstance(value, dict):
        return {
            key: _without_nulls(inner)
            for key, inner in value.items()
            if inner is not None or key == "datetime"
        }
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value

"""Publishes results in a static STAC catalog: a Collection for each flow, an Item for each result.

Items come first, then the Collection, then the root, so that a reader finds what a link names.
Only documents that carry our mark are replaced, and those only as they were read: two flows may
publish in one catalog.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pystac
import shapely

from earthgptx.catalogs.publish import MARK
from earthgptx.pipeline.errors import Outage, OutputError
from earthgptx.pipeline.job.lonlat import bbox
from earthgptx.pipeline.storage.blobs import Blob, Blobs, Conflict, open_blobs, split

MARKED = "earthgptx:flow"
"""Field of a catalog and a Collection that says that this package wrote them."""


def publish(catalog: str, flow: str, items: Sequence[str]) -> int:
    """Publishes the Items of results; returns how many of its documents have changed.

    Args:
        catalog: folder or URL of the catalog; ends in no file name.
        flow: name of the flow, which is that of the Collection.
        items: addresses of the Items beside the results.

    Raises:
        OutputError: an Item is missing, or the catalog holds documents of somebody else.
        Outage: the storage does not answer.
    """
    blobs = open_blobs(catalog.rstrip("/"))
    found = [_placed(address, flow) for address in items]
    names = {f"{flow}/{item['id']}/{item['id']}.json": item for item in found}
    before = [_read(blobs, name, _is_item) for name in names]
    changed = sum(
        _put(blobs, name, item, old)
        for (name, item), old in zip(names.items(), before, strict=True)
    )
    old = _read(blobs, f"{flow}/collection.json", _is_marked)
    collection = _collection(flow, found, blobs, old.document if old else {})
    changed += _put(blobs, f"{flow}/collection.json", collection, old)
    old = _read(blobs, "catalog.json", _is_marked)
    root = old.document if old else _new_catalog()
    link = {"rel": "child", "href": f"./{flow}/collection.json", "type": "application/json"}
    links = [each for each in root.get("links", []) if each.get("href") != link["href"]]
    root = root | {"links": sorted([*links, link], key=lambda each: str(each.get("href")))}
    return changed + _put(blobs, "catalog.json", root, old)


@dataclass(frozen=True, slots=True)
class _There:
    """A document that is there, and its version for a conditional write."""

    document: dict[str, Any]
    blob: Blob


def _read(blobs: Blobs, name: str, ours: Callable[[dict[str, Any]], bool]) -> _There | None:
    """Returns a document of ours; None if there is none.

    Raises:
        OutputError: it is somebody else's, or damaged.
    """
    try:
        blob = blobs.get(name)
        document = json.loads(blob.data)
    except FileNotFoundError:
        return None
    except ValueError:
        document = None
    if not isinstance(document, dict) or not ours(document):
        raise OutputError(
            f"{blobs.url}/{name} was not written by earthgptx; publish into another folder"
        )
    return _There(document, blob)


def _is_marked(document: dict[str, Any]) -> bool:
    return MARKED in document


def _is_item(document: dict[str, Any]) -> bool:
    return bool(document.get("properties", {}).get("mlm:framework") == MARK)


def _put(blobs: Blobs, name: str, document: dict[str, Any], before: _There | None) -> bool:
    """Writes a document unless it is there already; returns whether it was written.

    Raises:
        Outage: somebody else has written it since it was read.
    """
    data = json.dumps(document, indent=1).encode()
    if before is not None and before.blob.data == data:
        return False
    try:
        if before is None:
            blobs.put_new(name, data)
        else:
            blobs.put_if(name, data, before.blob.version)
    except Conflict as error:
        raise Outage(f"another flow publishes in {blobs.url} now; run it again") from error
    return True


def _new_catalog() -> dict[str, Any]:
    made = pystac.Catalog("results", "Results of flows of earthgptx").to_dict()
    root = {"rel": "root", "href": "./catalog.json", "type": "application/json"}
    return made | {"links": [root], MARKED: "1"}


def _collection(
    flow: str, items: Sequence[dict[str, Any]], blobs: Blobs, before: dict[str, Any]
) -> dict[str, Any]:
    """Returns the Collection of a flow, with the Items that it had before."""
    hrefs = {f"./{item['id']}/{item['id']}.json" for item in items}
    kept = {each["href"] for each in before.get("links", []) if each.get("rel") == "item"} - hrefs
    others = [_read(blobs, f"{flow}/{href.removeprefix('./')}", _is_item) for href in sorted(kept)]
    everything = [*items, *(each.document for each in others if each)]
    ground = shapely.union_all([shapely.geometry.shape(item["geometry"]) for item in everything])
    starts = [item["properties"]["start_datetime"] for item in everything]
    ends = [item["properties"]["end_datetime"] for item in everything]
    extent = pystac.Extent(
        pystac.SpatialExtent([bbox(ground)]),
        pystac.TemporalExtent(
            [[pystac.utils.str_to_datetime(min(starts)), pystac.utils.str_to_datetime(max(ends))]]
        ),
    )
    made = pystac.Collection(flow, f"Results of the flow {flow}", extent, license="other").to_dict()
    links = [
        {"rel": "root", "href": "../catalog.json", "type": "application/json"},
        {"rel": "parent", "href": "../catalog.json", "type": "application/json"},
    ]
    all_hrefs = sorted(f"./{item['id']}/{item['id']}.json" for item in everything)
    links += [{"rel": "item", "href": at, "type": "application/geo+json"} for at in all_hrefs]
    return made | {"links": links, MARKED: "1"}


def _placed(address: str, flow: str) -> dict[str, Any]:
    """Returns the Item of a result as the catalog holds it: with absolute addresses of its files.

    Raises:
        OutputError: there is no such Item.
    """
    blobs, name = split(address)
    found = _read(blobs, name, _is_item)
    if found is None:
        raise OutputError(f"{address} is missing; run its job again")
    document, folder = found.document, address.rpartition("/")[0]
    for asset in document["assets"].values():
        asset["href"] = _absolute(folder, asset["href"])
    up = "../collection.json"
    kept = [each for each in document["links"] if each["rel"] == "derived_from"]
    document["links"] = [
        {"rel": "root", "href": "../../catalog.json", "type": "application/json"},
        {"rel": "parent", "href": up, "type": "application/json"},
        {"rel": "collection", "href": up, "type": "application/json"},
        *kept,
    ]
    return dict(document | {"collection": flow})


def _absolute(folder: str, href: str) -> str:
    path = f"{folder}/{href.removeprefix('./')}"
    return path if "://" in path else os.path.abspath(path)

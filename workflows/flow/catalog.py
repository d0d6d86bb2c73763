"""Publishes results in a static STAC catalog: a Collection for each flow, an Item for each result.

Items come first, then the Collection, then the root, so that a reader finds what a link names.
Only documents that carry our mark are replaced.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

import pystac

from earthgptx.catalogs.publish import MARK
from earthgptx.pipeline.errors import OutputError
from earthgptx.pipeline.storage.blobs import Blobs, open_blobs

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
    root = _ours(blobs, "catalog.json") or _new_catalog()
    collection = _collection(flow, found, _ours(blobs, f"{flow}/collection.json"))
    link = {"rel": "child", "href": f"./{flow}/collection.json", "type": "application/json"}
    links = [each for each in root["links"] if each.get("href") != link["href"]]
    root["links"] = sorted([*links, link], key=lambda each: str(each.get("href")))
    documents = {f"{flow}/{item['id']}/{item['id']}.json": item for item in found}
    documents |= {f"{flow}/collection.json": collection, "catalog.json": root}
    return sum(_put(blobs, name, document) for name, document in documents.items())


def _put(blobs: Blobs, name: str, document: dict[str, Any]) -> bool:
    """Writes a document unless it is there already; returns whether it was written."""
    data = json.dumps(document, indent=1).encode()
    try:
        if blobs.get(name).data == data:
            return False
    except FileNotFoundError:
        pass
    blobs.put(name, data)
    return True


def _ours(blobs: Blobs, name: str) -> dict[str, Any] | None:
    """Returns a document of ours; None if there is none.

    Raises:
        OutputError: it is somebody else's, or damaged.
    """
    try:
        document = json.loads(blobs.get(name).data)
    except FileNotFoundError:
        return None
    except ValueError:
        document = {}
    if not isinstance(document, dict) or MARKED not in document:
        raise OutputError(
            f"{blobs.url}/{name} was not written by earthgptx; publish into another folder"
        )
    return document


def _new_catalog() -> dict[str, Any]:
    made = pystac.Catalog("results", "Results of flows of earthgptx").to_dict()
    root = {"rel": "root", "href": "./catalog.json", "type": "application/json"}
    return made | {"links": [root], MARKED: "1"}


def _collection(
    flow: str, items: Sequence[dict[str, Any]], before: dict[str, Any] | None
) -> dict[str, Any]:
    """Returns the Collection of a flow, with the Items that it had before."""
    made = pystac.Collection(
        flow,
        f"Results of the flow {flow}",
        pystac.Extent.from_items([pystac.Item.from_dict(item) for item in items]),
        license="other",
    ).to_dict()
    links = [
        {"rel": "root", "href": "../catalog.json", "type": "application/json"},
        {"rel": "parent", "href": "../catalog.json", "type": "application/json"},
    ]
    hrefs = {f"./{item['id']}/{item['id']}.json" for item in items}
    hrefs |= {each["href"] for each in (before or {}).get("links", []) if each["rel"] == "item"}
    links += [{"rel": "item", "href": at, "type": "application/geo+json"} for at in sorted(hrefs)]
    return made | {"links": links, MARKED: "1"}


def _placed(address: str, flow: str) -> dict[str, Any]:
    """Returns the Item of a result as the catalog holds it: with absolute addresses of its files.

    Raises:
        OutputError: there is no such Item.
    """
    folder, _, name = address.rpartition("/")
    try:
        document = json.loads(open_blobs(folder or ".").get(name).data)
    except (FileNotFoundError, ValueError) as error:
        raise OutputError(f"{address} is missing or damaged; run its job again") from error
    if document["properties"].get("mlm:framework") != MARK:
        raise OutputError(f"{address} is no Item of a result")
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

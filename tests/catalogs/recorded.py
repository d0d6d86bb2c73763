"""Items that public catalogs have answered with, from the recordings."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pystac
import yaml

CASSETTES = {
    "earth-search": "test_cli__TestCLISearch.test_filter_inprocess_.yaml",
    "earth-search, another day": "test_item_search__test_multiple_collections.yaml",
}
FILES = {
    "planetary-computer sentinel-2-l2a": "sentinel-2-l2a-pc.json",
    "planetary-computer sentinel-1-rtc": "sentinel-1-rtc-pc.json",
    "planetary-computer landsat-c2-l2": "landsat-c2-l2-pc.json",
    "planetary-computer naip": "naip-pc.json",
    "planetary-computer cop-dem-glo-30": "cop-dem-glo-30-pc.json",
    "usgs landsat-c2l2-sr": "odc-stac/LC08_L2SP_028030_20200114_20200824_02_T1_SR.json",
    "earth-search v0": "odc-stac/S2A_28QCH_20200714_0_L2A.json",
    "planetary-computer before 04.00": (
        "odc-stac/S2B_MSIL2A_20190629T212529_R043_T06VVN_20201006T080531_raster_ext.json"
    ),
}


def recorded_item(data: Path, name: str) -> pystac.Item:
    """Returns the first recorded Item of a provider's collection.

    Args:
        data: folder of the real data.
        name: a key of `FILES`, or a key of `CASSETTES`, a blank, and a collection id.
    """
    folder = data / "stac-recordings"
    if name in FILES:
        document = json.loads((folder / "items" / FILES[name]).read_text())
        found = document if isinstance(document, list) else document.get("features", [document])
        return pystac.Item.from_dict(found[0])
    provider, _, collection = name.rpartition(" ")
    path = folder / "cassettes" / CASSETTES[provider]
    for item in _of_cassette(path):
        if item["collection"] == collection:
            return pystac.Item.from_dict(item)
    raise LookupError(name)


def _of_cassette(path: Path) -> Iterator[dict[str, Any]]:
    for each in yaml.load(path.read_text(), Loader=yaml.CSafeLoader)["interactions"]:
        body = each["response"]["body"]["string"]
        if isinstance(body, bytes):
            body = (gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body).decode()
        document = json.loads(body)
        if document.get("type") == "FeatureCollection":
            yield from document["features"]

"""Scale, offset and no-data value of a band: as its Item declares them, else as its profile says.

A stored value becomes a physical one (reflectance, kelvin, power) by `stored * scale + offset`. An
Item declares both by the raster extension, per band (`raster:bands`, or `bands` since STAC 1.1) or
for an asset.

Since processing baseline 04.00, ESA stores the reflectance of Sentinel-2 plus 0.1
(`BOA_ADD_OFFSET`, -1000 of 10000). Some catalogs subtract it from the pixels before they publish
them, and go on declaring the offset: `earthsearch:boa_offset_applied` says so then.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import pystac

from earthgptx.catalogs.profiles import Band, CollectionProfile

APPLIED = ("earthsearch:boa_offset_applied", "sentinel:boa_offset_applied")
"""Properties that say whether the offset is subtracted from the pixels already."""
BASELINE = ("s2:processing_baseline", "sentinel:processing_baseline", "processing:version")
SINCE = 4.0
"""First processing baseline with the offset."""
_IN_NAME = re.compile(r"_N(\d{2})(\d{2})_")
"""Baseline in the name of a product: S2B_MSIL2A_20240419T095549_N0510_R122_..."""


@dataclass(frozen=True, slots=True)
class Radiometry:
    """How the stored values of a band become physical ones."""

    scale: float = 1.0
    offset: float = 0.0
    nodata: float | None = None
    """Stored value that means no data; None if only the file says it."""
    doubt: str = ""
    """Why the values may be wrong, as a clause; empty if they are known."""


def radiometry_of(
    item: pystac.Item, key: str, band: Band, profile: CollectionProfile
) -> Radiometry:
    """Returns the radiometry of a band of an asset.

    Args:
        item: Item of the asset.
        key: key of the asset.
        band: band of the profile that reads the asset.
        profile: profile of the Item's collection.
    """
    scale, offset, nodata = _declared(item.assets[key].extra_fields, band.index)
    if profile.radiometry == "bands":
        nodata = nodata if profile.nodata is None else profile.nodata
        return Radiometry(band.scale, band.offset, nodata)
    nodata = profile.nodata if nodata is None else nodata
    doubt = ""
    if scale == 0:
        scale, doubt = None, "it declares the scale 0; that of the profile counts"
    if profile.baseline_offset is not None:
        offset, unsure = _boa_offset(item, offset, profile.baseline_offset)
        doubt = doubt or unsure
    elif offset is None:
        # A scale without an offset declares the offset 0.
        offset = band.offset if scale is None else 0.0
    return Radiometry(band.scale if scale is None else scale, offset, nodata, doubt)


def baseline_of(item: pystac.Item) -> float | None:
    """Returns the Sentinel-2 processing baseline of an Item, such as 5.1; None if nothing says."""
    for name in BASELINE:
        try:
            return float(item.properties[name])
        except (KeyError, TypeError, ValueError):
            continue
    found = _IN_NAME.search(f"{item.properties.get('s2:product_uri')} {item.id}")
    return float(f"{found[1]}.{found[2]}") if found else None


def _boa_offset(item: pystac.Item, declared: float | None, since: float) -> tuple[float, str]:
    """Returns the offset of a Sentinel-2 Item, and the doubt about it."""
    applied = next((item.properties[name] for name in APPLIED if name in item.properties), None)
    baseline = baseline_of(item)
    if applied is True:
        return 0.0, ""
    if applied is False and baseline is not None and baseline >= SINCE:
        return (
            since if declared is None else declared,
            "its catalog says of some Items that the offset is not applied though it is; if so, "
            "it is read 0.1 too dark",
        )
    if declared is not None:
        old = declared and baseline is not None and baseline < SINCE
        doubt = f"it declares the offset {declared:g}, which baseline {baseline} does not have"
        return declared, doubt if old else ""
    if baseline is None:
        return 0.0, (
            "it declares neither an offset nor a processing baseline; if that is 04.00 or later, "
            "it is read 0.1 too bright"
        )
    return (since if baseline >= SINCE else 0.0), ""


def _declared(
    fields: dict[str, Any], index: int
) -> tuple[float | None, float | None, float | None]:
    """Returns scale, offset and no-data value that an asset declares for a band; None if not."""
    places: list[dict[str, Any]] = []
    for name in ("bands", "raster:bands"):
        listed = fields.get(name)
        if (
            isinstance(listed, list)
            and len(listed) >= index
            and isinstance(listed[index - 1], dict)
        ):
            places.append(listed[index - 1])
    named = ("raster:scale", "raster:offset", "nodata", "raster:nodata")
    places.append({name: fields[name] for name in named if name in fields})
    return (
        _number(places, "raster:scale", "scale"),
        _number(places, "raster:offset", "offset"),
        _number(places, "nodata", "raster:nodata"),
    )


def _number(places: list[dict[str, Any]], *names: str) -> float | None:
    """Returns the first finite or NaN number under one of the names."""
    for place in places:
        for name in names:
            value = place.get(name)
            if isinstance(value, bool) or value is None:
                continue
            try:
                number = float(value)
            except (TypeError, ValueError):
                continue
            if name == "nodata" or math.isfinite(number):
                return number
    return None

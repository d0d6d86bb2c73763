"""What a plan is not sure of, one sentence per cause; shown by `plan` and kept in the result."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import pystac

from earthgptx.catalogs.profiles import CollectionProfile
from earthgptx.catalogs.radiometry import Radiometry, radiometry_of
from earthgptx.pipeline.reading.assets import pick_asset


def warnings_of(
    items: Sequence[pystac.Item], profiles: Sequence[CollectionProfile]
) -> tuple[str, ...]:
    """Returns sentences about values that may be wrong, with the number of Items and the first."""
    concerned: dict[str, list[str]] = defaultdict(list)
    for item, profile in zip(items, profiles, strict=True):
        if profile.uncalibrated:
            concerned["its values are not calibrated, the sensor's gain is in them"].append(item.id)
        doubts = {each.doubt for each in radiometries(item, profile) if each.doubt}
        for doubt in doubts:
            concerned[doubt].append(item.id)
    return tuple(
        f"{len(ids)} of {len(items)} items, such as {ids[0]}: {doubt}"
        for doubt, ids in sorted(concerned.items())
    )


def radiometries(item: pystac.Item, profile: CollectionProfile) -> list[Radiometry]:
    """Returns the radiometry of each band of the profile; of those whose asset an Item has."""
    return [
        radiometry_of(item, pick_asset(item, band.assets), band, profile)
        for band in profile.bands
        if any(key in item.assets for key in band.assets)
    ]

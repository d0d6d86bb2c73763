"""What a plan is not sure of, one sentence per cause; shown by `plan` and kept in the result."""

from __future__ import annotations

from collections import Counter, defaultdict

import pystac

from earthgptx.catalogs.profiles import CollectionProfile
from earthgptx.catalogs.radiometry import Radiometry, radiometry_of
from earthgptx.pipeline.planning.grids import pixel_side
from earthgptx.pipeline.planning.items import UsableItems
from earthgptx.pipeline.reading.assets import annotation_of, pick_asset


def warnings_of(usable: UsableItems) -> tuple[str, ...]:
    """Returns sentences about what may be wrong, with the number of Items and the first."""
    concerned: dict[str, list[str]] = defaultdict(list)
    for item_id, reason in usable.refused.items():
        concerned[f"left out, since {reason}"].append(item_id)
    if usable.mended:
        why = "the footprint is null, invalid or elsewhere; the extent of the asset counts"
        concerned[why] += usable.mended
    sides = Counter(pixel_side(native) for native in usable.natives)
    if len(sides) > len({crs for crs, _ in sides}):  # each CRS has its own grid
        said = ", ".join(f"{n} of {side:g} in {crs}" for (crs, side), n in sorted(sides.items()))
        concerned[f"pixels of several sizes ({said}); grid.resolution chooses one"] += [
            item.id for item in usable.items
        ]
    for item, profile in zip(usable.items, usable.profiles, strict=True):
        if any(band.annotations and not annotation_of(item, band) for band in profile.bands):
            why = "it has no calibration annotation; a usual gain is taken, decibels are not exact"
            concerned[why].append(item.id)
        doubts = {each.doubt for each in radiometries(item, profile) if each.doubt}
        for doubt in doubts:
            concerned[doubt].append(item.id)
    count = len(usable.items) + len(usable.refused)
    return tuple(
        f"{len(ids)} of {count} items, such as {ids[0]}: {doubt}"
        for doubt, ids in sorted(concerned.items())
    )


def radiometries(item: pystac.Item, profile: CollectionProfile) -> list[Radiometry]:
    """Returns the radiometry of each band of the profile; of those whose asset an Item has."""
    return [
        radiometry_of(item, pick_asset(item, band.assets), band, profile)
        for band in profile.bands
        if any(key in item.assets for key in band.assets)
    ]

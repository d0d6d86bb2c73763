"""What a plan is not sure of, one sentence per cause; shown by `plan` and kept in the result."""

from __future__ import annotations

from collections import Counter, defaultdict

from earthgptx.pipeline.planning.grids import pixel_side
from earthgptx.pipeline.planning.items import UsableItems


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
    for source in usable.sources:
        if any(each.band.annotations and not each.annotation for each in source.channels):
            why = "it has no calibration annotation; a usual gain is taken, decibels are not exact"
            concerned[why].append(source.item)
        for doubt in {each.radiometry.doubt for each in source.channels} - {""}:
            concerned[doubt].append(source.item)
    count = len(usable.items) + len(usable.refused)
    return tuple(
        f"{len(ids)} of {count} items, such as {ids[0]}: {doubt}"
        for doubt, ids in sorted(concerned.items())
    )

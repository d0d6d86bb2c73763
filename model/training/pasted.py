"""Drawn aircraft and tanks on real photographs that have none: real ground, where the made world has its own. Torch-free."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from model.region import Mask
from model.training.record import LEAST_PX, Record, Region
from model.training.render import coverage
from model.training.world import Ring, airframe, disc

PASTED = ("aircraft", "storage tank")
MOST = 6
SHORTEST_PX, LONGEST_PX = 8, 100
"""Of what is drawn."""
SHORTEST_M, LONGEST_M = 15, 70
"""Of the same on the ground, from which the image's scale follows."""
LEFT = 0.6
"""Part of another object that must still be seen."""


def may_paste(record: Record) -> bool:
    """Whether it is a photograph of which it is known that it has neither."""
    there = {label for region in record.regions for label in region.labels}
    return record.modality == "optical" and record.complete.issuperset(PASTED) and there.isdisjoint(PASTED)


def pasted(record: Record, rng: np.random.Generator) -> Record:
    """The same ground with some aircraft or tanks on it, of one size, which says how large a pixel is."""
    height, width = record.pixels.shape[1:]
    pixels = record.pixels.astype(np.float64)
    size = float(np.exp(rng.uniform(np.log(SHORTEST_PX), np.log(LONGEST_PX))))
    sun = rng.normal(0, 0.12, 2) * size
    taken = np.zeros((height, width), bool)
    added = []
    y, x = np.mgrid[:height, :width] + 0.5
    for _ in range(int(rng.integers(1, MOST + 1))):
        kind = PASTED[int(rng.random() < 0.3)]
        cx, cy = rng.uniform(0, width), rng.uniform(0, height)
        rings = _rings(kind, cx, cy, size * rng.uniform(0.8, 1.2), rng)
        inside = coverage(tuple(rings), x, y, 1.0)
        mine = inside >= 0.5
        if mine.sum() < LEAST_PX or (mine & taken).any():
            continue
        shade = coverage(tuple(ring + sun for ring in rings), x, y, 1.0)
        pixels *= 1 - rng.uniform(0.3, 0.7) * shade
        tone = (rng.uniform(120, 255) + rng.normal(0, 12, 3))[:, None, None]
        grain = rng.normal(0, rng.uniform(0, 14), (1, height, width))
        pixels += inside * (tone + grain - pixels)
        taken |= mine
        added.append(
            Region(
                labels=(kind,), mask=Mask.from_array(mine), caption="a parked aircraft" if kind == "aircraft" else ""
            )
        )
    regions = []
    for region in record.regions:
        own = region.mask.window(0, 0, height, width)
        left = own & ~taken
        if left.sum() >= max(LEAST_PX, LEFT * own.sum()):
            regions.append(replace(region, mask=Mask.from_array(left) if region.outlined else region.mask))
    return replace(
        record, pixels=np.clip(pixels, 0, 255).astype(np.uint8), regions=(*regions, *added),
        metres_per_pixel=float(rng.uniform(SHORTEST_M, LONGEST_M)) / size,
    )  # fmt: skip


def _rings(kind: str, cx: float, cy: float, size: float, rng: np.random.Generator) -> list[Ring]:
    if kind == "aircraft":
        heading = float(rng.uniform(0, 360))
        return airframe(cx, cy, heading, size, size * rng.uniform(0.75, 1.1), size * rng.uniform(0.09, 0.15))
    return [disc(cx, cy, size / 2)]

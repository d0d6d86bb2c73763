"""Measures how long a plan's model takes to load and per tile, on a tile of random pixels."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from earthgptx.model.interface.tile import TileInput
from earthgptx.pipeline.analyst import find_analyst
from earthgptx.pipeline.planning.plan import Plan


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast a model is on this machine, without I/O or prompts."""

    load_s: float
    """Seconds from nothing to the first answer."""
    tile_s: float
    """Seconds per tile from then on."""


def measure(plan: Plan) -> Speed:
    """Returns the speed of the plan's model.

    The first of two batches warms up the model and belongs to its load.
    """
    side = plan.spec.grid.tile_px
    noise = np.random.default_rng(0)
    everywhere = np.ones((side, side), bool)
    tile = TileInput(
        pixels=noise.integers(0, 255, (3, side, side), np.uint8),
        valid=everywhere,
        wanted=everywhere,
        modality=plan.modality,
        metres_per_pixel=1.0,
        phrases=tuple(plan.spec.tasks.find),
        prompts=(),
        names=(),
        describe=plan.spec.tasks.describe,
    )
    batch = [tile] * plan.traits.tiles_per_batch
    started = time.perf_counter()
    analyst = find_analyst(plan.spec.model).load()
    analyst.analyse(batch)
    loaded = time.perf_counter()
    analyst.analyse(batch)
    return Speed(loaded - started, (time.perf_counter() - loaded) / len(batch))

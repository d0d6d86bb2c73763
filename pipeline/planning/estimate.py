"""Measures how long a plan's model takes per tile, on a tile of random pixels."""

from __future__ import annotations

import time

import numpy as np

from earthgptx.model.interface.tile import TileInput
from earthgptx.pipeline.analyst import find_analyst
from earthgptx.pipeline.planning.plan import Plan


def seconds_per_tile(plan: Plan) -> float:
    """Returns the seconds per tile of the plan's model on this machine, without I/O or prompts.

    The first of two batches only warms up the model.
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
    analyst = find_analyst(plan.spec.model).load()
    analyst.analyse(batch)
    started = time.perf_counter()
    analyst.analyse(batch)
    return (time.perf_counter() - started) / len(batch)

"""What a plan will cost in time, measured on one made tile and not guessed."""

from __future__ import annotations

import time

import numpy as np

from model.tile import TileInput
from pipeline.analyst import find_analyst
from pipeline.plan import Plan


def seconds_per_tile(plan: Plan) -> float:
    """Seconds that the plan's model takes for a tile on this machine, without reading and writing."""
    side = plan.spec.grid.tile_px
    noise = np.random.default_rng(0)
    everywhere = np.ones((side, side), bool)
    tile = TileInput(
        pixels=noise.integers(0, 255, (3, side, side), np.uint8), valid=everywhere, asked=everywhere,
        modality=plan.modality, metres_per_pixel=1.0, phrases=tuple(plan.spec.tasks.find), prompts=(), names=(),
        describe=plan.spec.tasks.describe,
    )  # fmt: skip
    batch = [tile] * plan.traits.tiles_per_batch
    analyst = find_analyst(plan.spec.model).load()
    analyst.analyse(batch)
    started = time.perf_counter()
    analyst.analyse(batch)
    return (time.perf_counter() - started) / len(batch)

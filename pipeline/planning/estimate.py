"""Estimates how long a plan takes, from what is measured on this machine.

A replica has one processor, whatever its model would take, unless it has a GPU. How long processes
take to start is measured by starting one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from earthgptx.model.interface.tile import TileInput
from earthgptx.pipeline.analyst import find_analyst
from earthgptx.pipeline.planning.plan import Plan

PROCESSES = 7
"""Processes that start one after the other before the first tile: the command, those of Ray, a
replica. `benchmarks.estimate` holds it against real runs."""
READ_AND_WRITE_S = 0.12
"""Seconds per million pixels of a tile's core to read, blend and write them: aligned imagery near
at hand, by the same benchmark."""


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast a plan's model is on this machine, without prompts or waiting for imagery."""

    start_s: float
    """Seconds from the command to the first answer."""
    tile_s: float
    """Seconds per tile from then on."""

    def seconds(self, plan: Plan, blocks: int, tiles: int) -> float:
        """Returns the estimated seconds of a run.

        Args:
            plan: plan of the run.
            blocks: number of blocks to infer; 0 if there is nothing to do.
            tiles: number of tiles to infer.
        """
        if not blocks:
            return 0.0
        replicas = replicas_of(plan, blocks)
        core = plan.spec.grid.tile_px - 2 * plan.spec.grid.halo_px
        each = self.tile_s + READ_AND_WRITE_S * core * core / 1e6
        return self.start_s + each * tiles / replicas


def replicas_of(plan: Plan, blocks: int) -> int:
    """Returns how many replicas a run starts for a number of blocks."""
    return min(plan.spec.engine.most, blocks)


def measure(plan: Plan) -> Speed:
    """Returns the speed of the plan's model, measured on a tile of random pixels.

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
        questions=plan.spec.tasks.questions("tiles"),
        object_questions=plan.spec.tasks.questions("objects"),
    )
    batch = [tile] * plan.traits.tiles_per_batch
    with _one_processor(plan):
        started = time.perf_counter()
        analyst = find_analyst(plan.spec.model).load()
        analyst.analyse(batch)
        loaded = time.perf_counter()
        analyst.analyse(batch)
        ended = time.perf_counter()
    start_s = PROCESSES * _process_s() + loaded - started
    return Speed(start_s, (ended - loaded) / len(batch))


def _process_s() -> float:
    """Returns the seconds that a process takes to start with all that a replica imports."""
    started = time.perf_counter()
    code = "import earthgptx.pipeline.engine.replica"
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603  this very Python
    return time.perf_counter() - started


@contextmanager
def _one_processor(plan: Plan) -> Iterator[None]:
    """Gives a model that is loaded now the threads that Ray gives a replica."""
    before = os.environ.get("OMP_NUM_THREADS")
    if not plan.spec.engine.gpus_per_replica and before is None:
        os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("OMP_NUM_THREADS", None)

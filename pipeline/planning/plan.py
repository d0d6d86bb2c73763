"""Resolves a job into grids, time slices, blocks and tiles.

Reads no pixels. The same job gives the same plan. `plan_id` is a hash of everything that changes
the result (Items, grid, tasks, prompts, model, algorithm version of the code) and of nothing that
only changes how the job runs (replicas, URL of the output).
"""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import pystac
import shapely
from shapely.geometry.base import BaseGeometry

from earthgptx.catalogs.access import Opening
from earthgptx.catalogs.collections import modality_of, profile_of
from earthgptx.catalogs.interval import parse_interval
from earthgptx.catalogs.profiles import Modality
from earthgptx.catalogs.redaction import redacted
from earthgptx.catalogs.search import search
from earthgptx.model.interface.tile import AnalystTraits
from earthgptx.pipeline.analyst import find_analyst
from earthgptx.pipeline.errors import JobError
from earthgptx.pipeline.job.grid import BlockKey, Grid, Window
from earthgptx.pipeline.job.spec import JobSpec
from earthgptx.pipeline.job.vectors import read_aoi, read_prompts
from earthgptx.pipeline.planning.blocks import (
    BlockPlace,
    PlacedPrompt,
    find_blocks,
    place_prompts,
)
from earthgptx.pipeline.planning.grids import Footprints, make_grids
from earthgptx.pipeline.planning.items import usable_items
from earthgptx.pipeline.planning.slices import TimeSlice, time_slices
from earthgptx.pipeline.planning.warnings import warnings_of
from earthgptx.pipeline.reading.item import SceneItem
from earthgptx.pipeline.reading.sources import Source

ALGORITHM = "8"
"""Version of all code that affects a result; a change gives every plan a new `plan_id`."""


@dataclass(frozen=True)
class Plan:
    """Everything that a run needs to know; small for any size of the region."""

    spec: JobSpec
    plan_id: str
    items: tuple[pystac.Item, ...]
    """The Items, which are written beside the result; none of them in a replica."""
    sources: tuple[Source, ...]
    """What is read of each Item."""
    opening: Opening
    """What is needed to open the Items; no part of `plan_id`."""
    modality: Modality
    traits: AnalystTraits
    slices: tuple[TimeSlice, ...]
    grids: dict[str, Grid]
    footprints: dict[str, Footprints]
    """Footprint of each Item, by the grid's name."""
    blocks: tuple[BlockKey, ...]
    """Blocks by grid, time, row and column, so that few borders wait for neighbours."""
    tile_count: int
    prompts: dict[BlockPlace, tuple[PlacedPrompt, ...]]
    """Prompts from a vector file, by the block that holds their centre."""
    refused_prompts: dict[str, str]
    """Reason by id of each prompt from a vector file that cannot be asked."""
    refused_items: dict[str, str]
    """Reason by id of each Item of the search that cannot be used."""
    warnings: tuple[str, ...]
    """What may be wrong, one sentence per cause."""

    @cached_property
    def block_set(self) -> frozenset[BlockKey]:
        """The blocks, for fast lookup."""
        return frozenset(self.blocks)

    def empty_blocks(self, time: int) -> list[BlockKey]:
        """Returns the blocks of a time slice where no Item shows the AOI."""
        everywhere = (
            BlockKey(name, time, row, col)
            for name, grid in self.grids.items()
            for row in range(grid.blocks_shape[0])
            for col in range(grid.blocks_shape[1])
        )
        return [key for key in everywhere if key not in self.block_set]

    def scene_items(self, name: str, time: int, window: Window) -> list[SceneItem]:
        """Returns the Items whose footprints meet a window in a time slice, in mosaic order."""
        # By bounds, as an Item is read by the bounds of its footprint: what a pixel shows must not
        # depend on the window that is asked for.
        west, south, east, north = self.grids[name].geobox(window).extent.geom.bounds
        footprints = self.footprints[name]
        return [
            SceneItem(
                source=self.sources[at],
                opening=self.opening,
                footprint=footprints[at],
            )
            for at in self.slices[time].items
            if not footprints[at].is_empty
            and footprints[at].bounds[0] < east
            and footprints[at].bounds[1] < north
            and footprints[at].bounds[2] > west
            and footprints[at].bounds[3] > south
        ]

    def for_replicas(self) -> Plan:
        """Returns the plan as a replica needs it: with what is read of Items, and without them."""
        return replace(self, items=())

    @cached_property
    def bytes_to_read(self) -> int:
        """Estimated uncompressed bytes of bands and masks that blocks and their halos read.

        A block is read once, however many Items show it; of a median, all of them are.
        """
        total = 0.0
        for key in self.blocks:
            grid = self.grids[key.grid]
            window = grid.read_window(key) & grid.window
            near = self.scene_items(key.grid, key.time, window)
            if not near:
                continue
            each = [one.source.pixel_bytes for one in near]
            share = sum(each) if self.spec.compose == "median" else max(each)
            total += window.shape[0] * window.shape[1] * share
        return int(total)

    @property
    def replica_bytes(self) -> int:
        """Bound of a replica's memory without its model, for two blocks in flight, in bytes.

        A pixel of a block and its halo takes 9 bytes for the three channels, 4 bytes for flags of
        the scene, 6 bytes per phrase (a 32 bit sum, a score, and a copy of the score to be
        written), and 4 bytes for the sum of weights. 300 MiB are added. The region's size does not
        matter.
        """
        phrases = max(len(self.spec.tasks.find), 1)
        side = self.spec.grid.block_px + 2 * self.spec.grid.halo_px
        return 2 * side * side * (3 * 3 + 4 + phrases * 6 + 4) + 300 * 2**20


def plan(
    spec: JobSpec,
    *,
    items: list[pystac.Item] | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Plan:
    """Resolves a job into a plan.

    Args:
        spec: the job.
        items: Items of a frozen search; None to search the catalog now.
        tell: takes a sentence about the progress, now and then.

    Raises:
        JobError: the job asks for something impossible.
        CatalogError: the search fails or finds no Items, or a collection's profile is unusable.
    """
    with _collector_paused():
        return _resolved(spec, items, tell)


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Pauses Python's garbage collector.

    Thousands of Items are no garbage, but it would walk through them again and again: a quarter of
    the time of a plan.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _resolved(spec: JobSpec, items: list[pystac.Item] | None, tell: Callable[[str], None]) -> Plan:
    aoi = read_aoi(spec.source.aoi)
    traits = find_analyst(spec.model).traits()
    _check_halo(spec, traits)
    for collection in spec.source.collections:
        profile_of(collection, spec.source.profiles)
    doubts: list[str] = []
    opening = spec.opening()
    items = _search(spec, aoi, opening, doubts.append, tell) if items is None else items
    read_by = [profile_of(item.collection_id or "", spec.source.profiles) for item in items]
    usable = usable_items(
        items, read_by, aoi, opening, allowed=spec.source.max_failed_items, tell=tell
    )
    tell(f"planning: grids of {len(usable.items):,} items")
    items = usable.items
    modality = modality_of(tuple(each.profile for each in usable.sources))
    slices = time_slices(items, spec.slices, spec.compose)
    grids, footprints = make_grids(spec.grid, aoi, usable.natives, usable.footprints)
    blocks, tile_count = find_blocks(grids, footprints, slices)
    if not blocks:
        raise JobError(
            "source.aoi meets no pixel of the items' footprints; "
            "widen it, or check that it is in lon/lat"
        )
    prompts: dict[BlockPlace, tuple[PlacedPrompt, ...]] = {}
    refused: dict[str, str] = {}
    prompt_digest = ""
    if spec.prompts.is_file:
        file = read_prompts(spec.prompts.origin, aoi)
        prompts, outside = place_prompts(file.shapes, grids, traits.context_px)
        refused, prompt_digest = file.refused | outside, file.digest
    result = Plan(
        spec=spec,
        plan_id="",
        items=tuple(items),
        sources=tuple(usable.sources),
        opening=opening,
        modality=modality,
        traits=traits,
        slices=slices,
        grids=grids,
        footprints=footprints,
        blocks=blocks,
        tile_count=tile_count,
        prompts=prompts,
        refused_prompts=refused,
        refused_items=usable.refused,
        warnings=(*doubts, *warnings_of(usable)),
    )
    object.__setattr__(result, "plan_id", _plan_id(identity(result, prompt_digest, aoi)))
    return result


def identity(plan: Plan, prompt_digest: str, aoi: BaseGeometry) -> dict[str, Any]:
    """Returns everything that changes a result, by part, so that plans can be compared."""
    # Thousands of Items share a few profiles.
    unlike = {id(each.profile): each.profile for each in plan.sources}
    dumped = {name: each.model_dump(mode="json") for name, each in unlike.items()}
    return {
        "items": [
            [each.collection, each.item, _hrefs(each), _values(each), _declared(each)]
            for each in plan.sources
        ],
        "grids": [
            [name, grid.crs, list(grid.transform), list(grid.shape)]
            for name, grid in plan.grids.items()
        ],
        "profiles": [dumped[id(each.profile)] for each in plan.sources],
        "aoi": shapely.to_wkb(shapely.normalize(aoi), hex=True),
        "grid": plan.spec.grid.model_dump(mode="json"),
        "slices": plan.spec.slices,
        "compose": plan.spec.compose,
        "tasks": plan.spec.tasks.model_dump(mode="json"),
        "prompts": prompt_digest or plan.spec.prompts.model_dump(mode="json"),
        "model": asdict(plan.traits),
        "algorithm": ALGORITHM,
    }


def _plan_id(parts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _hrefs(source: Source) -> list[str]:
    """Returns the redacted addresses of the files that are read of an Item."""
    return sorted({redacted(each.href) for each in source.documents})


def _values(source: Source) -> list[list[float | None]]:
    """Returns how the stored values of the channels become physical ones."""
    found = (each.radiometry for each in source.channels)
    return [[each.scale, each.offset, each.nodata] for each in found]


def _declared(source: Source) -> list[list[float]]:
    """Returns the grids that an Item declares: they decide whether a file is taken for its own."""
    grids = (raster.grid for raster in source.rasters)
    return [[*grid.transform[:6], *grid.shape] for grid in grids if grid]


def _read_assets(spec: JobSpec) -> set[str]:
    """Returns the keys of all assets that the job's profiles may read."""
    profiles = [profile_of(each, spec.source.profiles) for each in spec.source.collections]
    bands = [band for profile in profiles for band in profile.bands]
    keys = {key for band in bands for key in (*band.assets, *band.annotations)}
    return keys | {key for profile in profiles if profile.mask for key in profile.mask.assets}


def _check_halo(spec: JobSpec, traits: AnalystTraits) -> None:
    if spec.grid.halo_px <= traits.context_px:
        raise JobError(
            f"grid.halo_px {spec.grid.halo_px} does not exceed the {traits.context_px} px of "
            f"context that model '{traits.name}' needs at a tile's border; "
            f"use at least {traits.context_px + 1}"
        )


def _search(
    spec: JobSpec,
    aoi: BaseGeometry,
    opening: Opening,
    warn: Callable[[str], None],
    tell: Callable[[str], None],
) -> list[pystac.Item]:
    return search(
        spec.source.catalog,
        collections=tuple(spec.source.collections),
        aoi=aoi,
        time=parse_interval(spec.source.time),
        filter=spec.source.filter,
        opening=opening,
        assets=_read_assets(spec),
        warn=warn,
        tell=tell,
    )

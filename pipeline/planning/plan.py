"""Resolves a job into grids, time slices, blocks and tiles.

Reads no pixels. The same job gives the same plan. `series` is a hash of everything that shapes
every answer (AOI, grid, collections, tasks, prompts, model, algorithm version of the code), and of
nothing that lets a result grow (Items, time) or only changes how a job runs (replicas, output).
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pystac
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from earthgptx.catalogs.access import Opening
from earthgptx.catalogs.collections import modality_of, profile_of
from earthgptx.catalogs.errors import NoItems
from earthgptx.catalogs.interval import Interval, parse_interval
from earthgptx.catalogs.profiles import CollectionProfile, Modality
from earthgptx.catalogs.search import search
from earthgptx.model.interface.tile import AnalystTraits
from earthgptx.pipeline.analyst import find_analyst
from earthgptx.pipeline.errors import JobError
from earthgptx.pipeline.job.grid import BlockKey, Grid, Window
from earthgptx.pipeline.job.spec import JobSpec
from earthgptx.pipeline.job.vectors import read_aoi, read_prompts
from earthgptx.pipeline.planning.blocks import (
    MOST_COARSE,
    BlockPlace,
    PlacedPrompt,
    blocks_of_slice,
    place_prompts,
)
from earthgptx.pipeline.planning.content import digest, item_key, joined
from earthgptx.pipeline.planning.grids import Footprints, Known, Lattice, make_grids, utm_zone
from earthgptx.pipeline.planning.items import UsableItems, usable_items
from earthgptx.pipeline.planning.known import known_grids, with_known
from earthgptx.pipeline.planning.projection import parse_crs
from earthgptx.pipeline.planning.slices import TimeSlice, time_slices
from earthgptx.pipeline.planning.warnings import warnings_of
from earthgptx.pipeline.reading.item import SceneItem
from earthgptx.pipeline.reading.sources import Source

ALGORITHM = "10"
"""Version of all code that affects a result; a change begins a new series."""


@dataclass(frozen=True)
class Plan:
    """Everything that a run needs to know; small for any size of the region."""

    spec: JobSpec
    series: str
    """Hash of what shapes every answer; an output holds the results of one series."""
    interval: Interval
    """Time that was searched, closed; None for an open end."""
    emptied: frozenset[str]
    """Slices that had Items in this time in an earlier run; gone if they have none now."""
    items: tuple[pystac.Item, ...]
    """The Items, which are written beside the result; none of them in a replica."""
    item_keys: tuple[str, ...]
    """Content key of each Item."""
    sources: tuple[Source, ...]
    """What is read of each Item."""
    opening: Opening
    """What is needed to open the Items; no part of the series."""
    modality: Modality
    traits: AnalystTraits
    slices: tuple[TimeSlice, ...]
    grids: dict[str, Grid]
    footprints: dict[str, Footprints]
    """Footprint of each Item, by the grid's name."""
    lattices: dict[str, Lattice]
    """Lattice of each CRS of the series, also of zones where no Item was ever seen."""
    prompts: dict[BlockPlace, tuple[PlacedPrompt, ...]]
    """Prompts from a vector file, by the block that holds their centre."""
    refused_prompts: dict[str, str]
    """Reason by id of each prompt from a vector file that cannot be asked."""
    refused_items: dict[str, str]
    """Reason by id of each Item of the search that cannot be used."""
    warnings: tuple[str, ...]
    """What may be wrong, one sentence per cause."""

    @cached_property
    def reach_px(self) -> int:
        """How far past a block a part of an object may lie that its tiles have seen, in pixels.

        A view around a prompt of a vector file may be much wider than a tile.
        """
        grid = self.spec.grid
        return MOST_COARSE * grid.tile_px if self.spec.prompts.is_file else grid.halo_px

    @cached_property
    def zones_only(self) -> bool:
        """Whether every CRS of the series is a UTM zone, also where there is no grid yet."""
        return all(utm_zone(parse_crs(text)) for text in self.lattices)

    def blocks_of(self, time: int) -> tuple[BlockKey, ...]:
        """Returns the blocks of a slice where Items show the AOI, by grid, row and column."""
        return self._slice(time)[0]

    def tiles_of(self, time: int) -> int:
        """Returns the number of tiles of a slice that Items show."""
        return self._slice(time)[1]

    def holds(self, key: BlockKey) -> bool:
        """Whether a block is one of the plan's."""
        return key in self._slice(key.time)[2]

    def _slice(self, time: int) -> tuple[tuple[BlockKey, ...], int, frozenset[BlockKey]]:
        if time not in self._found:
            keys, tiles = blocks_of_slice(self.grids, self.footprints, self.slices[time], time)
            self._found[time] = keys, tiles, frozenset(keys)
        return self._found[time]

    @cached_property
    def _found(self) -> dict[int, tuple[tuple[BlockKey, ...], int, frozenset[BlockKey]]]:
        """Blocks and tile count of the slices that were asked for."""
        return {}

    @cached_property
    def blocks(self) -> tuple[BlockKey, ...]:
        """All blocks, by time slice."""
        return tuple(key for time in range(len(self.slices)) for key in self.blocks_of(time))

    @cached_property
    def tile_count(self) -> int:
        """Number of all tiles that Items show."""
        return sum(self.tiles_of(time) for time in range(len(self.slices)))

    def scene_items(self, name: str, time: int, window: Window) -> list[SceneItem]:
        """Returns the Items whose footprints meet a window in a time slice, in mosaic order."""
        footprints = self.footprints[name]
        return [
            SceneItem(source=self.sources[at], opening=self.opening, footprint=footprints[at])
            for at in self._near(name, time, window)
        ]

    def _near(self, name: str, time: int, window: Window) -> list[int]:
        # By bounds, as an Item is read by the bounds of its footprint: what a pixel shows must not
        # depend on the window that is asked for.
        west, south, east, north = self.grids[name].geobox(window).extent.geom.bounds
        if (name, time) not in self._bounds:
            there = [at for at in self.slices[time].items if not self.footprints[name][at].is_empty]
            shapes = np.array([self.footprints[name][at] for at in there], object)
            self._bounds[name, time] = np.array(there, np.int64), shapely.bounds(shapes)
        members, bounds = self._bounds[name, time]
        low_x, low_y, high_x, high_y = bounds.reshape(-1, 4).T
        meets = (low_x < east) & (low_y < north) & (high_x > west) & (high_y > south)
        return [int(at) for at in members[meets]]

    @cached_property
    def _bounds(self) -> dict[tuple[str, int], tuple[NDArray[np.int64], NDArray[np.float64]]]:
        """Items of a slice and the bounds of their footprints, by grid and slice."""
        return {}

    def content_of(self, key: BlockKey) -> str:
        """Returns the content key of what a block sees: its Items, in mosaic order."""
        if key not in self._contents:
            grid = self.grids[key.grid]
            if (key.grid, key.row, key.col) in self.prompts:
                seen: Sequence[int] = self.slices[key.time].items  # by views of any width
            else:
                seen = self._near(key.grid, key.time, grid.read_window(key))
            self._contents[key] = joined(self.item_keys[at] for at in seen)
        return self._contents[key]

    @cached_property
    def _contents(self) -> dict[BlockKey, str]:
        return {}

    def content_of_slice(self, time: int) -> str:
        """Returns the content key of a time slice: its Items, in mosaic order."""
        return joined(self.item_keys[at] for at in self.slices[time].items)

    def placed(self, known: Sequence[TimeSlice]) -> Plan:
        """Returns the plan with its slices where an output has them, the new ones behind.

        Args:
            known: slices of the output, in its order, without Items.
        """
        mine = {piece.name: piece for piece in self.slices}
        there = {piece.name for piece in known}
        new = [piece for piece in self.slices if piece.name not in there]
        if self.spec.engine.order == "newest":
            new.reverse()
        return replace(self, slices=(*(mine.get(each.name, each) for each in known), *new))

    def for_replicas(self) -> Plan:
        """Returns the plan as a replica needs it: with what is read of Items, and without them."""
        return replace(self, items=())

    @cached_property
    def bytes_to_read(self) -> int:
        """Estimated uncompressed bytes of bands and masks that blocks and their halos read.

        Ground is read once, however many Items show it; of a median, all of them are read.
        """
        total = 0.0
        for key in self.blocks:
            grid = self.grids[key.grid]
            window = grid.read_window(key) & grid.window
            near = self._near(key.grid, key.time, window)
            if not near:
                continue
            box = shapely.box(*grid.geobox(window).extent.geom.bounds)
            shown = shapely.box(
                *np.transpose([self.footprints[key.grid][at].bounds for at in near])
            )
            pixels = shapely.area(shapely.intersection(shown, box)) / abs(grid.affine.determinant)
            sizes = np.array([self.sources[at].pixel_bytes for at in near])
            if self.spec.compose == "median":
                total += float((pixels * sizes).sum())
            else:
                total += min(pixels.sum(), window.shape[0] * window.shape[1]) * sizes.max()
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
    anew: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> Plan:
    """Resolves a job into a plan.

    Args:
        spec: the job.
        items: Items of a frozen search; None to search the catalog now.
        anew: whether not to go by what the output holds, as a run is to replace it.
        tell: takes a sentence about the progress, now and then.

    Raises:
        JobError: the job asks for something impossible.
        CatalogError: the search fails or finds no Items, or a collection's profile is unusable.
    """
    with _collector_paused():
        return _resolved(spec, items, anew, tell)


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


def _resolved(
    spec: JobSpec,
    items: list[pystac.Item] | None,
    anew: bool,
    tell: Callable[[str], None],
) -> Plan:
    aoi = read_aoi(spec.source.aoi)
    traits = find_analyst(spec.model).traits()
    _check_halo(spec, traits)
    profiles = tuple(profile_of(each, spec.source.profiles) for each in spec.source.collections)
    doubts: list[str] = []
    opening, interval = spec.opening(), parse_interval(spec.source.time)
    file = read_prompts(spec.prompts.origin, aoi) if spec.prompts.is_file else None
    series = digest(identity(spec, profiles, traits, file.digest if file else "", aoi))
    known = Known() if anew else known_grids(spec.output, series)
    emptied: frozenset[str] = frozenset()
    if items is None:
        assets = _read_assets(profiles)
        try:
            items = _search(spec, aoi, opening, interval, assets, doubts.append, tell)
        except NoItems as error:
            if not known.lattices:
                raise
            doubts.append(f"{error}; what the result has of this time stays")
            items = []
        if known.lattices and items:
            items, emptied = with_known(items, spec.output, spec.slices, interval, assets, series)
    read_by = [profile_of(item.collection_id or "", spec.source.profiles) for item in items]
    usable = UsableItems()
    if items:
        usable = usable_items(
            items,
            read_by,
            aoi,
            opening,
            allowed=spec.source.max_failed_items,
            least=0 if known.lattices else 1,
            tell=tell,
        )
    tell(f"planning: grids of {len(usable.items):,} items")
    slices = time_slices(usable.items, spec.slices, spec.compose)
    grids, footprints, lattices = make_grids(
        spec.grid, aoi, usable.natives, usable.footprints, known
    )
    result = Plan(
        spec=spec,
        series=series,
        interval=interval,
        emptied=emptied,
        items=tuple(usable.items),
        item_keys=tuple(map(item_key, usable.items, usable.sources, usable.footprints)),
        sources=tuple(usable.sources),
        opening=opening,
        modality=modality_of(tuple(each.profile for each in usable.sources) or profiles),
        traits=traits,
        slices=slices,
        grids=grids,
        footprints=footprints,
        lattices=lattices,
        prompts={},
        refused_prompts={},
        refused_items=usable.refused,
        warnings=(*doubts, *warnings_of(usable)),
    )
    # A day of a result that grows may show nothing of it.
    if not known.lattices and not any(result.blocks_of(time) for time in range(len(slices))):
        raise JobError(
            "source.aoi meets no pixel of the items' footprints; "
            "widen it, or check that it is in lon/lat"
        )
    if file is None:
        return result
    shown = {(key.grid, key.row, key.col) for key in result.blocks}
    prompts, outside = place_prompts(file.shapes, grids, traits.context_px, shown)
    if not prompts and not known.lattices:
        reasons = "; ".join(sorted(set(outside.values())))
        raise JobError(f"prompts.from: no prompt can be asked ({reasons}); check the file's CRS")
    return replace(result, prompts=prompts, refused_prompts=file.refused | outside)


def identity(
    spec: JobSpec,
    profiles: Sequence[CollectionProfile],
    traits: AnalystTraits,
    prompt_digest: str,
    aoi: BaseGeometry,
) -> dict[str, Any]:
    """Returns what shapes every answer of a series, by part."""
    return {
        "collections": spec.source.collections,
        "profiles": [profile.model_dump(mode="json") for profile in profiles],
        "filter": spec.source.filter,
        "aoi": shapely.to_wkb(shapely.normalize(aoi), hex=True),
        "grid": spec.grid.model_dump(mode="json"),
        "slices": spec.slices,
        "compose": spec.compose,
        "tasks": spec.tasks.model_dump(mode="json"),
        "prompts": prompt_digest or spec.prompts.model_dump(mode="json"),
        "model": asdict(traits),
        "algorithm": ALGORITHM,
    }


def _read_assets(profiles: Sequence[CollectionProfile]) -> set[str]:
    """Returns the keys of all assets that profiles may read."""
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
    interval: Interval,
    assets: set[str],
    warn: Callable[[str], None],
    tell: Callable[[str], None],
) -> list[pystac.Item]:
    return search(
        spec.source.catalog,
        collections=tuple(spec.source.collections),
        aoi=aoi,
        time=interval,
        filter=spec.source.filter,
        opening=opening,
        assets=assets,
        warn=warn,
        tell=tell,
    )

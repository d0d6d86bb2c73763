"""The plan of a job: its grids, time slices, blocks and prompts; small for any size of the region.

The same job gives the same plan. `series` is a hash of everything that shapes every answer (AOI,
grid, collections, tasks, prompts, model, algorithm version of the code), and of nothing that lets
a result grow (Items, time, objects that are asked about) or only changes how a job runs (replicas,
output).
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pystac
import shapely
from numpy.typing import NDArray

from earthgptx.catalogs.access import Opening
from earthgptx.catalogs.interval import Interval
from earthgptx.catalogs.profiles import Modality
from earthgptx.model.interface.tile import AnalystTraits
from earthgptx.pipeline.job.grid import BlockKey, Grid, Window
from earthgptx.pipeline.job.spec import JobSpec
from earthgptx.pipeline.planning.blocks import (
    MOST_COARSE,
    BlockPlace,
    PlacedPrompt,
    blocks_of_slice,
)
from earthgptx.pipeline.planning.content import joined, prompt_key
from earthgptx.pipeline.planning.grids import Footprints, Lattice, utm_zone
from earthgptx.pipeline.planning.projection import parse_crs
from earthgptx.pipeline.planning.slices import TimeSlice
from earthgptx.pipeline.reading.item import SceneItem
from earthgptx.pipeline.reading.sources import Source


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
    """Prompts from a vector file or a result, by the block that holds their centre."""
    refused_prompts: dict[str, str]
    """Reason by id of each prompt from a vector file that cannot be asked."""
    refused_items: dict[str, str]
    """Reason by id of each Item of the search that cannot be used."""
    warnings: tuple[str, ...]
    """What may be wrong, one sentence per cause."""

    @cached_property
    def reach_px(self) -> int:
        """How far past a block a part of an object may lie that its tiles have seen, in pixels.

        A view around a prompt that has a place may be much wider than a tile.
        """
        grid, prompts = self.spec.grid, self.spec.prompts
        placed = prompts.is_file or prompts.is_result
        return MOST_COARSE * grid.tile_px if placed else grid.halo_px

    @cached_property
    def zones_only(self) -> bool:
        """Whether every CRS of the series is a UTM zone, also where there is no grid yet."""
        return all(utm_zone(parse_crs(text)) for text in self.lattices)

    def prompts_of(self, key: BlockKey) -> tuple[PlacedPrompt, ...]:
        """Returns the prompts with a place that a block is asked in its time slice."""
        name = self.slices[key.time].name
        return tuple(
            each
            for each in self.prompts.get((key.grid, key.row, key.col), ())
            if each.slices is None or name in each.slices
        )

    @cached_property
    def _only_about_objects(self) -> bool:
        """Whether nothing is asked but prompts that are objects of another result."""
        return self.spec.prompts.is_result and not self.spec.tasks.about_tiles

    def blocks_of(self, time: int) -> tuple[BlockKey, ...]:
        """Returns the blocks of a slice where Items show the AOI, by grid, row and column.

        If nothing is asked but prompts that are objects of another result, those that have some.
        """
        return self._slice(time)[0]

    def tiles_of(self, time: int) -> int:
        """Returns the number of tiles of a slice that Items show."""
        return self._slice(time)[1]

    def holds(self, key: BlockKey) -> bool:
        """Whether a block is one of the plan's."""
        return key in self._slice(key.time)[2]

    def shown_in(self, time: int) -> tuple[BlockKey, ...]:
        """Returns the blocks of a slice where Items show the AOI, whatever is asked."""
        return self._shown_in(time)[0]

    def _shown_in(self, time: int) -> tuple[tuple[BlockKey, ...], int]:
        if time not in self._shown:
            self._shown[time] = blocks_of_slice(
                self.grids, self.footprints, self.slices[time], time
            )
        return self._shown[time]

    @cached_property
    def _shown(self) -> dict[int, tuple[tuple[BlockKey, ...], int]]:
        """Blocks and tile count of the slices that were asked for."""
        return {}

    def _slice(self, time: int) -> tuple[tuple[BlockKey, ...], int, frozenset[BlockKey]]:
        if time not in self._found:
            keys, tiles = self._shown_in(time)
            if self._only_about_objects:
                keys = tuple(key for key in keys if self.prompts_of(key))
                tiles = sum(self.grids[key.grid].tile_count(key) for key in keys)
            self._found[time] = keys, tiles, frozenset(keys)
        return self._found[time]

    @cached_property
    def _found(self) -> dict[int, tuple[tuple[BlockKey, ...], int, frozenset[BlockKey]]]:
        """Blocks to answer and their tile count, of the slices that were asked for."""
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
        """Returns the content key of what a block sees: its Items, in mosaic order, and prompts.

        Those of a vector file belong to the series.
        """
        if key not in self._contents:
            grid, prompts = self.grids[key.grid], self.prompts_of(key)
            if prompts:
                seen: Sequence[int] = self.slices[key.time].items  # by views of any width
            else:
                seen = self._near(key.grid, key.time, grid.read_window(key))
            asked = [prompt_key(each) for each in prompts if each.slices is not None]
            self._contents[key] = joined([*(self.item_keys[at] for at in seen), *asked])
        return self._contents[key]

    @cached_property
    def _contents(self) -> dict[BlockKey, str]:
        return {}

    def content_of_slice(self, time: int) -> str:
        """Returns the content key of a time slice: its Items, in mosaic order, and prompts."""
        piece = self.slices[time]
        asked = sorted(self._asked.get(piece.name, ()))
        return joined([*(self.item_keys[at] for at in piece.items), *asked])

    @cached_property
    def _asked(self) -> dict[str, list[str]]:
        """Content keys of the objects that are prompts, by the name of each slice that asks."""
        found: dict[str, list[str]] = defaultdict(list)
        for each in itertools.chain.from_iterable(self.prompts.values()):
            for name in each.slices or ():
                found[name].append(prompt_key(each))
        return found

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

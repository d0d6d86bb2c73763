"""A job resolved into grids, time slices, blocks and tiles. Reads no pixel; the same job gives the same plan.

`plan_id` is a hash over all that changes the result (Items, grid, tasks, prompts, model, the code's
algorithm version) and nothing that only changes how it runs (replicas, place of the output).
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import defaultdict
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import numpy as np
import pyproj
import pystac
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import CRSError
from shapely.geometry.base import BaseGeometry

from catalogs.collections import CollectionProfile, Modality, modality_of, profile_of
from catalogs.search import parse_interval, search, start_of
from catalogs.stac_io import without_query
from model.tile import AnalystTraits
from pipeline.analyst import find_analyst
from pipeline.assets import NativeGrid, native_grid, pick_asset, utm_epsg
from pipeline.errors import JobError, SourceError
from pipeline.grid import BlockKey, Grid, Window
from pipeline.job import GridSpec, JobSpec
from pipeline.scene import SceneItem
from pipeline.vectors import LONLAT, read_aoi, read_prompts

ALGORITHM = "2"
"""Version of all code that shapes a result; a change of it makes every plan a new one."""
NEAR_DEG = 0.5
"""How far past its Items' bounds an AOI is drawn in a CRS that need not reach around the Earth."""
EDGE_PX = 1e-3
"""Rounding of footprints on the pixel grid: less than this past a pixel's edge does not count."""


@dataclass(frozen=True, slots=True)
class TimeSlice:
    """What is mosaicked together."""

    start: datetime
    items: tuple[int, ...]
    """Positions in the plan's Items, in the order of the mosaic."""


@dataclass(frozen=True, slots=True)
class PlacedPrompt:
    """A visual prompt from a vector file."""

    id: str
    shape: BaseGeometry
    """In the grid's CRS."""


MOST_COARSE = 16
"""Grid pixels along a side of the coarsest pixels that a prompt larger than a tile is asked on."""


@dataclass(frozen=True)
class Plan:
    """All that a run needs to know; small, whatever the size of the region."""

    spec: JobSpec
    plan_id: str
    items: tuple[pystac.Item, ...]
    profiles: tuple[CollectionProfile, ...]
    """One per Item."""
    modality: Modality
    traits: AnalystTraits
    slices: tuple[TimeSlice, ...]
    grids: dict[str, Grid]
    footprints: dict[str, tuple[BaseGeometry, ...]]
    """Per grid, the footprint of each Item in its CRS; empty where an Item does not meet it."""
    blocks: tuple[BlockKey, ...]
    """In an order that keeps few borders open: row by row."""
    tile_count: int
    prompts: dict[tuple[str, int, int], tuple[PlacedPrompt, ...]]
    """From a vector file, by grid, block row and block column of their centres."""
    refused_prompts: dict[str, str]
    """Id and reason."""

    @cached_property
    def block_set(self) -> frozenset[BlockKey]:
        """The blocks, to look up."""
        return frozenset(self.blocks)

    def unasked(self) -> list[BlockKey]:
        """Blocks of the grids' extents that are not in the plan: no part of the AOI that an Item shows is in them."""
        everywhere = (
            BlockKey(name, time, row, col)
            for name, grid in self.grids.items()
            for time in range(len(self.slices))
            for row in range(grid.blocks_shape[0])
            for col in range(grid.blocks_shape[1])
        )
        return [key for key in everywhere if key not in self.block_set]

    def scene_items(self, name: str, time: int, window: Window) -> list[SceneItem]:
        """Items that may show a window of a grid in a time slice, in the order of the mosaic."""
        box = self.grids[name].geobox(window).extent.geom
        footprints = self.footprints[name]
        return [
            SceneItem(item=self.items[at], profile=self.profiles[at], footprint=footprints[at])
            for at in self.slices[time].items
            if footprints[at].intersects(box)
        ]

    @property
    def bytes_to_read(self) -> int:
        """Uncompressed bytes of the bands on the result's pixels, halos included."""
        bands = max(len({(band.assets, band.index) for band in profile.bands}) for profile in self.profiles)
        per_pixel = bands * (2 if self.profiles[0].bands[0].high > 255 else 1) + (self.profiles[0].mask is not None)
        return sum((self.spec.grid.block_px + 2 * self.spec.grid.halo_px) ** 2 * per_pixel for _ in self.blocks)

    @property
    def replica_bytes(self) -> int:
        """Bound of a replica's memory beside its model: two blocks in flight, whatever the region's size.

        A pixel of a block and its halo holds: three channels and four flags of the scene, a score and two
        32 bit sums per phrase while tiles are blended, and one copy of the scores on their way out.
        """
        phrases = max(len(self.spec.tasks.find), 1)
        side = self.spec.grid.block_px + 2 * self.spec.grid.halo_px
        return 2 * side * side * (3 * 3 + 4 + phrases * 6 + 4) + 300 * 2**20


def plan(spec: JobSpec, *, items: list[pystac.Item] | None = None) -> Plan:
    """Resolve a job.

    Args:
        spec: the job.
        items: a frozen search to plan from; None to search now.

    Raises:
        JobError: the job asks for something that cannot be.
        CatalogError: the search fails or finds nothing.
    """
    aoi = read_aoi(spec.source.aoi)
    traits = find_analyst(spec.model).traits()
    if spec.grid.halo_px <= traits.context_px:
        raise JobError(
            f"grid.halo_px {spec.grid.halo_px} does not exceed the {traits.context_px} px of context that model "
            f"'{traits.name}' needs at a tile's border; use at least {traits.context_px + 1}"
        )
    for collection in spec.source.collections:
        profile_of(collection, spec.source.profiles)
    if items is None:
        items = search(
            spec.source.catalog,
            collections=tuple(spec.source.collections),
            aoi=aoi,
            time=parse_interval(spec.source.time),
            filter=spec.source.filter,
        )
    profiles = tuple(profile_of(item.collection_id or "", spec.source.profiles) for item in items)
    modality = modality_of(profiles)
    slices = _slices(items, spec)
    natives = [_native(item, profile) for item, profile in zip(items, profiles, strict=True)]
    grids, footprints = _grids(spec.grid, aoi, natives, items)
    blocks, tile_count = _blocks(grids, footprints, slices)
    if not blocks:
        raise JobError("source.aoi meets no pixel of the items' footprints; widen it, or check that it is in lon/lat")
    prompts: dict[tuple[str, int, int], tuple[PlacedPrompt, ...]] = {}
    refused: dict[str, str] = {}
    digest = ""
    if spec.prompts.is_file:
        file = read_prompts(spec.prompts.origin, aoi)
        prompts, outside = _place_prompts(file.shapes, grids, traits.context_px)
        refused, digest = file.refused | outside, file.digest
    result = Plan(
        spec=spec, plan_id="", items=tuple(items), profiles=profiles, modality=modality, traits=traits, slices=slices,
        grids=grids, footprints=footprints, blocks=blocks, tile_count=tile_count, prompts=prompts,
        refused_prompts=refused,
    )  # fmt: skip
    object.__setattr__(result, "plan_id", _plan_id(result, digest, aoi))
    return result


def to_lonlat(shape: BaseGeometry, crs: str) -> BaseGeometry:
    """A geometry of a CRS in lon/lat."""
    return _project(shape, _crs(crs), CRS.from_user_input(LONLAT))


def identity(plan: Plan, prompt_digest: str, aoi: BaseGeometry) -> dict[str, Any]:
    """All that changes a result, part by part, so that two plans can be told apart."""
    return {
        "items": [
            [item.collection_id, item.id, _hrefs(item, profile)]
            for item, profile in zip(plan.items, plan.profiles, strict=True)
        ],
        "profiles": [profile.model_dump(mode="json") for profile in plan.profiles],
        "aoi": shapely.to_wkb(shapely.normalize(aoi), hex=True),
        "grid": plan.spec.grid.model_dump(mode="json"),
        "slices": plan.spec.slices,
        "tasks": plan.spec.tasks.model_dump(mode="json"),
        "prompts": prompt_digest or plan.spec.prompts.model_dump(mode="json"),
        "model": asdict(plan.traits),
        "algorithm": ALGORITHM,
    }


def _plan_id(plan: Plan, prompt_digest: str, aoi: BaseGeometry) -> str:
    parts = identity(plan, prompt_digest, aoi)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _hrefs(item: pystac.Item, profile: CollectionProfile) -> list[str]:
    assets = [band.assets for band in profile.bands] + ([profile.mask.assets] if profile.mask else [])
    return sorted({without_query(item.assets[key].href) for keys in assets for key in keys if key in item.assets})


def _slices(items: list[pystac.Item], spec: JobSpec) -> tuple[TimeSlice, ...]:
    groups: dict[str, list[int]] = defaultdict(list)
    for at, item in enumerate(items):
        moment = start_of(item).astimezone(UTC)
        name = {
            "item": f"{moment.isoformat()} {item.id}",
            "day": f"{moment:%Y-%m-%d}",
            "month": f"{moment:%Y-%m}",
            "all": "all",
        }[spec.slices]
        groups[name].append(at)
    starts = {
        "item": lambda moment: moment,
        "day": lambda moment: moment.replace(hour=0, minute=0, second=0, microsecond=0),
        "month": lambda moment: moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0),
        "all": lambda moment: moment,
    }[spec.slices]
    return tuple(
        TimeSlice(starts(min(start_of(items[at]).astimezone(UTC) for at in members)), tuple(members))
        for _, members in sorted(groups.items())
    )


def _native(item: pystac.Item, profile: CollectionProfile) -> NativeGrid:
    try:
        return native_grid(item, pick_asset(item, profile.bands[0].assets))
    except (SourceError, CRSError) as error:
        raise JobError(str(error)) from error


def _grids(
    spec: GridSpec, aoi: BaseGeometry, natives: list[NativeGrid], items: list[pystac.Item]
) -> tuple[dict[str, Grid], dict[str, tuple[BaseGeometry, ...]]]:
    chosen = _chosen_crs(spec, natives, items)
    zones = _zones(set(chosen))
    grids: dict[str, Grid] = {}
    footprints: dict[str, tuple[BaseGeometry, ...]] = {}
    for crs in dict.fromkeys(chosen):
        first = natives[chosen.index(crs)]
        step_x, step_y, offset_x, offset_y = _lattice(crs, first, spec)
        zone = zones.get(crs)
        # Items of other zones may reach into this one; those of other kinds of CRS stay in their own.
        seen = [other == crs or (zone is not None and other in zones) for other in chosen]
        reach = shapely.union_all(
            [_bbox(item).buffer(NEAR_DEG) for item, other in zip(items, chosen, strict=True) if other == crs]
        )
        own = aoi.intersection(reach if zone is None else reach.intersection(zone))
        if own.is_empty or not own.area:
            continue
        owned = _project(own, LONLAT, crs)
        margin = spec.halo_px * abs(step_x)
        asked = (
            owned if zone is None else _project(aoi.intersection(reach), LONLAT, crs).intersection(owned.buffer(margin))
        )
        prints = tuple(
            _footprint(native, item, crs) if near and _bbox(item).intersects(reach) else shapely.Polygon()
            for native, item, near in zip(natives, items, seen, strict=True)
        )
        region = shapely.union_all([shape.intersection(owned) for shape in prints if shape.intersects(owned)])
        if region.is_empty or region.area == 0:
            continue
        west, south, east, north = region.bounds
        col0 = int(np.floor((west - offset_x) / step_x + EDGE_PX))
        row0 = int(np.floor((north - offset_y) / step_y + EDGE_PX))
        col1 = int(np.ceil((east - offset_x) / step_x - EDGE_PX))
        row1 = int(np.ceil((south - offset_y) / step_y - EDGE_PX))
        transform = Affine(step_x, 0, offset_x + col0 * step_x, 0, step_y, offset_y + row0 * step_y)
        name = (
            crs.to_string().lower().replace(":", "")
            if crs.to_epsg()
            else f"crs{hashlib.sha256(crs.to_wkt().encode()).hexdigest()[:8]}"
        )
        grids[name] = Grid(
            name=name, crs=crs.to_string() if crs.to_epsg() else crs.to_wkt(), transform=tuple(transform)[:6],
            shape=(max(row1 - row0, 1), max(col1 - col0, 1)), lattice=(row0, col0), tile_px=spec.tile_px,
            halo_px=spec.halo_px, block_px=spec.block_px, asked=asked, owned=owned,
            zone=zone.bounds if zone is not None else None,
        )  # fmt: skip
        footprints[name] = prints
    return grids, footprints


def _chosen_crs(spec: GridSpec, natives: list[NativeGrid], items: list[pystac.Item]) -> list[CRS]:
    """For each Item the CRS of the grid that it calls for."""
    if spec.crs != "auto":
        return [_crs(spec.crs)] * len(items)
    chosen = []
    for native, item in zip(natives, items, strict=True):
        odd = native.crs.is_geographic or native.transform.b or native.transform.d
        middle = _bbox(item).centroid
        chosen.append(CRS.from_epsg(utm_epsg(middle.x, middle.y)) if odd else native.crs)
    return chosen


def _zones(crses: set[CRS]) -> dict[CRS, BaseGeometry]:
    """What each UTM zone answers for, in lon/lat, where there are several; together they leave no gap."""
    numbers = {crs: number for crs in crses if (number := _utm_number(crs))}
    if len(crses) < 2:
        return {}
    present = sorted({zone for zone, _ in numbers.values()})
    borders = [-180.0] + [(a + b) * 3.0 - 180.0 - 3.0 for a, b in itertools.pairwise(present)] + [180.0]
    zones = {}
    for crs, (zone, south) in numbers.items():
        at = present.index(zone)
        both = (zone, not south) in numbers.values()
        low, high = (-90.0 if not both or south else 0.0), (90.0 if not both or not south else 0.0)
        zones[crs] = shapely.box(borders[at], low, borders[at + 1], high)
    return zones


def _bbox(item: pystac.Item) -> BaseGeometry:
    return shapely.box(*shapely.geometry.shape(item.geometry).bounds)


def _lattice(crs: CRS, native: NativeGrid, spec: GridSpec) -> tuple[float, float, float, float]:
    if spec.resolution != "native":
        return spec.resolution, -spec.resolution, 0.0, 0.0
    step_x, step_y = native.transform.a, native.transform.e
    if native.crs == crs and step_x > 0 > step_y and not native.transform.b and not native.transform.d:
        return step_x, step_y, _phase(native.transform.c, step_x), _phase(native.transform.f, step_y)
    # The side that keeps an asset's pixel area when it is moved to the other CRS.
    west, south, east, north = native.bounds
    middle = shapely.Point((west + east) / 2, (south + north) / 2)
    side = abs(native.transform.determinant) ** 0.5
    square = _project(middle.buffer(side / 2, cap_style="square"), native.crs, crs)
    step = float(f"{square.area**0.5:.4g}")
    return step, -step, 0.0, 0.0


def _phase(origin: float, step: float) -> float:
    """Where pixels start between 0 and one step; the same for every scene of one lattice."""
    # Rounded, since two scenes cut from one lattice differ in the last bits of their origins.
    return float(round((origin / step + EDGE_PX) % 1.0 - EDGE_PX, 6) * step)


def _utm_number(crs: CRS) -> tuple[int, bool] | None:
    """Number of a UTM zone and whether it is a southern one; None for any other CRS."""
    code = crs.to_epsg() or 0
    if code // 100 not in (326, 327, 269) or not 1 <= code % 100 <= 60:
        return None
    return code % 100, code // 100 == 327


def _footprint(native: NativeGrid, item: pystac.Item, crs: CRS) -> BaseGeometry:
    """An Item's footprint in a CRS: its pixels' own outline where they are in that CRS, else its geometry."""
    if native.crs == crs and not native.transform.b and not native.transform.d:
        return shapely.box(*native.bounds)
    return _project(shapely.make_valid(shapely.geometry.shape(item.geometry)), LONLAT, crs)


def _project(shape: BaseGeometry, source: CRS | str, target: CRS) -> BaseGeometry:
    transformer = pyproj.Transformer.from_crs(
        source if isinstance(source, str) else source.to_wkt(), target.to_wkt(), always_xy=True
    )
    west, south, east, north = shape.bounds
    dense = shapely.segmentize(shape, max(east - west, north - south) / 16) if shape.area else shape
    moved = shapely.transform(dense, lambda points: np.column_stack(transformer.transform(points[:, 0], points[:, 1])))
    finite = np.isfinite(shapely.get_coordinates(moved)).all()
    if not finite:
        raise JobError(
            f"the AOI or an item's footprint cannot be drawn in {target.to_string()}; choose another grid.crs"
        )
    return shapely.make_valid(moved)


def _crs(text: str) -> CRS:
    try:
        return CRS.from_user_input(text)
    except CRSError as error:
        raise JobError(f"grid.crs '{text}' is no CRS; write auto or, for example, EPSG:32631") from error


def _blocks(
    grids: dict[str, Grid], footprints: dict[str, tuple[BaseGeometry, ...]], slices: tuple[TimeSlice, ...]
) -> tuple[tuple[BlockKey, ...], int]:
    """Blocks that hold a pixel of the AOI and of an Item, and the number of tiles whose cores do."""
    keys: list[BlockKey] = []
    tiles = 0
    for name, grid in grids.items():
        for time, piece in enumerate(slices):
            shapes = [footprints[name][at] for at in piece.items]
            region = shapely.union_all([shape.intersection(grid.owned) for shape in shapes if not shape.is_empty])
            if region.is_empty:
                continue
            shapely.prepare(region)
            rows, cols = grid.blocks_shape
            row, col = (part.ravel() for part in np.mgrid[:rows, :cols])
            boxes = _boxes(grid, row * grid.block_px, col * grid.block_px, grid.block_px)
            meets = shapely.intersects(region, boxes) & ~shapely.touches(region, boxes)
            whole = shapely.contains_properly(region, boxes)
            per_block = grid.block_px // grid.core_px
            for at in np.flatnonzero(meets):
                key = BlockKey(name, time, int(row[at]), int(col[at]))
                keys.append(key)
                if whole[at]:
                    tiles += per_block**2
                    continue
                own = grid.tiles(key)
                cores = _boxes(
                    grid,
                    np.array([tile.core.y0 for tile in own]),
                    np.array([tile.core.x0 for tile in own]),
                    grid.core_px,
                )
                tiles += int((shapely.intersects(region, cores) & ~shapely.touches(region, cores)).sum())
    return tuple(sorted(keys)), tiles


def _boxes(grid: Grid, y0: NDArray[np.int64], x0: NDArray[np.int64], side: int) -> NDArray[np.object_]:
    a, _, c, _, e, f = grid.transform
    y1, x1 = np.minimum(y0 + side, grid.shape[0]), np.minimum(x0 + side, grid.shape[1])
    return shapely.box(c + x0 * a, f + y1 * e, c + x1 * a, f + y0 * e)


def _place_prompts(
    shapes: tuple[tuple[str, BaseGeometry], ...], grids: dict[str, Grid], context_px: int
) -> tuple[dict[tuple[str, int, int], tuple[PlacedPrompt, ...]], dict[str, str]]:
    placed: dict[tuple[str, int, int], list[PlacedPrompt]] = defaultdict(list)
    outside: dict[str, str] = {}
    for prompt_id, shape in shapes:
        middle = shape.envelope.centroid
        for grid in grids.values():
            if not grid.owns(middle.x, middle.y):
                continue
            moved = _project(shape, LONLAT, _crs(grid.crs))
            centre = moved.envelope.centroid
            col, row = ~grid.affine @ (centre.x, centre.y)
            west, south, east, north = moved.bounds
            if max(east - west, north - south) / abs(grid.transform[0]) > MOST_COARSE * (
                grid.tile_px - 2 * context_px - 2
            ):
                outside[prompt_id] = f"larger than {MOST_COARSE} tiles"
                break
            if 0 <= row < grid.shape[0] and 0 <= col < grid.shape[1]:
                at = (grid.name, int(row) // grid.block_px, int(col) // grid.block_px)
                placed[at].append(PlacedPrompt(prompt_id, moved))
                break
        else:
            outside[prompt_id] = "no imagery there"
    if not placed:
        reasons = "; ".join(sorted(set(outside.values())))
        raise JobError(f"prompts.from: no prompt can be asked ({reasons}); check the file's CRS")
    return {at: tuple(found) for at, found in placed.items()}, outside

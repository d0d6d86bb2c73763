"""Makes the grids of a result: one per UTM zone of its AOI, or one per CRS of its Items.

Where a grid lies follows from the AOI and its lattice. The lattice follows from the Items of the
first run, and from then on from the result. One function per spatial rule: the CRSs, the answer
area of each UTM zone, the lattice of a CRS, the footprint of an Item, and the extent of a grid.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import pyproj
import shapely
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import CRSError
from shapely.geometry.base import BaseGeometry

from earthgptx.pipeline.errors import JobError
from earthgptx.pipeline.job.grid import Grid
from earthgptx.pipeline.job.lonlat import LONLAT, boxes, middle
from earthgptx.pipeline.job.sections import GridSpec
from earthgptx.pipeline.planning.projection import parse_crs, project
from earthgptx.pipeline.reading.native import NativeGrid, utm_epsg

REACH_DEG = 0.5
"""Margin in degrees around a zone within which Items and searched ground are projected."""
MARGIN_DEG, UTM_MARGIN_DEG, MOST_NORTH = 3.0, 12.0, 85.0
"""Margin in degrees around a CRS's area of use, to which the AOI is clipped before it is projected:
a CRS need not be valid for the whole Earth. It does not pass this latitude."""
MOST_BLOCKS = 4_000_000
EDGE_PX = 1e-3
"""Rounding tolerance of footprints: a smaller excess over a pixel's edge does not count."""

Footprints = tuple[BaseGeometry, ...]
"""Footprint of each Item of the plan in a grid's CRS; empty if the Item does not meet the grid."""


@dataclass(frozen=True, slots=True)
class Lattice:
    """All pixels of a CRS, given by the size and the origin of pixel (0, 0)."""

    step_x: float
    """Width of a pixel in units of the CRS."""
    step_y: float
    """Height of a pixel in units of the CRS; negative, since rows go south."""
    offset_x: float
    offset_y: float

    def window(self, region: BaseGeometry) -> tuple[int, int, int, int]:
        """Returns the first row, first column, last row and last column (exclusive) of a region."""
        west, south, east, north = region.bounds
        return (
            int(np.floor((north - self.offset_y) / self.step_y + EDGE_PX)),
            int(np.floor((west - self.offset_x) / self.step_x + EDGE_PX)),
            int(np.ceil((south - self.offset_y) / self.step_y - EDGE_PX)),
            int(np.ceil((east - self.offset_x) / self.step_x - EDGE_PX)),
        )

    def transform(self, row: int, col: int) -> Affine:
        """Returns the affine of a raster that starts at a row and column."""
        x, y = self.offset_x + col * self.step_x, self.offset_y + row * self.step_y
        return Affine(self.step_x, 0, x, 0, self.step_y, y)


@dataclass(frozen=True, slots=True)
class Known:
    """What an earlier run of a series has fixed."""

    lattices: Mapping[str, Lattice] = field(default_factory=dict)
    """Lattice by CRS; empty if there was no earlier run."""
    grids: frozenset[str] = frozenset()
    """Names of the grids that the output has."""


def make_grids(
    spec: GridSpec,
    aoi: BaseGeometry,
    natives: list[NativeGrid],
    shown: list[BaseGeometry],
    known: Known,
) -> tuple[dict[str, Grid], dict[str, Footprints], dict[str, Lattice]]:
    """Returns the grids, the footprints of all Items on each grid, and the lattice of each CRS.

    A zone where no Item was ever seen has a lattice and no grid.

    Args:
        spec: grid section of the job file.
        aoi: area of interest, lon/lat.
        natives: native grid of each Item's first band.
        shown: footprint of each Item, lon/lat.
        known: what an earlier run of the same series has fixed.

    Raises:
        JobError: a grid would be too large, or an Item lies in a CRS that the series has no grid
            for.
    """
    chosen = _chosen_crs(spec, natives, shown)
    if known.lattices:
        lattices = {parse_crs(text): lattice for text, lattice in known.lattices.items()}
        _refuse_other_crs(chosen, lattices)
    else:
        lattices = _first_lattices(spec, aoi, chosen, natives, shown)
    boxed = [boxes(each) for each in shown]
    zones = _zones(set(lattices))
    grids: dict[str, Grid] = {}
    footprints: dict[str, Footprints] = {}
    for crs, lattice in lattices.items():
        zone = zones.get(crs)
        areas = _areas(crs, zone, aoi, spec.halo_px * abs(lattice.step_x))
        if areas is None:
            continue
        search_area, answer_area = areas
        grid = _grid(spec, crs, lattice, search_area, answer_area, zone)
        reach = boxes(aoi if zone is None else aoi.intersection(zone)).buffer(REACH_DEG)
        # Items of other zones may reach into this zone. A CRS without a zone keeps its Items.
        prints = tuple(
            _footprint(native, footprint, crs)
            if (other == crs or (utm_zone(other) and utm_zone(crs))) and box.intersects(reach)
            else shapely.Polygon()
            for native, footprint, box, other in zip(natives, shown, boxed, chosen, strict=True)
        )
        if grid.name in known.grids or any(each.intersects(answer_area) for each in prints):
            _refuse_too_large(grid, boxed)
            grids[grid.name], footprints[grid.name] = grid, prints
    return grids, footprints, {_text(crs): lattice for crs, lattice in lattices.items()}


def _chosen_crs(spec: GridSpec, natives: list[NativeGrid], shown: list[BaseGeometry]) -> list[CRS]:
    """Returns the grid CRS of each Item: the job's, else the native one.

    UTM replaces the native CRS if the native grid is geographic or rotated.
    """
    if spec.crs != "auto":
        return [parse_crs(spec.crs)] * len(shown)
    chosen = []
    for native, footprint in zip(natives, shown, strict=True):
        if native.crs.is_geographic or native.transform.b or native.transform.d:
            centre = middle(footprint)
            chosen.append(CRS.from_epsg(utm_epsg(centre.x, centre.y)))
        else:
            chosen.append(native.crs)
    return chosen


def _refuse_other_crs(chosen: list[CRS], lattices: Mapping[CRS, Lattice]) -> None:
    """Refuses Items of a CRS that the series has no grid for; UTM zones share all Items.

    Raises:
        JobError: there is such an Item.
    """
    has_zones = any(utm_zone(crs) for crs in lattices)
    for crs in dict.fromkeys(chosen):
        if crs not in lattices and not (has_zones and utm_zone(crs)):
            raise JobError(
                f"an item lies in {_text(crs)[:40]}, and the result has no grid in it; give it "
                "another output, or set grid.crs to one CRS for all items"
            )


def _first_lattices(
    spec: GridSpec,
    aoi: BaseGeometry,
    chosen: list[CRS],
    natives: list[NativeGrid],
    shown: list[BaseGeometry],
) -> dict[CRS, Lattice]:
    """Returns the CRSs of a new series, and the lattice of each.

    UTM zones follow from the AOI, so that they do not depend on the Items that are there so far.
    """
    of_crs: dict[CRS, list[NativeGrid]] = {crs: [] for crs in chosen}
    for native, crs in zip(natives, chosen, strict=True):
        of_crs[crs].append(native)
    wanted = list(of_crs)
    numbered = [crs for crs in wanted if utm_zone(crs)]
    if numbered and spec.crs == "auto":
        centres = [middle(each).y for each in shown]
        only_north = any(
            lat < -1.0 and (zone := utm_zone(crs)) is not None and not zone[1]
            for crs, lat in zip(chosen, centres, strict=True)
        )
        zones = _zones_of(aoi, numbered[0], only_north=only_north)
        wanted = [*zones, *(crs for crs in wanted if crs not in numbered)]
    of_zones = [native for crs in numbered for native in of_crs[crs]]
    return {crs: _chosen_lattice(crs, of_crs.get(crs) or of_zones, spec) for crs in wanted}


def _zones_of(aoi: BaseGeometry, like: CRS, *, only_north: bool) -> list[CRS]:
    """Returns the CRS of each UTM zone that an AOI meets.

    Args:
        aoi: area of interest, lon/lat.
        like: CRS of some UTM zone, to whose datum the others have to belong.
        only_north: whether the southern half of a zone has negative northings, as Landsat's.
    """
    found = []
    for number in range(1, 61):
        west = 6.0 * number - 186.0
        halves = [(False, -90.0, 90.0)] if only_north else [(False, 0.0, 90.0), (True, -90.0, 0.0)]
        for south, low, high in halves:
            part = aoi.intersection(shapely.box(west, low, west + 6.0, high))
            if not part.is_empty and part.area:
                found.append(_zone_like(like, number, south))
    return found


def _zone_like(like: CRS, number: int, south: bool) -> CRS:
    """Returns the CRS of a UTM zone, of the datum of another one where EPSG numbers it likewise."""
    code, own = like.to_epsg(), utm_zone(like)
    if own == (number, south):
        return like
    if code and own and own[1] == south:
        try:
            crs = CRS.from_epsg(code - own[0] + number)
        except CRSError:
            pass
        else:
            if utm_zone(crs) == (number, south):
                return crs
    return CRS.from_epsg((32700 if south else 32600) + number)


def _zones(crses: set[CRS]) -> dict[CRS, BaseGeometry]:
    """Returns the lon/lat box of each UTM zone, without gaps; empty if there is only one CRS."""
    if len(crses) < 2:
        return {}
    numbers = {crs: number for crs in crses if (number := utm_zone(crs))}
    present = sorted({zone for zone, _ in numbers.values()})
    between = [(a + b) * 3.0 - 183.0 for a, b in itertools.pairwise(present)]
    borders = [-180.0, *between, 180.0]
    zones = {}
    for crs, (zone, south) in numbers.items():
        at = present.index(zone)
        both = (zone, not south) in numbers.values()
        low, high = (-90.0 if not both or south else 0.0), (90.0 if not both or not south else 0.0)
        zones[crs] = shapely.box(borders[at], low, borders[at + 1], high)
    return zones


@lru_cache(maxsize=256)
def utm_zone(crs: CRS) -> tuple[int, bool] | None:
    """Returns the number of a UTM zone and whether it is southern; None for any other CRS."""
    code = crs.to_epsg()
    name = (pyproj.CRS.from_epsg(code) if code else pyproj.CRS.from_wkt(crs.to_wkt())).utm_zone
    # PROJ adds words to the zones of some CRSs, as to EPSG:4647: `32N with prefix`.
    found = re.match(r"(\d+)([NS])", name or "")
    return (int(found[1]), found[2] == "S") if found else None


def _areas(
    crs: CRS, zone: BaseGeometry | None, aoi: BaseGeometry, margin: float
) -> tuple[BaseGeometry, BaseGeometry] | None:
    """Returns the search area and the answer area in the CRS; None if they are empty.

    The search area exceeds the zone by a margin, so that objects on the border are seen whole.
    """
    own = aoi.intersection(_valid_area(crs) if zone is None else zone)
    if own.is_empty or not own.area:
        return None
    answer_area = project(own, LONLAT, crs)
    if zone is None:
        return answer_area, answer_area
    around = project(aoi.intersection(zone.buffer(REACH_DEG)), LONLAT, crs)
    return around.intersection(answer_area.buffer(margin)), answer_area


def _valid_area(crs: CRS) -> BaseGeometry:
    """Returns the ground, lon/lat, to which an AOI is clipped before it is projected to a CRS."""
    code = crs.to_epsg()  # WKT leaves it out
    bounds = pyproj.CRS.from_epsg(code).area_of_use if code else None
    if bounds is None:
        return shapely.box(-180.0, -90.0, 180.0, 90.0)
    margin = UTM_MARGIN_DEG if utm_zone(crs) else MARGIN_DEG
    south = min(bounds.south, max(bounds.south - margin, -MOST_NORTH))
    north = max(bounds.north, min(bounds.north + margin, MOST_NORTH))
    west, east = bounds.west - margin, bounds.east + margin
    if bounds.west > bounds.east or east - west >= 360.0:
        west, east = -180.0, 180.0  # across the antimeridian, or everywhere
    shifted = [shapely.box(west + turn, south, east + turn, north) for turn in (-360.0, 0.0, 360.0)]
    return shapely.union_all(shifted)


def _chosen_lattice(crs: CRS, natives: list[NativeGrid], spec: GridSpec) -> Lattice:
    """Returns the lattice of the job's resolution, or that of one of the Items."""
    if isinstance(spec.resolution, float):
        return Lattice(spec.resolution, -spec.resolution, 0.0, 0.0)
    if spec.resolution == "native":
        return _lattice(crs, natives[0])
    # Items of one pixel size have one lattice, but for the phase: the first of them counts.
    different = list({pixel_side(each): each for each in reversed(natives)}.values())
    lattices = [_lattice(crs, each) for each in different]
    pick = min if spec.resolution == "finest" else max
    return pick(lattices, key=lambda each: abs(each.step_x * each.step_y))


def pixel_side(native: NativeGrid) -> tuple[str, float]:
    """Returns the CRS and the side of a pixel of equal area, four significant digits."""
    return native.crs.to_string(), float(f"{abs(native.transform.determinant) ** 0.5:.4g}")


def _lattice(crs: CRS, native: NativeGrid) -> Lattice:
    """Returns the lattice of an asset in its CRS, else one of equal pixel area.

    An archive of UTM scenes has the same steps and phases in every zone.
    """
    step_x, step_y = native.transform.a, native.transform.e
    rotated = native.transform.b or native.transform.d
    zones = utm_zone(native.crs) and utm_zone(crs)
    if (native.crs == crs or zones) and step_x > 0 > step_y and not rotated:
        start_x = _phase(native.transform.c, step_x)
        return Lattice(step_x, step_y, start_x, _phase(native.transform.f, step_y))
    # This side preserves the area of the asset's pixels in the other CRS.
    west, south, east, north = native.bounds
    middle = shapely.Point((west + east) / 2, (south + north) / 2)
    side = abs(native.transform.determinant) ** 0.5
    square = project(middle.buffer(side / 2, cap_style="square"), native.crs, crs)
    step = float(f"{square.area**0.5:.4g}")
    return Lattice(step, -step, 0.0, 0.0)


def _phase(origin: float, step: float) -> float:
    """Returns the offset of pixels within one step; equal for all scenes of one lattice."""
    # Rounded, since the origins of scenes on one lattice differ in their last bits.
    return float(round((origin / step + EDGE_PX) % 1.0 - EDGE_PX, 6) * step)


def _footprint(native: NativeGrid, footprint: BaseGeometry, crs: CRS) -> BaseGeometry:
    """Returns the bounds of an Item's pixels if they lie in the CRS, else its footprint in it."""
    if native.crs == crs and not native.transform.b and not native.transform.d:
        return shapely.box(*native.bounds)
    return project(footprint, LONLAT, crs)


def _grid(
    spec: GridSpec,
    crs: CRS,
    lattice: Lattice,
    search_area: BaseGeometry,
    answer_area: BaseGeometry,
    zone: BaseGeometry | None,
) -> Grid:
    """Returns the grid that covers the answer area."""
    row0, col0, row1, col1 = lattice.window(answer_area)
    return Grid(
        name=_name(crs),
        crs=_text(crs),
        transform=tuple(lattice.transform(row0, col0))[:6],
        shape=(max(row1 - row0, 1), max(col1 - col0, 1)),
        lattice=(row0, col0),
        tile_px=spec.tile_px,
        halo_px=spec.halo_px,
        block_px=spec.block_px,
        search_area=search_area,
        answer_area=answer_area,
        zone=zone.bounds if zone is not None else None,
    )


def _refuse_too_large(grid: Grid, shown: list[BaseGeometry]) -> None:
    """Refuses a grid of more than `MOST_BLOCKS` blocks.

    Raises:
        JobError: it says where the Items lie.
    """
    rows, cols = grid.blocks_shape
    if rows * cols <= MOST_BLOCKS:
        return
    bounds = ", ".join(f"{edge:.3f}" for edge in shapely.union_all(shown).bounds)
    raise JobError(
        f"the grid {grid.crs[:40]} would have {grid.shape[0]:,} x {grid.shape[1]:,} px in "
        f"{rows * cols:,} blocks; make source.aoi smaller (its items lie in [{bounds}]), or "
        "grid.resolution coarser"
    )


def _text(crs: CRS) -> str:
    """Returns a CRS as `parse_crs` reads it."""
    return str(crs.to_string() if crs.to_epsg() else crs.to_wkt())


def _name(crs: CRS) -> str:
    if crs.to_epsg():
        return crs.to_string().lower().replace(":", "")
    return f"crs{hashlib.sha256(crs.to_wkt().encode()).hexdigest()[:8]}"

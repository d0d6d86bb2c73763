"""Makes the grids of a result: one per CRS that its Items need.

One function per spatial rule: the CRS of an Item's grid, the answer area of each UTM zone, the
lattice of a CRS, the footprint of an Item, and the extent of a grid.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyproj
import shapely
from affine import Affine
from rasterio.crs import CRS
from shapely.geometry.base import BaseGeometry

from earthgptx.pipeline.errors import JobError
from earthgptx.pipeline.job.grid import Grid
from earthgptx.pipeline.job.lonlat import LONLAT, boxes, middle
from earthgptx.pipeline.job.spec import GridSpec
from earthgptx.pipeline.planning.projection import parse_crs, project
from earthgptx.pipeline.reading.native import NativeGrid, utm_epsg

REACH_DEG = 0.5
"""Margin in degrees around the Items' bounds, to which the AOI is clipped before it is projected: a
CRS need not be valid for the whole Earth."""
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


def make_grids(
    spec: GridSpec, aoi: BaseGeometry, natives: list[NativeGrid], shown: list[BaseGeometry]
) -> tuple[dict[str, Grid], dict[str, Footprints]]:
    """Returns the grids, and the footprints of all Items on each grid, by the grid's name.

    Args:
        spec: grid section of the job file.
        aoi: area of interest, lon/lat.
        natives: native grid of each Item's first band.
        shown: footprint of each Item, lon/lat.
    """
    chosen = _chosen_crs(spec, natives, shown)
    boxed = [boxes(each) for each in shown]
    zones = _zones(set(chosen))
    grids: dict[str, Grid] = {}
    footprints: dict[str, Footprints] = {}
    for crs in dict.fromkeys(chosen):
        own = {box.wkb: box for box, other in zip(boxed, chosen, strict=True) if other == crs}
        reach = shapely.union_all([box.buffer(REACH_DEG) for box in own.values()])
        of_crs = [native for native, other in zip(natives, chosen, strict=True) if other == crs]
        lattice = _chosen_lattice(crs, of_crs, spec)
        areas = _areas(crs, zones.get(crs), aoi, reach, spec.halo_px * abs(lattice.step_x))
        if areas is None:
            continue
        search_area, answer_area = areas
        # Items of other zones may reach into this zone. A CRS without a zone keeps its Items, and
        # so do two CRSs of one zone, which would answer for the same ground twice.
        near = [other == crs or _are_neighbours(crs, other) for other in chosen]
        prints = tuple(
            _footprint(native, footprint, crs)
            if may_reach and box.intersects(reach)
            else shapely.Polygon()
            for native, footprint, box, may_reach in zip(natives, shown, boxed, near, strict=True)
        )
        grid = _grid(spec, crs, lattice, prints, search_area, answer_area, zones.get(crs))
        if grid is not None:
            grids[grid.name], footprints[grid.name] = grid, prints
    return grids, footprints


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


def _are_neighbours(one: CRS, other: CRS) -> bool:
    """Returns whether two CRSs are different UTM zones."""
    zones = utm_zone(one), utm_zone(other)
    return None not in zones and zones[0] != zones[1]


@lru_cache(maxsize=256)
def utm_zone(crs: CRS) -> tuple[int, bool] | None:
    """Returns the number of a UTM zone and whether it is southern; None for any other CRS."""
    code = crs.to_epsg()
    name = (pyproj.CRS.from_epsg(code) if code else pyproj.CRS.from_wkt(crs.to_wkt())).utm_zone
    # PROJ adds words to the zones of some CRSs, as to EPSG:4647: `32N with prefix`.
    found = re.match(r"(\d+)([NS])", name or "")
    return (int(found[1]), found[2] == "S") if found else None


def _areas(
    crs: CRS, zone: BaseGeometry | None, aoi: BaseGeometry, reach: BaseGeometry, margin: float
) -> tuple[BaseGeometry, BaseGeometry] | None:
    """Returns the search area and the answer area in the CRS; None if they are empty.

    The search area exceeds the zone by a margin, so that objects on the border are seen whole.
    """
    own = aoi.intersection(reach if zone is None else reach.intersection(zone))
    if own.is_empty or not own.area:
        return None
    answer_area = project(own, LONLAT, crs)
    if zone is None:
        return answer_area, answer_area
    all_of_it = project(aoi.intersection(reach), LONLAT, crs)
    return all_of_it.intersection(answer_area.buffer(margin)), answer_area


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
    """Returns the lattice of an asset in its CRS, else one of equal pixel area."""
    step_x, step_y = native.transform.a, native.transform.e
    rotated = native.transform.b or native.transform.d
    if native.crs == crs and step_x > 0 > step_y and not rotated:
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
    footprints: Footprints,
    search_area: BaseGeometry,
    answer_area: BaseGeometry,
    zone: BaseGeometry | None,
) -> Grid | None:
    """Returns the grid that covers the Items' part of the answer area; None if that is empty."""
    shown = [
        shape.intersection(answer_area) for shape in footprints if shape.intersects(answer_area)
    ]
    region = shapely.union_all(shown)
    if region.is_empty or region.area == 0:
        return None
    row0, col0, row1, col1 = lattice.window(region)
    blocks = -(-(row1 - row0) // spec.block_px) * -(-(col1 - col0) // spec.block_px)
    if blocks > MOST_BLOCKS:
        raise JobError(
            f"the grid {crs.to_string()[:40]} would have {row1 - row0:,} x {col1 - col0:,} px in "
            f"{blocks:,} blocks; make the AOI smaller, or grid.resolution coarser"
        )
    code = crs.to_epsg()
    return Grid(
        name=_name(crs),
        crs=crs.to_string() if code else crs.to_wkt(),
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


def _name(crs: CRS) -> str:
    if crs.to_epsg():
        return crs.to_string().lower().replace(":", "")
    return f"crs{hashlib.sha256(crs.to_wkt().encode()).hexdigest()[:8]}"

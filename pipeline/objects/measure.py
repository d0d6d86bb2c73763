"""Turns merged objects into objects of the result: georeferences, measures and identifies them.

Takes merged parts in pixels of a grid, gives lon/lat outlines, sizes in metres, ids and captions.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyproj
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import shapes
from shapely.geometry.base import BaseGeometry

from earthgptx.model.interface.region import Mask
from earthgptx.pipeline.job.grid import Grid
from earthgptx.pipeline.job.lonlat import LONLAT, cut, cut_all, unwrapped
from earthgptx.pipeline.objects.parts import Part
from earthgptx.pipeline.objects.spans import split

CANVAS_PX = 2**20
"""Pixels of the raster in which masks are outlined together; a larger mask has one of its own."""
DRAWN_PX, PIECE_PX = 2**23, 1024
"""Pixels of the largest window that is drawn; a larger mask is outlined in pieces of this side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroundedObject:
    """One object of the result."""

    object_id: int
    """63-bit hash of CRS, time slice, label and pixels; independent of the processing order."""
    grid: str
    """Name of the grid."""
    time: int
    """Number of the time slice."""
    part: Part
    """The merged object in pixels of the grid."""
    geometry: BaseGeometry
    """Outline along pixel edges in lon/lat, since one table holds the objects of all zones."""
    area_m2: float
    length_m: float
    """Long side of the minimum rotated rectangle."""
    width_m: float
    """Short side of the minimum rotated rectangle."""
    orientation_deg: float
    """Direction of the long side, clockwise from north, 0 <= angle < 180."""
    elsewhere: tuple[tuple[str, Mask], ...] = ()
    """What the grids of other zones show of it: name of the grid, and mask in its pixels."""


def ground(parts: Sequence[Part], grid: Grid, time: int, slice_name: str) -> list[GroundedObject]:
    """Georeferences, measures and identifies the merged objects of one grid and time slice.

    Lengths are metres on the WGS84 ellipsoid, computed with the radii of curvature at the centre of
    each object.

    Args:
        parts: merged objects.
        grid: grid whose pixels the parts are in.
        time: number of the time slice.
        slice_name: name of the time slice; enters the object id.
    """
    geometries = outlines([part.mask for part in parts], grid)
    return [
        GroundedObject(
            object_id=_identify(part, grid, slice_name),
            grid=grid.name,
            time=time,
            part=part,
            geometry=geometry,
            area_m2=area,
            length_m=length,
            width_m=width,
            orientation_deg=orientation,
        )
        for part, geometry, (area, length, width, orientation) in zip(
            parts, cut_all(geometries), _measure(geometries), strict=True
        )
    ]


def measured(found: GroundedObject, outline: BaseGeometry) -> GroundedObject:
    """Returns an object with another outline, lon/lat, and its measures."""
    continuous = unwrapped(np.array([outline], object))
    [(area, length, width, orientation)] = _measure(continuous)
    return replace(
        found,
        geometry=cut(continuous[0]),
        area_m2=area,
        length_m=length,
        width_m=width,
        orientation_deg=orientation,
    )


def outlines(masks: Sequence[Mask], grid: Grid) -> NDArray[np.object_]:
    """Returns the outlines of N masks along pixel edges, (N,) lon/lat, unwrapped."""
    transformer = pyproj.Transformer.from_crs(grid.crs, LONLAT, always_xy=True)
    return unwrapped(
        shapely.transform(
            _flat_outlines(masks, grid),
            lambda p: np.column_stack(transformer.transform(p[:, 0], p[:, 1])),
        )
    )


def _flat_outlines(masks: Sequence[Mask], grid: Grid) -> NDArray[np.object_]:
    """Returns the masks' outlines in the grid's CRS."""
    found = np.empty(len(masks), object)
    drawn = [at for at, mask in enumerate(masks) if mask.height * mask.width <= DRAWN_PX]
    found[drawn] = _outlined([masks[at] for at in drawn], grid.affine)
    for at in sorted(set(range(len(masks))) - set(drawn)):
        pieces = [piece for *_, piece in split(masks[at], PIECE_PX)]
        # In pixels, which the pieces share exactly.
        outline = shapely.simplify(shapely.union_all(_outlined(pieces, Affine.identity())), 0)
        a, b, c, d, e, f = grid.transform
        found[at] = shapely.affinity.affine_transform(outline, [a, b, d, e, c, f])
    return found


def _outlined(masks: Sequence[Mask], affine: Affine) -> NDArray[np.object_]:
    """Returns the outlines of masks that are small enough to be drawn."""
    found: list[NDArray[np.object_]] = [np.empty(0, object)]
    start = 0
    while start < len(masks):
        rows, cols, end = 0, 0, start
        while end < len(masks):
            rows, cols = rows + masks[end].height + 1, max(cols, masks[end].width)
            if end > start and rows * cols > CANVAS_PX:
                break
            end += 1
        found.append(_outlined_together(masks[start:end], affine))
        start = end
    return np.concatenate(found)


def _outlined_together(masks: Sequence[Mask], affine: Affine) -> NDArray[np.object_]:
    """Outlines masks in one raster, one below the other: a call per mask costs more."""
    tops = np.cumsum([0, *(mask.height + 1 for mask in masks)])
    canvas = np.zeros((int(tops[-1]), max(mask.width for mask in masks)), np.int32)
    for number, (mask, top) in enumerate(zip(masks, tops.tolist(), strict=False), start=1):
        canvas[top : top + mask.height, : mask.width][mask.to_array()] = number
    pieces = [
        (int(value) - 1, shape["coordinates"])
        for shape, value in shapes(canvas, mask=canvas > 0, connectivity=4)
    ]
    pieces.sort(key=lambda piece: piece[0])
    owners = np.array([owner for owner, _ in pieces])
    rings = [ring for _, polygon in pieces for ring in polygon]
    ring_ends = np.cumsum([0, *map(len, rings)])
    polygon_ends = np.cumsum([0, *(len(polygon) for _, polygon in pieces)])
    # To pixels of the grid, then as GDAL computes it from each mask's own corner.
    corners = [affine @ (mask.x0, mask.y0) for mask in masks]
    owner = np.repeat(np.repeat(owners, np.diff(polygon_ends)), np.diff(ring_ends))
    col, row = np.array([point for ring in rings for point in ring]).T
    row -= tops[owner]
    origin = np.array(corners)[owner]
    a, b, _, d, e, _ = affine[:6]
    points = np.column_stack([origin[:, 0] + col * a + row * b, origin[:, 1] + col * d + row * e])
    polygons = shapely.from_ragged_array(
        shapely.GeometryType.POLYGON, points, (ring_ends, polygon_ends)
    )
    first = np.searchsorted(owners, np.arange(len(masks) + 1))
    return np.array(
        [
            polygons[at] if to - at == 1 else shapely.MultiPolygon(polygons[at:to].tolist())
            for at, to in itertools.pairwise(first.tolist())
        ],
        object,
    )


def _identify(part: Part, grid: Grid, slice_name: str) -> int:
    mask = part.mask
    key = (
        f"{grid.crs}|{slice_name}|{part.label}|"
        f"{mask.y0 + grid.lattice[0]}|{mask.x0 + grid.lattice[1]}|"
        f"{mask.height}|{mask.width}|{mask.runs}"
    )
    if part.prompted:
        key += "|" + "|".join(part.prompt_ids)
    return max(int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") >> 1, 1)


def _local_metres(geometries: NDArray[np.object_]) -> NDArray[np.object_]:
    """Projects each lon/lat geometry to local metres: x east, y north, origin at its centre.

    The plane touches the ellipsoid at the centre of the geometry's bounding box. Radii of
    curvature: Torge, Geodesy, eq. 4.16 and 4.17.
    """
    middle = shapely.get_coordinates(shapely.centroid(shapely.envelope(geometries)))
    a, e2 = 6378137.0, 0.00669437999014
    latitude = np.deg2rad(middle[:, 1])
    normal = a / np.sqrt(1 - e2 * np.sin(latitude) ** 2)
    meridian = a * (1 - e2) / (1 - e2 * np.sin(latitude) ** 2) ** 1.5
    scale = np.deg2rad(1.0) * np.column_stack([normal * np.cos(latitude), meridian])
    points, owner = shapely.get_coordinates(geometries, return_index=True)
    moved: NDArray[np.object_] = shapely.set_coordinates(
        geometries.copy(), (points - middle[owner]) * scale[owner]
    )
    return moved


def _measure(geometries: NDArray[np.object_]) -> list[tuple[float, float, float, float]]:
    """Returns area, and length, width and orientation of the minimum rotated rectangle.

    Args:
        geometries: lon/lat, unwrapped.

    Returns:
        Area (m2), length (m), width (m) and orientation (degrees clockwise from north) of each.
    """
    metres = _local_metres(geometries)
    measured = []
    for area, rectangle in zip(
        shapely.area(metres).tolist(), shapely.oriented_envelope(metres), strict=True
    ):
        sides = np.diff(shapely.get_coordinates(rectangle)[:3], axis=0)
        lengths = np.hypot(*sides.T)
        east, north = sides[int(np.argmax(lengths))]
        angle = float(np.rad2deg(np.arctan2(east, north)) % 180.0)
        measured.append((area, float(lengths.max()), float(lengths.min()), angle))
    return measured

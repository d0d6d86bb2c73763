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
from numpy.typing import NDArray
from rasterio.features import shapes
from scipy.spatial import cKDTree
from shapely.geometry.base import BaseGeometry

from earthgptx.model.interface.region import Mask
from earthgptx.pipeline.job.grid import Grid
from earthgptx.pipeline.job.lonlat import LONLAT, cut, unwrapped
from earthgptx.pipeline.objects.parts import Part

CANVAS_PX = 2**20
"""Pixels of the raster in which masks are outlined together; a larger mask has one of its own."""


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
    caption: str = ""
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
    outlines = _outlines([part.mask for part in parts], grid)
    transformer = pyproj.Transformer.from_crs(grid.crs, LONLAT, always_xy=True)
    geometries = shapely.transform(
        outlines, lambda p: np.column_stack(transformer.transform(p[:, 0], p[:, 1]))
    )
    geometries = unwrapped(geometries)
    return [
        GroundedObject(
            object_id=_identify(part, grid, slice_name),
            grid=grid.name,
            time=time,
            part=part,
            geometry=cut(geometry),
            area_m2=area,
            length_m=length,
            width_m=width,
            orientation_deg=orientation,
        )
        for part, geometry, (area, length, width, orientation) in zip(
            parts, geometries, _measure(geometries), strict=True
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


def _outlines(masks: Sequence[Mask], grid: Grid) -> NDArray[np.object_]:
    """Returns the masks' outlines along pixel edges, in the grid's CRS."""
    found: list[NDArray[np.object_]] = [np.empty(0, object)]
    start = 0
    while start < len(masks):
        rows, cols, end = 0, 0, start
        while end < len(masks):
            rows, cols = rows + masks[end].height + 1, max(cols, masks[end].width)
            if end > start and rows * cols > CANVAS_PX:
                break
            end += 1
        found.append(_outlined_together(masks[start:end], grid))
        start = end
    return np.concatenate(found)


def _outlined_together(masks: Sequence[Mask], grid: Grid) -> NDArray[np.object_]:
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
    corners = [grid.affine @ (mask.x0, mask.y0) for mask in masks]
    owner = np.repeat(np.repeat(owners, np.diff(polygon_ends)), np.diff(ring_ends))
    col, row = np.array([point for ring in rings for point in ring]).T
    row -= tops[owner]
    origin = np.array(corners)[owner]
    a, b, _, d, e, _ = grid.transform
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


def measured_caption(found: GroundedObject, nearest_m: float | None) -> str:
    """Returns a caption made without a language model, from an object's measures.

    It gives length, width, direction (of elongated objects) and the distance to the nearest other
    object. A label that starts with "no " (nothing found at a prompt) is returned as it is.

    Args:
        found: the object.
        nearest_m: distance to the nearest other object in metres; None for none.
    """
    label = found.part.label
    if label.startswith("no "):
        return label
    size = f"{label}, about {found.length_m:.0f} m long and {found.width_m:.0f} m wide"
    axis = ("north-south", "north-east to south-west", "east-west", "north-west to south-east")
    towards = (
        f", lying {axis[round(found.orientation_deg / 45) % 4]}"
        if found.length_m > 1.3 * found.width_m
        else ""
    )
    near = f", {nearest_m:.0f} m from the nearest other" if nearest_m is not None else ""
    return size + towards + near


def nearest_neighbours(objects: Sequence[GroundedObject]) -> list[float | None]:
    """Returns the distance from each object to the nearest other one of its label and time slice.

    Distances are straight lines in metres between bounding box centres, on a sphere of the Earth's
    mean radius. None for an object that is the only one of its label and time slice.
    """
    found: list[float | None] = [None] * len(objects)
    groups: dict[tuple[str, int], list[int]] = {}
    for at, each in enumerate(objects):
        groups.setdefault((each.part.label, each.time), []).append(at)
    for members in groups.values():
        if len(members) < 2:
            continue
        outlines = unwrapped(np.array([objects[at].geometry for at in members], object))
        west, south, east, north = shapely.bounds(outlines).T
        lon, lat = np.deg2rad((west + east) / 2), np.deg2rad((south + north) / 2)
        places = (
            np.column_stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])
            * 6371008.8
        )
        distance, _ = cKDTree(places).query(places, k=2)
        for at, metres in zip(members, distance[:, 1], strict=True):
            found[at] = float(metres)
    return found


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

"""An object of the result: a merged part, placed on the Earth, measured and given its id."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyproj
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import shapes
from scipy.spatial import cKDTree
from shapely.geometry.base import BaseGeometry

from model.region import Mask
from pipeline.assemble import Part
from pipeline.grid import Grid
from pipeline.vectors import LONLAT


@dataclass(frozen=True, slots=True, kw_only=True)
class GroundedObject:
    """One object, as the result holds it."""

    object_id: int
    """63 bits, from place and time and never from the order of work."""
    grid: str
    time: int
    """Time slice."""
    part: Part
    geometry: BaseGeometry
    """Outline along pixel edges, lon/lat: one table holds all zones."""
    area_m2: float
    length_m: float
    """Long side of the smallest rectangle around it."""
    width_m: float
    orientation_deg: float
    """Of the long side, clockwise from north, 0 <= angle < 180."""
    caption: str = ""
    item_id: str = ""
    """The first Item of the mosaic that covers its middle."""


def ground(parts: Sequence[Part], grid: Grid, time: int, slice_start: str) -> list[GroundedObject]:
    """Place and measure merged parts of one grid and time slice.

    Lengths are metres on the WGS84 ellipsoid, by the radii of curvature at the object's middle.
    """
    outlines = np.array([_outline(part.mask, grid) for part in parts], object)
    transformer = pyproj.Transformer.from_crs(grid.crs, LONLAT, always_xy=True)
    geometries = shapely.transform(outlines, lambda p: np.column_stack(transformer.transform(p[:, 0], p[:, 1])))
    metres = _local_metres(geometries)
    return [
        GroundedObject(
            object_id=_identify(part, grid, slice_start), grid=grid.name, time=time, part=part, geometry=geometry,
            area_m2=area, length_m=length, width_m=width, orientation_deg=orientation,
        )
        for part, geometry, area, (length, width, orientation) in zip(
            parts, geometries, shapely.area(metres).tolist(), _measure(metres), strict=True
        )
    ]  # fmt: skip


def _outline(mask: Mask, grid: Grid) -> BaseGeometry:
    """A mask's outline along pixel edges, in the grid's CRS."""
    to_crs = grid.affine @ Affine.translation(mask.x0, mask.y0)
    inside = mask.to_array().astype(np.uint8)
    rings = [
        shapely.geometry.shape(shape) for shape, value in shapes(inside, connectivity=4, transform=to_crs) if value == 1
    ]
    return shapely.MultiPolygon(rings) if len(rings) > 1 else rings[0]


def _identify(part: Part, grid: Grid, slice_start: str) -> int:
    mask = part.mask
    key = f"{grid.crs}|{slice_start}|{part.label}|{mask.y0 + grid.lattice[0]}|{mask.x0 + grid.lattice[1]}|{mask.height}|{mask.width}|{mask.runs}"
    if part.prompted:
        key += "|" + "|".join(part.prompt_ids)
    return max(int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") >> 1, 1)


def measured_caption(found: GroundedObject, nearest_m: float | None) -> str:
    """What can be said of an object without a language model: sizes in metres and its neighbour."""
    label = found.part.label
    if label.startswith("no "):
        return label
    size = f"{label}, about {found.length_m:.0f} m long and {found.width_m:.0f} m wide"
    axis = ("north-south", "north-east to south-west", "east-west", "north-west to south-east")
    towards = f", lying {axis[round(found.orientation_deg / 45) % 4]}" if found.length_m > 1.3 * found.width_m else ""
    near = f", {nearest_m:.0f} m from the nearest other" if nearest_m is not None else ""
    return size + towards + near


def nearest_neighbours(objects: Sequence[GroundedObject]) -> list[float | None]:
    """Metres from each object's middle to that of the nearest other of its label and time; None where alone."""
    found: list[float | None] = [None] * len(objects)
    groups: dict[tuple[str, int], list[int]] = {}
    for at, each in enumerate(objects):
        groups.setdefault((each.part.label, each.time), []).append(at)
    for members in groups.values():
        if len(members) < 2:
            continue
        middles = np.array([objects[at].geometry.envelope.centroid.coords[0] for at in members])
        lon, lat = np.deg2rad(middles).T
        places = np.column_stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)]) * 6371008.8
        distance, _ = cKDTree(places).query(places, k=2)
        for at, metres in zip(members, distance[:, 1], strict=True):
            found[at] = float(metres)
    return found


def _local_metres(geometries: NDArray[np.object_]) -> NDArray[np.object_]:
    """Lon/lat geometries, each on the plane that touches the ellipsoid at its middle: x east, y north, metres.

    Radii of curvature: Torge, Geodesy, eq. 4.16 and 4.17.
    """
    middle = shapely.get_coordinates(shapely.centroid(shapely.envelope(geometries)))
    a, e2 = 6378137.0, 0.00669437999014
    latitude = np.deg2rad(middle[:, 1])
    normal = a / np.sqrt(1 - e2 * np.sin(latitude) ** 2)
    meridian = a * (1 - e2) / (1 - e2 * np.sin(latitude) ** 2) ** 1.5
    scale = np.deg2rad(1.0) * np.column_stack([normal * np.cos(latitude), meridian])
    points, owner = shapely.get_coordinates(geometries, return_index=True)
    moved: NDArray[np.object_] = shapely.set_coordinates(geometries.copy(), (points - middle[owner]) * scale[owner])
    return moved


def _measure(metres: NDArray[np.object_]) -> list[tuple[float, float, float]]:
    """Length, width and orientation of the smallest rectangle around each geometry in local metres."""
    measured = []
    for rectangle in shapely.oriented_envelope(metres):
        sides = np.diff(shapely.get_coordinates(rectangle)[:3], axis=0)
        lengths = np.hypot(*sides.T)
        east, north = sides[int(np.argmax(lengths))]
        angle = float(np.rad2deg(np.arctan2(east, north)) % 180.0)
        measured.append((float(lengths.max()), float(lengths.min()), angle))
    return measured

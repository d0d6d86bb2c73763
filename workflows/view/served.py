"""What the map asks of a result: its layers and slices, objects, reasons, changes, pictures.

Answers are plain values for JSON, or bytes of pictures. Each result is opened anew after a while,
so that one that grows is seen to grow.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pyproj
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.io import MemoryFile
from rasterio.transform import array_bounds

from earthgptx.pipeline.errors import JobError, OutputError
from earthgptx.pipeline.job.grid import Grid, Window
from earthgptx.pipeline.job.lonlat import LONLAT, bbox_area
from earthgptx.pipeline.planning.plan import Plan
from earthgptx.pipeline.results.find import Conditions, density, find
from earthgptx.pipeline.results.imagery import plan_of, scene_pixels
from earthgptx.pipeline.results.object_table import OBJECTS, outlines_of
from earthgptx.pipeline.results.query import find_objects
from earthgptx.pipeline.results.result import Result, open_result
from earthgptx.pipeline.results.slices_group import SliceRow
from earthgptx.pipeline.results.store import STATUS_WORDS
from earthgptx.workflows.formats import plain_value

FRESH_S = 5.0
"""Seconds after which a result is opened anew."""
OUTLINES = 3000
"""Objects that the map gets as outlines; more are counted by places."""
PLACES_A_SIDE = 40
"""Places by which they are counted along the longer side of the map."""
HITS = 100
"""Objects of a search that are listed."""
SCENE_PX, CROP_PX = 2048, 320
"""Longest side of a picture of the scene, and of one object."""


class Served:
    """A result that is served."""

    def __init__(self, url: str) -> None:
        """Opens a result.

        Raises:
            OutputError: there is none.
        """
        self.url = url
        self._lock = threading.Lock()
        self._opened, self._at = open_result(url), time.monotonic()
        self._plan: Plan | None = None

    @property
    def result(self) -> Result:
        """The result as it was a moment ago at most."""
        with self._lock:
            if time.monotonic() - self._at > FRESH_S:
                self._opened, self._at, self._plan = open_result(self.url), time.monotonic(), None
            return self._opened

    def about(self) -> dict[str, Any]:
        """Returns what the page has to know of the result."""
        result = self.result
        job = result.attrs["job"]
        rows = sorted(
            ((row, at) for at, row in enumerate(result.rows) if row.finished),
            key=lambda each: (each[0].start, each[0].name),
        )
        west, south, east, north = result.ground.bounds
        return {
            "url": self.url,
            "name": job["name"],
            "state": result.state,
            "phrases": job["tasks"]["find"],
            "status": {int(value): word for value, word in STATUS_WORDS.items()},
            "bounds": [west, south, east, north],
            "zones": [self._zone(result, name) for name in result.grids],
            "slices": [
                {
                    "name": row.name,
                    "start": f"{row.start:%Y-%m-%dT%H:%M:%SZ}",
                    "at": at,
                    "items": row.items,
                    "objects": row.objects,
                    "failed": row.failed,
                    "tiles": row.tiles,
                }
                for row, at in rows
            ],
        }

    def _zone(self, result: Result, name: str) -> dict[str, Any]:
        group: Any = result.root[name] if name else result.root
        attributes = dict(group.attrs)
        code = attributes["proj:code"]
        shapes: dict[str, list[int]] = result.attrs["grids"]
        rows, cols = shapes[name] if name else next(iter(shapes.values()))
        # Not `spatial:bbox`, which is that of whole blocks.
        west, south, east, north = array_bounds(
            rows, cols, Affine(*attributes["spatial:transform"])
        )
        return {
            "path": name,
            "code": code,
            "proj4": pyproj.CRS.from_user_input(code).to_proj4(),
            "extent": [west, south, east, north],
        }

    def _row(self, name: str) -> SliceRow:
        for row in self.result.rows:
            if row.name == name and row.finished:
                return row
        raise JobError(f"there is no finished time slice '{name}'")

    def objects(self, asked: dict[str, Any], slice_name: str, bbox: list[float]) -> dict[str, Any]:
        """Returns the objects of a slice in a part of the map: outlines, or counts by places."""
        west, south, east, north = bbox
        area = bbox_area(*bbox)
        files = [self.result.files_of([self._row(slice_name)], OBJECTS)]
        conditions = Conditions(within=area, **asked)
        step = max(east - west if east > west else east - west + 360, north - south) / PLACES_A_SIDE
        counted = density(files, conditions, max(step, 1e-9))
        total = sum(counted["objects"].to_pylist())
        if total > OUTLINES:
            return {"total": total, "places": counted.to_pylist()}
        found = find(files, conditions, limit=OUTLINES)
        return {"total": len(found), "features": _features(found)}

    def search(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Returns the objects that a search finds, the surest first."""
        found = find_objects([self.result], order="-score", limit=HITS + 1, **asked)
        features = _features(found.slice(0, HITS))
        return {"more": len(found) > HITS, "features": features}

    def why(self, lon: float, lat: float) -> list[dict[str, Any]]:
        """Returns what is known of a place."""
        return [
            {
                "time": each.time,
                "status": each.status,
                "label": each.label,
                "score": each.score,
                "object_id": str(each.object_id),
                "reason": each.reason,
            }
            for each in self.result.why(lon, lat)
        ]

    def changes(self, before: str, after: str) -> dict[str, Any]:
        """Returns what became of the objects of one slice in another."""
        found = self.result.diff(before, after)
        found = found.astype({"before_id": str, "after_id": str})
        features = [
            {
                "type": "Feature",
                "properties": {name: plain_value(value) for name, value in row.items()},
                "geometry": shapely.geometry.mapping(shape),
            }
            for row, shape in zip(
                found.drop(columns="geometry").to_dict("records"), found.geometry, strict=True
            )
        ]
        return {"type": "FeatureCollection", "features": features}

    @property
    def _planned(self) -> Plan:
        result = self.result
        with self._lock:
            if self._plan is None:
                self._plan = plan_of(result)
            return self._plan

    def scene(self, zone: str, slice_name: str) -> bytes:
        """Returns a picture of a zone's scene in a slice, as PNG, on the pixels of its raster."""
        plan = self._planned
        grid = self._grid(plan, zone)
        pixels = scene_pixels(plan, grid, self._time(plan, slice_name), grid.window, SCENE_PX)
        return _png(pixels)

    def crop(self, slice_name: str, bbox: list[float]) -> bytes:
        """Returns a picture of the scene around lon/lat bounds, as PNG."""
        plan = self._planned
        middle = bbox_area(*bbox).centroid
        for grid in plan.grids.values():
            move = pyproj.Transformer.from_crs(LONLAT, grid.crs, always_xy=True)
            xs, ys = move.transform([bbox[0], bbox[2], middle.x], [bbox[1], bbox[3], middle.y])
            cols, rows = zip(
                *(~grid.affine @ place for place in zip(xs, ys, strict=True)), strict=True
            )
            height, width = grid.shape
            if not (0 <= cols[2] < width and 0 <= rows[2] < height):
                continue
            half = max(24, int(0.9 * max(np.ptp(cols[:2]), np.ptp(rows[:2]))))
            y0, x0 = int(rows[2]) - half, int(cols[2]) - half
            window = Window(y0, x0, y0 + 2 * half, x0 + 2 * half) & grid.window
            return _png(scene_pixels(plan, grid, self._time(plan, slice_name), window, CROP_PX))
        raise JobError("the place lies outside the result")

    def _grid(self, plan: Plan, zone: str) -> Grid:
        if zone == "" and len(plan.grids) == 1:
            return next(iter(plan.grids.values()))
        if zone not in plan.grids:
            raise JobError(f"there is no zone '{zone}'")
        return plan.grids[zone]

    def _time(self, plan: Plan, slice_name: str) -> int:
        for at, piece in enumerate(plan.slices):
            if piece.name == slice_name:
                return at
        raise OutputError(f"the frozen Items show no time slice '{slice_name}'")


def _features(found: Any) -> list[dict[str, Any]]:
    """Returns a table of objects as GeoJSON features; ids as text, as they have 63 bits."""
    features = []
    outlines = outlines_of(found)
    for row, shape in zip(found.drop_columns("geometry").to_pylist(), outlines, strict=True):
        properties = {name: plain_value(value) for name, value in row.items()}
        properties |= {name: str(row[name]) for name in ("object_id", "track_id")}
        properties["bounds"] = shape.bounds
        geometry = shapely.geometry.mapping(shape)
        features.append({"type": "Feature", "properties": properties, "geometry": geometry})
    return features


def _png(pixels: NDArray[np.uint8]) -> bytes:
    """Returns (h, w, 3) uint8 as PNG; black pixels are transparent."""
    height, width, _ = pixels.shape
    alpha = np.where(pixels.any(axis=2), 255, 0).astype(np.uint8)
    with rasterio.Env(GDAL_PAM_ENABLED="NO"), MemoryFile() as file:
        with file.open(driver="PNG", height=height, width=width, count=4, dtype="uint8") as png:
            png.write(np.concatenate([np.moveaxis(pixels, -1, 0), alpha[None]]))
        return bytes(file.read())

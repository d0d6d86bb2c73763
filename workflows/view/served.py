"""What the map asks of a result: its layers and slices, objects, reasons, changes, pictures.

Answers are plain values for JSON, or bytes of pictures. Each result is opened anew after a while,
so that one that grows is seen to grow.
"""

from __future__ import annotations

import threading
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyproj
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.io import MemoryFile
from rasterio.transform import array_bounds

from earthgptx.catalogs.redaction import redacted
from earthgptx.pipeline.errors import JobError
from earthgptx.pipeline.job.grid import Grid, Window
from earthgptx.pipeline.job.lonlat import LONLAT, bbox, bbox_area
from earthgptx.pipeline.job.lonlat import middle as middle_of
from earthgptx.pipeline.planning.plan import Plan
from earthgptx.pipeline.results.conditions import Conditions
from earthgptx.pipeline.results.find import find
from earthgptx.pipeline.results.formats import features
from earthgptx.pipeline.results.imagery import plan_of, scene_pixels, time_of
from earthgptx.pipeline.results.lattice import density
from earthgptx.pipeline.results.object_table import OBJECTS, outlines_of
from earthgptx.pipeline.results.query import find_objects
from earthgptx.pipeline.results.result import Result, open_result
from earthgptx.pipeline.results.slices_group import SliceRow
from earthgptx.pipeline.results.store import STATUS_WORDS

FRESH_S = 5.0
"""Seconds after which a result is opened anew."""
OUTLINES = 3000
"""Objects that the map gets as outlines; more are counted by places."""
PLACES_A_SIDE = 40
"""Places by which they are counted along the longer side of the map."""
HITS = 100
"""Objects of a search that are listed."""
TRACK = 1000
"""Objects of a track that are shown."""
SCENE_PX, CROP_PX = 2048, 320
"""Longest side of a picture of the scene, and of one object."""
CROP_MOST = 2000
"""Half of the side that a picture of one object may read, in pixels."""
PICTURES = 40
"""Pictures that are kept."""


class Served:
    """A result that is served."""

    def __init__(self, url: str) -> None:
        """Sets the URL of a result, which is opened when it is asked for."""
        self.url = url
        self._opening, self._reading = threading.Lock(), threading.Lock()
        self._opened: Result | None = None
        self._at = 0.0
        self._plan: tuple[tuple[str, ...], Plan] | None = None
        self._pictures: OrderedDict[tuple[str, ...], bytes] = OrderedDict()

    @property
    def result(self) -> Result:
        """The result as it was a moment ago at most.

        Raises:
            OutputError: there is none any more.
        """
        with self._opening:
            if self._opened is None or time.monotonic() - self._at > FRESH_S:
                self._opened, self._at = open_result(self.url), time.monotonic()
            return self._opened

    def about(self) -> dict[str, Any]:
        """Returns what the page has to know of the result."""
        result = self.result
        job = result.attrs["job"]
        rows = sorted(
            ((row, at) for at, row in enumerate(result.rows) if row.finished),
            key=lambda each: (each[0].start, each[0].name),
        )
        west, south, east, north = bbox(result.ground)
        return {
            "url": redacted(self.url),
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
        code = attributes.get("proj:code")
        shapes: dict[str, list[int]] = result.attrs["grids"]
        rows, cols = shapes[name] if name else next(iter(shapes.values()))
        # Not `spatial:bbox`, which is that of whole blocks.
        extent = array_bounds(rows, cols, Affine(*attributes["spatial:transform"]))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a PROJ string is what the page's library reads
            proj4 = pyproj.CRS.from_user_input(code or attributes["proj:wkt2"]).to_proj4()
        return {
            "path": name,
            "code": code or f"zone:{name}",
            "has_code": code is not None,
            "proj4": proj4,
            "extent": list(extent),
        }

    def _row(self, name: str) -> SliceRow:
        for row in self.result.rows:
            if row.name == name and row.finished:
                return row
        raise JobError(f"there is no finished time slice '{name}'")

    def objects(
        self, asked: dict[str, Any], slice_name: str, bounds: list[float]
    ) -> dict[str, Any]:
        """Returns the objects of a slice in a part of the map: outlines, or counts by places."""
        west, south, east, north = bounds
        area = bbox_area(*bounds)
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

    def track(self, track: int) -> dict[str, Any]:
        """Returns the objects of a track, in the order of time."""
        found = find_objects([self.result], track=track, order="time", limit=TRACK)
        return {"features": _features(found)}

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

    def changes(self, before: str, after: str, asked: dict[str, Any]) -> dict[str, Any]:
        """Returns what became of the objects of one slice that satisfy conditions in another."""
        if before == after:
            raise JobError("a time slice is compared with itself; choose another one")
        found = self.result.diff(before, after, **asked)
        made: dict[str, Any] = found.astype({"before_id": str, "after_id": str}).to_geo_dict()
        return made

    def _pictured(self, what: tuple[str, ...], draw: Callable[[Plan], NDArray[np.uint8]]) -> bytes:
        """Returns a picture of imagery, as PNG; those of late are kept.

        One at a time is read: each holds as much memory as it may.
        """
        result = self.result
        state = tuple(row.key for row in result.rows)
        with self._reading:
            if self._plan is None or self._plan[0] != state:
                self._plan = state, plan_of(result)
                self._pictures.clear()
            if what not in self._pictures:
                self._pictures[what] = _png(draw(self._plan[1]))
            self._pictures.move_to_end(what)
            while len(self._pictures) > PICTURES:
                self._pictures.popitem(last=False)
            return self._pictures[what]

    def scene(self, zone: str, slice_name: str) -> bytes:
        """Returns a picture of a zone's scene in a slice, as PNG, on the pixels of its raster."""

        def draw(plan: Plan) -> NDArray[np.uint8]:
            grid, at = _grid(plan, zone), time_of(plan, slice_name)
            return scene_pixels(plan, grid, at, grid.window, SCENE_PX)

        return self._pictured((zone, slice_name), draw)

    def crop(self, slice_name: str, bounds: list[float]) -> bytes:
        """Returns a picture of the scene around lon/lat bounds, as PNG."""

        def draw(plan: Plan) -> NDArray[np.uint8]:
            grid, window = _crop_window(plan, bounds)
            return scene_pixels(plan, grid, time_of(plan, slice_name), window, CROP_PX)

        return self._pictured(("crop", slice_name, str(bounds)), draw)


def _crop_window(plan: Plan, bounds: list[float]) -> tuple[Grid, Window]:
    """Returns a square around lon/lat bounds, in the grid that shows their middle.

    Raises:
        JobError: no grid does, or the square is larger than a picture may read.
    """
    west, south, east, north = bounds
    middle = middle_of(bbox_area(*bounds))
    for grid in plan.grids.values():
        move = pyproj.Transformer.from_crs(LONLAT, grid.crs, always_xy=True)
        xs, ys = move.transform([west, east, middle.x], [south, north, middle.y])
        places = [~grid.affine @ place for place in zip(xs, ys, strict=True)]
        (x0, y0), (x1, y1), (x, y) = places
        height, width = grid.shape
        if not (0 <= x < width and 0 <= y < height):
            continue
        half = max(24, int(0.9 * max(abs(x1 - x0), abs(y1 - y0))))
        if half > CROP_MOST:
            raise JobError("that is too large for a picture; zoom in")
        return grid, Window(
            int(y) - half, int(x) - half, int(y) + half, int(x) + half
        ) & grid.window
    raise JobError("the place lies outside the result")


def _grid(plan: Plan, zone: str) -> Grid:
    if zone == "" and len(plan.grids) == 1:
        return next(iter(plan.grids.values()))
    if zone not in plan.grids:
        raise JobError(f"there is no zone '{zone}'")
    return plan.grids[zone]


def _features(found: pa.Table) -> list[dict[str, Any]]:
    """Returns a table of objects as GeoJSON features that know their bounds."""
    made = features(found)
    for feature, shape in zip(made, outlines_of(found), strict=True):
        feature["properties"]["bounds"] = bbox(shape)
    return made


def _png(pixels: NDArray[np.uint8]) -> bytes:
    """Returns (h, w, 3) uint8 as PNG; black pixels are transparent."""
    height, width, _ = pixels.shape
    alpha = np.where(pixels.any(axis=2), 255, 0).astype(np.uint8)
    with (
        warnings.catch_warnings(),
        rasterio.Env(GDAL_PAM_ENABLED="NO"),
        MemoryFile() as file,
    ):
        warnings.simplefilter("ignore")  # a picture has no place on the ground
        with file.open(driver="PNG", height=height, width=width, count=4, dtype="uint8") as png:
            png.write(np.concatenate([np.moveaxis(pixels, -1, 0), alpha[None]]))
        return bytes(file.read())

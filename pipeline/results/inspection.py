"""Inspects a result before anybody builds on it: seams, holes, drift, duplicates, cut objects.

Each is measured against the rest of the same time slice: what is as frequent on borders of tiles
and blocks as elsewhere is no fault of theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pyproj
import shapely
from affine import Affine
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from earthgptx.pipeline.errors import JobError
from earthgptx.pipeline.job.lonlat import LONLAT
from earthgptx.pipeline.objects.overlap import Shapes, overlapping
from earthgptx.pipeline.results.drift import drift
from earthgptx.pipeline.results.find import every_row
from earthgptx.pipeline.results.object_table import OBJECTS, outlines_of
from earthgptx.pipeline.results.result import Result
from earthgptx.pipeline.results.seams import BLOCK, TILE, Lines, seam, step_of
from earthgptx.pipeline.results.slices_group import SliceRow
from earthgptx.pipeline.results.store import Status

LAYERS: tuple[Literal["label", "score"], ...] = ("label", "score")
SURE = 5.0
"""Standard deviations from which a measure is no chance."""
PLACES = 20
"""Places of a fault that are told."""
CUT_PX = 6
"""Length of a straight edge from which an object counts as cut, in pixels."""
EXACT_PX = 0.02
"""Distance from a line within which an edge lies on it, in pixels."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a result may have at most; what is None is not measured."""

    seam: float | None = 1.5
    """Rate of changes on borders, divided by that inside."""
    holes: float | None = 0
    """Pixels without any answer in blocks that have answers."""
    step: float | None = 0.05
    """Mean step of scores across the border of two blocks, 0..1."""
    drift: float | None = 0.2
    """Distance of scores from those of the slices before; see `drift.distance`."""
    duplicates: float | None = 0.01
    """Share of objects that another one of their label overlaps."""
    cut: float | None = 2.0
    """Rate of straight edges of objects on borders, divided by that on other lines."""


@dataclass(slots=True)
class Measure:
    """One measure of a time slice."""

    slice: str
    zone: str
    measure: str
    value: float
    bound: float
    holds: bool
    places: list[tuple[float, float, float, float]] = field(default_factory=list)
    """Lon/lat bounds of where it is worst."""


def inspect(result: Result, bounds: Bounds, slices: Sequence[str] = ()) -> list[Measure]:
    """Measures finished time slices of a result.

    Args:
        result: the result.
        bounds: what it may have.
        slices: names of slices; empty for all.

    Raises:
        JobError: there is no such slice.
        OutputError: no slice is finished yet.
    """
    rows = result.slices_in_time
    unknown = sorted(set(slices) - {row.name for row in rows})
    if unknown:
        raise JobError(f"there is no finished time slice '{unknown[0]}'")
    found: list[Measure] = []
    for at, row in enumerate(rows):
        if not slices or row.name in slices:
            found += inspect_slice(result, rows, at, bounds)
    return found


def inspect_slice(
    result: Result, rows: Sequence[SliceRow], at: int, bounds: Bounds
) -> Iterator[Measure]:
    """Measures one time slice.

    Args:
        result: the result.
        rows: its finished slices in the order of time.
        at: number of the slice among them.
        bounds: what it may have.
    """
    row = rows[at]
    if any(bound is not None for bound in (bounds.seam, bounds.holes, bounds.step)):
        for zone in result.grids:
            yield from _of_rasters(_Raster(result, zone, at, row.name), bounds)
    yield from _of_objects(result, row, bounds)
    if bounds.drift is not None:
        moved = drift(result, rows, at)
        if moved is not None:
            yield Measure(row.name, "", "drift", moved, bounds.drift, moved <= bounds.drift)


class _Raster:
    """The raster of a zone in a slice, read block by block."""

    def __init__(self, result: Result, zone: str, at: int, name: str) -> None:
        self.zone, self.name, self._at = zone, name, at
        self._layer = result.layer("raster", zone)
        spec = result.attrs["job"]["grid"]
        self.block_px = int(spec["block_px"])
        self.core_px = int(spec["tile_px"] - 2 * spec["halo_px"])
        self.height, self.width = self._layer.sizes["y"], self._layer.sizes["x"]
        attributes = self._layer.attrs
        self._affine = Affine(*attributes["spatial:transform"])
        crs = self._layer["spatial_ref"].attrs["crs_wkt"]
        self._to_lonlat = pyproj.Transformer.from_crs(crs, LONLAT, always_xy=True)
        self._from_lonlat = pyproj.Transformer.from_crs(LONLAT, crs, always_xy=True)

    def blocks(self) -> Iterator[tuple[int, int]]:
        """Yields the first row and column of each block."""
        for y0 in range(0, self.height, self.block_px):
            for x0 in range(0, self.width, self.block_px):
                yield y0, x0

    def read(self, name: str, y0: int, x0: int, y1: int, x1: int) -> NDArray[np.uint8]:
        """Returns a window of a layer as it is stored, cut at the borders of the raster."""
        rows, cols = slice(max(y0, 0), y1), slice(max(x0, 0), x1)
        found = np.asarray(self._layer[name].isel(time=self._at, y=rows, x=cols).values)
        # xarray has divided scores by 255.
        return np.rint(found * 255).astype(np.uint8) if found.dtype.kind == "f" else found

    def lonlat(self, y0: int, x0: int, y1: int, x1: int) -> tuple[float, float, float, float]:
        """Returns the lon/lat bounds of a window."""
        corners = [self._affine @ corner for corner in ((x0, y0), (x1, y0), (x1, y1), (x0, y1))]
        xs, ys = (list(each) for each in zip(*corners, strict=True))
        lon, lat = self._to_lonlat.transform(xs, ys)
        return min(lon), min(lat), max(lon), max(lat)

    def pixels(self, outlines: NDArray[np.object_]) -> NDArray[np.object_]:
        """Returns lon/lat outlines in pixels of the raster."""

        def move(points: NDArray[np.float64]) -> NDArray[np.float64]:
            placed = self._from_lonlat.transform(points[:, 0], points[:, 1])
            return np.column_stack(~self._affine @ placed)

        return np.asarray(shapely.transform(outlines, move))


def _of_rasters(raster: _Raster, bounds: Bounds) -> list[Measure]:
    """Measures seams, steps between blocks, and holes, in one reading."""
    columns, rows = (
        Lines(count, raster.core_px, raster.block_px) for count in (raster.width, raster.height)
    )
    steps: list[tuple[float, tuple[int, int, int, int]]] = []
    holes: list[tuple[int, tuple[int, int, int, int]]] = []
    side = raster.block_px
    for y0, x0 in raster.blocks():
        y1, x1 = min(y0 + side, raster.height), min(x0 + side, raster.width)
        status = raster.read("status", y0 - 1, x0 - 1, y1, x1)
        if not status.any():
            continue
        label, score = (raster.read(name, y0 - 1, x0 - 1, y1, x1) for name in ("label", "score"))
        top, left = min(y0, 1), min(x0, 1)
        mine = status[top:, left:]
        if mine.any() and (empty := int((mine == Status.NO_ANSWER).sum())):
            holes.append((empty, (y0, x0, y1, x1)))
        answered = status == Status.DONE
        for flipped, lines in ((False, columns), (True, rows)):
            front, drop = (top, left) if flipped else (left, top)
            # Without the pixels beside the line that are not the block's own.
            labels = (label.T if flipped else label)[drop:]
            scores = (score.T if flipped else score)[drop:]
            known = (answered.T if flipped else answered)[drop:]
            # At the border of the raster there is no pixel in front of the first.
            lines.add((y0 if flipped else x0) + 1 - front, labels, scores, known)
            if front:
                step, surety = step_of(scores[:, 0], scores[:, 1], known[:, 0] & known[:, 1])
                if surety > SURE:
                    place = (y0 - 1, x0, y0 + 1, x1) if flipped else (y0, x0 - 1, y1, x0 + 1)
                    steps.append((abs(step), place))
    seams = _seams(raster, (columns, rows), bounds)
    return [*seams, *_steps_and_holes(raster, steps, holes, bounds)]


def _seams(raster: _Raster, directions: tuple[Lines, Lines], bounds: Bounds) -> Iterator[Measure]:
    if bounds.seam is None:
        return
    for kind, border in ((TILE, "tiles"), (BLOCK, "blocks")):
        for layer in LAYERS:
            measured = seam(directions, layer, kind)
            if measured is not None:
                ratio, surety = measured
                holds = ratio <= bounds.seam or surety < SURE
                name = f"{layer} seams of {border}"
                yield Measure(raster.name, raster.zone, name, ratio, bounds.seam, holds)


def _steps_and_holes(
    raster: _Raster,
    steps: list[tuple[float, tuple[int, int, int, int]]],
    holes: list[tuple[int, tuple[int, int, int, int]]],
    bounds: Bounds,
) -> Iterator[Measure]:
    if bounds.step is not None:
        most = bounds.step
        steps.sort(reverse=True)
        worst = steps[0][0] if steps else 0.0
        wrong = [raster.lonlat(*place) for step, place in steps if step > most]
        yield Measure(raster.name, raster.zone, "step", worst, most, not wrong, wrong[:PLACES])
    if bounds.holes is not None:
        holes.sort(reverse=True)
        count = sum(each for each, _ in holes)
        places = [raster.lonlat(*place) for _, place in holes[:PLACES]]
        holds = count <= bounds.holes
        yield Measure(raster.name, raster.zone, "holes", count, bounds.holes, holds, places)


def _of_objects(result: Result, row: SliceRow, bounds: Bounds) -> Iterator[Measure]:
    """Measures duplicates, and objects that are cut straight along borders."""
    if bounds.duplicates is None and bounds.cut is None:
        return
    table = every_row(result.files_of([row], OBJECTS), OBJECTS, ["object_id", "label", "geometry"])
    outlines = outlines_of(table)
    if bounds.duplicates is not None:
        labels = np.array([*table["label"].to_pylist(), None], object)[:-1]
        shapes = Shapes(outlines, labels, np.asarray(table["object_id"].to_numpy()))
        pairs = overlapping(shapes, shapes)
        twice = np.unique(pairs.old[pairs.old < pairs.new])
        share = len(twice) / max(len(outlines), 1)
        places = [_bounds(outlines[at]) for at in twice[:PLACES]]
        holds = share <= bounds.duplicates
        yield Measure(row.name, "", "duplicates", share, bounds.duplicates, holds, places)
    if bounds.cut is not None:
        for zone in result.grids:
            yield _cuts(_Raster(result, zone, 0, row.name), outlines, bounds.cut)


def _bounds(shape: BaseGeometry) -> tuple[float, float, float, float]:
    west, south, east, north = map(float, shape.bounds)
    return west, south, east, north


def _cuts(raster: _Raster, outlines: NDArray[np.object_], most: float) -> Measure:
    """Compares how often straight edges of objects lie on borders of tiles and on other lines."""
    flat = raster.pixels(outlines)
    on_border = elsewhere = 0
    places = []
    for outline, shape in zip(flat, outlines, strict=True):
        west, south, east, north = outline.bounds
        if east < 0 or south > raster.height or west > raster.width or north < 0:
            continue
        border, other = _straight(outline, raster)
        on_border, elsewhere = on_border + border, elsewhere + other
        if border:
            places.append(_bounds(shape))
    expected = elsewhere / (raster.core_px - 1)
    ratio = on_border / expected if expected else (np.inf if on_border else 1.0)
    surety = (on_border - expected) / np.sqrt(max(expected, 1.0))
    holds = ratio <= most or surety < SURE
    return Measure(
        raster.name,
        raster.zone,
        "cut objects",
        float(ratio),
        most,
        bool(holds),
        [] if holds else places[:PLACES],
    )


def _straight(outline: BaseGeometry, raster: _Raster) -> tuple[int, int]:
    """Returns the number of long straight edges on borders of tiles, and on other lines."""
    on_border = elsewhere = 0
    for polygon in shapely.get_parts(outline):
        points = shapely.get_coordinates(polygon.exterior)
        for axis, size in ((0, raster.width), (1, raster.height)):
            along = np.abs(np.diff(points[:, axis])) < EXACT_PX
            length = np.abs(np.diff(points[:, 1 - axis]))
            lines = points[:-1, axis][along & (length >= CUT_PX)]
            whole = np.abs(lines - np.round(lines)) < EXACT_PX
            at = np.round(lines[whole]).astype(int)
            at = at[(at > 0) & (at < size)]  # there the raster ends
            on_border += int((at % raster.core_px == 0).sum())
            elsewhere += int((at % raster.core_px != 0).sum())
    return on_border, elsewhere

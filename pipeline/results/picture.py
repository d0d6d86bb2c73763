"""Draws a result as PNG: the scene with its objects, and captioned close-ups of a few.

Reads the imagery of the result's Items again.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import pyproj
import shapely
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from earthgptx.pipeline.job.grid import Grid, Window
from earthgptx.pipeline.job.lonlat import LONLAT
from earthgptx.pipeline.planning.plan import Plan
from earthgptx.pipeline.results.chosen import chosen
from earthgptx.pipeline.results.colours import colours_of
from earthgptx.pipeline.results.conditions import Conditions
from earthgptx.pipeline.results.find import find
from earthgptx.pipeline.results.imagery import plan_of, scene_pixels, time_of
from earthgptx.pipeline.results.lattice import density, surest
from earthgptx.pipeline.results.object_table import OBJECTS, to_frame
from earthgptx.pipeline.results.png_file import save
from earthgptx.pipeline.results.result import Result
from earthgptx.pipeline.results.slices_group import SliceRow

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

SIDE_PX = 1800
"""Longest side in pixels that is drawn at full resolution; larger scenes are subsampled."""
NAMED = 12
"""Number of objects that get a number, a close-up and a caption."""
OUTLINES = 10_000
"""Objects that are drawn one by one; more are drawn as their density."""
PLACES, CANDIDATES = 300, 8
"""Places along the longer side by which objects are counted, and of whose surest some are named."""
WIDE = 1.4
"""Aspect ratio (width / height) from which close-ups go below the scene instead of beside it."""
LOOKS: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "text.color": "white",
    "text.parse_math": False,  # names and captions are somebody else's words: no formulas
}
DARK, PALE = "#101418", "#9fb3c8"


@dataclass(slots=True)
class _Shown:
    """What a picture shows of the objects of a zone and time slice."""

    total: int
    outlines: list[shapely.Geometry]
    """In pixels of the grid; squares by which the objects are counted if there are too many."""
    labels: list[str]
    counts: list[int] | None
    """Number of objects in each square; None if outlines are those of objects."""
    named: pd.DataFrame
    """Rows of the objects that are shown close up, from left to right."""
    named_outlines: list[shapely.Geometry]


def draw(result: Result, png: str | Path, *, title: str = "") -> None:
    """Draws the zone and time slice with the most objects.

    Many objects are drawn as their density. Close-ups show the surest of each label, far apart.

    Args:
        result: a result with finished time slices.
        png: path of the image to write.
        title: title of the figure; empty for job name and phrases.

    Raises:
        OutputError: no slice is finished, or the imagery can no longer be read.
    """
    _ = result.time_slices  # raises if there are none
    job = plan_of(result)
    grid, row = _fullest(result, job)
    shown = _shown(result, grid, row)
    time, window = time_of(job, row.name), _window(grid, shown.outlines)
    colours = colours_of(result.attrs["job"]["tasks"]["find"], [*shown.labels, *shown.named.label])
    with mpl.rc_context(LOOKS):
        figure, axes, closeups = _layout(window, len(shown.named))
        axes.imshow(
            scene_pixels(job, grid, time, window, SIDE_PX),
            interpolation="nearest",
            extent=_extent(window),
        )
        _draw_objects(axes, shown, colours)
        for number, outline in enumerate(shown.named_outlines, start=1):
            told = shown.named.iloc[number - 1]
            colour, panel, crop = colours[told.label], closeups[number - 1], _closeup(grid, outline)
            _badge(axes, number, outline, colour)
            panel.imshow(
                scene_pixels(job, grid, time, crop, SIDE_PX),
                interpolation="nearest",
                extent=_extent(crop),
            )
            _outline(panel, [outline], [colour], width=1.6)
            _caption(panel, number, told, colour)
        name = title or (
            f"{result.attrs['job']['name']}: "
            f"{', '.join(result.attrs['job']['tasks']['find']) or 'prompts'}"
        )
        found = f"{shown.total:,} objects"
        if shown.counts:
            found += f" as their density (up to {max(shown.counts):,} in a square)"
        about = f"{found}, {row.start:%Y-%m-%d}, {job.modality}, model {job.traits.name}"
        axes.set_title(name, loc="left", color="white", fontsize=13, weight="bold")
        axes.set_title(about, loc="right", color=PALE, fontsize=9)
        _scale_bar(axes, grid, window)
        figure.set_layout_engine("constrained", h_pad=0.1)
        save(figure, png)


def _fullest(result: Result, job: Plan) -> tuple[Grid, SliceRow]:
    """Returns the zone and time slice with the most objects; the first of equal ones."""
    counts: dict[tuple[str, str], int] = {}
    rows = {row.name: row for row in result.slices_in_time}
    for zone, grid in job.grids.items():
        for name, row in rows.items():
            files = [result.files_of([row], OBJECTS)]
            whole = row.objects if len(job.grids) == 1 else None
            within = Conditions(within=_lonlat_extent(grid))
            counts[zone, name] = _total(density(files, within, 360.0)) if whole is None else whole
    zone, name = max(counts, key=lambda key: counts[key])
    return job.grids[zone], rows[name]


def _total(counted: pa.Table) -> int:
    return sum(counted["objects"].to_pylist())


def _shown(result: Result, grid: Grid, row: SliceRow) -> _Shown:
    """Asks for the objects of a zone in a time slice."""
    files, extent = [result.files_of([row], OBJECTS)], _lonlat_extent(grid)
    conditions = Conditions(within=extent)
    west, south, east, north = extent.bounds
    side = max(east - west, north - south)
    counted = density(files, conditions, side / PLACES)
    many = _total(counted) > OUTLINES
    table = surest(files, conditions, side / CANDIDATES) if many else find(files, conditions)
    rows = to_frame(table)
    outlines = _to_pixels(grid, list(rows.geometry))
    middles = np.array([shape.centroid.coords[0] for shape in outlines]).reshape(-1, 2)
    picks = chosen(rows["label"].tolist(), rows["score"].to_numpy(), middles, NAMED)
    picks.sort(key=lambda at: outlines[at].bounds[:2])
    named, named_outlines = rows.iloc[picks], [outlines[at] for at in picks]
    if not many:
        return _Shown(len(rows), outlines, rows["label"].tolist(), None, named, named_outlines)
    corners = zip(counted["west"].to_pylist(), counted["south"].to_pylist(), strict=True)
    step = side / PLACES
    squares = [shapely.box(x, y, x + step, y + step) for x, y in corners]
    return _Shown(
        _total(counted),
        _to_pixels(grid, squares),
        counted["label"].to_pylist(),
        counted["objects"].to_pylist(),
        named,
        named_outlines,
    )


def _draw_objects(axes: mpl.axes.Axes, shown: _Shown, colours: Mapping[str, str]) -> None:
    shades = [colours[label] for label in shown.labels]
    if shown.counts is None:
        _outline(axes, shown.outlines, shades, width=1.0)
        return
    # By logarithm: a harbour holds a thousand times as many as open water.
    dense = np.log1p(shown.counts) / np.log1p(max(shown.counts))
    filled = [
        mpl.colors.to_rgba(shade, alpha)
        for shade, alpha in zip(shades, 0.15 + 0.75 * dense, strict=True)
    ]
    corners = [shapely.get_coordinates(square) for square in shown.outlines]
    axes.add_collection(
        PolyCollection(corners, facecolors=filled, edgecolors="none"), autolim=False
    )


def _layout(window: Window, closeups: int) -> tuple[Figure, mpl.axes.Axes, list[mpl.axes.Axes]]:
    """Returns a figure, the axes of the scene, and those of the close-ups below or beside it."""
    aspect = window.shape[1] / window.shape[0]
    columns = 6 if aspect >= WIDE else 3
    rows = max(-(-closeups // columns), 1)
    if aspect >= WIDE:
        scene, below = max(15 / aspect, 2.5) + 0.4, 3.0 * rows
        figure = Figure(figsize=(15, scene + below), facecolor=DARK, layout="constrained")
        parts = figure.subfigures(2, 1, height_ratios=(scene, below))
    else:
        scene = 9 * aspect
        figure = Figure(figsize=(scene + 7.2, 9.4), facecolor=DARK, layout="constrained")
        parts = figure.subfigures(1, 2, width_ratios=(scene, 7.2))
    upper, lower = np.asarray(parts).tolist()
    axes, small = upper.subplots(), np.atleast_1d(lower.subplots(rows, columns)).ravel().tolist()
    for part in (upper, lower):
        part.set_facecolor(DARK)
    for each in (axes, *small):
        # Not `set_axis_off`: the layout reserves room for the caption below a close-up only if
        # the axis is on.
        each.set(xticks=[], yticks=[], facecolor=DARK)
        each.spines[:].set_visible(False)
    return figure, axes, small


def _lonlat_extent(grid: Grid) -> shapely.Polygon:
    return grid.geobox(grid.window).extent.to_crs("EPSG:4326").geom


def _window(grid: Grid, outlines: list[shapely.Geometry]) -> Window:
    """Returns a window around all objects; the whole grid if there are none."""
    if not outlines:
        return grid.window
    x0, y0, x1, y1 = shapely.total_bounds(np.array(outlines, object))
    margin = int(0.06 * max(x1 - x0, y1 - y0)) + 24
    return Window(int(y0), int(x0), int(y1) + 1, int(x1) + 1).grown(margin) & grid.window


def _closeup(grid: Grid, outline: shapely.Geometry) -> Window:
    """Returns a square around an object, at least 48 pixels wide, shifted into the grid."""
    x0, y0, x1, y1 = outline.bounds
    half = max(24, int(0.9 * max(x1 - x0, y1 - y0)))
    height, width = grid.shape
    top = max(min(int((y0 + y1) / 2) - half, height - 2 * half), 0)
    left = max(min(int((x0 + x1) / 2) - half, width - 2 * half), 0)
    return Window(top, left, top + 2 * half, left + 2 * half) & grid.window


def _extent(window: Window) -> tuple[float, float, float, float]:
    return window.x0, window.x1, window.y1, window.y0


def _to_pixels(grid: Grid, shapes: Sequence[shapely.Geometry]) -> list[shapely.Geometry]:
    transformer = pyproj.Transformer.from_crs(LONLAT, grid.crs, always_xy=True)

    def move(points: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.column_stack(~grid.affine @ transformer.transform(points[:, 0], points[:, 1]))

    # All in one call: a call of pyproj takes some milliseconds, however many points it transforms.
    return shapely.transform(np.array(shapes, object), move).tolist()


def _outline(
    axes: mpl.axes.Axes, outlines: list[shapely.Geometry], colours: list[str], *, width: float
) -> None:
    lines, shades = [], []
    for shape, colour in zip(outlines, colours, strict=True):
        for polygon in getattr(shape, "geoms", [shape]):
            lines.append(shapely.get_coordinates(polygon.exterior))
            shades.append(colour)
    axes.add_collection(LineCollection(lines, colors=shades, linewidths=width), autolim=False)


def _badge(axes: mpl.axes.Axes, number: int, outline: shapely.Geometry, colour: str) -> None:
    x0, y0, x1, y1 = outline.bounds
    box = mpl.patches.Rectangle(
        (x0 - 3, y0 - 3), x1 - x0 + 6, y1 - y0 + 6, fill=False, ec=colour, lw=0.6, alpha=0.8
    )
    axes.add_patch(box)
    axes.text(
        x1 + 5,
        y0,
        str(number),
        color=DARK,
        fontsize=7.5,
        weight="bold",
        va="bottom",
        clip_on=True,
        bbox={"boxstyle": "round,pad=0.15", "fc": colour, "ec": "none"},
    )


def _caption(axes: mpl.axes.Axes, number: int, row: pd.Series, colour: str) -> None:
    axes.set_title(
        f"{number}  {row['label']}  {row['score']:.2f}",
        loc="left",
        color=colour,
        fontsize=8.5,
        pad=3,
    )
    axes.set_xlabel(textwrap.fill(row["caption"], 38), loc="left", color="white", fontsize=7.5)


def _scale_bar(axes: mpl.axes.Axes, grid: Grid, window: Window) -> None:
    middle = grid.geobox(window).extent.to_crs("EPSG:4326").geom.centroid
    [one] = _to_pixels(
        grid, [shapely.LineString([(middle.x, middle.y), (middle.x, middle.y + 0.001)])]
    )
    per_metre = one.length / (0.001 * 110_574)
    sides = [
        m
        for m in (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 50000)
        if m * per_metre < window.shape[1] / 4
    ]
    metres = max(sides, default=10)
    x, y = window.x0 + window.shape[1] * 0.03, window.y0 + window.shape[0] * 0.97
    axes.plot([x, x + metres * per_metre], [y, y], color="white", lw=2.5)
    text = f"{metres} m" if metres < 1000 else f"{metres // 1000} km"
    axes.text(x, y - window.shape[0] * 0.015, text, va="bottom")

"""Draws a result as PNG: the scene with outlined objects, and captioned close-ups.

Reads the imagery of the result's Items again.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import geopandas as gpd
import matplotlib as mpl
import numpy as np
import pandas as pd
import pyproj
import shapely
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from earthgptx.pipeline.job.grid import Grid, Window
from earthgptx.pipeline.job.lonlat import LONLAT
from earthgptx.pipeline.planning.plan import Plan
from earthgptx.pipeline.results.imagery import plan_of, scene_pixels
from earthgptx.pipeline.results.result import Result

SIDE_PX = 1800
"""Longest side in pixels that is drawn at full resolution; larger scenes are subsampled."""
NAMED = 12
"""Number of objects that get a number, a close-up and a caption."""
WIDE = 1.4
"""Aspect ratio (width / height) from which close-ups go below the scene instead of beside it."""
COLOURS = ("#ffd166", "#06d6a0", "#ef476f", "#4cc9f0", "#f78c6b", "#c77dff")
DARK, PALE = "#101418", "#9fb3c8"


def draw(result: Result, png: str | Path, *, title: str = "") -> None:
    """Draws the grid and time slice with the most objects.

    Close-ups show the highest-scoring objects.

    Args:
        result: a finished result.
        png: path of the image to write.
        title: title of the figure; empty for job name and phrases.

    Raises:
        OutputError: the run is not finished, or its imagery can no longer be read.
    """
    objects = result.objects
    job = plan_of(result)
    grid, time = _fullest(job, objects)
    moment = job.slices[time].start
    shown = objects[
        (objects["slice"] == moment) & objects.intersects(_lonlat_extent(grid))
    ].reset_index(drop=True)
    outlines = _to_pixels(grid, list(shown.geometry))
    window = _window(grid, outlines)
    colours = {
        label: COLOURS[at % len(COLOURS)] for at, label in enumerate(sorted(set(shown["label"])))
    }
    surest = np.lexsort([-shown["area_m2"], -shown["score"]])[:NAMED].tolist()
    named = sorted(surest, key=lambda at: outlines[at].bounds[:2])
    with mpl.rc_context({"font.family": "DejaVu Sans", "font.size": 8, "text.color": "white"}):
        figure, axes, closeups = _layout(window, len(named))
        axes.imshow(
            scene_pixels(job, grid, time, window, SIDE_PX),
            interpolation="nearest",
            extent=_extent(window),
        )
        _outline(axes, outlines, [colours[label] for label in shown["label"]], width=1.0)
        for number, at in enumerate(named, start=1):
            row, outline = shown.iloc[at], outlines[at]
            _badge(axes, number, outline, colours[row["label"]])
            crop = _closeup(grid, outline)
            closeups[number - 1].imshow(
                scene_pixels(job, grid, time, crop, SIDE_PX),
                interpolation="nearest",
                extent=_extent(crop),
            )
            _outline(closeups[number - 1], [outline], [colours[row["label"]]], width=1.6)
            _caption(closeups[number - 1], number, row, colours[row["label"]])
        name = title or (
            f"{result.attrs['job']['name']}: "
            f"{', '.join(result.attrs['job']['tasks']['find']) or 'prompts'}"
        )
        found = f"{len(shown)} objects, {moment:%Y-%m-%d}, {job.modality}, model {job.traits.name}"
        axes.set_title(name, loc="left", color="white", fontsize=13, weight="bold")
        axes.set_title(found, loc="right", color=PALE, fontsize=9)
        _scale_bar(axes, grid, window)
        figure.set_layout_engine("constrained", h_pad=0.1)
        figure.savefig(png, dpi=120)


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


def _fullest(job: Plan, objects: gpd.GeoDataFrame) -> tuple[Grid, int]:
    counts: Counter[tuple[str, int]] = Counter()
    for name, grid in job.grids.items():
        here = objects[objects.intersects(_lonlat_extent(grid))]
        for number, piece in enumerate(job.slices):
            counts[name, number] = int((here["slice"] == piece.start).sum())
    (name, time), _ = max(counts.items(), key=lambda pair: (pair[1], pair[0][0], -pair[0][1]))
    return job.grids[name], time


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
    # The text comes from a model or a file and must not be parsed as math.
    axes.set_xlabel(
        textwrap.fill(row["caption"], 38), loc="left", color="white", fontsize=7.5, parse_math=False
    )


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

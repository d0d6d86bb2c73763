"""A picture of a result: the scene, outlined objects with numbers, and what was said of them beside it."""

from __future__ import annotations

import textwrap
from collections import Counter
from pathlib import Path

import geopandas as gpd
import matplotlib as mpl
import numpy as np
import pyproj
import shapely
from affine import Affine
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from catalogs.search import thaw
from pipeline.errors import OutputError
from pipeline.grid import Grid, Window
from pipeline.job import JobSpec
from pipeline.plan import Plan, plan
from pipeline.query import Result
from pipeline.scene import read_scene
from pipeline.vectors import LONLAT

SIDE_PX = 1400
"""A window of the scene of at most this side is drawn at full resolution; a larger one is thinned."""
NAMED = 14
"""How many objects get a number and their words."""
COLOURS = ("#ffd166", "#06d6a0", "#ef476f", "#4cc9f0", "#f78c6b", "#c77dff")


def draw(result: Result, png: str | Path, *, title: str = "") -> None:
    """Draw the time slice and zone that hold most objects.

    Raises:
        OutputError: the run is not finished, or its imagery cannot be read any more.
    """
    objects = result.objects
    job = plan(
        JobSpec.model_validate(result.attrs["job"]), items=thaw(result.url.removesuffix(".zarr") + ".items.parquet")
    )
    grid, time = _fullest(job, objects)
    moment = job.slices[time].start
    shown = objects[(objects["time"] == moment) & objects.intersects(_lonlat_extent(grid))]
    window = _window(grid, shown)
    scene = _pixels(job, grid, time, window)
    outlines = [_to_pixels(grid, window, shape) for shape in shown.geometry]

    with mpl.rc_context({"font.family": "DejaVu Sans", "font.size": 8.5}):
        figure = Figure(figsize=(13.5, 8.2), facecolor="#101418", layout="constrained")
        left, right = np.asarray(figure.subfigures(1, 2, width_ratios=(2.1, 1)))
        axes, words = left.subplots(), right.subplots()
        axes.imshow(scene, interpolation="nearest", extent=(0, window.shape[1], window.shape[0], 0))
        axes.set_axis_off()
        words.set_axis_off()
        for part in (left, right):
            part.set_facecolor("#101418")
        labels = sorted(set(shown["label"]))
        colours = {label: COLOURS[at % len(COLOURS)] for at, label in enumerate(labels)}
        _outline(axes, outlines, [colours[label] for label in shown["label"]])
        _describe(axes, words, shown, outlines, colours)
        name = title or f"{result.attrs['job']['name']}: {', '.join(result.attrs['job']['tasks']['find']) or 'prompts'}"
        words.text(0, 1.0, name, color="white", fontsize=13, weight="bold", va="top", transform=words.transAxes)
        found = f"{len(shown)} objects, {moment:%Y-%m-%d}, {job.modality}, model {job.traits.name}"
        words.text(0, 0.955, found, color="#9fb3c8", va="top", transform=words.transAxes)
        _scale_bar(axes, grid, window)
        figure.savefig(png, dpi=110)


def _fullest(job: Plan, objects: gpd.GeoDataFrame) -> tuple[Grid, int]:
    counts: Counter[tuple[str, int]] = Counter()
    for name, grid in job.grids.items():
        here = objects[objects.intersects(_lonlat_extent(grid))]
        for number, piece in enumerate(job.slices):
            counts[name, number] = int((here["time"] == piece.start).sum())
    (name, time), _ = max(counts.items(), key=lambda pair: (pair[1], pair[0][0], -pair[0][1]))
    return job.grids[name], time


def _lonlat_extent(grid: Grid) -> shapely.Polygon:
    return grid.geobox(grid.window).extent.to_crs("EPSG:4326").geom


def _window(grid: Grid, shown: gpd.GeoDataFrame) -> Window:
    """Pixels around the objects; the whole grid where there are none."""
    if shown.empty:
        return grid.window
    moved = [_to_pixels(grid, grid.window, shape) for shape in shown.geometry]
    x0, y0, x1, y1 = shapely.total_bounds(np.array(moved, object))
    margin = int(0.06 * max(x1 - x0, y1 - y0)) + 24
    return Window(int(y0), int(x0), int(y1) + 1, int(x1) + 1).grown(margin) & grid.window


def _pixels(job: Plan, grid: Grid, time: int, window: Window) -> NDArray[np.uint8]:
    """The scene as (h, w, 3), thinned where it is large; strips keep the memory flat."""
    step = max(1, -(-max(window.shape) // SIDE_PX))
    strips = []
    for y0 in range(window.y0, window.y1, 512 * step):
        strip = Window(y0, window.x0, min(y0 + 512 * step, window.y1), window.x1)
        scene = read_scene(grid, strip, job.scene_items(grid.name, time, strip))
        if scene.errors and not scene.valid.any():
            raise OutputError(f"the imagery cannot be read any more: {scene.errors[0]}")
        strips.append(scene.pixels[:, ::step, ::step])
    return np.moveaxis(np.concatenate(strips, axis=1), 0, -1)


def _to_pixels(grid: Grid, window: Window, shape: shapely.Geometry) -> shapely.Geometry:
    transformer = pyproj.Transformer.from_crs(LONLAT, grid.crs, always_xy=True)
    inverse = ~(grid.affine @ Affine.translation(window.x0, window.y0))

    def move(points: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.column_stack(inverse @ transformer.transform(points[:, 0], points[:, 1]))

    return shapely.transform(shape, move)


def _outline(axes: mpl.axes.Axes, outlines: list[shapely.Geometry], colours: list[str]) -> None:
    lines, shades = [], []
    for shape, colour in zip(outlines, colours, strict=True):
        for polygon in getattr(shape, "geoms", [shape]):
            lines.append(shapely.get_coordinates(polygon.exterior))
            shades.append(colour)
    axes.add_collection(LineCollection(lines, colors=shades, linewidths=1.3))


def _describe(
    axes: mpl.axes.Axes, words: mpl.axes.Axes, shown: gpd.GeoDataFrame,
    outlines: list[shapely.Geometry], colours: dict[str, str],
) -> None:  # fmt: skip
    """Numbers at the largest objects, and their captions in a column."""
    order = np.argsort(-shown["area_m2"].to_numpy(), kind="stable")[:NAMED]
    numbered = sorted(order.tolist(), key=lambda at: (outlines[at].bounds[1], outlines[at].bounds[0]))
    y = 0.91
    for number, at in enumerate(numbered, start=1):
        row = shown.iloc[at]
        x0, y0, x1, _ = outlines[at].bounds
        colour = colours[row["label"]]
        axes.add_patch(
            mpl.patches.Rectangle(
                (x0 - 3, y0 - 3), x1 - x0 + 6, outlines[at].bounds[3] - y0 + 6, fill=False, ec=colour, lw=0.5, alpha=0.6
            )
        )
        axes.text(
            x1 + 5, y0, str(number), color="#101418", fontsize=8, weight="bold", va="bottom",
            bbox={"boxstyle": "round,pad=0.15", "fc": colour, "ec": "none"}, clip_on=True,
        )  # fmt: skip
        text = textwrap.fill(row["caption"], 52)
        words.text(0, y, f"{number}", color=colour, weight="bold", va="top", transform=words.transAxes)
        words.text(0.07, y, text, color="white", va="top", transform=words.transAxes)
        y -= 0.024 * (text.count("\n") + 1)
        words.text(
            0.07,
            y,
            f"{row['label']}  {row['score']:.2f}",
            color="#9fb3c8",
            fontsize=7.5,
            va="top",
            transform=words.transAxes,
        )
        y -= 0.032


def _scale_bar(axes: mpl.axes.Axes, grid: Grid, window: Window) -> None:
    middle = grid.geobox(window).extent.to_crs("EPSG:4326").geom.centroid
    one = _to_pixels(grid, window, shapely.LineString([(middle.x, middle.y), (middle.x, middle.y + 0.001)]))
    per_metre = one.length / (0.001 * 110_574)
    metres = max(
        (m for m in (50, 100, 200, 500, 1000, 2000, 5000, 10000, 50000) if m * per_metre < window.shape[1] / 4),
        default=50,
    )
    x, y = window.shape[1] * 0.03, window.shape[0] * 0.97
    axes.plot([x, x + metres * per_metre], [y, y], color="white", lw=2.5)
    axes.text(
        x,
        y - window.shape[0] * 0.01,
        f"{metres} m" if metres < 1000 else f"{metres // 1000} km",
        color="white",
        va="bottom",
    )

"""A result in a notebook: a plot, a map to explore, and what stands for it where it is printed."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from earthgptx.pipeline.errors import JobError
from earthgptx.pipeline.results.cogs import classes_of
from earthgptx.pipeline.results.colours import SCORES, colours_of, rgb, rgba

if TYPE_CHECKING:
    import geopandas as gpd
    import matplotlib as mpl
    import xarray as xr

    from earthgptx.pipeline.results.result import Result

Layer = Literal["label", "score", "status"]
PLOT_PX = 2000
"""Longest side of what is plotted; larger rasters are plotted from an overview."""
THUMBNAIL_PX = 256
FOLIUM_MOST = 5000
"""Objects that a page of folium can hold; lonboard shows millions."""


def plot(
    result: Result,
    layer: Layer = "label",
    time_slice: str = "",
    zone: str = "",
    ax: mpl.axes.Axes | None = None,
) -> mpl.axes.Axes:
    """Plots a layer of a time slice in map coordinates, with a legend.

    Args:
        result: a result.
        layer: what is plotted.
        time_slice: name of the slice; empty for the last one.
        zone: one of `result.grids`; empty for the first.
        ax: axes to plot into; None for new ones.

    Raises:
        JobError: there is no such slice, zone or layer.
        OutputError: no slice is finished yet.
    """
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    names = [row.name for row in result.slices_in_time]
    name = time_slice or names[-1]
    _must_be("time slice", name, names)
    _must_be("layer", layer, ("label", "score", "status"))
    zone = zone or result.grids[0]
    _must_be("zone", zone, result.grids)
    values = _smallest(result, zone, PLOT_PX)[layer].isel(time=names.index(name))
    pixels = _coloured(result, layer, values.values)
    if ax is None:
        _, ax = plt.subplots(layout="constrained")
    half_x, half_y = (abs(float(values[axis][1] - values[axis][0])) / 2 for axis in ("x", "y"))
    left, right = float(values.x.min()) - half_x, float(values.x.max()) + half_x
    bottom, top = float(values.y.min()) - half_y, float(values.y.max()) + half_y
    ax.imshow(pixels, extent=(left, right, bottom, top), interpolation="nearest")
    ax.set_title(f"{result.attrs['job']['name']}: {layer}, {name}", parse_math=False)
    if layer == "score":
        colours = mpl.cm.ScalarMappable(mpl.colors.Normalize(0, 1), _ramp())
        ax.figure.colorbar(colours, ax=ax, shrink=0.7)
    else:
        told = classes_of(result, layer).values()
        handles = [
            mpl.patches.Rectangle((0, 0), 1, 1, color=colour, label=word)
            for word, colour in told
            if colour
        ]
        legend = ax.legend(handles=handles, loc="upper right", fontsize="small")
        for text in legend.get_texts():  # phrases are no formulas
            text.set_parse_math(False)
    return ax


def _must_be(what: str, given: str, known: Any) -> None:
    if given not in known:
        names = ", ".join(name or "''" for name in known)
        raise JobError(f"there is no {what} '{given}'; there are {names}")


def _smallest(result: Result, zone: str, side_px: int) -> xr.Dataset:
    """Returns the raster, or the finest of its overviews that is no larger than a side."""
    raster = result.layer("raster", zone)
    factor = 1
    while max(raster.sizes["x"], raster.sizes["y"]) // factor > side_px:
        factor *= 2
    group: Any = result.root[f"{zone}/overview" if zone else "overview"]
    factor = min(factor, max(map(int, group)))
    return raster if factor == 1 else result.layer(f"overview/{factor}", zone)


def _ramp() -> mpl.colors.Colormap:
    from matplotlib.colors import LinearSegmentedColormap

    places = [(value - SCORES[0][0]) / (SCORES[-1][0] - SCORES[0][0]) for value, _ in SCORES]
    colours = [colour for _, colour in SCORES]
    return LinearSegmentedColormap.from_list("score", list(zip(places, colours, strict=True)))


def _coloured(result: Result, layer: str, values: NDArray[Any]) -> NDArray[np.uint8]:
    """Returns (Y, X, 4) uint8; what has no class, or no score, is transparent."""
    if layer == "score":
        pixels = _ramp()(values, bytes=True)
        pixels[values <= 0, 3] = 0
        return np.asarray(pixels)
    table = np.zeros((256, 4), np.uint8)
    for value, (_, colour) in classes_of(result, layer).items():
        table[value] = rgba(colour)
    return table[values]


def explore(result: Result, **asked: Any) -> Any:
    """Returns a map of objects: by lonboard where it is installed, else by folium.

    Args:
        result: a result.
        asked: conditions, `order` and `limit`, as of `Result.query`.

    Returns:
        A lonboard `Map` or a folium `Map`, which notebooks show.

    Raises:
        JobError: neither is installed, or a condition cannot be read, or the objects are too many
            for folium.
        OutputError: no time slice is finished yet.
    """
    objects = result.query(**asked)
    colours = colours_of(result.attrs["job"]["tasks"]["find"], objects["label"])
    shades = [colours[label] for label in objects["label"]]
    if find_spec("lonboard") is not None:
        return _by_lonboard(objects, shades)
    if find_spec("folium") is None:
        raise JobError("no library of maps is installed: pip install lonboard, or folium")
    if len(objects) > FOLIUM_MOST:
        raise JobError(
            f"{len(objects)} objects are too many for folium, which takes {FOLIUM_MOST}: "
            "pip install lonboard, or give a limit"
        )
    return _by_folium(objects, shades)


def _by_lonboard(objects: gpd.GeoDataFrame, shades: Sequence[str]) -> Any:
    import lonboard

    if not len(objects):
        return lonboard.Map([])
    colours = np.array([rgb(shade) for shade in shades], np.uint8).reshape(-1, 3)
    clear = np.full((len(objects), 1), 90, np.uint8)
    layer = lonboard.PolygonLayer.from_geopandas(
        objects.astype({"object_id": str, "track_id": str}),  # JavaScript keeps 53 bits
        get_fill_color=np.hstack([colours, clear]),
        get_line_color=colours,
        line_width_min_pixels=1,
    )
    return lonboard.Map(layer)


def _by_folium(objects: gpd.GeoDataFrame, shades: Sequence[str]) -> Any:
    import folium

    shown = objects[["label", "score", "caption", "time", "geometry"]].assign(colour=list(shades))
    # folium puts texts into its page as HTML, and captions are somebody else's words.
    for name in ("label", "caption"):
        shown[name] = shown[name].map(html.escape)
    shown["time"] = shown["time"].astype(str)
    page = folium.Map()
    if len(shown):
        folium.GeoJson(
            shown.to_geo_dict(),
            style_function=lambda each: {"color": each["properties"]["colour"], "weight": 1},
            tooltip=folium.GeoJsonTooltip(["label", "score", "caption", "time"]),
        ).add_to(page)
        west, south, east, north = shown.total_bounds.tolist()
        page.fit_bounds([[south, west], [north, east]])
    return page


def as_html(result: Result) -> str:
    """Returns what a notebook shows of a result: facts, and the labels of its last time slice."""
    facts: dict[str, str] = {"result": result.url, "state": result.state}
    picture = ""
    done = [row for row in result.rows if row.finished]
    if done:
        rows = result.slices_in_time
        facts["time slices"] = f"{len(rows)}: {rows[0].name} to {rows[-1].name}"
        facts["objects"] = f"{sum(row.objects for row in rows):,}"
        facts["zones"] = ", ".join(result.grids).strip() or "one"
        for zone in result.grids:
            picture += _thumbnail(result, zone, result.attrs["job"]["tasks"]["find"])
    return _table(result.attrs["job"]["name"], facts) + picture


def _table(title: str, facts: Mapping[str, str]) -> str:
    rows = "".join(
        f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
        f"<td style='text-align:left'>{html.escape(value)}</td></tr>"
        for name, value in facts.items()
    )
    return f"<table><caption>{html.escape(title)}</caption>{rows}</table>"


def _thumbnail(result: Result, zone: str, phrases: list[str]) -> str:
    """Returns the labels of a zone in the last slice as an HTML image."""
    from matplotlib.image import imsave

    values = _smallest(result, zone, THUMBNAIL_PX)["label"].isel(time=-1).values
    file = io.BytesIO()
    imsave(file, _coloured(result, "label", values), format="png")
    data = base64.b64encode(file.getvalue()).decode()
    words = html.escape(", ".join(phrases) or "labels", quote=True)
    style = f"background:#101418;max-width:{THUMBNAIL_PX}px"
    return f'<img alt="{words}" style="{style}" src="data:image/png;base64,{data}">'

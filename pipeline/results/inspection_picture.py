"""A picture of where a result has what `inspection` has found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import shapely
from matplotlib.figure import Figure

from earthgptx.pipeline.results.inspection import Measure
from earthgptx.pipeline.results.object_table import OBJECTS, outlines_of
from earthgptx.pipeline.results.png_file import save
from earthgptx.pipeline.results.query import find_objects
from earthgptx.pipeline.results.result import Result

COLOURS = {"step": "#ffd166", "holes": "#ef476f", "duplicates": "#4cc9f0", "cut objects": "#c77dff"}
MOST = 20_000
"""Objects that are drawn beneath."""


def draw_places(result: Result, found: Sequence[Measure], png: Path) -> None:
    """Draws the objects of a result in lon/lat, and the places of each measure that does not hold.

    Measures of seams have no places: they are told of the slice as a whole.

    Args:
        result: the result.
        found: what was measured.
        png: path of the image to write.
    """
    wrong = [each for each in found if not each.holds]
    slices = list(dict.fromkeys(each.slice for each in found)) or ["nothing"]
    ground = shapely.get_parts(result.ground)
    with mpl.rc_context({"font.size": 8, "text.parse_math": False}):
        figure = Figure(figsize=(9, 3.4 * len(slices) + 0.6), layout="constrained")
        all_axes = np.atleast_1d(figure.subplots(len(slices), 1))
        for axes, name in zip(all_axes, slices, strict=True):
            for part in ground:
                axes.plot(*part.exterior.xy, color="#9fb3c8", lw=0.8)
            objects = find_objects([result], time=name[:10], limit=MOST, rows=OBJECTS)
            for outline in outlines_of(objects):
                for polygon in shapely.get_parts(outline):
                    axes.plot(*polygon.exterior.xy, color="#36414d", lw=0.5)
            here = [each for each in wrong if each.slice == name]
            for each in here:
                for west, south, east, north in each.places:
                    corner, size = (west, south), (east - west, north - south)
                    colour = COLOURS.get(each.measure, "#f78c6b")
                    axes.add_patch(mpl.patches.Rectangle(corner, *size, fill=False, ec=colour))
            said = ", ".join(f"{each.measure} {each.value:.3g}" for each in here)
            axes.set_title(f"{name}: {said or 'all holds'}", loc="left")
            axes.set_aspect(1 / np.cos(np.deg2rad(result.ground.centroid.y)))
        save(figure, png)

"""The map in a real browser: its first picture, frames while it moves, and a million objects.

The browser is headless Chromium with software rendering: the figures are those of this machine's
processor. The raster is 16,384 px wide; the objects are made, a million of one time slice. The peer
of the objects' answer is the same question to DuckDB alone, counted in the same run.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import rasterio
import shapely
import zarr
from rasterio.enums import Resampling
from selenium import webdriver

from benchmarks.archive import objects
from benchmarks.engine import make_plan, make_scene
from benchmarks.report import arguments, report
from earthgptx import open_result, run
from earthgptx.pipeline.objects.finals import outline_columns
from earthgptx.pipeline.results.completing import along_curve
from earthgptx.pipeline.results.conditions import Conditions
from earthgptx.pipeline.results.find import count
from earthgptx.pipeline.results.object_table import OBJECTS, as_geoparquet
from earthgptx.pipeline.results.partitions import partition, rows_beside
from earthgptx.pipeline.results.slices_group import SliceTable
from earthgptx.workflows.view.served import Served
from tests.browsers import chromium, serving

SIDE = 16_384
MOVES = 60
"""Frames in which the map is moved by hand."""


def fill(url: str, number: int) -> None:
    """Gives the time slice of a result that many made objects, all over its ground."""
    west, south, east, north = open_result(url).ground.bounds
    root = zarr.open_group(url, mode="r+", use_consolidated=False)
    slices, table = SliceTable(root), objects(0, number)
    row, rng = slices.rows[0], np.random.default_rng(1)
    lon, lat = rng.uniform(west, east, number), rng.uniform(south, north, number)
    order = np.argsort(along_curve(lon, lat))
    outlines = shapely.box(lon, lat, lon + 1e-3, lat + 1e-3)[order]
    moments = pa.repeat(pa.scalar(row.start, table.schema.field("time").type), number)
    geometry, bbox = outline_columns(outlines)
    given = {"geometry": geometry, "bbox": bbox, "slice": moments, "time": moments}
    columns = [given.get(name, table[name]) for name in table.column_names]
    data = as_geoparquet([pa.Table.from_arrays(columns, schema=table.schema)], OBJECTS)
    path = Path(rows_beside(url, OBJECTS.name)) / partition(row.name, 0)
    path.write_bytes(data)
    slices.change(0, objects=number, files=1, bytes=len(data))
    slices.save()


def first_picture_s(page: webdriver.Chrome, address: str) -> float:
    """Seconds from the address to a map whose layers and objects are drawn."""
    began = time.perf_counter()
    page.get(address)
    page.set_script_timeout(120)
    page.execute_async_script(
        "const done = arguments[0]; (function wait() {"
        " if (document.body.dataset.ready && document.getElementById('map').map) {"
        "  const map = document.getElementById('map').map;"
        "  map.once('rendercomplete', () => done()); map.render();"
        " } else setTimeout(wait, 20); })()"
    )
    return time.perf_counter() - began


def frames_s(page: webdriver.Chrome) -> float:
    """Frames a second while the map is moved and zoomed as fast as it can."""
    page.set_script_timeout(120)
    seconds: float = page.execute_async_script(
        "const done = arguments[1], count = arguments[0], map = document.getElementById('map').map;"
        "const view = map.getView(), [x, y] = view.getCenter(), r = view.getResolution();"
        "view.beginInteraction();"  # as a hand that drags does
        "const began = performance.now(); let at = 0;"
        "map.on('postrender', function step() {"
        " if (++at > count) { map.un('postrender', step); view.endInteraction();"
        "  return done((performance.now() - began) / 1000); }"
        " view.setCenter([x + 40 * r * Math.sin(at / 5), y + 40 * r * Math.cos(at / 5)]);"
        " view.setZoom(view.getZoom() + 0.01 * Math.sin(at / 9)); }); map.render();",
        MOVES,
    )
    return MOVES / seconds


def main() -> None:
    args = arguments(__doc__)
    side, million = (4096, 100_000) if args.quick else (SIDE, 1_000_000)
    figures: dict[str, Any] = {"side_px": float(side), "objects": float(million)}
    with tempfile.TemporaryDirectory() as name, chromium() as page:
        folder = Path(name)
        make_scene(folder, side)
        with rasterio.open(folder / "scene.tif", "r+") as scene:  # as COGs of archives have
            scene.build_overviews([2, 4, 8, 16], Resampling.average)
        made = make_plan(folder, 2)
        run(made)
        Served(made.spec.output).about()  # as the command does before it says the address
        with serving(made.spec.output) as address:
            figures["first_picture_s"] = first_picture_s(page, address)
            figures["frames_s"] = frames_s(page)
        fill(made.spec.output, million)
        with serving(made.spec.output) as address:
            figures["first_picture_1m_s"] = first_picture_s(page, address)
            figures["frames_1m_s"] = frames_s(page)
        served = Served(made.spec.output)
        row, bounds = served.result.rows[0], list(served.result.ground.bounds)
        clocks = [time.perf_counter()]
        served.objects({}, row.name, bounds)
        clocks.append(time.perf_counter())
        count([served.result.files(Conditions())], Conditions(), ["label"])
        clocks.append(time.perf_counter())
        figures["objects_1m_s"] = clocks[1] - clocks[0]
        figures["ratio_to_count"] = figures["objects_1m_s"] / (clocks[2] - clocks[1])
    report("the map, in headless Chromium with software rendering", figures, args.json)


if __name__ == "__main__":
    main()

"""A small archive with ground truth: the made coast as COGs in a static STAC catalog.

Optical, SAR and infrared scenes of the same coast in two neighbouring UTM zones on three dates, some
of them overlapping; and the truth as GeoParquet. Deterministic from its seed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyproj
import pystac
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.shutil import copy as rio_copy

from model.training.render import Sensor, View, render
from model.training.world import CELL_M, Thing, things

ORIGIN = (6.0, 43.0)
"""Lon/lat of the world's origin: on the border of UTM zones 31 and 32, so that the coast lies in both."""
PIXEL_M = 3.0
SIDE_PX = 1024
SCENES = ((32631, -5750.0), (32631, -2980.0), (32632, -95.0))
"""UTM zone and western edge, in metres of the world, of the scenes of one step along the coast."""
NORTH_M = 1640.0
DATES = (
    datetime(2026, 1, 14, 10, 30, tzinfo=UTC),
    datetime(2026, 2, 11, 10, 30, tzinfo=UTC),
    datetime(2026, 3, 18, 10, 30, tzinfo=UTC),
)
SENSORS: tuple[Sensor, ...] = ("optical", "sar", "infrared")
_EXTENSIONS = [
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
    "https://stac-extensions.github.io/eo/v1.1.0/schema.json",
]
_SAR = "https://stac-extensions.github.io/sar/v1.0.0/schema.json"


def make_sample(
    folder: Path, *, scale: int = 1, seed: int = 0, on_scene: Callable[[int, int], None] = lambda *_: None
) -> Path:
    """Write the archive.

    Args:
        folder: created where it is missing; an archive in it is replaced.
        scale: so many times the coast, both ways.
        seed: of the world.
        on_scene: told the scenes done and to do.

    Returns:
        The path of `catalog.json`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    catalog = pystac.Catalog("earthgptx-sample", "A made coast in optical, SAR and infrared, with ground truth")
    collections = {sensor: _collection(sensor) for sensor in SENSORS}
    places = [
        (epsg, west + step * 3 * (CELL_M - 100.0) * (-1 if epsg == 32631 else 1))
        for step in range(scale)
        for epsg, west in SCENES
    ]
    tasks = []
    for date, moment in enumerate(DATES):
        for number, (epsg, west) in enumerate(places):
            transform = _transform(epsg, west)
            view = _view(epsg, transform, seed, date)
            tasks += [(sensor, view, epsg, transform, moment, number) for sensor in SENSORS]
    # numpy, scipy and GDAL leave Python's lock to others while they work.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, item in enumerate(pool.map(lambda task: _scene(folder, *task), tasks), start=1):
            collections[tasks[done - 1][0]].add_item(item)
            on_scene(done, len(tasks))
    for collection in collections.values():
        collection.update_extent_from_items()
        catalog.add_child(collection)
    catalog.normalize_hrefs(str(folder))
    catalog.save(pystac.CatalogType.SELF_CONTAINED)
    _write_truth(folder / "truth.parquet", places, seed)
    return folder / "catalog.json"


def world_crs() -> CRS:
    """The plane of the made world, metres from its origin."""
    return CRS.from_proj4(f"+proj=aeqd +lat_0={ORIGIN[1]} +lon_0={ORIGIN[0]} +datum=WGS84 +units=m")


def _transform(epsg: int, west: float) -> rasterio.Affine:
    to_utm = pyproj.Transformer.from_crs(world_crs().to_wkt(), f"EPSG:{epsg}", always_xy=True)
    x, y = to_utm.transform(west + SIDE_PX * PIXEL_M / 2, NORTH_M - SIDE_PX * PIXEL_M / 2)
    half = SIDE_PX * PIXEL_M / 2
    # On a common lattice, as archives keep their scenes.
    return rasterio.Affine(
        PIXEL_M, 0, round((x - half) / PIXEL_M) * PIXEL_M, 0, -PIXEL_M, round((y + half) / PIXEL_M) * PIXEL_M
    )


def _view(epsg: int, transform: rasterio.Affine, seed: int, date: int) -> View:
    """The affine that best takes pixels to the world's plane; off by less than a pixel over a scene."""
    to_world = pyproj.Transformer.from_crs(f"EPSG:{epsg}", world_crs().to_wkt(), always_xy=True)
    col, row = (part.ravel() for part in np.meshgrid(np.linspace(0, SIDE_PX, 9), np.linspace(0, SIDE_PX, 9)))
    x, y = to_world.transform(*(transform @ (col, row)))
    matrix = np.column_stack([col, row, np.ones_like(col)])
    (a, b, c), (d, e, f) = (np.linalg.lstsq(matrix, values, rcond=None)[0].tolist() for values in (x, y))
    return View(affine=(a, b, c, d, e, f), height=SIDE_PX, width=SIDE_PX, seed=seed, date=date)


def _collection(sensor: Sensor) -> pystac.Collection:
    extent = pystac.Extent(
        pystac.SpatialExtent([[-180.0, -90.0, 180.0, 90.0]]), pystac.TemporalExtent([[DATES[0], DATES[-1]]])
    )
    return pystac.Collection(f"sample-{sensor}", f"Made {sensor} scenes at {PIXEL_M:g} m", extent, license="Apache-2.0")


def _scene(
    folder: Path, sensor: Sensor, view: View, epsg: int, transform: rasterio.Affine, moment: datetime, number: int
) -> pystac.Item:
    picture = render(view, sensor)
    name = f"{sensor}-{moment:%Y%m%d}-{number:03d}"
    place = folder / f"sample-{sensor}" / name
    place.mkdir(parents=True, exist_ok=True)
    footprint = shapely.box(*rasterio.transform.array_bounds(SIDE_PX, SIDE_PX, transform))
    to_lonlat = pyproj.Transformer.from_crs(f"EPSG:{epsg}", "OGC:CRS84", always_xy=True)
    outline = shapely.transform(footprint, lambda p: np.column_stack(to_lonlat.transform(p[:, 0], p[:, 1])))
    properties: dict[str, Any] = {"proj:code": f"EPSG:{epsg}", "gsd": PIXEL_M, "earthgptx:seed": view.seed}
    extensions = list(_EXTENSIONS)
    layers: dict[str, tuple[NDArray[Any], list[str]]]
    if sensor == "optical":
        layers = {
            "visual": (picture.bands, ["red", "green", "blue"]),
            "cloud": (picture.cloud[None].astype(np.uint8), []),
        }
        properties["eo:cloud_cover"] = round(100 * float(picture.cloud.mean()), 2)
    elif sensor == "sar":
        layers = {"vv": (picture.bands[:1], []), "vh": (picture.bands[1:], [])}
        extensions.append(_SAR)
        properties |= {
            "sar:instrument_mode": "IW", "sar:frequency_band": "C", "sar:polarizations": ["VV", "VH"], "sar:product_type": "GRD",
        }  # fmt: skip
    else:
        layers = {"temperature": (picture.bands, [])}
    item = pystac.Item(
        name, shapely.geometry.mapping(outline), list(outline.bounds), moment, properties, stac_extensions=extensions
    )
    for key, (bands, names) in layers.items():
        nodata = None if key == "cloud" else 0
        _write_cog(place / f"{key}.tif", bands, epsg, transform, nodata, nearest=key == "cloud")
        declared = {"data_type": str(bands.dtype), **({} if nodata is None else {"nodata": nodata})}
        fields: dict[str, Any] = {
            "proj:shape": [SIDE_PX, SIDE_PX], "proj:transform": list(transform)[:6], "raster:bands": [declared] * len(bands),
        }  # fmt: skip
        if names:
            fields["eo:bands"] = [{"name": band, "common_name": band} for band in names]
        item.add_asset(
            key, pystac.Asset(f"./{key}.tif", media_type=pystac.MediaType.COG, roles=["data"], extra_fields=fields)
        )
    return item


def _write_cog(
    path: Path, bands: NDArray[Any], epsg: int, transform: rasterio.Affine, nodata: float | None, *, nearest: bool
) -> None:
    profile = {
        "driver": "GTiff", "count": len(bands), "height": bands.shape[1], "width": bands.shape[2], "dtype": bands.dtype,
        "crs": f"EPSG:{epsg}", "transform": transform, "nodata": nodata,
    }  # fmt: skip
    with rasterio.MemoryFile() as memory:
        with memory.open(**profile) as raster:
            raster.write(bands)
        resampling = Resampling.nearest if nearest else Resampling.average
        with memory.open() as raster:
            rio_copy(
                raster, path, driver="COG", compress="deflate", level=1, predictor="yes", blocksize=512,
                overview_resampling=resampling.name, interleave="pixel",
            )  # fmt: skip


def _write_truth(path: Path, places: list[tuple[int, float]], seed: int) -> None:
    to_lonlat = pyproj.Transformer.from_crs(world_crs().to_wkt(), "OGC:CRS84", always_xy=True)

    def outline(thing: Thing) -> shapely.Geometry:
        union = shapely.union_all([shapely.Polygon(ring) for ring in thing.rings])
        return shapely.transform(union, lambda p: np.column_stack(to_lonlat.transform(p[:, 0], p[:, 1])))

    west = min(edge for _, edge in places)
    east = max(edge for _, edge in places) + SIDE_PX * PIXEL_M
    rows = [(moment, thing) for date, moment in enumerate(DATES) for thing in things(west, east, seed=seed, date=date)]
    table = {
        "time": [moment for moment, _ in rows],
        "class": [thing.kind for _, thing in rows],
        "hot": [thing.hot for _, thing in rows],
        "caption": [thing.caption for _, thing in rows],
        "length_m": [thing.length_m for _, thing in rows],
        "width_m": [thing.width_m for _, thing in rows],
    }
    gpd.GeoDataFrame(table, geometry=[outline(thing) for _, thing in rows], crs="OGC:CRS84").to_parquet(path)

"""Renders a small archive with ground truth: the made world as COGs in a static STAC catalog.

The archive holds optical, SAR and infrared scenes of one coast in two neighbouring UTM zones on
three dates, and SAR scenes on two more. Some scenes overlap. The ground truth is GeoParquet.
Deterministic for a given seed.
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

from earthgptx.model.synthetic.render import Camera, Picture, Sensor, render
from earthgptx.model.synthetic.world import CELL_M, Thing, things

ORIGIN = (6.0, 43.0)
"""Lon/lat of the made world's origin: on the border of UTM zones 31 and 32, so both hold coast."""
PIXEL_M = 3.0
SIDE_PX = 1024
SCENES = ((32631, -5750.0), (32631, -2980.0), (32632, -95.0))
"""EPSG code and western edge (metres of the made world) of each scene of one step of the coast."""
NORTH_M = 1640.0
DATES = (
    datetime(2026, 1, 14, 10, 30, tzinfo=UTC),
    datetime(2026, 2, 11, 10, 30, tzinfo=UTC),
    datetime(2026, 3, 18, 10, 30, tzinfo=UTC),
)
SAR_DATES = (
    *DATES,
    datetime(2026, 4, 15, 10, 30, tzinfo=UTC),
    datetime(2026, 5, 20, 10, 30, tzinfo=UTC),
)
SENSORS: tuple[Sensor, ...] = ("optical", "sar", "infrared")
_EXTENSIONS = [
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
    "https://stac-extensions.github.io/eo/v1.1.0/schema.json",
]
_SAR = "https://stac-extensions.github.io/sar/v1.0.0/schema.json"


def make_sample(
    folder: Path,
    *,
    scale: int = 1,
    seed: int = 0,
    on_scene: Callable[[int, int], None] = lambda *_: None,
) -> Path:
    """Writes the archive.

    Args:
        folder: output folder; created if it is missing. An archive in it is replaced.
        scale: number of steps along the coast, each to the west and to the east.
        seed: seed of the made world.
        on_scene: called with the numbers of rendered and of all scenes.

    Returns:
        The path of `catalog.json`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    catalog = pystac.Catalog(
        "earthgptx-sample", "A made coast in optical, SAR and infrared, with ground truth"
    )
    collections = {sensor: _collection(sensor) for sensor in SENSORS}
    places = [
        (epsg, west + step * 3 * (CELL_M - 100.0) * (-1 if epsg == 32631 else 1))
        for step in range(scale)
        for epsg, west in SCENES
    ]
    tasks = []
    for date, moment in enumerate(SAR_DATES):
        sensors: tuple[Sensor, ...] = SENSORS if moment in DATES else ("sar",)
        for number, (epsg, west) in enumerate(places):
            transform = _transform(epsg, west)
            camera = _view(epsg, transform, seed, date)
            tasks += [(sensor, camera, epsg, transform, moment, number) for sensor in sensors]
    # Threads suffice: numpy, scipy and GDAL release the GIL while they work.
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
    """Returns the CRS of the made world: a plane in metres from `ORIGIN`."""
    return CRS.from_proj4(f"+proj=aeqd +lat_0={ORIGIN[1]} +lon_0={ORIGIN[0]} +datum=WGS84 +units=m")


def _transform(epsg: int, west: float) -> rasterio.Affine:
    to_utm = pyproj.Transformer.from_crs(world_crs().to_wkt(), f"EPSG:{epsg}", always_xy=True)
    x, y = to_utm.transform(west + SIDE_PX * PIXEL_M / 2, NORTH_M - SIDE_PX * PIXEL_M / 2)
    half = SIDE_PX * PIXEL_M / 2
    # As in real archives, all scenes of a UTM zone share one lattice.
    return rasterio.Affine(
        PIXEL_M,
        0,
        round((x - half) / PIXEL_M) * PIXEL_M,
        0,
        -PIXEL_M,
        round((y + half) / PIXEL_M) * PIXEL_M,
    )


def _view(epsg: int, transform: rasterio.Affine, seed: int, date: int) -> Camera:
    """Returns a camera whose affine fits the mapping from pixels to the made world's plane.

    The error is less than a pixel within a scene.
    """
    to_world = pyproj.Transformer.from_crs(f"EPSG:{epsg}", world_crs().to_wkt(), always_xy=True)
    col, row = (
        part.ravel() for part in np.meshgrid(np.linspace(0, SIDE_PX, 9), np.linspace(0, SIDE_PX, 9))
    )
    x, y = to_world.transform(*(transform @ (col, row)))
    matrix = np.column_stack([col, row, np.ones_like(col)])
    (a, b, c), (d, e, f) = (
        np.linalg.lstsq(matrix, values, rcond=None)[0].tolist() for values in (x, y)
    )
    return Camera(affine=(a, b, c, d, e, f), height=SIDE_PX, width=SIDE_PX, seed=seed, date=date)


def _collection(sensor: Sensor) -> pystac.Collection:
    extent = pystac.Extent(
        pystac.SpatialExtent([[-180.0, -90.0, 180.0, 90.0]]),
        pystac.TemporalExtent([[SAR_DATES[0], SAR_DATES[-1]]]),
    )
    return pystac.Collection(
        f"sample-{sensor}", f"Made {sensor} scenes at {PIXEL_M:g} m", extent, license="Apache-2.0"
    )


def _scene(
    folder: Path,
    sensor: Sensor,
    camera: Camera,
    epsg: int,
    transform: rasterio.Affine,
    moment: datetime,
    number: int,
) -> pystac.Item:
    """Renders one scene, writes its COGs, and returns its Item."""
    picture = render(camera, sensor)
    name = f"{sensor}-{moment:%Y%m%d}-{number:03d}"
    place = folder / f"sample-{sensor}" / name
    place.mkdir(parents=True, exist_ok=True)
    item = _item(name, sensor, camera, epsg, transform, moment)
    if sensor == "optical":
        item.properties["eo:cloud_cover"] = round(100 * float(picture.cloud.mean()), 2)
    for key, (bands, names) in _layers(picture, sensor).items():
        nodata = None if key == "cloud" else 0
        _write_cog(place / f"{key}.tif", bands, epsg, transform, nodata, nearest=key == "cloud")
        item.add_asset(key, _asset(key, bands, names, transform, nodata))
    return item


def _item(
    name: str,
    sensor: Sensor,
    camera: Camera,
    epsg: int,
    transform: rasterio.Affine,
    moment: datetime,
) -> pystac.Item:
    footprint = shapely.box(*rasterio.transform.array_bounds(SIDE_PX, SIDE_PX, transform))
    to_lonlat = pyproj.Transformer.from_crs(f"EPSG:{epsg}", "OGC:CRS84", always_xy=True)
    outline = shapely.transform(
        footprint, lambda p: np.column_stack(to_lonlat.transform(p[:, 0], p[:, 1]))
    )
    properties: dict[str, Any] = {
        "proj:code": f"EPSG:{epsg}",
        "gsd": PIXEL_M,
        "earthgptx:seed": camera.seed,
    }
    if sensor == "sar":
        properties |= {
            "sar:instrument_mode": "IW",
            "sar:frequency_band": "C",
            "sar:polarizations": ["VV", "VH"],
            "sar:product_type": "GRD",
        }
    return pystac.Item(
        name,
        shapely.geometry.mapping(outline),
        list(outline.bounds),
        moment,
        properties,
        stac_extensions=[*_EXTENSIONS, *([_SAR] if sensor == "sar" else [])],
    )


def _layers(picture: Picture, sensor: Sensor) -> dict[str, tuple[NDArray[Any], list[str]]]:
    """Returns the bands, (B, H, W), and their common names, by Asset."""
    if sensor == "optical":
        cloud = picture.cloud[None].astype(np.uint8)
        return {"visual": (picture.bands, ["red", "green", "blue"]), "cloud": (cloud, [])}
    if sensor == "sar":
        return {"vv": (picture.bands[:1], []), "vh": (picture.bands[1:], [])}
    return {"temperature": (picture.bands, [])}


def _asset(
    key: str,
    bands: NDArray[Any],
    names: list[str],
    transform: rasterio.Affine,
    nodata: float | None,
) -> pystac.Asset:
    declared = {"data_type": str(bands.dtype), **({} if nodata is None else {"nodata": nodata})}
    fields: dict[str, Any] = {
        "proj:shape": [SIDE_PX, SIDE_PX],
        "proj:transform": list(transform)[:6],
        "raster:bands": [declared] * len(bands),
    }
    if names:
        fields["eo:bands"] = [{"name": band, "common_name": band} for band in names]
    cog = pystac.MediaType.COG
    return pystac.Asset(f"./{key}.tif", media_type=cog, roles=["data"], extra_fields=fields)


def _write_cog(
    path: Path,
    bands: NDArray[Any],
    epsg: int,
    transform: rasterio.Affine,
    nodata: float | None,
    *,
    nearest: bool,
) -> None:
    profile = {
        "driver": "GTiff",
        "count": len(bands),
        "height": bands.shape[1],
        "width": bands.shape[2],
        "dtype": bands.dtype,
        "crs": f"EPSG:{epsg}",
        "transform": transform,
        "nodata": nodata,
    }
    with rasterio.MemoryFile() as memory:
        with memory.open(**profile) as raster:
            raster.write(bands)
        resampling = Resampling.nearest if nearest else Resampling.average
        with memory.open() as raster:
            rio_copy(
                raster,
                path,
                driver="COG",
                compress="deflate",
                level=1,
                predictor="yes",
                blocksize=512,
                overview_resampling=resampling.name,
                interleave="pixel",
            )


def _write_truth(path: Path, places: list[tuple[int, float]], seed: int) -> None:
    to_lonlat = pyproj.Transformer.from_crs(world_crs().to_wkt(), "OGC:CRS84", always_xy=True)

    def outline(thing: Thing) -> shapely.Geometry:
        union = shapely.union_all([shapely.Polygon(ring) for ring in thing.rings])
        return shapely.transform(
            union, lambda p: np.column_stack(to_lonlat.transform(p[:, 0], p[:, 1]))
        )

    west = min(edge for _, edge in places)
    east = max(edge for _, edge in places) + SIDE_PX * PIXEL_M
    rows = [
        (moment, thing)
        for date, moment in enumerate(SAR_DATES)
        for thing in things(west, east, seed=seed, date=date)
    ]
    table = {
        "time": [moment for moment, _ in rows],
        "class": [thing.kind for _, thing in rows],
        "hot": [thing.hot for _, thing in rows],
        "caption": [thing.caption for _, thing in rows],
        "length_m": [thing.length_m for _, thing in rows],
        "width_m": [thing.width_m for _, thing in rows],
    }
    gpd.GeoDataFrame(
        table, geometry=[outline(thing) for _, thing in rows], crs="OGC:CRS84"
    ).to_parquet(path)

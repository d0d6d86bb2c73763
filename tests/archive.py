"""Small archives made of arrays, for tests and benchmarks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyproj
import pystac
import rasterio
import shapely
from shapely.geometry.base import BaseGeometry

from earthgptx import JobSpec

GREY = [{"asset": "image", "low": 0, "high": 255}] * 3


class Archive:
    """A small archive made of arrays: a static catalog of uint8 COGs on one 10 m lattice."""

    def __init__(
        self,
        folder: Path,
        *,
        epsg: int = 32631,
        west: float = 500_000.0,
        north: float = 4_700_000.0,
    ) -> None:
        self.folder, self.epsg, self.west, self.north = folder, epsg, west, north
        self.catalog = pystac.Catalog("made", "made for a test")
        self._extents: list[BaseGeometry] = []
        self._scenes: list[pystac.Item] = []
        folder.mkdir(parents=True, exist_ok=True)

    def add(
        self,
        name: str,
        pixels: np.ndarray,
        *,
        row: int = 0,
        col: int = 0,
        when: str = "2026-01-01T10:00:00Z",
        nodata: float | None = 0,
        step: float = 10,
        properties: dict[str, object] | None = None,
    ) -> Path:
        """Pixels (H, W) or (B, H, W) of `step` metres at a row and column of the lattice; returns
        the file.
        """
        bands = pixels.reshape(-1, *pixels.shape[-2:])
        transform = rasterio.Affine(step, 0, self.west + col * 10, 0, -step, self.north - row * 10)
        path = self.folder / f"{name}.tif"
        count, height, width = bands.shape
        with rasterio.open(
            path,
            "w",
            driver="GTiff",
            height=height,
            width=width,
            count=count,
            dtype=bands.dtype,
            nodata=nodata,
            crs=f"EPSG:{self.epsg}",
            transform=transform,
            tiled=True,
            blockxsize=256,
            blockysize=256,
            compress="deflate",
            zlevel=1,
            interleave="pixel",
        ) as raster:
            raster.write(bands)
        self._extents.append(
            shapely.box(*rasterio.transform.array_bounds(height, width, transform))
        )
        box = rasterio.warp.transform_bounds(
            f"EPSG:{self.epsg}",
            "EPSG:4326",
            *rasterio.transform.array_bounds(height, width, transform),
        )
        item = pystac.Item(
            name,
            shapely.geometry.mapping(shapely.box(*box)),
            list(box),
            pystac.utils.str_to_datetime(when),
            {"proj:code": f"EPSG:{self.epsg}", **(properties or {})},
            collection="made",
        )
        fields = {"proj:shape": [height, width], "proj:transform": list(transform)[:6]}
        item.add_asset(
            "image",
            pystac.Asset(
                str(path), media_type=pystac.MediaType.COG, roles=["data"], extra_fields=fields
            ),
        )
        self.catalog.add_item(item)
        return path

    def publish(self, names: Iterable[str]) -> str:
        """Saves a catalog of some of the scenes; `b@2` stands for a second version of scene `b`."""
        everything = {item.id: item for item in self._all()}
        self.catalog = pystac.Catalog("made", "made for a test")
        for name in names:
            item = everything[name].clone()
            item.id = name.partition("@")[0]
            item.clear_links()
            self.catalog.add_item(item)
        return self.save()

    def _all(self) -> list[pystac.Item]:
        """All scenes that were ever added."""
        if not self._scenes:
            self._scenes = list(self.catalog.get_items())
        return self._scenes

    def save(self) -> str:
        self.catalog.normalize_hrefs(str(self.folder))
        self.catalog.save(pystac.CatalogType.ABSOLUTE_PUBLISHED)
        return str(self.folder / "catalog.json")

    @property
    def ground(self) -> str:
        """Bounds of all scenes as WKT in lon/lat; in the CRS of the archive they are a box."""
        bounds = shapely.segmentize(shapely.box(*shapely.union_all(self._extents).bounds), 500.0)
        move = pyproj.Transformer.from_crs(self.epsg, "OGC:CRS84", always_xy=True).transform
        return str(shapely.to_wkt(shapely.transform(bounds, move, interleaved=False), 12))

    def job(self, output: Path | str, **more: object) -> JobSpec:
        """A job over all of it: ships by CFAR."""
        document: dict[str, object] = {
            "name": "made",
            "source": {
                "catalog": str(self.folder / "catalog.json"),
                "collections": ["made"],
                "aoi": {"wkt": self.ground},
                "profiles": {"made": {"modality": "sar", "bands": GREY}},
            },
            "tasks": {"find": ["target"]},
            "output": str(output),
            "grid": {"tile_px": 256, "halo_px": 64, "block_px": 512},
        }
        for key, value in more.items():
            held = document.get(key)
            document[key] = (
                {**held, **value} if isinstance(held, dict) and isinstance(value, dict) else value
            )
        return JobSpec.from_dict(document)


def every_kind_of_prompt(archive: Archive) -> dict[str, BaseGeometry]:
    """A point, a box, a polygon, a stroke, and a box wider than a tile of 256 px, in the CRS."""

    def at(row: float, col: float) -> tuple[float, float]:
        return archive.west + 10 * col, archive.north - 10 * row

    return {
        "point": shapely.Point(at(130, 60)),
        "box": shapely.box(*at(330, 300), *at(300, 350)),
        "polygon": shapely.Polygon([at(200, 200), at(200, 260), at(240, 230)]),
        "stroke": shapely.LineString([at(100, 400), at(140, 440)]),
        "wide": shapely.box(*at(390, 60), *at(20, 470)),
    }


def targets(seed: int, shape: tuple[int, int] = (700, 900), count: int = 30) -> np.ndarray:
    """A noisy dark scene with bright bars, blobs and a long winding line."""
    noise = np.random.default_rng(seed)
    pixels = noise.integers(8, 30, shape).astype(np.uint8)
    for _ in range(count):
        height, width = noise.integers(2, 14, 2)
        row, col = noise.integers(120, shape[0] - height), noise.integers(0, shape[1] - width)
        pixels[row : row + height, col : col + width] = noise.integers(150, 255)
    cols = np.arange(30, shape[1] - 30)
    rows = (60 + 8 * np.sin(cols / 40)).astype(int)
    for thick in range(3):
        pixels[rows + thick, cols] = 250
    return pixels


def two_dates(folder: Path, *phrases: str) -> JobSpec:
    """A job over two dates with targets, described and with scores; its output is out.zarr."""
    archive = Archive(folder / "archive")
    archive.add("first", targets(8), nodata=None)
    archive.add("second", targets(9), when="2026-02-01T10:00:00Z", nodata=None)
    archive.save()
    tasks = {"find": list(phrases), "describe": True, "keep_scores": True}
    return archive.job(folder / "out.zarr", tasks=tasks)


def ground_of(items: Iterable[pystac.Item]) -> dict[str, str]:
    """An AOI that holds the pixels of Items, which may be cut out of larger scenes."""
    ground = shapely.union_all([extent_of(item) for item in items])
    return {"wkt": ground.intersection(shapely.box(-180, -90, 180, 90)).wkt}


def extent_of(item: pystac.Item) -> BaseGeometry:
    """The bounds of an Item's pixels as it declares them, lon/lat, else those of its footprint."""
    for asset in item.assets.values():
        said = {**item.properties, **asset.extra_fields}
        code = said.get("proj:code") or (
            f"EPSG:{said['proj:epsg']}" if said.get("proj:epsg") else None
        )
        if code and said.get("proj:transform") and said.get("proj:shape"):
            transform = rasterio.Affine(*said["proj:transform"][:6])
            bounds = rasterio.transform.array_bounds(*said["proj:shape"], transform)
            return shapely.box(*rasterio.warp.transform_bounds(code, "OGC:CRS84", *bounds))
    return shapely.envelope(shapely.geometry.shape(item.geometry))


def real_job(data: Path, collection: str, **more: object) -> JobSpec:
    """A job over the real scenes of a collection."""
    catalog = pystac.Catalog.from_file(data / "scenes" / "catalog.json")
    items = [each for each in catalog.get_items(recursive=True) if each.collection_id == collection]
    return JobSpec.from_dict(
        {
            "name": "real",
            "source": {
                "catalog": str(data / "scenes" / "catalog.json"),
                "collections": [collection],
                "aoi": ground_of(items),
            },
            "tasks": {"find": ["ship"]},
            "output": "real.zarr",
            **more,
        }
    )

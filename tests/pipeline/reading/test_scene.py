"""Reading real awkward rasters and made ones; what cannot be read leaves its ground broken and says
why.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pystac
import pytest
import rasterio
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from earthgptx import JobSpec, plan
from earthgptx.catalogs.access import Access
from earthgptx.catalogs.profiles import Band, CollectionProfile
from earthgptx.catalogs.radiometry import Radiometry
from earthgptx.pipeline.errors import JobError, SourceError
from earthgptx.pipeline.job.grid import Window
from earthgptx.pipeline.planning.plan import Plan
from earthgptx.pipeline.reading.assets import open_raster
from earthgptx.pipeline.reading.scaling import to_8bit
from earthgptx.pipeline.reading.scene import Scene, read_scene
from earthgptx.pipeline.reading.sources import Raster
from earthgptx.pipeline.reading.window import read_window
from tests.archive import GREY, Archive, real_job


def whole(made: Plan, time: int = 0) -> Scene:
    [grid] = made.grids.values()
    return read_scene(grid, grid.window, made.scene_items(grid.name, time, grid.window))


def over(
    path: Path,
    folder: Path,
    *,
    profile: dict[str, Any],
    geometry: Any = None,
    grid: dict[str, Any] | None = None,
) -> Plan:
    """A plan over one raster file, with an Item that says nothing of projection."""
    aoi = geometry
    with rasterio.open(path) as raster:
        if raster.crs and not raster.transform.b:
            ring = shapely.box(*raster.bounds)
            ring = shapely.segmentize(ring, max(ring.length / 400, raster.res[0]))
            aoi = shapely.geometry.shape(
                rasterio.warp.transform_geom(
                    raster.crs, "OGC:CRS84", shapely.geometry.mapping(ring), precision=12
                )
            )
        if geometry is None and raster.crs:
            corners = [
                raster.transform @ at
                for at in (
                    (0, 0),
                    (raster.width, 0),
                    (raster.width, raster.height),
                    (0, raster.height),
                )
            ]
            moved = rasterio.warp.transform_geom(
                raster.crs, "OGC:CRS84", shapely.geometry.mapping(shapely.Polygon(corners))
            )
            geometry = shapely.geometry.shape(moved)
    geometry = geometry or shapely.box(0, 0, 1, 1)
    aoi = aoi or geometry
    item = pystac.Item(
        path.stem,
        shapely.geometry.mapping(geometry),
        list(geometry.bounds),
        pystac.utils.str_to_datetime("2020-01-01"),
        {},
        collection="odd",
    )
    item.add_asset("image", pystac.Asset(str(path)))
    spec = JobSpec.from_dict(
        {
            "name": "odd",
            "source": {
                "catalog": "none",
                "collections": ["odd"],
                "aoi": {"wkt": shapely.to_wkt(aoi, 12)},
                "profiles": {"odd": profile},
                "access": {"folders": [str(path.parent)]},
            },
            "tasks": {"find": ["thing"]},
            "output": str(folder / "odd.zarr"),
            "grid": {"tile_px": 256, "halo_px": 64, "block_px": 512, **(grid or {})},
        }
    )
    return plan(spec, items=[item])


def bands(low: float, high: float, *indexes: int) -> list[dict[str, Any]]:
    return [{"asset": "image", "index": i, "low": low, "high": high} for i in indexes]


def test_the_first_valid_pixel_wins_and_nodata_lets_the_next_item_through(archive: Archive) -> None:
    first = np.full((40, 40), 50, np.uint8)
    first[:, 20:] = 0
    archive.add("a", first)
    archive.add("b", np.full((40, 60), 90, np.uint8), when="2026-01-01T11:00:00Z")
    archive.save()
    scene = whole(plan(archive.job("a.zarr", slices="all")))
    assert scene.valid.all()
    assert (scene.pixels[:, :, :20] == 50).all()
    assert (scene.pixels[:, :, 20:] == 90).all()


def test_a_window_far_from_every_item_is_not_valid(archive: Archive) -> None:
    archive.add("a", np.full((40, 40), 50, np.uint8))
    archive.save()
    made = plan(archive.job("a.zarr"))
    [grid] = made.grids.values()
    scene = read_scene(
        grid, grid.window.grown(30), made.scene_items(grid.name, 0, grid.window.grown(30))
    )
    assert scene.valid.sum() == 1600
    assert scene.valid[30:70, 30:70].all()
    assert not scene.broken.any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_was_not_seen(tmp_path: Path, value: float) -> None:
    archive = Archive(tmp_path)
    pixels = np.full((40, 40), 5, np.float32)
    pixels[:10] = value
    archive.add("a", pixels, nodata=None)
    archive.save()
    scene = whole(plan(archive.job("a.zarr")))
    assert not scene.valid[:10].any()
    assert scene.valid[10:].all()
    assert (scene.pixels[:, :10] == 0).all()


def break_missing(path: Path) -> None:
    path.unlink()


def break_truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def break_text(path: Path) -> None:
    path.write_text("this is a web page that says that you are not logged in")


def break_bands(path: Path) -> None:
    with rasterio.open(path) as raster:
        profile, pixels = raster.profile, raster.read()
    with rasterio.open(path, "w", **(profile | {"count": 2})) as raster:
        raster.write(np.concatenate([pixels, pixels]))


def break_vrt(path: Path) -> None:
    path.write_text('<VRTDataset rasterXSize="40" rasterYSize="40"></VRTDataset>')


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (break_missing, "cannot be read"),
        (break_truncated, "cannot be read"),
        (break_text, "cannot be read"),
        (break_vrt, "cannot be read"),
        (break_bands, "has 2 bands, its Item says 1"),
    ],
)
def test_an_item_that_cannot_be_read_breaks_its_own_ground_only(
    archive: Archive, damage: Any, sentence: str
) -> None:
    noise = np.random.default_rng(0).integers(1, 255, (300, 300)).astype(np.uint8)
    archive.add("good", noise[:, :200])
    path = archive.add("bad", noise, col=100, when="2026-01-01T09:00:00Z")
    for item in archive.catalog.get_items():
        item.assets["image"].extra_fields["raster:bands"] = [{"data_type": "uint8"}]
    archive.save()
    made = plan(archive.job("a.zarr"))
    damage(path)
    scene = whole(made)
    assert scene.valid[:, :200].all()
    assert scene.broken[:, 200:].all()
    assert not scene.broken[:, :200].any()
    [reason] = scene.errors
    assert "asset image of item bad" in reason
    assert sentence in reason


def test_a_profile_that_asks_for_a_band_that_is_not_there_is_refused(archive: Archive) -> None:
    archive.add("a", np.full((40, 40), 50, np.uint8))
    archive.save()
    profile = {"modality": "sar", "bands": bands(0, 255, 1, 2, 3)}
    made = plan(archive.job("a.zarr", source={"profiles": {"made": profile}}))
    assert "has 1 bands, its collection's profile reads band 3" in whole(made).errors[0]


def test_a_raster_without_crs_and_points_is_refused_when_planning(tmp_path: Path) -> None:
    path = tmp_path / "bare.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=20, height=20, count=1, dtype="uint8"
    ) as raster:
        raster.write(np.ones((1, 20, 20), np.uint8))
    with pytest.raises(JobError, match="neither a CRS nor ground control points"):
        over(path, tmp_path, profile={"modality": "sar", "bands": GREY})


@pytest.mark.parametrize(
    "href", ["/vsicurl/http://example.com/a.tif", "ftp://example.com/a.tif", "gdal:///etc/passwd"]
)
def test_odd_addresses_are_not_opened(archive: Archive, href: str) -> None:
    """The replica checks them too, whatever the plan has found."""
    archive.add("a", np.full((40, 40), 50, np.uint8))
    archive.save()
    opening = plan(archive.job("a.zarr")).opening
    with (
        pytest.raises(SourceError, match="is not opened"),
        open_raster(Raster("a", "image", href), opening),
    ):
        pass


def test_a_file_whose_rows_go_north_is_where_its_item_says(archive: Archive) -> None:
    path = archive.add("a", np.full((40, 40), 50, np.uint8), nodata=None)
    item = archive.catalog.get_item("a")
    assert item
    with rasterio.open(path, "r+") as raster:
        a, b, c, d, e, f = raster.transform[:6]
        raster.transform = rasterio.Affine(a, b, c, d, -e, f + 40 * e)
        item.assets["image"].extra_fields["proj:transform"] = list(raster.transform)[:6]
    archive.save()
    scene = whole(plan(archive.job("a.zarr")))
    assert not scene.errors
    assert scene.valid.all()


@pytest.mark.parametrize("epsg", [32631, 32632])
def test_a_file_of_another_place_breaks_its_ground(
    archive: Archive, tmp_path: Path, epsg: int
) -> None:
    """Pixels are placed by the file, so that the Item's ground would be a hole without a word."""
    pixels = np.full((40, 40), 50, np.uint8)
    here = archive.add("a", pixels)
    archive.save()
    elsewhere = Archive(tmp_path / "far", epsg=epsg, west=500_300.0)
    elsewhere.add("a", pixels).replace(here)
    scene = whole(plan(archive.job("a.zarr")))
    assert "its Item says 500000, 4699600" in scene.errors[0]
    assert scene.broken.all()


def test_a_rotated_raster_is_turned_north_up(data: Path, tmp_path: Path) -> None:
    path = data / "fixtures/umbra-yasur/umbra_mount_yasur_crop.tif"
    made = over(path, tmp_path, profile={"modality": "sar", "bands": bands(0, 255, 1, 1, 1)})
    [grid] = made.grids.values()
    assert grid.crs == "EPSG:32759"
    assert grid.transform[1] == grid.transform[3] == 0
    scene = whole(made)
    with rasterio.open(path) as raster:
        truth = raster.read(1)
        inverse = ~raster.transform
    rows, cols = np.nonzero(scene.valid)
    assert 0.9 < len(rows) / truth.size < 1.15
    some = np.random.default_rng(1).choice(len(rows), 4000)
    x, y = grid.affine @ (cols[some] + 0.5, rows[some] + 0.5)  # type: ignore[operator]
    col, row = inverse @ (x, y)
    inside = (row >= 1) & (row < truth.shape[0] - 1) & (col >= 1) & (col < truth.shape[1] - 1)
    there = truth[row[inside].astype(int), col[inside].astype(int)].astype(float)
    ours = scene.pixels[0][rows[some][inside], cols[some][inside]].astype(float)
    assert np.corrcoef(there, ours)[0, 1] > 0.85


def test_nan_without_a_nodata_tag_and_a_grid_off_by_a_tenth_of_a_pixel(
    data: Path, tmp_path: Path
) -> None:
    folder = data / "fixtures/rotterdam-spacenet6"
    with rasterio.open(folder / "sar_masked.tif") as raster:
        raw = raster.read()
    scene = whole(
        over(
            folder / "sar_masked.tif",
            tmp_path,
            profile={"modality": "sar", "bands": bands(-20, 30, 1, 2, 4)},
        )
    )
    expected = np.isfinite(raw[[0, 1, 3]]).all(axis=0)
    assert scene.valid.shape == expected.shape
    assert np.array_equal(scene.valid, expected)
    rgb = whole(
        over(
            folder / "rgb_unmasked.tif",
            tmp_path,
            profile={"modality": "optical", "bands": bands(0, 255, 1, 2, 3)},
        )
    )
    with rasterio.open(folder / "rgb_unmasked.tif") as raster:
        assert np.array_equal(rgb.pixels[:, rgb.valid], raster.read()[:, rgb.valid])


def test_degrees_become_metres_of_the_utm_zone(data: Path, tmp_path: Path) -> None:
    path = data / "fixtures/vegas-spacenet3/AOI_2_Vegas_img0.tif"
    made = over(path, tmp_path, profile={"modality": "optical", "bands": bands(0, 255, 1, 2, 3)})
    [grid] = made.grids.values()
    assert grid.crs == "EPSG:32611"
    # 0.0000027 degrees: 0.3 m to the north, 0.24 m to the east.
    assert 0.2 < grid.transform[0] < 0.35
    scene = whole(made)
    assert 0.95 < scene.valid.mean() <= 1
    assert 20 < scene.pixels[:, scene.valid].std() < 90
    part = Window(311, 205, 733, 901)
    again = read_scene(grid, part, made.scene_items(grid.name, 0, part))
    assert np.array_equal(again.pixels, scene.pixels[:, 311:733, 205:901]), (
        "warped pixels do not depend on the window"
    )


def test_negative_northings_and_a_thermal_band(data: Path, tmp_path: Path) -> None:
    path = data / "fixtures/landsat5-tm/LT52240631988227CUB02_B6.TIF"
    made = over(path, tmp_path, profile={"modality": "infrared", "bands": bands(100, 180, 1, 1, 1)})
    [grid] = made.grids.values()
    assert (grid.crs, grid.transform[0], grid.zone) == ("EPSG:32622", 30.0, None)
    assert grid.transform[5] < 0
    scene = whole(made)
    with rasterio.open(path) as raster:
        truth = raster.read(1)
    assert scene.valid.all()
    assert np.array_equal(
        scene.pixels[0], to_8bit(truth, Band(asset="image", low=100, high=180), Radiometry())
    )


def test_chips_of_degrees_in_decibels_and_one_that_is_all_nan(data: Path, tmp_path: Path) -> None:
    folder = data / "s1-flood-chips"
    profile = {"modality": "sar", "bands": bands(-30, 5, 1, 2, 1)}
    for split, seen in (("test", True), ("nodata", False)):
        for name in (folder / f"{split}.txt").read_text().split():
            scene = whole(over(folder / "S1" / f"{name}_S1Hand.tif", tmp_path, profile=profile))
            assert scene.valid.any() == seen, name
            assert not scene.broken.any()


def test_radar_geometry_is_warped_by_its_ground_control_points(data: Path) -> None:
    made = plan(real_job(data, "sentinel-1-grd", grid={"crs": "EPSG:32643"}))
    [grid] = made.grids.values()
    assert grid.crs == "EPSG:32643"
    scene = whole(made)
    to_grid = pyproj.Transformer.from_crs("OGC:CRS84", grid.crs, always_xy=True)
    with rasterio.open(made.items[0].assets["vv"].href) as raster:
        points, _ = raster.gcps
        raw = raster.read(1)
    pairs = []
    for point in points:
        row, col = int(point.row), int(point.col)
        x, y = (int(value) for value in ~grid.affine @ to_grid.transform(point.x, point.y))
        if 5 < row < raw.shape[0] - 5 and 5 < col < raw.shape[1] - 5:
            there, here = (
                raw[row - 4 : row + 5, col - 4 : col + 5],
                scene.pixels[0][y - 4 : y + 5, x - 4 : x + 5],
            )
            pairs.append((np.median(20 * np.log10(np.maximum(there, 1))), np.median(here)))
    assert len(pairs) > 100
    assert np.corrcoef(np.array(pairs).T)[0, 1] > 0.97
    assert 0.6 < scene.valid.mean() < 0.8, "a scene that lies askew"
    assert not scene.errors
    part = Window(300, 500, 700, 900)
    again = read_scene(grid, part, made.scene_items(grid.name, 0, part))
    assert np.array_equal(again.pixels, scene.pixels[:, 300:700, 500:900]), (
        "pixels must not depend on the window"
    )


def test_cloud_by_the_scene_classification_is_masked(data: Path) -> None:
    made = plan(real_job(data, "sentinel-2-l2a"))
    scene = whole(made)
    href = made.items[0].assets["scl"].href
    with rasterio.open(href) as raster:
        scl = raster.read(1)
    clouded = np.isin(scl, (3, 8, 9, 10))
    assert abs(clouded.mean() - scene.masked.mean()) < 0.01
    assert not (scene.masked & scene.valid).any()


def test_profiles_say_the_modality_of_every_known_collection(data: Path) -> None:
    for collection in ("sentinel-2-l2a", "sentinel-1-grd", "naip", "landsat-c2-l2"):
        made = plan(real_job(data, collection))
        assert made.modality == ("sar" if "sentinel-1" in collection else "optical")
        assert isinstance(made.sources[0].profile, CollectionProfile)
    assert json.dumps(made.refused_prompts) == "{}"


def test_an_asset_with_an_absurd_size_is_refused(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.add("a", np.full((40, 40), 50, np.uint8))
    archive.save()
    made = plan(archive.job("a.zarr"))
    monkeypatch.setattr("earthgptx.pipeline.reading.assets.MAX_PIXELS", 100)
    assert "claims 40 x 40 px" in whole(made).errors[0]
    assert issubclass(SourceError, Exception)


@pytest.mark.parametrize("resolution", ["native", 130.0], ids=["aligned", "warped"])
def test_a_scene_is_one_radiometry_before_and_since_the_change_of_baseline(
    data: Path, tmp_path: Path, resolution: float | str
) -> None:
    """A real Sentinel-2 scene as ESA encoded it until 2022, and as it has since."""
    before = plan(real_job(data, "sentinel-2-l2a"))
    [path] = {Path(item.assets["red"].href).parent for item in before.items[:1]}
    scenes = []
    for name, added, properties in (
        ("before", 0, {"s2:processing_baseline": "03.01"}),
        ("since", 1000, {"s2:processing_baseline": "05.10"}),
        ("applied", 0, {"earthsearch:boa_offset_applied": True}),
    ):
        item = before.items[0].clone()
        item.id = "scene"
        item.properties = item.properties | properties
        for key in ("red", "green", "blue"):
            with rasterio.open(path / Path(item.assets[key].href).name) as raster:
                profile, stored = raster.profile, raster.read()
            shifted = np.where(stored == 0, 0, stored + added).astype(stored.dtype)
            target = tmp_path / f"{name}-{key}.tif"
            with rasterio.open(target, "w", **profile) as raster:
                raster.write(shifted)
            item.assets[key].href = str(target)
        spec = real_job(data, "sentinel-2-l2a", grid={"resolution": resolution})
        access = Access(folders=(str(tmp_path),))
        source = spec.source.model_copy(update={"access": access})
        spec = spec.model_copy(update={"source": source})
        made = plan(spec, items=[item])
        assert not made.warnings
        scenes.append(whole(made).pixels)
    assert scenes[0].any()
    assert np.array_equal(scenes[0], scenes[2])
    if resolution == "native":
        assert np.array_equal(scenes[0], scenes[1])
    else:  # GDAL blends in float32, whose last bits differ
        assert np.abs(scenes[0].astype(int) - scenes[1]).max() <= 1


@pytest.mark.parametrize("resolution", ["native", 7.0], ids=["aligned", "warped"])
def test_a_pixel_has_one_grey_level_whatever_window_is_read(
    tmp_path: Path, resolution: float | str
) -> None:
    """Also where the window exceeds the file, so that values become floats."""
    archive = Archive(tmp_path)
    dice = np.random.default_rng(0)
    pixels = dice.integers(0, 4000, (1200, 1100)).astype(np.uint16)
    pixels[::7, ::5] = 1050
    archive.add("a", pixels, nodata=None)
    archive.save()
    band = {"asset": "image", "low": 0, "high": 0.35, "scale": 1e-4}
    profile = {"made": {"modality": "optical", "bands": [band] * 3}}
    job = archive.job("a.zarr", source={"profiles": profile}, grid={"resolution": resolution})
    made = plan(job)
    [grid] = made.grids.values()
    height, width = grid.shape
    large = Window(-40, -40, height + 40, width + 40)
    whole_scene = read_scene(grid, large, made.scene_items(grid.name, 0, large))
    for window in (Window(0, 0, 512, 512), Window(530, 540, 700, 900), Window(-9, 3, 70, 80)):
        part = read_scene(grid, window, made.scene_items(grid.name, 0, window))
        at = window.within(large)
        assert np.array_equal(part.pixels, whole_scene.pixels[(slice(None), *at)])
        assert np.array_equal(part.valid, whole_scene.valid[at])


def test_a_pole_inside_a_cell_is_seen_only_where_it_is(tmp_path: Path) -> None:
    """A world map in degrees on a polar grid: places of a cell are not continuous there."""
    path = tmp_path / "world.tif"
    transform = rasterio.Affine(0.5, 0, -180, 0, -0.5, 90)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=100,
        width=720,
        count=1,
        dtype="uint8",
        crs="EPSG:4326",
        transform=transform,
    ) as raster:
        raster.write(np.full((1, 100, 720), 7, np.uint8))
    made = over(
        path,
        tmp_path,
        profile={"modality": "optical", "bands": bands(0, 255, 1, 1, 1)},
        geometry=shapely.box(-179.9, 60, 179.9, 89.9),
        grid={"crs": "EPSG:3413", "resolution": 20_000},
    )
    scene = whole(made)
    assert scene.valid.any()
    assert (scene.pixels[:, scene.valid] == 7).all()


@pytest.mark.parametrize("nodata", [-9999, "nan", "odd"])
def test_odd_nodata_breaks_its_own_ground_only(archive: Archive, nodata: object) -> None:
    archive.add("a", np.full((40, 40), 50, np.uint8), nodata=None)
    archive.add("b", np.full((40, 40), 60, np.uint8), col=40, nodata=None)
    item = archive.catalog.get_item("b")
    assert item is not None
    item.assets["image"].extra_fields["raster:bands"] = [{"nodata": nodata}]
    archive.save()
    scene = whole(plan(archive.job("a.zarr", grid={"resolution": 7.0})))
    assert scene.valid[1:-1, 2:50].all()
    assert (scene.valid | scene.broken)[1:-1, 2:-2].all()


def test_nodata_that_only_an_item_declares_is_no_data(archive: Archive) -> None:
    pixels = np.full((40, 40), 50, np.uint8)
    pixels[:10] = 7
    archive.add("a", pixels, nodata=None)
    for item in archive.catalog.get_items():
        item.assets["image"].extra_fields["raster:bands"] = [{"nodata": 7}]
    archive.save()
    scene = whole(plan(archive.job("a.zarr")))
    assert not scene.valid[:10].any()
    assert scene.valid[10:].all()


def test_a_window_that_is_full_reads_no_further_item(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six Items cover all of it, the second but for a strip; only the missing strip is read."""
    full = np.full((300, 300), 50, np.uint8)
    half = full.copy()
    half[:, 200:] = 0
    archive.add("a", half, when="2026-01-01T09:00:00Z")
    for number in range(5):
        archive.add(f"b{number}", full + number, when=f"2026-01-01T1{number}:00:00Z")
    archive.save()
    read: list[tuple[str, tuple[int, int]]] = []

    def noted(grid: Any, part: Window, request: Any) -> Any:
        read.append((request.raster.item, part.shape))
        return read_window(grid, part, request)

    monkeypatch.setattr("earthgptx.pipeline.reading.item.read_window", noted)
    scene = whole(plan(archive.job("a.zarr", slices="all")))
    assert scene.valid.all()
    assert read == [("a", (300, 300)), ("b0", (300, 100))]


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000))
def test_a_mosaic_is_the_first_data_of_each_pixel(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    """However the Items lie, and whichever window is read."""
    dice = np.random.default_rng(seed)
    archive = Archive(tmp_path_factory.mktemp("mosaic"))
    expected = np.zeros((90, 90), np.uint8)
    for number in range(4):
        row, col = dice.integers(0, 50, 2)
        pixels = dice.integers(1, 255, (40, 40)).astype(np.uint8)
        if number % 2:
            pixels[dice.random((40, 40)) < 0.5] = 0
        else:
            top, left = dice.integers(0, 30, 2)
            pixels[top : top + 10, left:] = 0
        archive.add(f"i{number}", pixels, row=int(row), col=int(col), when=f"2026-01-0{number + 1}")
        there = expected[row : row + 40, col : col + 40]
        there[there == 0] = pixels[there == 0]
    archive.save()
    made = plan(archive.job("a.zarr", slices="all"))
    [grid] = made.grids.values()
    row0, col0 = (
        round((archive.north - grid.transform[5]) / 10),
        round((grid.transform[2] - archive.west) / 10),
    )
    expected = expected[row0 : row0 + grid.shape[0], col0 : col0 + grid.shape[1]]
    y0, x0 = dice.integers(0, 30, 2)
    for window in (grid.window, Window(int(y0), int(x0), int(y0) + 25, int(x0) + 31)):
        window = window & grid.window
        scene = read_scene(grid, window, made.scene_items(grid.name, 0, window))
        assert np.array_equal(
            scene.pixels[0], expected[window.y0 : window.y1, window.x0 : window.x1]
        )
        assert np.array_equal(scene.valid, scene.pixels[0] > 0)

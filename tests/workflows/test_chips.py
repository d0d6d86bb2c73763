"""A raster and outlines over it become chips that training reads."""

from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from rasterio.transform import from_origin

from earthgptx.model.datasets.formats import SetConfig
from earthgptx.model.datasets.readers import read_set
from earthgptx.model.interface.errors import DataError
from earthgptx.workflows.chips import cut_chips


@pytest.fixture
def raster(tmp_path: Path) -> Path:
    path = tmp_path / "scene.tif"
    pixels = np.full((3, 150, 250), 60, np.uint8)
    pixels[:, 40:60, 80:120] = 200
    pixels[:, :, 200:] = 0
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=250,
        height=150,
        count=3,
        dtype="uint8",
        crs="EPSG:32631",
        transform=from_origin(500_000, 4_700_000, 2, 2),
    ) as file:
        file.write(pixels)
    return path


def outlines(path: Path, *shapes: shapely.Geometry, crs: str = "EPSG:32631") -> str:
    frame = gpd.GeoDataFrame(
        {"kind": ["hall", "shed"][: len(shapes)]}, geometry=list(shapes), crs=crs
    )
    frame.to_crs("EPSG:4326").to_file(path, driver="GeoJSON")
    return str(path)


def test_outlines_lie_on_their_pixels_in_every_chip_that_they_meet(
    raster: Path, tmp_path: Path
) -> None:
    across = shapely.box(
        500_160, 4_700_000 - 120, 500_240, 4_700_000 - 80
    )  # rows 40..60, columns 80..120
    labels = outlines(tmp_path / "l.geojson", across)
    assert cut_chips(str(raster), labels, tmp_path / "chips", word="building", px=100) == (4, 2)
    records = read_set(
        SetConfig(
            name="mine", format="coco", folder=tmp_path / "chips", split="train", modality="optical"
        )
    )
    found = [region for record in records for region in record.regions]
    assert [region.label for region in found] == ["building", "building"]
    for record in records:
        bright = record.pixels[0] > 100
        inside = np.zeros_like(bright)
        for region in record.regions:
            inside |= region.mask.window(0, 0, 100, 100)
        assert (bright ^ inside).sum() <= 60  # the outline's own row of pixels
        assert inside.any() == bright.any()
    named = cut_chips(str(raster), labels, tmp_path / "named", word="", column="kind", px=100)
    assert named == (4, 2)


def test_what_cannot_be_cut_is_refused(raster: Path, tmp_path: Path) -> None:
    far = outlines(tmp_path / "far.geojson", shapely.box(600_000, 4_600_000, 600_100, 4_600_100))
    with pytest.raises(DataError, match="no object of .* lies on"):
        cut_chips(str(raster), far, tmp_path / "a", word="x")
    with pytest.raises(DataError, match="has no column 'name'; it has kind"):
        cut_chips(str(raster), far, tmp_path / "a", word="x", column="name")
    with pytest.raises(DataError, match="cannot be read"):
        cut_chips(str(tmp_path / "none.tif"), far, tmp_path / "a", word="x")
    with pytest.raises(DataError, match="cannot read .* as a vector file"):
        cut_chips(str(raster), str(tmp_path / "none.geojson"), tmp_path / "a", word="x")

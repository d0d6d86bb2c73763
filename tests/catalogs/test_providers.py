"""The table of providers in docs/imagery.md: what of their recorded Items is read, and how."""

from pathlib import Path
from typing import Any

import pystac
import pytest

from earthgptx.catalogs.access import Access, Opening
from earthgptx.catalogs.collections import profile_of
from earthgptx.catalogs.errors import AddressRefused, UnknownCollection
from earthgptx.pipeline.errors import SourceError
from earthgptx.pipeline.planning.items import UsableItems
from earthgptx.pipeline.planning.warnings import warnings_of
from earthgptx.pipeline.reading.sources import source_of
from tests.catalogs.recorded import recorded_item

ANYWHERE = Opening.of("https://example.org", Access())
Values = tuple[float, float, float | None]
READ: list[tuple[str, list[str], Values, str]] = [
    ("earth-search sentinel-2-l2a", ["red", "green", "blue"], (1e-4, 0.0, 0), ""),
    ("earth-search sentinel-2-c1-l2a", ["red", "green", "blue"], (1e-4, -0.1, 0), ""),
    (
        "earth-search, another day sentinel-2-l2a",
        ["red", "green", "blue"],
        (1e-4, 0.0, 0),
        "",
    ),
    (
        "earth-search, another day landsat-c2-l2",
        ["red", "green", "blue"],
        (2.75e-5, -0.2, 0),
        "",
    ),
    ("earth-search v0", ["B04", "B03", "B02"], (1e-4, 0.0, 0), "neither an offset nor"),
    ("planetary-computer sentinel-2-l2a", ["B04", "B03", "B02"], (1e-4, -0.1, 0), ""),
    ("planetary-computer before 04.00", ["B04", "B03", "B02"], (1e-4, 0.0, 0), ""),
    ("planetary-computer landsat-c2-l2", ["red", "green", "blue"], (2.75e-5, -0.2, 0), ""),
    ("planetary-computer sentinel-1-rtc", ["vv", "vh", "vv"], (1.0, 0.0, -32768), ""),
    ("planetary-computer naip", ["image", "image", "image"], (1.0, 0.0, None), ""),
    ("usgs landsat-c2l2-sr", ["red", "green", "blue"], (2.75e-5, -0.2, 0), ""),
]


@pytest.mark.parametrize(("name", "assets", "values", "doubt"), READ, ids=[row[0] for row in READ])
def test_what_of_an_item_is_read_and_how(
    data: Path, name: str, assets: list[str], values: Values, doubt: str
) -> None:
    item = recorded_item(data, name)
    source = source_of(item, profile_of(item.collection_id or ""), ANYWHERE)
    assert [each.raster.key for each in source.channels] == assets
    first = source.channels[0].radiometry
    assert (first.scale, first.offset, first.nodata) == values
    warnings = warnings_of(UsableItems([item], [source]))
    assert doubt in " ".join(warnings)
    assert bool(doubt) == bool(warnings)


def test_a_thermal_band_is_in_kelvin(data: Path) -> None:
    item = recorded_item(data, "planetary-computer landsat-c2-l2")
    thermal = profile_of("landsat-c2-l2", {"landsat-c2-l2": "landsat-c2-l2-thermal"})
    first = source_of(item, thermal, ANYWHERE).channels[0]
    assert first.raster.key == "lwir11"
    assert (first.radiometry.scale, first.band.low) == (0.00341802, 260)


def test_radar_of_one_polarisation_is_refused_with_what_it_has(data: Path) -> None:
    item = recorded_item(data, "earth-search sentinel-1-grd")
    profile = profile_of("sentinel-1-grd")
    with pytest.raises(SourceError, match="no asset vv.*hh.*source.profiles"):
        source_of(item, profile, ANYWHERE)


@pytest.mark.parametrize("collection", ["cop-dem-glo-30", "cop-dem-glo-90", "nasadem-dem"])
def test_heights_are_no_imagery(collection: str) -> None:
    with pytest.raises(UnknownCollection, match="it holds heights"):
        profile_of(collection)


@pytest.mark.parametrize(
    ("collection", "like"),
    [
        ("sentinel-2-pre-c1-l2a", "sentinel-2-l2a"),
        ("SENTINEL-2-L2A", "sentinel-2-l2a"),
        ("landsat-c2l2-st", "landsat-c2-l2-thermal"),
        ("hls2-s30", "hls2"),
        ("HLSL30_2.0", "hls2"),
        ("HLSS30.v2.0", "hls2"),
        ("ga_s2bm_ard_3", "dea-ard"),
        ("ga_ls8c_ard_3", "dea-ard"),
        ("ga_ls7e_ard_3", "dea-ard"),
    ],
)
def test_a_collection_is_known_under_its_providers_names(collection: str, like: str) -> None:
    assert profile_of(collection) == profile_of(like)


@pytest.mark.parametrize("collection", ["sentinel-2-l1c", "ga_ls_fc_3", "sentinel-2-l2a-x"])
def test_other_products_are_not_taken_for_known_ones(collection: str) -> None:
    with pytest.raises(UnknownCollection, match="is not known"):
        profile_of(collection)


def written(collection: str, assets: dict[str, dict[str, Any]], **properties: Any) -> pystac.Item:
    """An Item in the shape of a catalog of which there is no recording."""
    when = pystac.utils.str_to_datetime("2025-06-28T02:41:41Z")
    item = pystac.Item("written", None, None, when, properties, collection=collection)
    for key, fields in assets.items():
        item.add_asset(key, pystac.Asset(fields.pop("href"), extra_fields=fields))
    return item


COPERNICUS = "https://stac.dataspace.copernicus.eu/v1"
AUSTRALIA = "https://explorer.dea.ga.gov.au/stac"
LP_DAAC = "https://cmr.earthdata.nasa.gov/stac/LPCLOUD"
OF_COPERNICUS = {"raster:scale": 1e-4, "raster:offset": -0.1, "nodata": 0}
WRITTEN: list[tuple[str, str, dict[str, dict[str, Any]], Values, str]] = [
    (
        COPERNICUS,
        "sentinel-2-l2a",
        {
            **{
                f"B0{number}_10m": {"href": f"s3://eodata/S2/B0{number}.jp2", **OF_COPERNICUS}
                for number in (2, 3, 4)
            },
            "SCL_20m": {"href": "s3://eodata/S2/SCL.jp2"},
        },
        (1e-4, -0.1, 0),
        "",
    ),
    (
        AUSTRALIA,
        "ga_s2am_ard_3",
        {
            **{
                f"nbart_{band}": {"href": f"s3://dea-public-data/ga_s2am_ard_3/{band}.tif"}
                for band in ("red", "green", "blue")
            },
            "oa_s2cloudless_mask": {"href": "s3://dea-public-data/ga_s2am_ard_3/mask.tif"},
        },
        (1e-4, 0.0, -999),
        "",
    ),
    (
        LP_DAAC,
        "HLSL30_2.0",
        {
            key: {"href": f"https://data.lpdaac.earthdatacloud.nasa.gov/lp/HLS.{key}.tif"}
            for key in ("B02", "B03", "B04", "Fmask")
        },
        (1e-4, 0.0, -9999),
        "name data.lpdaac.earthdatacloud.nasa.gov under source.access.hosts",
    ),
]


@pytest.mark.parametrize(
    ("catalog", "collection", "assets", "values", "refused"),
    WRITTEN,
    ids=[row[0].split("/")[2] for row in WRITTEN],
)
def test_an_item_written_in_the_shape_of_a_catalog_is_read_or_says_what_to_set(
    catalog: str, collection: str, assets: dict[str, dict[str, Any]], values: Values, refused: str
) -> None:
    item = written(collection, {key: dict(fields) for key, fields in assets.items()})
    opening = Opening.of(catalog, Access())
    source = source_of(item, profile_of(collection), opening)
    first = source.channels[0].radiometry
    assert (first.scale, first.offset, first.nodata) == values
    addresses = [document.href for document in source.documents]
    assert len(addresses) == 4
    for address in addresses:
        if refused:
            with pytest.raises(AddressRefused, match=refused):
                opening.reach.check(address)
        else:
            opening.reach.check(address)
    options = opening.gdal(addresses[0])
    if catalog == COPERNICUS:
        assert options["AWS_S3_ENDPOINT"] == "eodata.dataspace.copernicus.eu"
    if catalog == AUSTRALIA:
        assert options["AWS_NO_SIGN_REQUEST"] == "YES"

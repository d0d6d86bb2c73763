"""What Items declare about their values, in all the places where catalogs write it."""

from typing import Any

import pystac
import pytest

from earthgptx.catalogs.collections import KNOWN, profile_of
from earthgptx.catalogs.profiles import Band, CollectionProfile
from earthgptx.catalogs.radiometry import Radiometry, baseline_of, radiometry_of

S2 = KNOWN["sentinel-2-l2a"]
PLAIN = CollectionProfile(modality="optical", bands=(Band(asset="a", low=0, high=1),) * 3)


def item(fields: dict[str, Any], properties: dict[str, Any], name: str = "x") -> pystac.Item:
    moment = pystac.utils.str_to_datetime("2020-01-01")
    made = pystac.Item(name, None, None, moment, properties)
    made.add_asset("red", pystac.Asset("red.tif", extra_fields=fields))
    return made


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, (1.0, 0.0, None)),
        ({"raster:bands": [{"scale": 0.5, "offset": 2, "nodata": 7}]}, (0.5, 2.0, 7.0)),
        ({"bands": [{"raster:scale": 0.5, "raster:offset": 2, "nodata": 7}]}, (0.5, 2.0, 7.0)),
        ({"raster:scale": 0.5, "raster:offset": 2, "nodata": 7}, (0.5, 2.0, 7.0)),
        (
            {"bands": [{"nodata": 7}], "raster:scale": 0.5, "raster:bands": [{"offset": 2}]},
            (0.5, 2.0, 7.0),
        ),
        ({"raster:bands": [{"scale": 0.5}]}, (0.5, 0.0, None)),
        ({"raster:bands": [{"offset": 2}]}, (1.0, 2.0, None)),
        ({"raster:bands": [{"scale": None, "offset": "two"}]}, (1.0, 0.0, None)),
        ({"raster:bands": [{"scale": "0.5", "nodata": "-inf"}]}, (0.5, 0.0, float("-inf"))),
        ({"raster:bands": ["odd"], "bands": {"odd": 1}}, (1.0, 0.0, None)),
    ],
)
def test_values_are_declared_in_many_places(
    fields: dict[str, Any], expected: tuple[float, float, float | None]
) -> None:
    found = radiometry_of(item(fields, {}), "red", PLAIN.bands[0], PLAIN)
    assert (found.scale, found.offset, found.nodata) == expected


def test_the_second_band_of_an_asset_has_its_own_values() -> None:
    fields = {"raster:bands": [{"scale": 1}, {"scale": 3}]}
    band = Band(asset="red", index=2, low=0, high=1)
    assert radiometry_of(item(fields, {}), "red", band, PLAIN).scale == 3
    third = band.model_copy(update={"index": 3})
    assert radiometry_of(item(fields, {}), "red", third, PLAIN).scale == 1


def test_a_profile_supplies_what_an_item_does_not_declare_or_overrules_it() -> None:
    band = Band(asset="red", low=0, high=1, scale=4, offset=5)
    declared = item({"raster:bands": [{"scale": 2, "offset": 3, "nodata": 1}]}, {})
    own = PLAIN.model_copy(update={"nodata": 9.0})
    assert radiometry_of(item({}, {}), "red", band, own) == Radiometry(4, 5, 9)
    assert radiometry_of(declared, "red", band, own) == Radiometry(2, 3, 1)
    overruled = own.model_copy(update={"radiometry": "bands"})
    assert radiometry_of(declared, "red", band, overruled) == Radiometry(4, 5, 9)
    zero = item({"raster:bands": [{"scale": 0}]}, {})
    assert radiometry_of(zero, "red", band, own).scale == 4
    assert "scale 0" in radiometry_of(zero, "red", band, own).doubt


DECLARED = {"raster:bands": [{"scale": 1e-4, "offset": -0.1}]}


@pytest.mark.parametrize(
    ("fields", "properties", "offset", "doubt"),
    [
        ({}, {"s2:processing_baseline": "02.12"}, 0.0, ""),
        ({}, {"s2:processing_baseline": "04.00"}, -0.1, ""),
        ({}, {"processing:version": "05.11"}, -0.1, ""),
        (
            {},
            {"s2:product_uri": "S2B_MSIL2A_20240419T095549_N0510_R122_T47XML_X.SAFE"},
            -0.1,
            "",
        ),
        (DECLARED, {"s2:processing_baseline": "05.11"}, -0.1, ""),
        (
            DECLARED,
            {"s2:processing_baseline": "05.11", "earthsearch:boa_offset_applied": True},
            0.0,
            "",
        ),
        (
            DECLARED,
            {"s2:processing_baseline": "05.11", "earthsearch:boa_offset_applied": False},
            -0.1,
            "0.1 too dark",
        ),
        (
            {},
            {"s2:processing_baseline": "03.01", "earthsearch:boa_offset_applied": False},
            0.0,
            "",
        ),
        (DECLARED, {"s2:processing_baseline": "02.09"}, -0.1, "baseline 2.09 does not have"),
        (DECLARED, {}, -0.1, ""),
        ({}, {}, 0.0, "neither an offset nor a processing baseline"),
    ],
)
def test_the_offset_of_sentinel_2(
    fields: dict[str, Any], properties: dict[str, Any], offset: float, doubt: str
) -> None:
    found = radiometry_of(item(fields, properties), "red", S2.bands[0], S2)
    assert (found.scale, found.offset, found.nodata) == (1e-4, offset, 0)
    assert doubt in found.doubt
    assert bool(doubt) == bool(found.doubt)


def test_the_baseline_stands_in_the_name_too() -> None:
    name = "S2B_MSIL2A_20190629T212529_N0212_R043_T06VVN_20201006T080531"
    assert baseline_of(item({}, {}, name)) == 2.12
    assert baseline_of(item({}, {"s2:processing_baseline": "odd"}, "S2B_T24MUV_L2A")) is None


def test_landsat_without_a_declaration_is_read_by_the_guide() -> None:
    profile = profile_of("landsat-c2l2-sr")
    found = radiometry_of(item({}, {}), "red", profile.bands[0], profile)
    assert (found.scale, found.offset, found.nodata) == (2.75e-5, -0.2, 0)

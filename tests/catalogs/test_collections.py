import pytest
from pydantic import ValidationError

from earthgptx.catalogs.collections import KNOWN, modality_of, profile_of
from earthgptx.catalogs.errors import UnknownCollection
from earthgptx.catalogs.profiles import CollectionProfile


def test_an_unknown_collection_is_refused_with_a_way_out() -> None:
    with pytest.raises(
        UnknownCollection, match=r"'gaofen' is not known \(known: .*naip.*source\.profiles\.gaofen"
    ):
        profile_of("gaofen")


def test_a_job_may_describe_a_collection_or_name_another_known_one() -> None:
    own = KNOWN["naip"].model_copy(update={"modality": "infrared"})
    assert profile_of("mine", {"mine": own}) is own
    assert (
        profile_of("landsat-c2-l2", {"landsat-c2-l2": "landsat-c2-l2-thermal"}).modality
        == "infrared"
    )


def test_collections_of_several_modalities_are_not_mixed() -> None:
    assert modality_of([KNOWN["naip"], KNOWN["sentinel-2-l2a"]]) == "optical"
    with pytest.raises(UnknownCollection, match="infrared, sar.*one job for each"):
        modality_of([KNOWN["sentinel-1-grd"], KNOWN["sample-infrared"]])


def test_a_band_whose_ends_are_equal_is_refused() -> None:
    band = {"asset": "a", "low": 5, "high": 5}
    with pytest.raises(ValidationError, match="low and high are both 5"):
        CollectionProfile.model_validate({"modality": "sar", "bands": [band] * 3})

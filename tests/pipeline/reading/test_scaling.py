"""Stored values become grey levels: of every type, in decibels, and of two encodings alike."""

import numpy as np
import pytest

from earthgptx.catalogs.profiles import Band
from earthgptx.catalogs.radiometry import Radiometry
from earthgptx.pipeline.reading.scaling import to_8bit


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_scaling_is_the_same_for_every_type(dtype: str) -> None:
    values = np.array([[0, 10, 70, 110, 120]], dtype)
    band = Band(asset="a", low=10, high=110)
    assert to_8bit(values, band, Radiometry()).tolist() == [[0, 0, 153, 255, 255]]


def test_decibels_and_what_is_no_number() -> None:
    band = Band(asset="a", low=0, high=20, decibels="power")
    values = np.array([1.0, 10.0, 100.0, -5.0, np.nan, np.inf, 0.0])
    assert to_8bit(values, band, Radiometry()).tolist() == [0, 128, 255, 0, 0, 255, 0]


@pytest.mark.parametrize("dtype", ["int16", "uint16", "int32", "float64"])
def test_two_encodings_of_one_reflectance_are_one_grey_level(dtype: str) -> None:
    """Of every stored value, also where the grey level lies on the edge of two."""
    band = Band(asset="a", low=0, high=0.35)
    stored = np.arange(0, 16000, dtype=dtype)
    before = to_8bit(stored, band, Radiometry(1e-4, 0.0))
    since = to_8bit(stored + 1000, band, Radiometry(1e-4, -0.1))
    assert np.array_equal(before, since)
    assert len(np.unique(before)) == 256

"""Scales stored values to 8 bit by a collection's profile."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earthgptx.catalogs.collections import Band


def to_8bit(values: NDArray[Any], band: Band) -> NDArray[np.uint8]:
    """Scales stored values to 0..255 as the band defines; same shape. NaN becomes 0."""
    if values.dtype in (np.uint8, np.uint16):
        if values.dtype == np.uint8 and (band.low, band.high, band.scale) == (0, 255, "linear"):
            return values
        table: NDArray[np.uint8] = _table(band, values.dtype.str)[values]
        return table
    return _scale(values, band)


@lru_cache(maxsize=32)
def _table(band: Band, dtype: str) -> NDArray[np.uint8]:
    """Returns the scaled value of every value of an unsigned dtype."""
    return _scale(np.arange(np.iinfo(dtype).max + 1, dtype=np.float64), band)


def _scale(values: NDArray[Any], band: Band) -> NDArray[np.uint8]:
    with np.errstate(divide="ignore", invalid="ignore"):
        if band.scale == "amplitude_db":
            values = 20 * np.log10(values)
        elif band.scale == "power_db":
            values = 10 * np.log10(values)
        scaled = (values - band.low) * (255 / (band.high - band.low)) + 0.5
        return np.nan_to_num(np.clip(scaled, 0, 255), nan=0).astype(np.uint8)

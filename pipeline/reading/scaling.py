"""Scales stored values to 8 bit: to physical values first, then between a band's low and high."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earthgptx.catalogs.profiles import Band
from earthgptx.catalogs.radiometry import Radiometry

DIGITS = 6
"""Decimals of a grey level that count: two encodings of one physical value, whose floats differ in
the last bits, become one grey level."""
ROWS = 1 << 8
"""Rows of an image that are float64 at once."""
_TABLED = (np.uint8, np.int8, np.uint16, np.int16)


def to_8bit(values: NDArray[Any], band: Band, radiometry: Radiometry) -> NDArray[np.uint8]:
    """Scales stored values to 0..255 as the band defines; same shape. NaN becomes 0."""
    scale, offset = radiometry.scale, radiometry.offset
    plain = (band.low, band.high, band.decibels, scale, offset) == (0, 255, "none", 1, 0)
    if values.dtype == np.uint8 and plain:
        return values
    if values.dtype in _TABLED:
        table = _table(band, scale, offset, values.dtype.str)
        lowest = int(np.iinfo(values.dtype).min)
        found: NDArray[np.uint8] = table[values if not lowest else values.astype(np.intp) - lowest]
        return found
    return _scale(values, band, scale, offset)


@lru_cache(maxsize=32)
def _table(band: Band, scale: float, offset: float, dtype: str) -> NDArray[np.uint8]:
    """Returns the scaled value of every value of a dtype, from the smallest."""
    known = np.iinfo(dtype)
    stored = np.arange(int(known.min), int(known.max) + 1, dtype=np.float64)
    return _scaled(stored, band, scale, offset)


def _scale(values: NDArray[Any], band: Band, scale: float, offset: float) -> NDArray[np.uint8]:
    """Computes in float64, as the tables do: a value has one grey level, whatever its dtype."""
    result = np.empty(values.shape, np.uint8)
    for start in range(0, len(values), ROWS):
        piece = values[start : start + ROWS].astype(np.float64)
        result[start : start + ROWS] = _scaled(piece, band, scale, offset)
    return result


def _scaled(
    values: NDArray[np.float64], band: Band, scale: float, offset: float
) -> NDArray[np.uint8]:
    with np.errstate(divide="ignore", invalid="ignore"):
        if (scale, offset) != (1, 0):
            values = values * scale + offset
        if band.decibels == "amplitude":
            values = 20 * np.log10(values)
        elif band.decibels == "power":
            values = 10 * np.log10(values)
        grey = np.round((values - band.low) * (255 / (band.high - band.low)), DIGITS) + 0.5
        return np.nan_to_num(np.clip(grey, 0, 255), nan=0).astype(np.uint8)

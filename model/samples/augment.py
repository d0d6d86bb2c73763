"""Sensor augmentation of records, by modality. Torch-free.

Varied sensors keep a model from learning the renderer or a single camera.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from earthgptx.model.datasets.record import Record

Floats = NDArray[np.floating[Any]]


def augmented(record: Record, rng: np.random.Generator) -> Record:
    """Returns the record as another sensor might measure it; the regions are unchanged."""
    values: Floats = record.pixels.astype(np.float32) / 255
    if record.modality == "optical":
        values = _optical(values, rng)
    elif record.modality == "sar":
        values = _sar(values, rng)
    else:
        values = _infrared(values, rng)
    if rng.random() < 0.15:
        values = ndimage.gaussian_filter(values, (0, *(rng.uniform(0.3, 1.0),) * 2))
    if rng.random() < 0.1:
        values = _occluded(values, rng)
    return replace(record, pixels=(np.clip(values, 0, 1) * 255 + 0.5).astype(np.uint8))


def _contrast(values: Floats, rng: np.random.Generator) -> Floats:
    gain, bias, gamma = rng.uniform(0.7, 1.3), rng.uniform(-0.12, 0.12), np.exp(rng.normal(0, 0.25))
    return np.clip((values - 0.5) * gain + 0.5 + bias, 0, 1).astype(np.float32) ** np.float32(gamma)


def _optical(values: Floats, rng: np.random.Generator) -> Floats:
    values = _contrast(values, rng)
    tint = rng.normal(1, 0.1, (3, 1, 1)).astype(np.float32)  # season, haze, colour tables
    values = values * tint
    if rng.random() < 0.1:
        values = np.repeat(values.mean(axis=0, keepdims=True), 3, axis=0)  # panchromatic
    elif rng.random() < 0.5:
        grey = values.mean(axis=0, keepdims=True)
        values = grey + (values - grey) * rng.uniform(0.4, 1.5)
    texture = ndimage.zoom(
        rng.normal(0, 1, (1, 9, 9)), (1, *(side / 9 for side in values.shape[1:])), order=1
    )
    values = values + rng.uniform(0, 0.06) * texture.astype(np.float32)
    return (values + rng.normal(0, rng.uniform(0, 0.03), values.shape)).astype(np.float32)


def _sar(values: Floats, rng: np.random.Generator) -> Floats:
    """Varies gain, range and number of looks; in dB, multiplicative speckle becomes additive."""
    values = _contrast(values, rng)
    looks = rng.uniform(2, 40)
    speckle = rng.gamma(looks, 1 / looks, values.shape[1:])
    decibels = 10 * np.log10(np.maximum(speckle, 1e-3)) / 30
    values = values + decibels.astype(np.float32)
    if rng.random() < 0.3:  # slope of the noise floor across the swath
        values = values + rng.uniform(-0.15, 0.15) * np.linspace(
            -1, 1, values.shape[2], dtype=np.float32
        )
    return values


def _infrared(values: Floats, rng: np.random.Generator) -> Floats:
    values = _contrast(values, rng)
    if rng.random() < 0.2:
        values = 1 - values  # black hot
    stripes = rng.normal(0, rng.uniform(0, 0.02), (1, 1, values.shape[2]))
    noise = rng.normal(0, rng.uniform(0, 0.03), values.shape[1:])
    return (values + stripes + noise).astype(np.float32)


def _occluded(values: Floats, rng: np.random.Generator) -> Floats:
    """Fills a small rectangle with one value, as if data were missing."""
    height, width = values.shape[1:]
    rows, cols = (int(rng.integers(4, side // 8)) for side in (height, width))
    y, x = int(rng.integers(height - rows)), int(rng.integers(width - cols))
    values = values.copy()
    values[:, y : y + rows, x : x + cols] = rng.uniform(0, 1)
    return values

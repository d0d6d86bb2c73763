"""Types that say how a collection is read: its modality, its bands, its mask.

A job file describes a collection with the same types. The scaling to 8 bit is fixed per collection,
never per scene or tile, so that the same ground looks the same everywhere.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Modality = Literal["optical", "sar", "infrared"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _OfAsset(_Strict):
    asset: str | tuple[str, ...]
    """Asset key, or the keys that different catalogs use; the first that an Item has is read."""

    @property
    def assets(self) -> tuple[str, ...]:
        """Asset keys to try, in order."""
        return (self.asset,) if isinstance(self.asset, str) else self.asset


class Band(_OfAsset):
    """One input channel: a band of an asset, and the physical values that become 0 and 255.

    A physical value is a stored one times `scale` plus `offset`, then in decibels if `decibels`
    says so.
    """

    index: int = Field(1, ge=1)
    """Number of the band in the asset's file, from 1."""
    low: float
    """Physical value that becomes 0."""
    high: float
    """Physical value that becomes 255."""
    scale: float = 1.0
    """Factor from stored to physical values, for Items that declare none."""
    offset: float = 0.0
    """Physical value of a stored 0, for Items that declare none."""
    decibels: Literal["none", "amplitude", "power"] = "none"
    """Whether `low` and `high` are decibels: 20 log10 of an amplitude, or 10 log10 of a power."""
    calibration: str | tuple[str, ...] = ()
    """Key of the asset that holds Sentinel-1's calibration annotation, or several keys: a stored
    amplitude is divided by its `sigmaNought`. Items that have none are scaled by `scale`, with a
    warning."""

    @property
    def annotations(self) -> tuple[str, ...]:
        """Keys of the calibration annotation to try, in order."""
        return (self.calibration,) if isinstance(self.calibration, str) else self.calibration

    @model_validator(mode="after")
    def _range(self) -> Band:
        if self.low == self.high:
            raise ValueError(
                f"low and high are both {self.low}; they are the values that become 0 and 255"
            )
        if self.calibration and self.decibels != "amplitude":
            raise ValueError("calibration is for amplitudes; write decibels: amplitude")
        if not self.scale:
            raise ValueError("scale 0 makes all values equal; write the factor, or leave it out")
        return self


class Mask(_OfAsset):
    """An asset that flags unusable pixels (cloud, shadow)."""

    values: tuple[int, ...] = ()
    """Values that flag a pixel as unusable."""
    bits: tuple[int, ...] = ()
    """Bits, from 0; a pixel is unusable if any of them is set."""


class CollectionProfile(_Strict):
    """How to read the Items of one collection."""

    modality: Modality
    bands: tuple[Band, Band, Band]
    """Bands of the model's three channels."""
    nodata: float | None = None
    """Stored value that means no data, for Items that declare none; None to use the file's."""
    mask: Mask | None = None
    resampling: Literal["nearest", "bilinear", "cubic", "average"] = "bilinear"
    """Resampling method for assets that are not aligned with the target grid."""
    radiometry: Literal["declared", "bands"] = "declared"
    """Whose scale and offset count: those that an Item declares, else those of `bands`; or always
    those of `bands`."""
    baseline_offset: float | None = None
    """Offset of Sentinel-2 since processing baseline 04.00, for Items that declare none; None for
    other collections."""
    radar_geometry: bool = False
    """Whether pixels lie as the sensor saw them, so that the grid that an Item declares is not that
    of its pixels."""

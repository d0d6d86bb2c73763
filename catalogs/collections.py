"""Profiles of STAC collections: the modality, and the bands that become the model's channels.

The scaling to 8 bit is fixed per collection, never per scene or tile, so that the same ground looks
the same everywhere. A job file describes a collection that is not listed here with the same types.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from earthgptx.catalogs.errors import UnknownCollection

Modality = Literal["optical", "sar", "infrared"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Band(_Strict):
    """One input channel: a band of an asset, and the values that are scaled to 0 and 255."""

    asset: str | tuple[str, ...]
    """Asset key, or the keys that different catalogs use; the first that an Item has is read."""
    index: int = Field(1, ge=1)
    """Number of the band in the asset's file, from 1."""
    low: float
    """Value, after `scale`, that becomes 0."""
    high: float
    """Value, after `scale`, that becomes 255."""
    scale: Literal["linear", "amplitude_db", "power_db"] = "linear"
    """First step on the stored value: none, 20 log10 or 10 log10."""

    @model_validator(mode="after")
    def _range(self) -> Band:
        if self.low == self.high:
            raise ValueError(
                f"low and high are both {self.low}; they are the values that become 0 and 255"
            )
        return self

    @property
    def assets(self) -> tuple[str, ...]:
        """Asset keys to try, in order."""
        return (self.asset,) if isinstance(self.asset, str) else self.asset


class Mask(_Strict):
    """An asset that flags unusable pixels (cloud, shadow)."""

    asset: str | tuple[str, ...]
    values: tuple[int, ...] = ()
    """Values that flag a pixel as unusable."""
    bits: tuple[int, ...] = ()
    """Bits, from 0; a pixel is unusable if any of them is set."""

    @property
    def assets(self) -> tuple[str, ...]:
        """Asset keys to try, in order."""
        return (self.asset,) if isinstance(self.asset, str) else self.asset


class CollectionProfile(_Strict):
    """How to read the Items of one collection."""

    modality: Modality
    bands: tuple[Band, Band, Band]
    """Bands of the model's three channels."""
    nodata: float | None = None
    """Stored value that means no data; None to use the value that the file declares."""
    mask: Mask | None = None
    resampling: Literal["nearest", "bilinear", "cubic", "average"] = "bilinear"
    """Resampling method for assets that are not aligned with the target grid."""


def _grey(
    asset: str | tuple[str, ...], low: float, high: float, **more: object
) -> tuple[Band, Band, Band]:
    band = Band.model_validate({"asset": asset, "low": low, "high": high, **more})
    return (band, band, band)


def _rgb(asset: str) -> tuple[Band, Band, Band]:
    red, green, blue = (Band(asset=asset, index=i, low=0, high=255) for i in (1, 2, 3))
    return (red, green, blue)


_LANDSAT_CLOUD = Mask(asset="qa_pixel", bits=(1, 2, 3, 4))
"""QA_PIXEL bits: dilated cloud, cirrus, cloud, shadow (Landsat C2 L2 science product guide)."""

KNOWN: Mapping[str, CollectionProfile] = {
    "sentinel-2-l2a": CollectionProfile(
        modality="optical",
        bands=(
            Band(asset=("red", "B04"), low=0, high=3500),
            Band(asset=("green", "B03"), low=0, high=3500),
            Band(asset=("blue", "B02"), low=0, high=3500),
        ),
        nodata=0,
        mask=Mask(asset=("scl", "SCL"), values=(3, 8, 9, 10)),
    ),
    "sentinel-1-grd": CollectionProfile(
        modality="sar",
        bands=(
            Band(asset="vv", low=20, high=65, scale="amplitude_db"),
            Band(asset="vh", low=15, high=60, scale="amplitude_db"),
            Band(asset="vv", low=20, high=65, scale="amplitude_db"),
        ),
        nodata=0,
    ),
    "sentinel-1-rtc": CollectionProfile(
        modality="sar",
        bands=(
            Band(asset="vv", low=-25, high=5, scale="power_db"),
            Band(asset="vh", low=-32, high=-2, scale="power_db"),
            Band(asset="vv", low=-25, high=5, scale="power_db"),
        ),
        nodata=-32768,
    ),
    "landsat-c2-l2": CollectionProfile(
        modality="optical",
        bands=(
            Band(asset=("red", "SR_B4"), low=7273, high=18182),
            Band(asset=("green", "SR_B3"), low=7273, high=18182),
            Band(asset=("blue", "SR_B2"), low=7273, high=18182),
        ),
        nodata=0,
        mask=_LANDSAT_CLOUD,
    ),
    "landsat-c2-l2-thermal": CollectionProfile(
        modality="infrared",
        # 0.00341802 K per step, from 149 K: the range is 260 K to 330 K.
        bands=_grey(("lwir11", "lwir", "ST_B10"), 32475, 52955),
        nodata=0,
        mask=_LANDSAT_CLOUD,
    ),
    "naip": CollectionProfile(modality="optical", bands=_rgb("image")),
    "sample-optical": CollectionProfile(
        modality="optical", bands=_rgb("visual"), nodata=0, mask=Mask(asset="cloud", values=(1,))
    ),
    "sample-sar": CollectionProfile(
        modality="sar",
        bands=(
            Band(asset="vv", low=37, high=67, scale="amplitude_db"),
            Band(asset="vh", low=30, high=60, scale="amplitude_db"),
            Band(asset="vv", low=37, high=67, scale="amplitude_db"),
        ),
        nodata=0,
    ),
    "sample-infrared": CollectionProfile(
        modality="infrared", bands=_grey("temperature", 27000, 33000), nodata=0
    ),
}
"""Profiles by name, usually a collection id. A job file selects a profile with another name
(`landsat-c2-l2-thermal`) by `profiles: {landsat-c2-l2: landsat-c2-l2-thermal}`."""


def profile_of(
    collection: str, described: Mapping[str, CollectionProfile | str] | None = None
) -> CollectionProfile:
    """Returns the profile of a collection: from the job file, else from `KNOWN`.

    Args:
        collection: collection id.
        described: profiles of the job file, or names of known ones, by collection id.

    Raises:
        UnknownCollection: neither has a profile for the collection.
    """
    found: CollectionProfile | str = (described or {}).get(collection, collection)
    if isinstance(found, CollectionProfile):
        return found
    if found not in KNOWN:
        raise UnknownCollection(
            f"collection '{found}' is not known (known: {', '.join(sorted(KNOWN))}); "
            f"describe it in the job file under source.profiles.{collection}"
        )
    return KNOWN[found]


def modality_of(profiles: Sequence[CollectionProfile]) -> Modality:
    """Returns the modality that all profiles of a job share.

    Raises:
        UnknownCollection: the modalities differ.
    """
    found = sorted({profile.modality for profile in profiles})
    if len(found) != 1:
        raise UnknownCollection(
            f"the collections are of several modalities ({', '.join(found)}); run one job for each"
        )
    return profiles[0].modality

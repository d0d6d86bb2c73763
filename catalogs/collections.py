"""The collections that are known, by the names that providers give them.

Profiles are in physical units: reflectance, kelvin, decibels of sigma0 or gamma0.
`docs/imagery.md` has the table of providers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from earthgptx.catalogs.errors import UnknownCollection
from earthgptx.catalogs.profiles import Band, CollectionProfile, Mask, Modality

REFLECTANCE = (0.0, 0.35)
"""Surface reflectance that becomes 0 and 255."""
S2_RED, S2_GREEN, S2_BLUE = (
    ("red", "B04", "B04_10m"),
    ("green", "B03", "B03_10m"),
    ("blue", "B02", "B02_10m"),
)
"""Keys of Earth Search, Planetary Computer and the Copernicus Data Space."""
GAIN = 600.0
"""Usual gain of Sentinel-1 GRD in IW mode, for Items without a calibration annotation: the
`sigmaNought` of its scenes is between 550 and 670, from far to near range."""


def _optical(
    keys: Sequence[str | tuple[str, ...]], scale: float, offset: float = 0.0, high: float = 0.35
) -> tuple[Band, Band, Band]:
    """Returns bands of surface reflectance; scale and offset count where an Item has none."""
    red, green, blue = (
        Band(asset=key, low=REFLECTANCE[0], high=high, scale=scale, offset=offset) for key in keys
    )
    return red, green, blue


def _grey(
    asset: str | tuple[str, ...], low: float, high: float, **more: object
) -> tuple[Band, Band, Band]:
    band = Band.model_validate({"asset": asset, "low": low, "high": high, **more})
    return (band, band, band)


def _rgb(asset: str) -> tuple[Band, Band, Band]:
    red, green, blue = (Band(asset=asset, index=i, low=0, high=255) for i in (1, 2, 3))
    return (red, green, blue)


def _radar(
    co: tuple[float, float], cross: tuple[float, float], decibels: str
) -> tuple[Band, Band, Band]:
    """Returns bands of co- and cross-polarised radar; the third channel repeats the first."""
    first, second = (
        Band.model_validate({"asset": key, "low": low, "high": high, "decibels": decibels})
        for key, (low, high) in (("vv", co), ("vh", cross))
    )
    return first, second, first


def _grd() -> tuple[Band, Band, Band]:
    """Returns the bands of Sentinel-1 GRD, in decibels of sigma0."""
    first, second, _ = (
        band.model_copy(
            update={"calibration": f"schema-calibration-{band.asset}", "scale": 1 / GAIN}
        )
        for band in _radar((-25, 10), (-32, 3), "amplitude")
    )
    return first, second, first


_LANDSAT_CLOUD = Mask(asset="qa_pixel", bits=(1, 2, 3, 4))
"""QA_PIXEL bits: dilated cloud, cirrus, cloud, shadow (Landsat C2 L2 science product guide)."""

KNOWN: Mapping[str, CollectionProfile] = {
    "sentinel-2-l2a": CollectionProfile(
        modality="optical",
        bands=_optical((S2_RED, S2_GREEN, S2_BLUE), 1e-4),
        nodata=0,
        mask=Mask(asset=("scl", "SCL", "SCL_20m"), values=(3, 8, 9, 10)),
        baseline_offset=-0.1,
    ),
    "sentinel-1-grd": CollectionProfile(
        modality="sar",
        bands=_grd(),
        nodata=0,
        radiometry="bands",
        radar_geometry=True,
    ),
    "sentinel-1-rtc": CollectionProfile(
        modality="sar", bands=_radar((-25, 5), (-32, -2), "power"), nodata=-32768
    ),
    "landsat-c2-l2": CollectionProfile(
        modality="optical",
        bands=_optical(
            (("red", "SR_B4"), ("green", "SR_B3"), ("blue", "SR_B2")), 2.75e-5, -0.2, 0.3
        ),
        nodata=0,
        mask=_LANDSAT_CLOUD,
    ),
    "landsat-c2-l2-thermal": CollectionProfile(
        modality="infrared",
        bands=_grey(("lwir11", "lwir", "ST_B10"), 260, 330, scale=0.00341802, offset=149.0),
        nodata=0,
        mask=_LANDSAT_CLOUD,
    ),
    "hls2": CollectionProfile(
        modality="optical",
        bands=_optical(("B04", "B03", "B02"), 1e-4),
        nodata=-9999,
        mask=Mask(asset="Fmask", bits=(1, 2, 3)),
    ),
    "dea-ard": CollectionProfile(
        modality="optical",
        bands=_optical(("nbart_red", "nbart_green", "nbart_blue"), 1e-4),
        nodata=-999,
        mask=Mask(asset=("oa_fmask", "oa_s2cloudless_mask"), values=(2, 3)),
    ),
    "naip": CollectionProfile(modality="optical", bands=_rgb("image")),
    "sample-optical": CollectionProfile(
        modality="optical", bands=_rgb("visual"), nodata=0, mask=Mask(asset="cloud", values=(1,))
    ),
    "sample-sar": CollectionProfile(
        modality="sar", bands=_radar((37, 67), (30, 60), "amplitude"), nodata=0
    ),
    "sample-infrared": CollectionProfile(
        modality="infrared", bands=_grey("temperature", 270, 330, scale=0.01), nodata=0
    ),
}
"""Profiles by name. A job file selects one by name (`landsat-c2-l2-thermal`) by
`profiles: {landsat-c2-l2: landsat-c2-l2-thermal}`."""

NAMES: tuple[tuple[str, str], ...] = (
    (r"sentinel-2-((pre-)?c1-)?l2a", "sentinel-2-l2a"),  # Earth Search, Planetary Computer, CDSE
    (r"sentinel-s2-l2a(-cogs)?", "sentinel-2-l2a"),  # Earth Search v0
    (r"sentinel-1-(iw-)?grd(-cog)?", "sentinel-1-grd"),
    (r"landsat-c2-?l2(-sr)?", "landsat-c2-l2"),  # USGS: landsat-c2l2-sr
    (r"landsat-c2-?l2-st", "landsat-c2-l2-thermal"),
    (r"hls2?-?[sl]30([._]v?2\.0)?", "hls2"),  # Planetary Computer: hls2-s30; LP DAAC: HLSS30_2.0
    (r"ga_(s2[abc]m|ls[5789][tec])_ard_3", "dea-ard"),  # Digital Earth Australia
)
"""Names that providers give a collection, as whole-word patterns, and the profile that reads it."""
REFUSED: tuple[tuple[str, str], ...] = (
    (r"(.*[-_])?dem([-_].*)?", "it holds heights, and the model reads imagery"),
)
"""Names of collections that no profile can read, and why."""


def profile_of(
    collection: str, described: Mapping[str, CollectionProfile | str] | None = None
) -> CollectionProfile:
    """Returns the profile of a collection: from the job file, else from `KNOWN` or `NAMES`.

    Args:
        collection: collection id.
        described: profiles of the job file, or names of known ones, by collection id.

    Raises:
        UnknownCollection: none has a profile for the collection.
    """
    found: CollectionProfile | str = (described or {}).get(collection, collection)
    if isinstance(found, CollectionProfile):
        return found
    if found in KNOWN:
        return KNOWN[found]
    for pattern, name in NAMES:
        if re.fullmatch(pattern, found, re.IGNORECASE):
            return KNOWN[name]
    for pattern, why in REFUSED:
        if re.fullmatch(pattern, found, re.IGNORECASE):
            raise UnknownCollection(
                f"collection '{found}' is not read: {why}; if it is imagery, describe it in the "
                f"job file under source.profiles.{collection}"
            )
    raise UnknownCollection(
        f"collection '{found}' is not known (known: {', '.join(sorted(KNOWN))}); "
        f"describe it in the job file under source.profiles.{collection}"
    )


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

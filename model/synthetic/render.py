"""Renders the made world as optical, SAR and infrared sensors see it.

Deterministic for given seeds. A camera maps pixels to metres of the made world by an affine; the
caller georeferences the result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from earthgptx.model.synthetic.shapes import Ring
from earthgptx.model.synthetic.world import Thing, coast, river, things

Sensor = Literal["optical", "sar", "infrared"]
Floats = NDArray[np.float64]

MARGIN_M = 60.0
"""Distance beyond a view up to which objects are drawn, metres; no shadow is longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """Properties of the ground, the weather and the sensors. Defaults are the sample archive's."""

    sun: tuple[float, float] = (0.55, 0.83)
    """Length of a shadow (east, north) in metres per metre of height."""
    soil: tuple[float, float, float] = (0.34, 0.33, 0.2)
    """Red, green and blue reflectance of bare ground, 0..1."""
    water: tuple[float, float, float] = (0.05, 0.11, 0.17)
    beach: tuple[float, float, float] = (0.62, 0.56, 0.43)
    roughness: float = 1.0
    """Factor on the contrast of the textures of ground and sea."""
    cloudiness: float = 1.0
    """Factor on the thickness of clouds; 0 for none."""
    looks: float = 6.0
    """Equivalent number of looks of the SAR speckle."""
    glint_db: float = 0.0
    """Standard deviation of SAR backscatter within objects higher than 2.5 m, dB."""
    sea_db: float = -20.5
    soil_db: float = -13.5
    impulse_px: float = 0.6
    """Standard deviation of the SAR's impulse response, pixels."""
    sea_k: float = 288.0
    ground_k: float = 295.5
    warmth: float = 1.0
    """Factor on the temperature contrast of objects and ground in infrared; negative inverts it."""
    clutter: float = 0.0
    """Mean number of specks that are no objects, per 100 x 100 pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Camera:
    """A window on the made world.

    The affine (a, b, c, d, e, f) maps pixel corners to metres: x = a col + b row + c,
    y = d col + e row + f.
    """

    affine: tuple[float, float, float, float, float, float]
    height: int
    width: int
    seed: int
    date: int
    style: Style = Style()

    @property
    def pixel_m(self) -> float:
        """Mean side of a pixel in metres."""
        a, b, _, d, e, _ = self.affine
        return float(np.sqrt(abs(a * e - b * d)))

    def coordinates(self) -> tuple[Floats, Floats]:
        """Returns easting and northing of the pixel centres in metres, each (H, W)."""
        a, b, c, d, e, f = self.affine
        col, row = np.meshgrid(np.arange(self.width) + 0.5, np.arange(self.height) + 0.5)
        return a * col + b * row + c, d * col + e * row + f

    def things(self) -> list[Thing]:
        """Returns all objects within `MARGIN_M` of the view, in drawing order."""
        a, b, c, d, e, f = self.affine
        xs = [c, c + a * self.width, c + b * self.height, c + a * self.width + b * self.height]
        ys = [f, f + d * self.width, f + e * self.height, f + d * self.width + e * self.height]
        west, east, south, north = min(xs), max(xs), min(ys), max(ys)
        return [
            thing
            for thing in things(west - 400.0, east + 400.0, seed=self.seed, date=self.date)
            if thing.bounds[0] <= east + MARGIN_M
            and thing.bounds[2] >= west - MARGIN_M
            and thing.bounds[1] <= north + MARGIN_M
            and thing.bounds[3] >= south - MARGIN_M
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """The measurements of a sensor."""

    bands: NDArray[np.uint16] | NDArray[np.uint8]
    """Bands, (B, H, W): optical red, green, blue uint8; SAR VV, VH amplitude uint16 (1000 is 0 dB);
    infrared temperature uint16 in 1/100 K."""
    cloud: NDArray[np.bool_]
    """(H, W) bool. True where cloud hides the ground; all False for SAR and infrared."""


def render(camera: Camera, sensor: Sensor) -> Picture:
    """Renders a view as one sensor sees it."""
    x, y = camera.coordinates()
    noise = np.random.default_rng(
        [camera.seed, camera.date, int(abs(x[0, 0])), int(abs(y[0, 0])), len(sensor)]
    )
    if sensor == "optical":
        return _optical(camera, x, y, noise)
    if sensor == "sar":
        return _sar(camera, x, y, noise)
    return _infrared(camera, x, y, noise)


def coverage(rings: tuple[Ring, ...], x: Floats, y: Floats, pixel_m: float) -> Floats:
    """Returns the fraction of each pixel that a union of convex rings covers, in x's shape.

    Args:
        rings: convex rings, counter-clockwise.
        x: x of the pixel centres, in the unit of the rings.
        y: y of the pixel centres, in the same shape and unit.
        pixel_m: side of a pixel in the same unit.
    """
    total = np.zeros_like(x)
    for ring in rings:
        inside = np.ones_like(x)
        for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
            ex, ey = x1 - x0, y1 - y0
            distance = (ex * (y - y0) - ey * (x - x0)) / np.hypot(ex, ey)
            np.minimum(inside, np.clip(0.5 + distance / pixel_m, 0.0, 1.0), out=inside)
        np.maximum(total, inside, out=total)
    return total


def _draw(
    camera: Camera,
    x: Floats,
    y: Floats,
    layers: Floats,
    thing: Thing,
    values: Floats,
    shift: float = 0.0,
) -> None:
    """Blends `values` (C,) into `layers` (C, H, W) where an object lies, in place.

    `shift` moves the object along its shadow, as a fraction of the shadow's length.
    """
    a, b, c, d, e, f = camera.affine
    inverse = np.linalg.inv(np.array([[a, b], [d, e]]))
    offset = np.array(camera.style.sun) * thing.height_m * shift
    rings = tuple(ring + offset for ring in thing.rings)
    corners = (np.concatenate(rings) - (c, f)) @ inverse.T
    col0, row0 = np.maximum(np.floor(corners.min(axis=0)).astype(int) - 1, 0)
    col1, row1 = np.minimum(
        np.ceil(corners.max(axis=0)).astype(int) + 1, (camera.width, camera.height)
    )
    if col0 >= col1 or row0 >= row1:
        return
    window = (slice(row0, row1), slice(col0, col1))
    part = coverage(rings, x[window], y[window], camera.pixel_m)
    layers[(slice(None), *window)] += part * (
        values[:, None, None] - layers[(slice(None), *window)]
    )


def _texture(x: Floats, y: Floats, scale_m: float, seed: int) -> Floats:
    """Returns smooth noise, (H, W), with mean 0 and deviation about 0.3.

    The noise is a function of place and seed, so overlapping views show the same ground.
    """
    u, v = x / scale_m, y / scale_m
    i0, j0 = int(np.floor(u.min())), int(np.floor(v.min()))
    i, j = np.meshgrid(np.arange(i0, int(u.max()) + 3), np.arange(j0, int(v.max()) + 3))
    mixed = (
        (i.astype(np.uint64) * 0x9E3779B97F4A7C15)
        ^ (j.astype(np.uint64) * 0xC2B2AE3D27D4EB4F)
        ^ np.uint64(seed)
    )
    mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    lattice = ((mixed ^ (mixed >> np.uint64(32))) & np.uint64(0xFFFF)).astype(float) / 0xFFFF - 0.5
    return ndimage.map_coordinates(lattice, [v - j0, u - i0], order=1, mode="nearest")


def _cluttered(
    camera: Camera, layers: Floats, noise: np.random.Generator, strength: float
) -> Floats:
    """Adds specks of a few pixels that are brighter or darker than their surroundings, in place.

    The specks stand for rocks, waves, bushes and hot stones.
    """
    count = (
        noise.poisson(camera.style.clutter * camera.height * camera.width / 1e4)
        if camera.style.clutter
        else 0
    )
    for _ in range(count):
        row, col = int(noise.integers(camera.height)), int(noise.integers(camera.width))
        rows, cols = (int(side) for side in noise.integers(1, 4, 2))
        layers[:, row : row + rows, col : col + cols] += strength * noise.uniform(-0.4, 1.0)
    return layers


def land(x: Floats, y: Floats, seed: int) -> tuple[Floats, Floats, Floats]:
    """Returns properties of the ground at easting `x` and northing `y`, each in their shape.

    Returns:
        Distance inland from the water in metres (negative on water), field number in 0..1, and
        vegetation in 0..1.
    """
    inland = np.minimum(y - coast(x), river(x, y) - 22.0)
    east, north = np.floor(x / 310.0), np.floor(y / 230.0)
    field = np.abs(np.sin(east * 12.9898 + north * 78.233 + seed % 97) * 43758.5453) % 1.0
    vegetation = np.clip(
        0.45 + 0.5 * (field - 0.5) + 0.5 * _texture(x, y, 90.0, seed + 3), 0.0, 1.0
    )
    return inland, field, vegetation


def _optical(camera: Camera, x: Floats, y: Floats, noise: np.random.Generator) -> Picture:
    inland, _, vegetation = land(x, y, camera.seed)
    season = 0.75 + 0.25 * np.cos(camera.date * 1.3)
    fine = _texture(x, y, 9.0, camera.seed + 5)
    style, rough = camera.style, camera.style.roughness
    red, green, blue = style.soil
    covered = np.stack(
        [
            red - 0.2 * vegetation * season,
            green - 0.08 * vegetation,
            blue - 0.1 * vegetation * season,
        ]
    )
    ground = covered + rough * (0.04 * fine + 0.05 * _texture(x, y, 400.0, camera.seed + 7))
    beach = np.array(style.beach)[:, None, None] + 0.03 * fine
    ground = np.where((inland < 35.0) & (y < 400.0), beach, ground)
    waves = _texture(x + 31.0 * camera.date, y * 2.2, 26.0, camera.seed + 11 + camera.date)
    shallow = np.exp(np.clip(inland, -500, 0) / 60.0)
    water = (
        np.array(style.water)[:, None, None]
        + 0.018 * rough * waves
        + shallow * np.array([0.04, 0.1, 0.08])[:, None, None]
    )
    layers = _cluttered(camera, np.where(inland < 0, water, ground), noise, 0.3)
    things_seen = camera.things()
    for thing in things_seen:
        if thing.height_m > 2.5:
            shade = 0.03 if thing.kind == "ship" else 0.07
            _draw(camera, x, y, layers, thing, np.array([shade, shade, shade * 1.2]), shift=1.0)
    for thing in things_seen:
        _draw(camera, x, y, layers, thing, np.array(thing.tone))
    thickness = _texture(x, y, 700.0, camera.seed + 101 * (camera.date + 1)) + 0.4 * _texture(
        x, y, 190.0, camera.seed + camera.date
    )
    thickness = np.clip((thickness - 0.42) * 5.0 * style.cloudiness, 0.0, 1.0)
    layers += thickness * (0.93 - layers)
    layers += noise.normal(0, 0.008, layers.shape)
    bands = np.clip(layers * 255.0 + 0.5, 1, 255).astype(np.uint8)
    return Picture(bands=bands, cloud=thickness > 0.15)


def _sar(camera: Camera, x: Floats, y: Floats, noise: np.random.Generator) -> Picture:
    inland, field, vegetation = land(x, y, camera.seed)
    swell = _texture(x + 57.0 * camera.date, y * 1.6, 42.0, camera.seed + 17 + camera.date)
    style, rough = camera.style, camera.style.roughness
    calm = (
        style.sea_db
        + rough * 1.6 * swell
        + 1.2 * _texture(x, y, 900.0, camera.seed + 19 + camera.date)
    )
    soil = (
        style.soil_db
        + 3.0 * (field - 0.5)
        + 2.0 * vegetation
        + rough * 2.0 * _texture(x, y, 22.0, camera.seed + 23)
    )
    co = np.where(inland < 0, calm, soil)
    cross = np.where(inland < 0, calm - 8.5, soil - 6.5 + 2.0 * vegetation)
    layers = _cluttered(camera, np.stack([co, cross]), noise, 12.0)
    things_seen = camera.things()
    for thing in things_seen:
        clear = thing.backscatter_db - (
            5.0
            if thing.kind in ("ship", "building", "storage tank", "aircraft", "vehicle")
            else 8.0
        )
        _draw(camera, x, y, layers, thing, np.array([thing.backscatter_db, clear]))
        if thing.height_m > 4.0 and thing.kind in ("building", "storage tank"):
            # Layover: the wall that faces the radar is bright, and is displaced from the building.
            _draw(
                camera,
                x,
                y,
                layers,
                thing,
                np.array([thing.backscatter_db + 3.0, clear]),
                shift=0.4,
            )
    if style.glint_db:
        built = np.zeros(x.shape, bool)
        for thing in things_seen:
            if thing.height_m > 2.5:
                mark = np.zeros((1, *x.shape))
                _draw(camera, x, y, mark, thing, np.ones(1))
                built |= mark[0] > 0.5
        coarse = ndimage.gaussian_filter(noise.normal(size=x.shape), 3.0)
        layers += (
            built
            * style.glint_db
            * (0.7 * noise.normal(size=x.shape) + 0.7 * coarse / coarse.std())
        )
    power = 10.0 ** (layers / 10.0)
    power *= noise.gamma(style.looks, 1.0 / style.looks, power.shape)
    # The sensor's impulse response is slightly wider than a pixel, so speckle is correlated.
    power = ndimage.gaussian_filter(power, (0, style.impulse_px, style.impulse_px))
    amplitude = np.clip(np.sqrt(power) * 1000.0 + 0.5, 1, 65535).astype(np.uint16)
    return Picture(bands=amplitude, cloud=np.zeros(x.shape, bool))


def _infrared(camera: Camera, x: Floats, y: Floats, noise: np.random.Generator) -> Picture:
    inland, field, vegetation = land(x, y, camera.seed)
    style = camera.style
    sea = style.sea_k + 0.4 * _texture(x, y, 300.0, camera.seed + 31 + camera.date)
    ground = (
        style.ground_k
        + 2.0 * (field - 0.5)
        - 3.0 * vegetation
        + style.roughness * 0.8 * _texture(x, y, 14.0, camera.seed + 37)
    )
    layers = _cluttered(camera, np.where(inland < 0, sea, ground)[None], noise, 6.0)
    for thing in camera.things():
        kelvin = style.ground_k + style.warmth * (thing.kelvin - Style().ground_k)
        _draw(camera, x, y, layers, thing, np.array([kelvin]))
    layers = ndimage.gaussian_filter(layers, (0, 0.5, 0.5))
    stripes = noise.normal(0, 0.12, (1, 1, camera.width))
    layers = layers + stripes + noise.normal(0, 0.25, layers.shape)
    return Picture(
        bands=np.clip(layers * 100.0 + 0.5, 1, 65535).astype(np.uint16),
        cloud=np.zeros(x.shape, bool),
    )

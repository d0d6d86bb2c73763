"""Renders annotated optical, SAR and infrared images of the made world at many scales. Torch-free.

There is one image per seed. Captions are reduced to what the sensor can show.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from earthgptx.model.datasets.record import LEAST_PX, Record, Region
from earthgptx.model.interface.region import Mask
from earthgptx.model.interface.tile import Modality
from earthgptx.model.synthetic.render import Camera, Style, coverage, land, render
from earthgptx.model.synthetic.world import CELL_M, KINDS, Thing, coast, things

FINEST_M, COARSEST_M = 0.3, 20.0
"""Range of the images' scale, metres per pixel."""
_COLOURS = re.compile(r"\b(dark|white|red|grey|red-roofed) ")
_WARM = " with its engines warm"
HOT = "hot target"
"""Further label of objects that are clearly warm, in infrared."""
LICENCE = "Apache-2.0"
"""Licence of all rendered images."""
_STUFF = ("road", "water")
WORDS = frozenset((*KINDS, "car", "lorry")) - {"field"}
_PARENTS = {"car": "vehicle", "lorry": "vehicle"}


def rendered(seed: int, px: int, modality: Modality | None = None) -> Record:
    """Returns an annotated image of the made world.

    Args:
        seed: seed that determines the image.
        px: side of the image, pixels.
        modality: sensor; None for a random one.
    """
    rng = np.random.default_rng(seed)
    sensor: Modality = modality or ("optical", "sar", "infrared")[int(rng.integers(3))]
    metres = float(np.exp(rng.uniform(np.log(FINEST_M), np.log(COARSEST_M))))
    world, date = int(rng.integers(2**31)), int(rng.integers(100))
    camera = _aimed(rng, metres, px, world, date)
    picture = render(camera, sensor)
    x, y = camera.coordinates()
    regions = [
        region
        for thing in camera.things()
        if (region := _region(camera, x, y, thing, sensor)) is not None
    ]
    roads = [region for region in regions if region.stuff]
    regions = [region for region in regions if not region.stuff]
    taken = np.zeros((px, px), bool)
    for region in (*regions, *roads):
        if region.label in ("ship", "harbour"):
            taken |= region.mask.window(0, 0, px, px)
    inland, _, _ = land(x, y, world)
    water = (inland < 0) & ~taken
    if water.sum() >= LEAST_PX:
        regions.append(
            Region(labels=("water",), mask=Mask.from_array(water), stuff=True, caption="open water")
        )
    if roads:
        union = np.logical_or.reduce([road.mask.window(0, 0, px, px) for road in roads])
        regions.append(
            Region(
                labels=("road",), mask=Mask.from_array(union), stuff=True, caption=roads[0].caption
            )
        )
    return Record(
        pixels=_scaled(picture.bands, sensor, rng),
        modality=sensor,
        metres_per_pixel=metres,
        regions=tuple(regions),
        complete=WORDS | ({HOT} if sensor == "infrared" else set()),
        source="rendered",
        north_up=True,
        image=str(seed),
        licence=LICENCE,
        ignored=picture.cloud if picture.cloud.any() else None,
    )


def _aimed(rng: np.random.Generator, metres: float, px: int, world: int, date: int) -> Camera:
    """Returns a view that usually lies near an object, since most of the world is field and sea."""
    cell = int(rng.integers(-1000, 1000))
    side = metres * px
    x, y = cell * CELL_M + rng.uniform(0, CELL_M), rng.uniform(-1700, 1800)
    around = [thing for thing in things(x, x, seed=world, date=date) if thing.kind != "road"]
    if around and rng.random() < 0.85:
        kinds = sorted({thing.kind for thing in around})
        kind = kinds[int(rng.integers(len(kinds)))]
        chosen = [thing for thing in around if thing.kind == kind]
        x, y = np.concatenate(chosen[int(rng.integers(len(chosen)))].rings).mean(axis=0)
    elif rng.random() < 0.5:
        y = float(coast(np.array([x]))[0])
    x, y = x + rng.uniform(-0.45, 0.45) * side, y + rng.uniform(-0.45, 0.45) * side
    return Camera(
        affine=(metres, 0, x - side / 2, 0, -metres, y + side / 2),
        height=px,
        width=px,
        seed=world,
        date=date,
        style=_styled(rng),
    )


def _styled(rng: np.random.Generator) -> Style:
    """Returns random sun, soils, waters, weather and sensor properties.

    They vary so that a model learns the objects and not the renderer.
    """
    around, height = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 1.6)

    def toned(base: tuple[float, float, float], spread: float) -> tuple[float, float, float]:
        r, g, b = np.clip(
            np.array(base) * np.exp(rng.normal(0, spread, 3)) + rng.normal(0, 0.02), 0.01, 0.9
        )
        return float(r), float(g), float(b)

    usual = Style()
    return Style(
        sun=(height * float(np.cos(around)), height * float(np.sin(around))),
        soil=toned(usual.soil, 0.3),
        water=toned(usual.water, 0.4),
        beach=toned(usual.beach, 0.2),
        roughness=float(rng.uniform(0.5, 3.0)),
        cloudiness=float(rng.choice([0.0, 1.0])),
        looks=float(np.exp(rng.uniform(0, np.log(20)))),
        sea_db=usual.sea_db + rng.uniform(-5, 6),
        soil_db=usual.soil_db + rng.uniform(-3, 4),
        impulse_px=float(rng.uniform(0.3, 1.0)),
        glint_db=float(rng.choice([0.0, rng.uniform(1, 8)])),
        sea_k=usual.sea_k + rng.uniform(-4, 7),
        ground_k=usual.ground_k + rng.uniform(-6, 4),
        warmth=float(rng.uniform(0.7, 1.4)),
        clutter=float(rng.choice([0.0, rng.uniform(0.2, 1.5)])),
    )


def _region(
    camera: Camera, x: NDArray[np.float64], y: NDArray[np.float64], thing: Thing, sensor: Modality
) -> Region | None:
    a, _, c, _, e, f = camera.affine
    corners = (np.concatenate(thing.rings) - (c, f)) / (a, e)
    col0, row0 = np.maximum(np.floor(corners.min(axis=0)).astype(int), 0)
    col1, row1 = np.minimum(np.ceil(corners.max(axis=0)).astype(int), (camera.width, camera.height))
    if col0 >= col1 or row0 >= row1:
        return None
    window = (slice(row0, row1), slice(col0, col1))
    inside = coverage(thing.rings, x[window], y[window], camera.pixel_m) >= 0.5
    if inside.sum() < LEAST_PX:
        return None
    label = next((word for word in _PARENTS if f"a {word} " in thing.caption), str(thing.kind))
    labels = (label, _PARENTS[label]) if label in _PARENTS else (label,)
    if sensor == "infrared" and thing.hot:
        labels = (*labels, HOT)
    return Region(
        labels=labels,
        mask=Mask.from_array(inside, y0=int(row0), x0=int(col0)),
        stuff=label in _STUFF,
        caption=caption_of(thing, sensor),
    )


def caption_of(thing: Thing, sensor: Modality) -> str:
    """Returns the caption of an object without what the sensor cannot show.

    Colours are kept in optical only, warmth in infrared only. Lengths are rounded to 10 m.
    """
    text = thing.caption
    if sensor != "optical":
        text = _COLOURS.sub("", text)
    if sensor != "infrared":
        text = text.replace(_WARM, "")
    text = text.replace("a aircraft", "an aircraft")
    return re.sub(r"(\d+) m", lambda found: f"{max(round(int(found[1]), -1), 10)} m", text)


def _scaled(
    bands: NDArray[np.generic], sensor: Modality, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Scales bands to 8 bit, (3, H, W), with limits that vary as they do between collections."""
    if sensor == "optical":
        return np.ascontiguousarray(bands).astype(np.uint8)
    values = bands.astype(np.float64)
    if sensor == "sar":
        if rng.random() < 0.35:  # linear amplitudes: dark, with saturated scatterers
            channels = np.clip(values[[0, 0, 0]] / (1000 * 10 ** (rng.uniform(-14, 2) / 20)), 0, 1)
        else:
            values = 20 * np.log10(values)
            low, high = 37 + rng.uniform(-6, 3), 67 + rng.uniform(-4, 6)
            both = np.clip((values - np.array([low, low - 7])[:, None, None]) / (high - low), 0, 1)
            channels = both[[0, 1, 0]] if rng.random() < 0.5 else both[[0, 0, 0]]
    else:
        low, high = 27000 + rng.uniform(-500, 1500), 33000 + rng.uniform(-1500, 500)
        one = np.clip((values[0] - low) / (high - low), 0, 1)
        channels = np.stack([one] * 3)
    return (channels * 255 + 0.5).astype(np.uint8)

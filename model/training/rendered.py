"""Endless annotated images of the made world: optical, SAR and infrared, at any scale. Torch-free.

A seed gives always the same image. The world's captions are cut to what the sensor can show.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from model.region import Mask
from model.tile import Modality
from model.training.record import LEAST_PX, Record, Region
from model.training.render import Style, View, coverage, land, render
from model.training.world import CELL_M, KINDS, Thing, coast, things

FINEST_M, COARSEST_M = 0.3, 20.0
"""Metres of a pixel."""
_COLOURS = re.compile(r"\b(dark|white|red|grey|red-roofed) ")
_WARM = " with its engines warm"
HOT = "hot target"
"""What stands out in infrared is also called."""
LICENCE = "Apache-2.0"
"""Of all that is made here."""
_STUFF = ("road", "water")
WORDS = frozenset((*KINDS, "car", "lorry")) - {"field"}
_PARENTS = {"car": "vehicle", "lorry": "vehicle"}


def rendered(seed: int, px: int, modality: Modality | None = None) -> Record:
    """An image of the made world.

    Args:
        seed: all that the image depends on.
        px: its side.
        modality: None for any.
    """
    rng = np.random.default_rng(seed)
    sensor: Modality = modality or ("optical", "sar", "infrared")[int(rng.integers(3))]
    metres = float(np.exp(rng.uniform(np.log(FINEST_M), np.log(COARSEST_M))))
    world, date = int(rng.integers(2**31)), int(rng.integers(100))
    view = _aimed(rng, metres, px, world, date)
    picture = render(view, sensor)
    x, y = view.ground()
    regions = [region for thing in view.things() if (region := _region(view, x, y, thing, sensor)) is not None]
    roads = [region for region in regions if region.whole]
    regions = [region for region in regions if not region.whole]
    taken = np.zeros((px, px), bool)
    for region in (*regions, *roads):
        if region.label in ("ship", "harbour"):
            taken |= region.mask.window(0, 0, px, px)
    inland, _, _ = land(x, y, world)
    water = (inland < 0) & ~taken
    if water.sum() >= LEAST_PX:
        regions.append(Region(labels=("water",), mask=Mask.from_array(water), whole=True, caption="open water"))
    if roads:
        union = np.logical_or.reduce([road.mask.window(0, 0, px, px) for road in roads])
        regions.append(Region(labels=("road",), mask=Mask.from_array(union), whole=True, caption=roads[0].caption))
    return Record(
        pixels=_scaled(picture.bands, sensor, rng), modality=sensor, metres_per_pixel=metres, regions=tuple(regions),
        complete=WORDS | ({HOT} if sensor == "infrared" else set()), source="rendered", north_up=True,
        image=str(seed), licence=LICENCE, ignored=picture.cloud if picture.cloud.any() else None,
    )  # fmt: skip


def _aimed(rng: np.random.Generator, metres: float, px: int, world: int, date: int) -> View:
    """A view whose middle is near something: most of the world is field and sea."""
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
    return View(
        affine=(metres, 0, x - side / 2, 0, -metres, y + side / 2), height=px, width=px, seed=world, date=date,
        style=_styled(rng),
    )  # fmt: skip


def _styled(rng: np.random.Generator) -> Style:
    """Other sun, soils, waters, weather and sensors: so that a model learns the objects and not one renderer."""
    around, height = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 1.6)

    def toned(base: tuple[float, float, float], spread: float) -> tuple[float, float, float]:
        r, g, b = np.clip(np.array(base) * np.exp(rng.normal(0, spread, 3)) + rng.normal(0, 0.02), 0.01, 0.9)
        return float(r), float(g), float(b)

    usual = Style()
    return Style(
        sun=(height * float(np.cos(around)), height * float(np.sin(around))), soil=toned(usual.soil, 0.3),
        water=toned(usual.water, 0.4), beach=toned(usual.beach, 0.2), roughness=float(rng.uniform(0.5, 3.0)),
        cloudiness=float(rng.choice([0.0, 1.0])), looks=float(np.exp(rng.uniform(0, np.log(20)))),
        sea_db=usual.sea_db + rng.uniform(-5, 6), soil_db=usual.soil_db + rng.uniform(-3, 4),
        impulse_px=float(rng.uniform(0.3, 1.0)), glint_db=float(rng.choice([0.0, rng.uniform(1, 8)])),
        sea_k=usual.sea_k + rng.uniform(-4, 7),
        ground_k=usual.ground_k + rng.uniform(-6, 4), warmth=float(rng.uniform(0.7, 1.4)),
        clutter=float(rng.choice([0.0, rng.uniform(0.2, 1.5)])),
    )  # fmt: skip


def _region(
    view: View, x: NDArray[np.float64], y: NDArray[np.float64], thing: Thing, sensor: Modality
) -> Region | None:
    a, _, c, _, e, f = view.affine
    corners = (np.concatenate(thing.rings) - (c, f)) / (a, e)
    col0, row0 = np.maximum(np.floor(corners.min(axis=0)).astype(int), 0)
    col1, row1 = np.minimum(np.ceil(corners.max(axis=0)).astype(int), (view.width, view.height))
    if col0 >= col1 or row0 >= row1:
        return None
    window = (slice(row0, row1), slice(col0, col1))
    inside = coverage(thing.rings, x[window], y[window], view.pixel_m) >= 0.5
    if inside.sum() < LEAST_PX:
        return None
    label = next((word for word in _PARENTS if f"a {word} " in thing.caption), str(thing.kind))
    labels = (label, _PARENTS[label]) if label in _PARENTS else (label,)
    if sensor == "infrared" and thing.hot:
        labels = (*labels, HOT)
    return Region(
        labels=labels, mask=Mask.from_array(inside, y0=int(row0), x0=int(col0)), whole=label in _STUFF,
        caption=caption_of(thing, sensor),
    )  # fmt: skip


def caption_of(thing: Thing, sensor: Modality) -> str:
    """The world's caption as far as the sensor shows it: colours in optical, warmth in infrared; lengths to ten metres."""
    text = thing.caption
    if sensor != "optical":
        text = _COLOURS.sub("", text)
    if sensor != "infrared":
        text = text.replace(_WARM, "")
    text = text.replace("a aircraft", "an aircraft")
    return re.sub(r"(\d+) m", lambda found: f"{max(round(int(found[1]), -1), 10)} m", text)


def _scaled(bands: NDArray[np.generic], sensor: Modality, rng: np.random.Generator) -> NDArray[np.uint8]:
    """8 bit as collections scale theirs, each a little otherwise."""
    if sensor == "optical":
        return np.ascontiguousarray(bands).astype(np.uint8)
    values = bands.astype(np.float64)
    if sensor == "sar":
        if rng.random() < 0.35:  # amplitudes as they are: dark, with what shines burnt out
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

"""Drawn aircraft, tanks and ships on real images that have none: real ground, where the made world has its own. Torch-free.

Half of the images get another ground too, as such things stand on: an apron, or a sea with some coast.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from model.region import Mask
from model.tile import Modality
from model.training.airliner import airliner
from model.training.canvas import Canvas, Floats, bumpy
from model.training.record import LEAST_PX, Record, Region
from model.training.world import Ring, box, disc, hull

_AIRPORT, _SEA = ("aircraft", "storage tank"), ("ship",)
PASTED: dict[Modality, tuple[str, ...]] = {"optical": (*_AIRPORT, *_SEA), "sar": _SEA}
MOST = 6
LENGTHS_PX = {_AIRPORT: (12.0, 190.0), _SEA: (5.0, 80.0)}
"""Of what is drawn."""
LENGTHS_M = {_AIRPORT: (15.0, 70.0), _SEA: (25.0, 300.0)}
"""Of the same on the ground."""
LEFT = 0.6
"""Part of another object that must still be seen."""
SEA_PART = 0.4
"""Part of the photographs on which ships are drawn; aircraft and tanks on the others."""
OTHER_GROUND = 0.5
"""Part of the images whose ground is drawn too."""


def may_paste(record: Record) -> bool:
    """Whether it is an image of which it is known that it has none of what may be drawn on it."""
    drawn = PASTED.get(record.modality, ())
    there = {label for region in record.regions for label in region.labels}
    return bool(drawn) and record.complete.issuperset(drawn) and there.isdisjoint(drawn)


def pasted(record: Record, rng: np.random.Generator) -> Record:
    """The same image with some such objects on it, of one size.

    They are as large as the image's scale says, if that can be drawn; else their size says how large a pixel is.
    """
    height, width = record.pixels.shape[1:]
    drawn = _SEA if record.modality == "sar" or rng.random() < SEA_PART else _AIRPORT
    size, metres = _sized(drawn, record.metres_per_pixel, rng)
    canvas = Canvas(record.pixels.astype(np.float64))
    if rng.random() < OTHER_GROUND:
        if drawn == _AIRPORT:
            _apron(canvas, size, "building" not in record.complete, rng)
        else:
            (_speckled if record.modality == "sar" else _waves)(canvas, rng)
        record = replace(
            record, regions=(), complete=frozenset(word for word in record.complete if word in _NEVER_THERE),
            ignored=None,
        )  # fmt: skip
    taken = np.zeros((height, width), bool)
    sun = rng.normal(0, 0.12, 2) * size
    added = []
    # Seas are wide and have few ships: one is as likely as all other numbers.
    many = min(int(rng.geometric(0.5)), MOST) if drawn == _SEA else int(rng.integers(1, MOST + 1))
    for _ in range(many):
        kind = drawn[int(rng.random() < 0.3) % len(drawn)]
        at = (rng.uniform(0, width), rng.uniform(0, height))
        own = size * rng.uniform(0.8, 1.2)
        aircraft = airliner(*at, own, rng) if kind == "aircraft" else None
        rings = aircraft.rings if aircraft else _OUTLINES[kind](*at, own, rng)
        mask = canvas.mask(rings)
        if mask is None or mask.area < LEAST_PX:
            continue
        mine = mask.window(0, 0, height, width)
        if (mine & taken).any():
            continue
        if kind == "ship" and record.modality == "sar":
            _shine(canvas, mine, own, rng)
        else:
            canvas.put([ring + sun for ring in rings], np.zeros(3), rng.uniform(0.3, 0.7))
            if aircraft:
                aircraft.paint(canvas, rng)
            else:
                _paint(canvas, rings, rng)
        taken |= mine
        added.append(Region(labels=(kind,), mask=mask, caption="a parked aircraft" if kind == "aircraft" else ""))
    regions = []
    for region in record.regions:
        there = region.mask.window(0, 0, height, width)
        left = there & ~taken
        if left.sum() >= max(LEAST_PX, LEFT * there.sum()):
            regions.append(replace(region, mask=Mask.from_array(left) if region.outlined else region.mask))
    return replace(
        record, pixels=np.clip(canvas.layers, 0, 255).astype(np.uint8), regions=(*regions, *added),
        metres_per_pixel=metres,
    )  # fmt: skip


def _sized(drawn: tuple[str, ...], metres: float | None, rng: np.random.Generator) -> tuple[float, float]:
    """Pixels of what is drawn, and metres of a pixel."""
    length_m, size = (float(np.exp(rng.uniform(*np.log(each[drawn])))) for each in (LENGTHS_M, LENGTHS_PX))
    least, most = LENGTHS_PX[drawn]
    if metres is not None and least <= length_m / metres <= most:
        return length_m / metres, metres
    return size, length_m / size


_NEVER_THERE = frozenset(("ship", "aircraft", "storage tank", "person", "bicycle", "solar panel"))
"""Words that a drawn ground has none of, but for what is drawn on it."""


def _tank(cx: float, cy: float, size: float, _: np.random.Generator) -> list[Ring]:
    return [disc(cx, cy, size / 2)]


def _ship(cx: float, cy: float, size: float, rng: np.random.Generator) -> list[Ring]:
    return [hull(cx, cy, float(rng.uniform(0, 360)), size, size * rng.uniform(0.14, 0.35))]


_OUTLINES = {"storage tank": _tank, "ship": _ship}


def _paint(canvas: Canvas, rings: list[Ring], rng: np.random.Generator) -> None:
    """In light colours."""
    tone = rng.uniform(130, 255) + rng.normal(0, 10, 3)
    grain = rng.normal(0, rng.uniform(0, 14), (1, *canvas.shape))
    for ring in rings:
        canvas.put([ring], (tone * rng.uniform(0.8, 1.0))[:, None, None] + grain)


def _shine(canvas: Canvas, inside: np.ndarray, size: float, rng: np.random.Generator) -> None:
    """A hull of scatterers, and the cross that the brightest of them throw beyond it."""
    shape = canvas.shape
    power = inside * rng.uniform(60, 200) * np.sqrt(rng.gamma(1.5, 1 / 1.5, shape))
    rows, cols = np.nonzero(inside)
    for at in rng.integers(0, len(rows), int(rng.integers(2, 9))):
        row, col, height = int(rows[at]), int(cols[at]), rng.uniform(150, 500)
        power[row, col] += height * 2
        if rng.random() < 0.5:
            reach = size * rng.uniform(0.1, 0.4)
            level = height * rng.uniform(0.1, 0.5)
            power[row] += level * np.exp(-np.abs(np.arange(shape[1]) - col) / reach)
            power[:, col] += level * rng.uniform(0.2, 1) * np.exp(-np.abs(np.arange(shape[0]) - row) / reach)
    blurred = ndimage.gaussian_filter(power, rng.uniform(0.4, 0.9))
    np.maximum(canvas.layers, blurred, out=canvas.layers)


def _waves(canvas: Canvas, rng: np.random.Generator) -> None:
    """Water of one colour, with waves; at times with the wakes of others and with a shore."""
    shape = canvas.shape
    tone = np.array([[25, 50, 75], [40, 75, 80], [15, 25, 40], [70, 90, 85]])[int(rng.integers(4))] * rng.uniform(
        0.6, 1.5
    )
    waves = rng.uniform(0, 6) * bumpy(shape, rng.uniform(1.5, 5), rng) + rng.uniform(0, 8) * bumpy(shape, 60, rng)
    canvas.layers[:] = tone[:, None, None] + waves
    for _ in range(int(rng.integers(0, 4))):
        at = (rng.uniform(0, shape[1]), rng.uniform(0, shape[0]))
        canvas.put(
            [box(*at, rng.uniform(10, 120), rng.uniform(1, 5), rng.uniform(0, 360))], tone + 80, rng.uniform(0.2, 0.7)
        )
    if rng.random() < 0.35:
        turn = rng.uniform(0, 2 * np.pi)
        ashore = _ashore(shape, (np.cos(turn), np.sin(turn)), 0.06, 0.1, rng)
        ground = rng.uniform(60, 190) + np.array([12, 4, -16]) * rng.uniform(-0.5, 2)
        canvas.layers[:] = np.where(ashore, ground[:, None, None] * (1 + 0.15 * bumpy(shape, 6, rng)), canvas.layers)


def _speckled(canvas: Canvas, rng: np.random.Generator) -> None:
    """Dark and speckled; with a coast and its bright specks in one of three."""
    shape = canvas.shape
    level = np.exp(rng.uniform(np.log(5), np.log(45))) * np.exp(0.1 * bumpy(shape, rng.uniform(30, 120), rng))
    if rng.random() < 0.35:
        ashore = _ashore(shape, rng.normal(size=2), 0.08, 0.0, rng)
        level = np.where(ashore, level * rng.uniform(1.5, 5) * np.exp(0.25 * bumpy(shape, 12, rng)), level)
        specks = ashore & (rng.random(shape) < 10 ** rng.uniform(-3.5, -1.7))
        level += 255 * ndimage.gaussian_filter(specks * rng.exponential(6, shape), rng.uniform(0.5, 1.2))
    looks = np.exp(rng.uniform(0, np.log(6)))
    speckled = level * np.sqrt(rng.gamma(looks, 1 / looks, shape))
    canvas.layers[:] = ndimage.gaussian_filter(speckled, rng.uniform(0, 0.8))


def _ashore(
    shape: tuple[int, int], inland: Sequence[float] | Floats, rough: float, nearest: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Where a ragged coast's land is, towards `inland`; `nearest` the middle it begins, in parts of the image."""
    y, x = np.mgrid[: shape[0], : shape[1]] / max(shape) - 0.5
    return np.asarray(x * inland[0] + y * inland[1] + rough * bumpy(shape, 40, rng) > rng.uniform(nearest, 0.5))


def _apron(canvas: Canvas, size: float, built: bool, rng: np.random.Generator) -> None:
    """Concrete with slabs, lines and vans; with grass, and where it may be with a terminal and its bridges."""
    height, width = shape = canvas.shape
    base: Floats = rng.uniform(70, 215) + np.array([12, 4, -10]) * rng.uniform(-0.5, 2)
    canvas.layers[:] = base[:, None, None] * (1 + 0.04 * bumpy(shape, 40, rng) + 0.03 * bumpy(shape, 4, rng))
    turned = rng.uniform(0, 180)

    def strip(length: float, broad: float, tone: Floats, opacity: float) -> None:
        at = (rng.uniform(0, width), rng.uniform(0, height))
        heading = turned + 90 * int(rng.integers(2)) + (rng.uniform(-40, 40) if rng.random() < 0.2 else 0)
        canvas.put([box(*at, length, broad, heading)], tone, opacity)

    far = float(height + width)
    for _ in range(int(rng.integers(0, 4))):
        strip(far, size * rng.uniform(0.5, 3), base * rng.uniform(0.6, 1.3), rng.uniform(0.3, 1))
    if rng.random() < 0.4:
        strip(far, size * rng.uniform(0.5, 3), np.array([90, 110, 60]) * rng.uniform(0.5, 1.3), 1.0)
    for _ in range(int(rng.integers(3, 14))):
        strip(far, rng.uniform(0.5, 1.5), base * rng.choice([0.6, 1.4]) + rng.normal(0, 15, 3), rng.uniform(0.2, 0.8))
    if built and rng.random() < 0.6:
        roof = rng.uniform(90, 255) + rng.normal(0, 10, 3)
        strip(size * rng.uniform(2, 8), size * rng.uniform(0.5, 2), roof, 1.0)
        for _ in range(int(rng.integers(0, 8))):
            strip(size * rng.uniform(0.4, 1), max(size * 0.06, 1), roof * rng.uniform(0.7, 1.1), 1.0)
    for _ in range(int(rng.integers(0, 40))):
        van = size * rng.uniform(0.05, 0.2)
        strip(van, van * rng.uniform(0.3, 0.6), rng.uniform(20, 255, 3) * rng.uniform(0.7, 1), 1.0)

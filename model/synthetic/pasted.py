"""Draws aircraft, storage tanks and ships on images that show none. Torch-free.

Real images give the objects real ground, unlike the made world. Half of the images get a drawn
ground instead, as it surrounds such objects: an apron, or a sea that may have a coast.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from earthgptx.model.datasets.record import LEAST_PX, Record, Region
from earthgptx.model.interface.region import Mask
from earthgptx.model.interface.tile import Modality
from earthgptx.model.synthetic.airliner import airliner
from earthgptx.model.synthetic.canvas import Canvas, Floats, bumpy
from earthgptx.model.synthetic.shapes import Ring, box, disc, hull

_AIRPORT, _SEA = ("aircraft", "storage tank"), ("ship",)
PASTED: dict[Modality, tuple[str, ...]] = {"optical": (*_AIRPORT, *_SEA), "sar": _SEA}
MOST = 6
LENGTHS_PX = {_AIRPORT: (12.0, 190.0), _SEA: (5.0, 80.0)}
"""Shortest and greatest length of the drawn objects, pixels."""
LENGTHS_M = {_AIRPORT: (15.0, 70.0), _SEA: (25.0, 300.0)}
"""Shortest and greatest length of the same objects on the ground, metres."""
LEFT = 0.6
"""Fraction of another object's pixels that must stay visible for its annotation to be kept."""
SEA_PART = 0.4
"""Fraction of the optical images that get ships; the others get aircraft and tanks."""
OTHER_GROUND = 0.5
"""Fraction of the images whose ground is replaced by a drawn one."""


def may_paste(record: Record) -> bool:
    """Whether an image is known to show none of the objects that may be drawn on it."""
    drawn = PASTED.get(record.modality, ())
    there = {label for region in record.regions for label in region.labels}
    return bool(drawn) and record.complete.issuperset(drawn) and there.isdisjoint(drawn)


def pasted(record: Record, rng: np.random.Generator) -> Record:
    """Returns the image with a few drawn objects of similar size.

    Their size follows from the image's scale if that gives a length within `LENGTHS_PX`. Otherwise
    the size is random, and the scale of the returned record follows from it.
    """
    drawn = _SEA if record.modality == "sar" or rng.random() < SEA_PART else _AIRPORT
    size, metres = _sized(drawn, record.metres_per_pixel, rng)
    canvas = Canvas(record.pixels.astype(np.float64))
    if rng.random() < OTHER_GROUND:
        record = _on_other_ground(record, canvas, drawn, size, rng)
    added, taken = _draw_objects(canvas, record.modality, drawn, size, rng)
    regions = []
    for region in record.regions:
        there = region.mask.window(0, 0, *canvas.shape)
        left = there & ~taken
        if left.sum() >= max(LEAST_PX, LEFT * there.sum()):
            mask = Mask.from_array(left) if region.outlined else region.mask
            regions.append(replace(region, mask=mask))
    return replace(
        record,
        pixels=np.clip(canvas.layers, 0, 255).astype(np.uint8),
        regions=(*regions, *added),
        metres_per_pixel=metres,
    )


def _on_other_ground(
    record: Record,
    canvas: Canvas,
    drawn: tuple[str, ...],
    size: float,
    rng: np.random.Generator,
) -> Record:
    """Draws a new ground over the whole image, and returns the record without its annotations."""
    if drawn == _AIRPORT:
        _apron(canvas, size, "building" not in record.complete, rng)
    elif record.modality == "sar":
        _speckled(canvas, rng)
    else:
        _waves(canvas, rng)
    complete = frozenset(word for word in record.complete if word in _NEVER_THERE)
    return replace(record, regions=(), complete=complete, ignored=None)


def _draw_objects(
    canvas: Canvas,
    modality: Modality,
    drawn: tuple[str, ...],
    size: float,
    rng: np.random.Generator,
) -> tuple[list[Region], NDArray[np.bool_]]:
    """Draws up to `MOST` objects that do not overlap.

    Returns:
        Regions of the objects, and a mask of the pixels that they cover, (H, W) bool.
    """
    taken = np.zeros(canvas.shape, bool)
    sun = rng.normal(0, 0.12, 2) * size
    added = []
    # Ships are sparse at sea: one ship is as likely as all larger numbers together.
    many = min(int(rng.geometric(0.5)), MOST) if drawn == _SEA else int(rng.integers(1, MOST + 1))
    for _ in range(many):
        kind = drawn[int(rng.random() < 0.3) % len(drawn)]
        at = (rng.uniform(0, canvas.shape[1]), rng.uniform(0, canvas.shape[0]))
        own = size * rng.uniform(0.8, 1.2)
        aircraft = airliner(*at, own, rng) if kind == "aircraft" else None
        rings = aircraft.rings if aircraft else _OUTLINES[kind](*at, own, rng)
        mask = canvas.mask(rings)
        if mask is None or mask.area < LEAST_PX:
            continue
        mine = mask.window(0, 0, *canvas.shape)
        if (mine & taken).any():
            continue
        if kind == "ship" and modality == "sar":
            _shine(canvas, mine, own, rng)
        else:
            canvas.put([ring + sun for ring in rings], np.zeros(3), rng.uniform(0.3, 0.7))
            if aircraft:
                aircraft.paint(canvas, rng)
            else:
                _paint(canvas, rings, rng)
        taken |= mine
        caption = "a parked aircraft" if aircraft else ""
        added.append(Region(labels=(kind,), mask=mask, caption=caption))
    return added, taken


def _sized(
    drawn: tuple[str, ...], metres: float | None, rng: np.random.Generator
) -> tuple[float, float]:
    """Returns the length of the drawn objects in pixels, and metres per pixel."""
    length_m, size = (
        float(np.exp(rng.uniform(*np.log(each[drawn])))) for each in (LENGTHS_M, LENGTHS_PX)
    )
    least, most = LENGTHS_PX[drawn]
    if metres is not None and least <= length_m / metres <= most:
        return length_m / metres, metres
    return size, length_m / size


_NEVER_THERE = frozenset(("ship", "aircraft", "storage tank", "person", "bicycle", "solar panel"))
"""Words of which a drawn ground shows no objects before objects are drawn on it."""


def _tank(cx: float, cy: float, size: float, _: np.random.Generator) -> list[Ring]:
    return [disc(cx, cy, size / 2)]


def _ship(cx: float, cy: float, size: float, rng: np.random.Generator) -> list[Ring]:
    return [hull(cx, cy, float(rng.uniform(0, 360)), size, size * rng.uniform(0.14, 0.35))]


_OUTLINES = {"storage tank": _tank, "ship": _ship}


def _paint(canvas: Canvas, rings: list[Ring], rng: np.random.Generator) -> None:
    """Draws rings in light colours."""
    tone = rng.uniform(130, 255) + rng.normal(0, 10, 3)
    grain = rng.normal(0, rng.uniform(0, 14), (1, *canvas.shape))
    for ring in rings:
        canvas.put([ring], (tone * rng.uniform(0.8, 1.0))[:, None, None] + grain)


def _shine(canvas: Canvas, inside: np.ndarray, size: float, rng: np.random.Generator) -> None:
    """Draws a ship in SAR.

    Its hull consists of scatterers. The brightest cast a cross that reaches beyond the hull.
    """
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
            power[:, col] += (
                level * rng.uniform(0.2, 1) * np.exp(-np.abs(np.arange(shape[0]) - row) / reach)
            )
    blurred = ndimage.gaussian_filter(power, rng.uniform(0.4, 0.9))
    np.maximum(canvas.layers, blurred, out=canvas.layers)


def _waves(canvas: Canvas, rng: np.random.Generator) -> None:
    """Draws water of one colour with waves, sometimes with wakes of other ships and a shore."""
    shape = canvas.shape
    tone = np.array([[25, 50, 75], [40, 75, 80], [15, 25, 40], [70, 90, 85]])[
        int(rng.integers(4))
    ] * rng.uniform(0.6, 1.5)
    waves = rng.uniform(0, 6) * bumpy(shape, rng.uniform(1.5, 5), rng) + rng.uniform(0, 8) * bumpy(
        shape, 60, rng
    )
    canvas.layers[:] = tone[:, None, None] + waves
    for _ in range(int(rng.integers(0, 4))):
        at = (rng.uniform(0, shape[1]), rng.uniform(0, shape[0]))
        canvas.put(
            [box(*at, rng.uniform(10, 120), rng.uniform(1, 5), rng.uniform(0, 360))],
            tone + 80,
            rng.uniform(0.2, 0.7),
        )
    if rng.random() < 0.35:
        turn = rng.uniform(0, 2 * np.pi)
        ashore = _ashore(shape, (np.cos(turn), np.sin(turn)), 0.06, 0.1, rng)
        ground = rng.uniform(60, 190) + np.array([12, 4, -16]) * rng.uniform(-0.5, 2)
        canvas.layers[:] = np.where(
            ashore, ground[:, None, None] * (1 + 0.15 * bumpy(shape, 6, rng)), canvas.layers
        )


def _speckled(canvas: Canvas, rng: np.random.Generator) -> None:
    """Draws a dark SAR sea with speckle; one image in three has a coast with bright specks."""
    shape = canvas.shape
    level = np.exp(rng.uniform(np.log(5), np.log(45))) * np.exp(
        0.1 * bumpy(shape, rng.uniform(30, 120), rng)
    )
    if rng.random() < 0.35:
        ashore = _ashore(shape, rng.normal(size=2), 0.08, 0.0, rng)
        level = np.where(
            ashore, level * rng.uniform(1.5, 5) * np.exp(0.25 * bumpy(shape, 12, rng)), level
        )
        specks = ashore & (rng.random(shape) < 10 ** rng.uniform(-3.5, -1.7))
        level += 255 * ndimage.gaussian_filter(
            specks * rng.exponential(6, shape), rng.uniform(0.5, 1.2)
        )
    looks = np.exp(rng.uniform(0, np.log(6)))
    speckled = level * np.sqrt(rng.gamma(looks, 1 / looks, shape))
    canvas.layers[:] = ndimage.gaussian_filter(speckled, rng.uniform(0, 0.8))


def _ashore(
    shape: tuple[int, int],
    inland: Sequence[float] | Floats,
    rough: float,
    nearest: float,
    rng: np.random.Generator,
) -> NDArray[np.bool_]:
    """Returns a mask of the land behind a ragged coast, (H, W).

    Args:
        shape: numbers of rows and columns.
        inland: direction of the land, (x, y).
        rough: raggedness of the coast, as a fraction of the image's longer side.
        nearest: least distance of the coast from the image's centre, in the same unit.
        rng: random generator.
    """
    y, x = np.mgrid[: shape[0], : shape[1]] / max(shape) - 0.5
    return np.asarray(
        x * inland[0] + y * inland[1] + rough * bumpy(shape, 40, rng) > rng.uniform(nearest, 0.5)
    )


def _apron(canvas: Canvas, size: float, built: bool, rng: np.random.Generator) -> None:
    """Draws a concrete apron with slabs, lines and vans, and sometimes with grass.

    If `built`, it may also have a terminal with its passenger bridges.
    """
    height, width = shape = canvas.shape
    base: Floats = rng.uniform(70, 215) + np.array([12, 4, -10]) * rng.uniform(-0.5, 2)
    canvas.layers[:] = base[:, None, None] * (
        1 + 0.04 * bumpy(shape, 40, rng) + 0.03 * bumpy(shape, 4, rng)
    )
    turned = rng.uniform(0, 180)

    def strip(length: float, broad: float, tone: Floats, opacity: float) -> None:
        at = (rng.uniform(0, width), rng.uniform(0, height))
        heading = (
            turned + 90 * int(rng.integers(2)) + (rng.uniform(-40, 40) if rng.random() < 0.2 else 0)
        )
        canvas.put([box(*at, length, broad, heading)], tone, opacity)

    far = float(height + width)
    for _ in range(int(rng.integers(0, 4))):
        strip(far, size * rng.uniform(0.5, 3), base * rng.uniform(0.6, 1.3), rng.uniform(0.3, 1))
    if rng.random() < 0.4:
        strip(far, size * rng.uniform(0.5, 3), np.array([90, 110, 60]) * rng.uniform(0.5, 1.3), 1.0)
    for _ in range(int(rng.integers(3, 14))):
        strip(
            far,
            rng.uniform(0.5, 1.5),
            base * rng.choice([0.6, 1.4]) + rng.normal(0, 15, 3),
            rng.uniform(0.2, 0.8),
        )
    if built and rng.random() < 0.6:
        roof = rng.uniform(90, 255) + rng.normal(0, 10, 3)
        strip(size * rng.uniform(2, 8), size * rng.uniform(0.5, 2), roof, 1.0)
        for _ in range(int(rng.integers(0, 8))):
            strip(
                size * rng.uniform(0.4, 1), max(size * 0.06, 1), roof * rng.uniform(0.7, 1.1), 1.0
            )
    for _ in range(int(rng.integers(0, 40))):
        van = size * rng.uniform(0.05, 0.2)
        strip(van, van * rng.uniform(0.3, 0.6), rng.uniform(20, 255, 3) * rng.uniform(0.7, 1), 1.0)

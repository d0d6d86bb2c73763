"""Rendered images of one kind of ground each, which teach scene classes. Torch-free."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from earthgptx.model.datasets.record import LEAST_PX, SCENE_QUESTION, Record, Region
from earthgptx.model.datasets.registry import NO_PORT
from earthgptx.model.synthetic.canvas import Canvas, Floats, bumpy
from earthgptx.model.synthetic.rendered import LICENCE
from earthgptx.model.synthetic.shapes import box

COMPLETE = frozenset(("building", "car", *NO_PORT, "harbour", "person", "bicycle", "solar panel"))
"""Words of which every object is annotated, including words of which no image shows an object."""

_Things = list[tuple[str, tuple[float, float, float, float, float]]]
"""Words, each with centre x, centre y, length and width in pixels, and heading in degrees."""


def landscape(seed: int, px: int) -> Record:
    """Returns an image of forest, grass, a field, water, houses, industry or a parking lot.

    Args:
        seed: seed that determines the image.
        px: side of the image, pixels.
    """
    rng = np.random.default_rng(seed)
    word = sorted(_MADE)[int(rng.integers(len(_MADE)))]
    canvas = Canvas(np.zeros((3, px, px)))
    regions = []
    for label, place in _MADE[word](canvas, rng):
        mask = canvas.mask([box(*place)])
        if mask is not None and mask.area >= LEAST_PX:
            regions.append(
                Region(labels=("car", "vehicle") if label == "car" else (label,), mask=mask)
            )
    return Record(
        pixels=np.clip(canvas.layers, 0, 255).astype(np.uint8),
        modality="optical",
        metres_per_pixel=None,
        regions=tuple(regions),
        complete=COMPLETE,
        source="landscapes",
        image=str(seed),
        licence=LICENCE,
        questions=((SCENE_QUESTION, word),),
    )


def _forest(canvas: Canvas, rng: np.random.Generator) -> _Things:
    _meadow(canvas, rng, 0.6)
    _trees(canvas, rng, rng.uniform(9, 20), 1.5)
    if rng.random() < 0.2:
        _path(canvas, rng)
    return []


def _grass(canvas: Canvas, rng: np.random.Generator) -> _Things:
    _meadow(canvas, rng, 1.0)
    for _ in range(int(rng.integers(0, 3))):
        _path(canvas, rng)
    if rng.random() < 0.5:
        sand = np.array([195, 165, 125]) + rng.normal(0, 12, 3)
        canvas.spot(*_anywhere(canvas, rng), rng.uniform(15, 60), sand)
    if rng.random() < 0.6:
        _trees(canvas, rng, rng.uniform(6, 16), rng.uniform(0.02, 0.15))
    if rng.random() < 0.3:
        return _roofs(canvas, rng, int(rng.integers(1, 4)), 15, 40)
    return []


def _field(canvas: Canvas, rng: np.random.Generator) -> _Things:
    """Draws adjoining plots, each with furrows in its own direction."""
    height, width = canvas.shape
    y, x = np.mgrid[:height, :width].astype(float)
    angle = rng.uniform(0, np.pi)
    plots = np.zeros(canvas.shape, int)
    for turn in (angle, angle + np.pi / 2):
        across = x * np.cos(turn) + y * np.sin(turn)
        edges = rng.uniform(
            across.min(), across.max(), int(rng.integers(0, 3 if turn == angle else 2))
        )
        plots = plots * 4 + np.digitize(across, np.sort(edges))
    tones = np.array(
        [[150, 130, 100], [120, 100, 80], [190, 175, 140], [70, 100, 50], [110, 125, 70]]
    )
    for plot in np.unique(plots):
        tone: Floats = tones[int(rng.integers(len(tones)))] * rng.uniform(0.7, 1.25) + rng.normal(
            0, 6, 3
        )
        turn = angle + np.pi / 2 * int(rng.integers(2))
        across = x * np.cos(turn) + y * np.sin(turn) + 2 * bumpy(canvas.shape, 120, rng)
        furrows = np.sin(across * 2 * np.pi / np.exp(rng.uniform(np.log(4), np.log(40))))
        shade = 1 + rng.uniform(0.0, 0.12) * furrows + 0.05 * bumpy(canvas.shape, 30, rng)
        canvas.layers[:] = np.where(plots == plot, tone[:, None, None] * shade, canvas.layers)
    canvas.layers[:] += 5 * bumpy(canvas.shape, 2.0, rng)
    if rng.random() < 0.3:
        _path(canvas, rng)
    return []


def _water(canvas: Canvas, rng: np.random.Generator) -> _Things:
    """Draws a lake or a broad river between meadows or woods."""
    _meadow(canvas, rng, 1.0)
    found = _roofs(canvas, rng, int(rng.integers(1, 6)), 10, 25) if rng.random() < 0.25 else []
    _trees(canvas, rng, rng.uniform(5, 12), rng.choice([0.1, 0.4, 1.5]))
    height, width = canvas.shape
    y, x = np.mgrid[:height, :width].astype(float)
    angle = rng.uniform(0, np.pi)
    along = (x - width / 2) * np.cos(angle) + (y - height / 2) * np.sin(angle)
    wavy = rng.uniform(0.05, 0.3) * width * bumpy(canvas.shape, rng.uniform(40, 120), rng)
    if rng.random() < 0.5:
        depth = rng.uniform(0.1, 0.3) * width - np.abs(along + 0.4 * wavy)
    else:
        depth = wavy + rng.uniform(-0.1, 0.4) * width
    wet = depth > 0
    tone = np.array([[30, 50, 65], [60, 80, 65], [25, 75, 85], [95, 95, 75]])[
        int(rng.integers(4))
    ] * rng.uniform(0.6, 1.3)
    shore = np.exp(-np.clip(depth, 0, None) / 8)
    water = (
        tone[:, None, None]
        + 25 * shore
        + 2 * bumpy(canvas.shape, 3.0, rng)
        + 3 * bumpy(canvas.shape, 60, rng)
    )
    canvas.layers[:] = np.where(wet, water, canvas.layers)
    return [(word, place) for word, place in found if not _at(wet, place)]


def _houses(canvas: Canvas, rng: np.random.Generator) -> _Things:
    """Draws small roofs in rows along streets, with gardens in between."""
    _meadow(canvas, rng, 1.0)
    if rng.random() < 0.7:
        _trees(canvas, rng, rng.uniform(3, 9), rng.uniform(0.05, 0.5))
    height, width = canvas.shape
    size = rng.uniform(9, 32)
    heading, streets, far = rng.uniform(0, 180), size * rng.uniform(3.0, 4.5), height + width
    along = np.array([np.sin(np.deg2rad(heading)), np.cos(np.deg2rad(heading))])
    across = np.array([along[1], -along[0]])
    middle = np.array([width, height]) / 2 + rng.uniform(-1, 1, 2) * streets
    grey = rng.uniform(90, 190) + rng.normal(0, 4, 3)
    found: _Things = []
    reach = int(far / streets / 2) + 1
    for number in range(-reach, reach + 1):
        lane = middle + number * streets * across
        canvas.put([box(lane[0], lane[1], 2.0 * far, size * 0.45, heading)], grey)
        for side in (-1, 1):
            row = lane + side * size * rng.uniform(0.85, 1.05) * across
            for step in np.arange(-far / 2, far / 2, size * rng.uniform(1.2, 1.8)):
                at = row + (step + rng.normal(0, size * 0.06)) * along
                if rng.random() < 0.9 and _inside(canvas, at, size):
                    found.append(
                        _roof(
                            canvas,
                            rng,
                            at,
                            size * rng.uniform(0.8, 1.1),
                            heading + 90 * int(rng.integers(2)),
                        )
                    )
    if rng.random() < 0.6:
        _trees(canvas, rng, rng.uniform(2, 6), rng.uniform(0.02, 0.15))
    return found


def _industry(canvas: Canvas, rng: np.random.Generator) -> _Things:
    """Draws a few large roofs on paved ground."""
    _paved(canvas, rng)
    _lanes(canvas, rng)
    found = _roofs(canvas, rng, int(rng.integers(3, 9)), 40, 130)
    return found + (
        _cars(canvas, rng, int(rng.integers(1, 3)), taken=found) if rng.random() < 0.5 else []
    )


def _parking(canvas: Canvas, rng: np.random.Generator) -> _Things:
    """Draws rows of cars with some free spaces, sometimes with buildings or trees."""
    _paved(canvas, rng)
    _lanes(canvas, rng)
    found = _roofs(canvas, rng, int(rng.integers(0, 3)), 40, 110)
    found += _cars(canvas, rng, int(rng.integers(4, 14)), taken=found)
    if rng.random() < 0.4:
        _trees(canvas, rng, rng.uniform(3, 7), 0.03)
    return found


_MADE: dict[str, Callable[[Canvas, np.random.Generator], _Things]] = {
    "forest": _forest,
    "grass": _grass,
    "field": _field,
    "river or lake": _water,
    "houses": _houses,
    "industry": _industry,
    "parking lot": _parking,
}


def _anywhere(canvas: Canvas, rng: np.random.Generator) -> tuple[float, float]:
    height, width = canvas.shape
    return float(rng.uniform(0, width)), float(rng.uniform(0, height))


def _inside(canvas: Canvas, at: Floats, size: float) -> bool:
    height, width = canvas.shape
    return bool(-size < at[0] < width + size and -size < at[1] < height + size)


def _at(ground: np.ndarray, place: tuple[float, float, float, float, float]) -> bool:
    row, col = (
        int(np.clip(edge, 0, side - 1))
        for edge, side in zip(place[1::-1], ground.shape, strict=True)
    )
    return bool(ground[row, col])


def _meadow(canvas: Canvas, rng: np.random.Generator, light: float) -> None:
    tones = np.array([[90, 115, 60], [60, 95, 55], [130, 125, 85], [165, 150, 110], [70, 120, 70]])
    tone = tones[int(rng.integers(len(tones)))] * rng.uniform(0.6, 1.2) * light
    shade = (
        1
        + 0.08 * bumpy(canvas.shape, 60, rng)
        + rng.uniform(0.02, 0.08) * bumpy(canvas.shape, 3.0, rng)
    )
    canvas.layers[:] = tone[:, None, None] * shade


def _paved(canvas: Canvas, rng: np.random.Generator) -> None:
    tone = rng.uniform(70, 200) + np.array([8, 3, -6]) * rng.uniform(-0.5, 2)
    canvas.layers[:] = tone[:, None, None] * (
        1 + 0.05 * bumpy(canvas.shape, 50, rng) + 0.03 * bumpy(canvas.shape, 2.5, rng)
    )
    if rng.random() < 0.5:
        canvas.put(
            [box(*_anywhere(canvas, rng), 400, rng.uniform(20, 90), rng.uniform(0, 180))],
            np.array([95.0, 110, 70]),
        )


def _trees(canvas: Canvas, rng: np.random.Generator, size: float, dense: float) -> None:
    """Draws round tree crowns, each light towards the sun and with a shadow behind it.

    Args:
        canvas: canvas to draw on.
        rng: random generator.
        size: diameter of a crown, pixels.
        dense: total area of the crowns as a fraction of the image's area.
    """
    height, width = canvas.shape
    tone = np.array([70, 95, 50]) * rng.uniform(0.5, 1.2) + rng.normal(0, 6, 3)
    sun = rng.normal(size=2)
    sun *= size * 0.2 / np.hypot(*sun)
    for _ in range(min(int(dense * height * width / (0.8 * size**2)), 1200)):
        at, radius = np.array(_anywhere(canvas, rng)), size * rng.uniform(0.35, 0.65)
        own = tone * rng.uniform(0.75, 1.25) + rng.normal(0, 4, 3)
        canvas.spot(at[0] - 1.5 * sun[0], at[1] - 1.5 * sun[1], radius, own * 0.3, 0.8)
        canvas.spot(at[0], at[1], radius, own * 0.8)
        canvas.spot(at[0] + sun[0], at[1] + sun[1], radius * 0.6, own * 1.25, 0.8)


def _path(canvas: Canvas, rng: np.random.Generator) -> None:
    at = _anywhere(canvas, rng)
    canvas.put(
        [box(at[0], at[1], 900, rng.uniform(2, 9), rng.uniform(0, 180))],
        rng.uniform(120, 210) + np.array([8.0, 2, -8]),
    )


def _lanes(canvas: Canvas, rng: np.random.Generator) -> None:
    for _ in range(int(rng.integers(0, 3))):
        at, heading, broad = _anywhere(canvas, rng), rng.uniform(0, 180), rng.uniform(8, 24)
        canvas.put([box(at[0], at[1], 900, broad, heading)], np.full(3, rng.uniform(60, 130)))
        canvas.put([box(at[0], at[1], 900, 1.0, heading)], np.full(3, 200.0), 0.6)


def _roof(
    canvas: Canvas, rng: np.random.Generator, at: Floats, size: float, heading: float
) -> tuple[str, tuple[float, float, float, float, float]]:
    """Draws a pitched roof with its shadow."""
    tones = np.array(
        [[150, 80, 65], [130, 125, 120], [95, 90, 90], [215, 210, 205], [160, 140, 115]]
    )
    tone = tones[int(rng.integers(len(tones)))] * rng.uniform(0.75, 1.15) + rng.normal(0, 6, 3)
    length, broad = size, size * rng.uniform(0.6, 0.9)
    place = (float(at[0]), float(at[1]), length, broad, heading)
    canvas.put(
        [box(at[0] + size * 0.1, at[1] + size * 0.12, length, broad, heading)],
        np.full(3, 25.0),
        0.6,
    )
    canvas.put([box(*place)], tone)
    turn = np.deg2rad(90 - heading)
    side = np.array([-np.sin(turn), np.cos(turn)]) * broad / 4
    canvas.put(
        [box(at[0] + side[0], at[1] + side[1], length, broad / 2, heading)],
        tone * rng.uniform(0.7, 0.95),
    )
    return "building", place


def _roofs(
    canvas: Canvas, rng: np.random.Generator, count: int, least: float, most: float
) -> _Things:
    """Draws flat roofs that do not touch, with ribs and small rooftop structures."""
    found: _Things = []
    heading = rng.uniform(0, 180)
    taken = np.zeros(canvas.shape, bool)
    for _ in range(4 * count):
        at, length = _anywhere(canvas, rng), rng.uniform(least, most)
        broad, turned = length * rng.uniform(0.4, 1.0), heading + 90 * int(rng.integers(2))
        around = canvas.mask([box(at[0], at[1], length + 6, broad + 6, turned)])
        if (
            len(found) == count
            or around is None
            or (around.window(0, 0, *canvas.shape) & taken).any()
        ):
            continue
        taken |= around.window(0, 0, *canvas.shape)
        place = (*at, length, broad, turned)
        tone = rng.uniform(90, 245) + rng.normal(0, 12, 3)
        canvas.put([box(at[0] + 5, at[1] + 6, length, broad, turned)], np.full(3, 25.0), 0.6)
        canvas.put([box(*place)], tone)
        turn = np.deg2rad(90 - turned)
        forward = np.array([np.cos(turn), np.sin(turn)])
        for step in np.arange(-0.45, 0.45, rng.uniform(0.06, 0.3)) * length:
            spot = np.array(at) + step * forward
            canvas.put(
                [box(spot[0], spot[1], max(length * 0.01, 1), broad, turned)], tone * 0.85, 0.6
            )
        for _ in range(int(rng.integers(0, 8))):
            spot = np.array(at) + rng.uniform(-0.4, 0.4) * length * forward
            canvas.put(
                [box(spot[0], spot[1], length * 0.04 + 1, length * 0.03 + 1, turned)],
                tone * rng.uniform(0.5, 1.3),
            )
        found.append(("building", place))
    return found


def _cars(canvas: Canvas, rng: np.random.Generator, rows: int, taken: _Things) -> _Things:
    found: _Things = []
    blocked = np.zeros(canvas.shape, bool)
    for _, place in taken:
        mask = canvas.mask([box(*place)])
        blocked |= False if mask is None else mask.window(0, 0, *canvas.shape)
    height, width = canvas.shape
    size, heading = rng.uniform(5, 12), rng.uniform(0, 180)
    turn = np.deg2rad(90 - heading)
    forward = np.array([np.cos(turn), np.sin(turn)])
    along = np.array([-forward[1], forward[0]])
    start = np.array([width, height]) / 2 - forward * size * rows * 0.9
    full, reach = rng.uniform(0.4, 0.95), rng.uniform(0.3, 0.8) * width
    for row in range(rows):
        lane = start + forward * size * (row * 1.8 + rng.uniform(0, 0.4))
        for step in np.arange(-reach, reach, size * 0.62):
            at = lane + along * step
            place = (float(at[0]), float(at[1]), size, size * 0.45, heading)
            if _at(blocked, place) or not _inside(canvas, at, size):
                continue
            line = at + along * size * 0.31
            canvas.put([box(line[0], line[1], size * 1.05, 0.6, heading)], np.full(3, 220.0), 0.5)
            if rng.random() < full:
                tone = rng.choice([235.0, 150, 60, 30]) * rng.uniform(0.8, 1.05) + rng.normal(
                    0, 15, 3
                )
                canvas.put([box(*place)], tone)
                canvas.put([box(at[0], at[1], size * 0.25, size * 0.35, heading)], tone * 0.4, 0.8)
                found.append(("car", place))
    return found

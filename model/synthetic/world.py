"""The made world: objects along a generated coast, in metres on a plane. `render` draws them.

The coast runs endlessly from west to east. It is generated cell by cell, each cell from its own
random generator, so a cell is the same whichever part of the world is requested. The sea lies in
the south; port, town, airport and fields follow to the north. Ships, aircraft and vehicles also
depend on the date.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from earthgptx.model.synthetic.shapes import Ring, airframe, box, disc, hull

CELL_M = 3000.0
"""Length of a cell along the coast, in metres."""

Kind = Literal[
    "ship",
    "aircraft",
    "storage tank",
    "building",
    "vehicle",
    "road",
    "harbour",
    "runway",
    "water",
    "field",
]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, eq=False)
class Thing:
    """One object of the made world."""

    kind: Kind
    rings: tuple[Ring, ...]
    """Convex parts whose union is the outline."""
    length_m: float
    width_m: float
    heading_deg: float
    """Direction of the long axis, degrees clockwise from north."""
    height_m: float
    """Height above ground, which casts the shadow."""
    tone: tuple[float, float, float]
    """Red, green and blue reflectance, 0..1."""
    backscatter_db: float
    """Radar backscatter in VV, dB."""
    kelvin: float
    """Surface temperature, kelvin."""
    caption: str

    @cached_property
    def bounds(self) -> tuple[float, float, float, float]:
        """Minimum x, minimum y, maximum x and maximum y in metres."""
        points = np.concatenate(self.rings)
        (x0, y0), (x1, y1) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
        return x0, y0, x1, y1

    @property
    def hot(self) -> bool:
        """Whether the object is clearly warmer than anything natural around it."""
        return self.kelvin >= 306.0


def coast(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the northing of the shore line at easting `x`, metres."""
    return 160.0 * np.sin(x / 1310.0) + 60.0 * np.sin(x / 433.0 + 1.0) + 25.0 * np.sin(x / 117.0)


def river(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the distance in metres from the centre line of the nearest river."""
    shifted = x - 0.81 * CELL_M - 90.0 * np.sin(y / 400.0)
    return np.abs((shifted + CELL_M / 2) % CELL_M - CELL_M / 2)


def things(x0: float, x1: float, *, seed: int, date: int) -> list[Thing]:
    """Returns all objects of the cells that touch an easting range, in drawing order.

    Args:
        x0: western end of the range, metres.
        x1: eastern end of the range, metres.
        seed: seed of the world.
        date: number of the date, which places ships, aircraft and vehicles.
    """
    first, last = int(np.floor(x0 / CELL_M)), int(np.floor(x1 / CELL_M))
    return [thing for cell in range(first, last + 1) for thing in _cell(cell, seed, date)]


@lru_cache(maxsize=64)
def _cell(cell: int, seed: int, date: int) -> tuple[Thing, ...]:
    lasting = np.random.default_rng([seed, cell + 2**20, 0])
    moving = np.random.default_rng([seed, cell + 2**20, 1 + date])
    x = cell * CELL_M
    return (
        *_ground(x),
        *_tanks(x, lasting),
        *_town(x, lasting),
        *_vehicles(x, moving),
        *_aircraft(x, moving),
        *_ships(x, moving),
    )


# Layout of a cell: x as fractions of its length from its western edge, y as northing in metres.
_STREETS_X = (0.34, 0.40, 0.46, 0.52, 0.58)
_STREETS_Y = (420.0, 560.0, 700.0, 840.0)
_HIGHWAY_Y = 1020.0
_RUNWAY = (0.5, 1330.0)
_QUAYS_X = (0.10, 0.20, 0.30)


def _ground(x: float) -> Iterator[Thing]:
    grey, dark = (0.46, 0.46, 0.45), (0.24, 0.24, 0.26)
    shore = float(coast(np.array([x + 0.2 * CELL_M]))[0])
    apron = box(x + 0.2 * CELL_M, shore + 60.0, 0.28 * CELL_M, 260.0, 90.0)
    yield _thing(
        "harbour", [apron], 0.28 * CELL_M, 260.0, 90.0, 0.0, grey, -9.0, 296.0, "a paved port area"
    )
    for fraction in _QUAYS_X:
        quay = box(x + fraction * CELL_M, shore - 160.0, 330.0, 44.0, 0.0)
        yield _thing("harbour", [quay], 330.0, 44.0, 0.0, 2.0, grey, -8.0, 296.0, "a concrete quay")
    mole = box(x + 0.2 * CELL_M, shore - 470.0, 620.0, 22.0, 84.0)
    yield _thing(
        "harbour", [mole], 620.0, 22.0, 84.0, 3.0, (0.4, 0.39, 0.36), -7.0, 294.0, "a breakwater"
    )
    middle, west, east = (float(np.mean(_STREETS_X)), _STREETS_X[0], _STREETS_X[-1])
    south, north = _STREETS_Y[0], _HIGHWAY_Y
    for fraction in _STREETS_X:
        street = box(x + fraction * CELL_M, (south + north) / 2, north - south, 9.0, 0.0)
        yield _thing(
            "road",
            [street],
            north - south,
            9.0,
            0.0,
            0.0,
            dark,
            -17.0,
            299.0,
            "a street in the town",
        )
    for y in _STREETS_Y:
        length = (east - west) * CELL_M
        street = box(x + middle * CELL_M, y, length, 9.0, 90.0)
        yield _thing(
            "road", [street], length, 9.0, 90.0, 0.0, dark, -17.0, 299.0, "a street in the town"
        )
    highway = box(x + CELL_M / 2, _HIGHWAY_Y, CELL_M, 16.0, 90.0)
    yield _thing(
        "road", [highway], CELL_M, 16.0, 90.0, 0.0, dark, -17.0, 299.0, "a highway along the coast"
    )
    link = box(x + 0.2 * CELL_M, (_HIGHWAY_Y + shore) / 2, _HIGHWAY_Y - shore, 11.0, 0.0)
    yield _thing(
        "road", [link], _HIGHWAY_Y - shore, 11.0, 0.0, 0.0, dark, -17.0, 299.0, "a road to the port"
    )
    runway = box(x + _RUNWAY[0] * CELL_M, _RUNWAY[1], 1500.0, 45.0, 90.0)
    taxi = box(x + _RUNWAY[0] * CELL_M, _RUNWAY[1] + 130.0, 700.0, 110.0, 90.0)
    yield _thing(
        "runway", [runway], 1500.0, 45.0, 90.0, 0.0, (0.3, 0.3, 0.31), -20.0, 299.0, "a runway"
    )
    yield _thing("runway", [taxi], 700.0, 110.0, 90.0, 0.0, grey, -19.0, 298.0, "an airport apron")


def _tanks(x: float, rng: np.random.Generator) -> Iterator[Thing]:
    for row in range(3):
        for column in range(5):
            if rng.random() < 0.15:
                continue
            radius = rng.uniform(14.0, 24.0)
            cx, cy = x + 0.1 * CELL_M + column * 62.0, 330.0 + row * 62.0
            white = rng.uniform(0.7, 0.92)
            text = f"a white storage tank, {2 * radius:.0f} m across"
            yield _thing(
                "storage tank",
                [disc(cx, cy, radius)],
                2 * radius,
                2 * radius,
                0.0,
                14.0,
                (white,) * 3,
                -3.0,
                rng.uniform(292.0, 296.0),
                text,
            )


def _town(x: float, rng: np.random.Generator) -> Iterator[Thing]:
    roofs = {"red-roofed": (0.55, 0.27, 0.2), "grey": (0.5, 0.5, 0.5), "white": (0.82, 0.81, 0.78)}
    for west, east in itertools.pairwise(_STREETS_X):
        for south, north in zip(_STREETS_Y, (*_STREETS_Y[1:], _HIGHWAY_Y - 20.0), strict=True):
            for cx in np.arange(x + west * CELL_M + 32.0, x + east * CELL_M - 20.0, 42.0):
                for cy in np.arange(south + 30.0, north - 22.0, 42.0):
                    if rng.random() < 0.2:
                        continue
                    word = str(rng.choice(list(roofs)))
                    length, width = rng.uniform(16.0, 32.0), rng.uniform(11.0, 20.0)
                    heading = float(rng.choice([0.0, 90.0])) + rng.normal(0, 3.0)
                    r, g, b = (float(c * rng.uniform(0.85, 1.15)) for c in roofs[word])
                    yield _thing(
                        "building",
                        [box(cx, cy, length, width, heading)],
                        length,
                        width,
                        heading,
                        rng.uniform(5.0, 16.0),
                        (r, g, b),
                        rng.uniform(-7.0, -1.0),
                        rng.uniform(296.0, 301.0),
                        f"a {word} building",
                    )


def _vehicles(x: float, rng: np.random.Generator) -> Iterator[Thing]:
    for cx in np.arange(x + 40.0, x + CELL_M - 40.0, 150.0):
        if rng.random() < 0.35:
            continue
        lorry = rng.random() < 0.7
        length, width = (rng.uniform(16.0, 19.0), 4.2) if lorry else (5.0, 2.2)
        word = "lorry" if lorry else "car"
        centre_x, centre_y = cx + rng.uniform(-30, 30), _HIGHWAY_Y + rng.choice([-4.0, 4.0])
        tone = float(rng.uniform(0.3, 0.95))
        yield _thing(
            "vehicle",
            [box(centre_x, centre_y, length, width, 90.0)],
            length,
            width,
            90.0,
            3.0,
            (tone,) * 3,
            -6.0,
            rng.uniform(318.0, 326.0) if lorry else rng.uniform(302.0, 305.0),
            f"a {word} on the highway",
        )


def _aircraft(x: float, rng: np.random.Generator) -> Iterator[Thing]:
    for slot in range(8):
        if rng.random() < 0.3:
            continue
        length = rng.uniform(34.0, 58.0)
        span = length * 0.95
        heading = float(rng.choice([0.0, 180.0])) + rng.normal(0, 8.0)
        cx, cy = x + _RUNWAY[0] * CELL_M - 300.0 + slot * 86.0, _RUNWAY[1] + 130.0
        rings = airframe(cx, cy, heading, length, span, length * 0.12)
        running = rng.random() < 0.5
        white = rng.uniform(0.85, 0.98)
        yield _thing(
            "aircraft",
            rings,
            length,
            span,
            heading,
            6.0,
            (white,) * 3,
            -4.0,
            rng.uniform(311.0, 318.0) if running else 296.0,
            f"a white aircraft, {length:.0f} m long, parked"
            + (" with its engines warm" if running else ""),
        )


def _ships(x: float, rng: np.random.Generator) -> Iterator[Thing]:
    shore = float(coast(np.array([x + 0.2 * CELL_M]))[0])
    for fraction in _QUAYS_X:
        if rng.random() < 0.5:
            side = float(rng.choice([-1.0, 1.0]))
            place = (x + fraction * CELL_M + side * 46.0, shore - rng.uniform(165.0, 200.0))
            yield _ship(rng, *place, float(rng.choice([0.0, 180.0])), "moored at a quay")
    wind = rng.uniform(0.0, 360.0)
    for column in range(9):
        for row in range(4):
            if rng.random() < 0.66:
                continue
            cx = x + (column + 0.5) * CELL_M / 9 + rng.uniform(-60, 60)
            cy = -760.0 - row * 250.0 + rng.uniform(-40, 40)
            yield _ship(rng, cx, cy, wind + rng.normal(0, 12.0), "at anchor")


def _ship(rng: np.random.Generator, cx: float, cy: float, heading: float, how: str) -> Thing:
    hulls = {
        "dark": (0.16, 0.17, 0.2),
        "white": (0.86, 0.86, 0.86),
        "red": (0.55, 0.16, 0.13),
        "grey": (0.5,) * 3,
    }
    word = str(rng.choice(list(hulls)))
    r, g, b = hulls[word]
    length = rng.uniform(70.0, 190.0)
    width = length * rng.uniform(0.14, 0.19)
    points = (
        "north",
        "north-east",
        "east",
        "south-east",
        "south",
        "south-west",
        "west",
        "north-west",
    )
    towards = points[round(heading / 45.0) % 8]
    text = f"a {word} ship, {length:.0f} m long and {width:.0f} m wide, {how}, bow to the {towards}"
    return _thing(
        "ship",
        [hull(cx, cy, heading, length, width)],
        length,
        width,
        heading % 360.0,
        12.0,
        (r, g, b),
        rng.uniform(-1.0, 5.0),
        rng.uniform(308.0, 316.0),
        text,
    )


def _thing(
    kind: Kind,
    rings: list[Ring],
    length: float,
    width: float,
    heading: float,
    height: float,
    tone: tuple[float, ...],
    backscatter: float,
    kelvin: float,
    caption: str,
) -> Thing:
    r, g, b = tone
    return Thing(
        kind,
        tuple(rings),
        float(length),
        float(width),
        float(heading),
        float(height),
        (r, g, b),
        float(backscatter),
        float(kelvin),
        caption,
    )

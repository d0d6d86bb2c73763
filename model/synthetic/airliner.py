"""Draws airliners of many builds from above. Torch-free.

Each has swept wings on a narrow body, engines, and a tail in the airline's colours. The proportions
follow three-view drawings of current types, from regional jets to wide bodies.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from earthgptx.model.synthetic.canvas import Canvas
from earthgptx.model.synthetic.shapes import Ring, place


@dataclass(frozen=True, slots=True)
class Airliner:
    """The parts of an airliner, as convex rings in pixels."""

    body: Ring
    wings: tuple[Ring, ...]
    """Wings and tailplanes."""
    engines: tuple[Ring, ...]
    tail: tuple[Ring, ...]
    """The fin and, for some, the rear end of the body."""

    @property
    def rings(self) -> list[Ring]:
        """All parts."""
        return [*self.wings, *self.engines, self.body, *self.tail]

    def paint(self, canvas: Canvas, rng: np.random.Generator) -> None:
        """Draws the airliner in random tones.

        The body is light, the wings are as light or darker, and the tail has any colour. One side
        of the body is often shaded.
        """
        tone = rng.uniform(130, 255) + rng.normal(0, 8, 3)
        wing = tone * rng.uniform(0.55, 1.0) + rng.normal(0, 6, 3)
        grain = rng.normal(0, rng.uniform(0, 14), (1, *canvas.shape))
        for ring in self.wings:
            canvas.put([ring], wing[:, None, None] + grain)
        for ring in self.engines:
            canvas.put([ring], wing * rng.uniform(0.5, 1.1))
        canvas.put([self.body], tone[:, None, None] + grain)
        if rng.random() < 0.6:
            half = len(self.body) // 2 + 1  # corners from the nose (the first) to the tail
            far = (
                self.body[:half] if rng.random() < 0.5 else np.roll(self.body, -half, axis=0)[:half]
            )
            canvas.put([far], tone * 0.6, rng.uniform(0.2, 0.7))
        colours = rng.uniform(20, 255, 3) if rng.random() < 0.6 else tone * rng.uniform(0.6, 1.1)
        for ring in self.tail:
            canvas.put([ring], colours, rng.uniform(0.5, 1))


def airliner(cx: float, cy: float, length: float, rng: np.random.Generator) -> Airliner:
    """Returns an airliner of random build and heading.

    Args:
        cx: x of its centre, pixels.
        cy: y of its centre, pixels.
        length: length from nose to tail, pixels.
        rng: random generator.
    """
    heading, body = float(rng.uniform(0, 360)), rng.uniform(0.085, 0.125)
    root, chord, tip, half = (
        rng.uniform(0.04, 0.18),
        rng.uniform(0.16, 0.26),
        rng.uniform(0.03, 0.07),
        rng.uniform(0.38, 0.53),
    )
    back = np.tan(np.deg2rad(rng.uniform(16, 36))) * half
    rear, tail_half = -rng.uniform(0.34, 0.39), rng.uniform(0.13, 0.2)
    tail_back = np.tan(np.deg2rad(rng.uniform(20, 38))) * tail_half

    def ring(*corners: tuple[float, float]) -> Ring:
        return place(np.array(corners) * length, cx, cy, heading)

    def both(*corners: tuple[float, float]) -> tuple[Ring, Ring]:
        return ring(*corners), ring(*((x, -y) for x, y in reversed(corners)))

    wings = both((root, 0), (root - back, half), (root - back - tip, half), (root - chord, 0))
    planes = both(
        (rear, 0),
        (rear - tail_back, tail_half),
        (rear - tail_back - 0.035, tail_half),
        (rear - 0.11, 0),
    )
    if rng.random() < 0.7:  # under the wings
        out, long = rng.uniform(0.14, 0.2), rng.uniform(0.07, 0.11)
        front = root - back * out / half + long * 0.7
        wide = rng.uniform(0.018, 0.03)
    else:  # at the rear of the body
        out, long, front, wide = body / 2 + 0.018, 0.12, rear + 0.13, 0.02
    engines = both(
        (front, out - wide),
        (front, out + wide),
        (front - long, out + wide),
        (front - long, out - wide),
    )
    side = body / 2
    left = ((0.5, 0.0), (0.47, side * 0.7), (0.41, side), (-0.24, side), (-0.5, side * 0.25))
    fin = rng.uniform(0.008, 0.02)
    tail = [ring((-0.32, fin / 2), (-0.5, fin), (-0.5, -fin), (-0.32, -fin / 2))]
    if rng.random() < 0.4:
        tail.append(
            ring(
                (-0.36, side * 0.62),
                (-0.5, side * 0.25),
                (-0.5, -side * 0.25),
                (-0.36, -side * 0.62),
            )
        )
    outline = ring(*left, *((x, -y) for x, y in reversed(left[1:])))
    return Airliner(body=outline, wings=(*wings, *planes), engines=engines, tail=tuple(tail))

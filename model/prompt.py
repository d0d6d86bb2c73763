"""Visual prompts: what a person or a rule points at in an image. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.errors import RegionError
from model.region import Box, Mask, Point, Scribble

Place = Point | Box | Scribble | Mask


@dataclass(frozen=True, slots=True, kw_only=True)
class VisualPrompt:
    """One thing pointed at; its id comes back with the answer."""

    id: str
    """Unique within a job."""
    place: Place
    """Where, in pixels of the tile."""

    def inside(self, height: int, width: int) -> NDArray[np.bool_]:
        """The prompt drawn on a tile, (height, width) bool.

        A point fills the pixel it lies in, a box all pixels that it touches. Nothing is drawn past
        the tile's border.
        """
        place = self.place
        if isinstance(place, Mask):
            return place.window(0, 0, height, width)
        if isinstance(place, Scribble):
            return place.drawn(height, width)
        drawn = np.zeros((height, width), bool)
        if isinstance(place, Point):
            if 0 <= place.y < height and 0 <= place.x < width:
                drawn[int(place.y), int(place.x)] = True
            return drawn
        y0, x0 = max(int(np.floor(place.y0)), 0), max(int(np.floor(place.x0)), 0)
        drawn[y0 : max(int(np.ceil(place.y1)), 0), x0 : max(int(np.ceil(place.x1)), 0)] = True
        return drawn

    def box(self, height: int, width: int) -> Box:
        """What it covers of a tile; a point covers the pixel that it lies in.

        Raises:
            RegionError: it covers nothing.
        """
        if isinstance(self.place, Box):
            found = (
                max(self.place.x0, 0),
                max(self.place.y0, 0),
                min(self.place.x1, width),
                min(self.place.y1, height),
            )
            if found[0] < found[2] and found[1] < found[3]:
                return Box(*found)
        drawn = self.inside(height, width)
        if not drawn.any():
            raise RegionError(
                f"prompt {self.id} at {self.place.centre} covers no pixel of the image of {height} x {width} px; "
                "give prompts in pixels of the image that they belong to"
            )
        return Mask.from_array(drawn).box

    def zoomed(self, y0: float, x0: float, factor: float, height: int, width: int) -> VisualPrompt:
        """The same prompt on a crop of its image.

        Args:
            y0: row of the crop's corner.
            x0: column of the crop's corner.
            factor: pixels of the crop along a side of one of the image's.
            height: of the crop, in its own pixels.
            width: of the crop, in its own pixels.
        """

        def at(point: Point) -> Point:
            return Point((point.x - x0) * factor, (point.y - y0) * factor)

        place = self.place
        if isinstance(place, Point):
            return replace(self, place=at(place))
        if isinstance(place, Box):
            low, high = at(Point(place.x0, place.y0)), at(Point(place.x1, place.y1))
            return replace(self, place=Box(low.x, low.y, high.x, high.y))
        if isinstance(place, Scribble):
            return replace(self, place=Scribble(tuple(at(point) for point in place.points), place.width * factor))
        if factor >= 1:
            rows = np.floor((np.arange(height) + 0.5) / factor + y0).astype(int)
            cols = np.floor((np.arange(width) + 0.5) / factor + x0).astype(int)
            drawn = place.window(rows[0], cols[0], rows[-1] + 1, cols[-1] + 1)[np.ix_(rows - rows[0], cols - cols[0])]
        else:  # every coarse pixel that it touches, so that a thin one is not lost
            inside = np.nonzero(place.to_array())
            rows = np.floor((inside[0] + place.y0 + 0.5 - y0) * factor).astype(int)
            cols = np.floor((inside[1] + place.x0 + 0.5 - x0) * factor).astype(int)
            there = (rows >= 0) & (rows < height) & (cols >= 0) & (cols < width)
            drawn = np.zeros((height, width), bool)
            drawn[rows[there], cols[there]] = True
        if drawn.any():
            return replace(self, place=Mask.from_array(drawn))
        return replace(self, place=at(place.centre))

    def to_json(self) -> dict[str, Any]:
        """Plain values that JSON holds; `from_json` reads them."""
        place = self.place
        if isinstance(place, Point):
            return {"id": self.id, "point": [place.x, place.y]}
        if isinstance(place, Box):
            return {"id": self.id, "box": [place.x0, place.y0, place.x1, place.y1]}
        if isinstance(place, Scribble):
            return {"id": self.id, "scribble": [[p.x, p.y] for p in place.points], "width": place.width}
        return {"id": self.id, "mask": [place.y0, place.x0, place.height, place.width], "runs": list(place.runs)}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> VisualPrompt:
        """A prompt from what `to_json` gives.

        Raises:
            RegionError: it holds no place of a known kind.
        """
        place: Place
        try:
            if "point" in record:
                place = Point(*map(float, record["point"]))
            elif "box" in record:
                place = Box(*map(float, record["box"]))
            elif "scribble" in record:
                place = Scribble(
                    tuple(Point(float(x), float(y)) for x, y in record["scribble"]), float(record["width"])
                )
            else:
                y0, x0, height, width = map(int, record["mask"])
                place = Mask(y0, x0, height, width, tuple(map(int, record["runs"])))
            return cls(id=str(record["id"]), place=place)
        except (KeyError, TypeError) as error:
            raise RegionError(
                f"{record!r:.200} is no visual prompt; give id and one of point, box, scribble with width, mask with runs"
            ) from error


def rasterise(prompts: Sequence[VisualPrompt], height: int, width: int, cell: int) -> NDArray[np.float32]:
    """Prompts drawn on a coarse grid without losing their place inside a cell.

    Args:
        prompts: N of them.
        height: of the image, whole cells.
        width: of the image, whole cells.
        cell: side of a cell in pixels.

    Returns:
        (N, 2, height / cell, width / cell) float32: the part of each cell that the prompt covers, 0..1, and the
        prompt's middle spread over the four nearest cells, which sums to 1: a point covers nearly nothing of a
        cell, and where in it the point lies would be lost.

    Raises:
        RegionError: a prompt covers nothing of the image.
    """
    rows, cols = height // cell, width // cell
    drawn = np.zeros((len(prompts), 2, rows, cols), np.float32)
    for number, prompt in enumerate(prompts):
        box = prompt.box(height, width)
        if isinstance(prompt.place, Box):
            drawn[number, 0] = np.outer(_covered(box.y0, box.y1, rows, cell), _covered(box.x0, box.x1, cols, cell))
        else:
            drawn[number, 0] = prompt.inside(height, width).reshape(rows, cell, cols, cell).mean(axis=(1, 3))
        drawn[number, 1] = np.outer(_spread(box.centre.y / cell, rows), _spread(box.centre.x / cell, cols))
    return drawn


def _covered(low: float, high: float, count: int, cell: int) -> NDArray[np.float64]:
    starts = np.arange(count) * cell
    return np.clip(np.minimum(high, starts + cell) - np.maximum(low, starts), 0, cell) / cell


def _spread(at: float, count: int) -> NDArray[np.float64]:
    """Weights of the cells around a place given in cells; 1 together."""
    return np.clip(1 - np.abs(np.arange(count) + 0.5 - np.clip(at, 0.5, count - 0.5)), 0, None)

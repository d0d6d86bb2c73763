"""Visual prompts: points, boxes, scribbles and masks that a person or a rule draws. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earthgptx.model.interface.errors import RegionError
from earthgptx.model.interface.region import Box, Mask, Point, Scribble

Place = Point | Box | Scribble | Mask


@dataclass(frozen=True, slots=True, kw_only=True)
class VisualPrompt:
    """One visual prompt; the answer carries its id."""

    id: str
    """Id, unique within a job."""
    place: Place
    """Location in pixels of the tile."""

    @property
    def kind(self) -> str:
        """What it is: point, box, scribble or mask."""
        return type(self.place).__name__.lower()

    def inside(self, height: int, width: int) -> NDArray[np.bool_]:
        """Rasterises the prompt on a tile, (height, width) bool.

        A point fills the pixel that contains it, a box all pixels that it touches. The result is
        clipped to the tile.
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
        """Returns the bounding box of the prompt within a tile; a point covers its whole pixel.

        Raises:
            RegionError: the prompt covers nothing of the tile.
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
                f"prompt {self.id} at {self.place.centre} covers no pixel of the image of "
                f"{height} x {width} px; give prompts in pixels of the image that they belong to"
            )
        return Mask.from_array(drawn).box

    def zoomed(self, y0: float, x0: float, factor: float, height: int, width: int) -> VisualPrompt:
        """Converts the prompt to pixels of a resized crop of its image.

        Args:
            y0: top row of the crop, in pixels of the image.
            x0: left column of the crop, in pixels of the image.
            factor: side of an image pixel, in pixels of the crop.
            height: rows of the crop, in its own pixels.
            width: columns of the crop, in its own pixels.
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
            return replace(
                self,
                place=Scribble(tuple(at(point) for point in place.points), place.width * factor),
            )
        if factor >= 1:
            rows = np.floor((np.arange(height) + 0.5) / factor + y0).astype(int)
            cols = np.floor((np.arange(width) + 0.5) / factor + x0).astype(int)
            drawn = place.window(rows[0], cols[0], rows[-1] + 1, cols[-1] + 1)[
                np.ix_(rows - rows[0], cols - cols[0])
            ]
        else:  # mark every coarse pixel that the mask touches, to keep thin masks
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
        """Returns the prompt as JSON-serialisable values, for `from_json`."""
        place = self.place
        if isinstance(place, Point):
            return {"id": self.id, "point": [place.x, place.y]}
        if isinstance(place, Box):
            return {"id": self.id, "box": [place.x0, place.y0, place.x1, place.y1]}
        if isinstance(place, Scribble):
            return {
                "id": self.id,
                "scribble": [[p.x, p.y] for p in place.points],
                "width": place.width,
            }
        return {
            "id": self.id,
            "mask": [place.y0, place.x0, place.height, place.width],
            "runs": list(place.runs),
        }

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> VisualPrompt:
        """Builds a prompt from the output of `to_json`.

        Raises:
            RegionError: the record holds no point, box, scribble or mask.
        """
        place: Place
        try:
            if "point" in record:
                place = Point(*map(float, record["point"]))
            elif "box" in record:
                place = Box(*map(float, record["box"]))
            elif "scribble" in record:
                place = Scribble(
                    tuple(Point(float(x), float(y)) for x, y in record["scribble"]),
                    float(record["width"]),
                )
            else:
                y0, x0, height, width = map(int, record["mask"])
                place = Mask(y0, x0, height, width, tuple(map(int, record["runs"])))
            return cls(id=str(record["id"]), place=place)
        except (KeyError, TypeError) as error:
            raise RegionError(
                f"{record!r:.200} is no visual prompt; give id and one of point, box, scribble "
                "with width, mask with runs"
            ) from error


def rasterise(
    prompts: Sequence[VisualPrompt], height: int, width: int, cell: int
) -> NDArray[np.float32]:
    """Rasterises prompts on a coarse grid and preserves their position inside a cell.

    Args:
        prompts: N prompts.
        height: rows of the image in pixels, a multiple of `cell`.
        width: columns of the image in pixels, a multiple of `cell`.
        cell: side of a cell in pixels.

    Returns:
        (N, 2, height / cell, width / cell) float32. The first channel is the fraction of each cell
        that the prompt covers, 0..1. The second is the prompt's middle, spread bilinearly over the
        four nearest cells, and sums to 1. It is needed because a point covers almost nothing of a
        cell, and coverage does not tell where in the cell it lies.

    Raises:
        RegionError: a prompt covers nothing of the image.
    """
    rows, cols = height // cell, width // cell
    drawn = np.zeros((len(prompts), 2, rows, cols), np.float32)
    for number, prompt in enumerate(prompts):
        box = prompt.box(height, width)
        if isinstance(prompt.place, Box):
            drawn[number, 0] = np.outer(
                _covered(box.y0, box.y1, rows, cell), _covered(box.x0, box.x1, cols, cell)
            )
        else:
            drawn[number, 0] = (
                prompt.inside(height, width).reshape(rows, cell, cols, cell).mean(axis=(1, 3))
            )
        drawn[number, 1] = np.outer(
            _spread(box.centre.y / cell, rows), _spread(box.centre.x / cell, cols)
        )
    return drawn


def _covered(low: float, high: float, count: int, cell: int) -> NDArray[np.float64]:
    starts = np.arange(count) * cell
    return np.clip(np.minimum(high, starts + cell) - np.maximum(low, starts), 0, cell) / cell


def _spread(at: float, count: int) -> NDArray[np.float64]:
    """Returns the weights of the cells around `at`, given in cells; they sum to 1."""
    return np.clip(1 - np.abs(np.arange(count) + 0.5 - np.clip(at, 0.5, count - 0.5)), 0, None)

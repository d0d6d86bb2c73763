"""A constant false alarm rate (CFAR) detector of bright or hot targets.

The cell-averaging CFAR of Finn and Johnson (1968) on the sum of the three channels: a pixel is a
target if the mean of its 3 x 3 cell exceeds the mean of the ring around it by a number of the
ring's standard deviations. It detects ships in SAR and small targets in infrared, and is the
reference in tests of tiling: sums are exact integers, so a score depends only on the pixels around.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from earthgptx.model.interface.answer import Grounding
from earthgptx.model.interface.prompt import VisualPrompt
from earthgptx.model.interface.region import Mask, Point
from earthgptx.model.interface.tile import AnalystTraits, Modality, TileInput, TileOutput
from earthgptx.pipeline.analyst import Analyst, AnalystSource

GUARD_PX = 28
"""Half-side of the guard box, which keeps the target out of its background."""
RING_PX = 40
"""Half-side of the background ring's outer box; radius of the receptive field."""
DEVIATIONS = 3.0
"""Standard deviations above the background at which the score is 0.5."""
SEED_SCORE = 0.8
"""Lowest peak score of an object; its other pixels only need 0.5 (hysteresis)."""
FLOOR: dict[Modality, float] = {"sar": 8.0, "optical": 8.0, "infrared": 5.0}
"""Grey levels (of one channel) added to the standard deviation, so that a flat background raises
no alarms: higher for noisy sensors (speckle), lower for quiet ones."""
WATER_LEVEL: dict[Modality, int] = {"sar": 50, "optical": 110, "infrared": 256}
"""Highest mean grey level of the ring around a ship: a ship is surrounded by water. 256 means no
limit: infrared does not separate water from land at night."""
NEAR_PX = 3
"""Largest distance between a point prompt and its target."""


class BoxSums:
    """Sums over squares around each pixel, of any radius up to `RING_PX`; outside counts as 0.

    The sums are exact. Unsigned 32 bit arithmetic wraps, and a difference of wrapped sums is
    correct as long as the true sum fits, which holds for 81 x 81 values of (3 x 255)^2. A running
    float sum would depend on where the tile starts.
    """

    def __init__(self, values: NDArray[np.uint32]) -> None:
        """Builds the summed-area table of `values`, (H, W) uint32."""
        self._shape = values.shape
        height, width = values.shape
        table = np.zeros((height + 2 * RING_PX + 1, width + 2 * RING_PX + 1), np.uint32)
        table[RING_PX + 1 : RING_PX + 1 + height, RING_PX + 1 : RING_PX + 1 + width] = values
        np.cumsum(table, axis=0, out=table)
        np.cumsum(table, axis=1, out=table)
        self._table = table

    def within(self, radius: int) -> NDArray[np.uint32]:
        """Returns the sum over the square of side 2 radius + 1 around each pixel, (H, W) uint32."""
        height, width = self._shape
        low, high = RING_PX - radius, RING_PX + radius + 1
        rows = self._table[high : high + height] - self._table[low : low + height]
        return rows[:, high : high + width] - rows[:, low : low + width]


def cfar_scores(
    pixels: NDArray[np.uint8], valid: NDArray[np.bool_], *, floor: float, max_background: int
) -> NDArray[np.uint8]:
    """Returns the score of each pixel, (H, W) uint8; 128 at `DEVIATIONS` above the background.

    Args:
        pixels: (3, H, W) uint8.
        valid: (H, W) bool; pixels that are not valid count neither as target nor as background.
        floor: grey levels added to the standard deviation, see `FLOOR`.
        max_background: highest mean grey level of the ring around a target, 0..256.
    """
    grey = pixels.sum(axis=0, dtype=np.uint32) * valid
    greys, squares, knowns = BoxSums(grey), BoxSums(grey * grey), BoxSums(valid.astype(np.uint32))
    count = knowns.within(RING_PX) - knowns.within(GUARD_PX)
    total = greys.within(RING_PX) - greys.within(GUARD_PX)
    total_square = squares.within(RING_PX) - squares.within(GUARD_PX)

    n = np.maximum(count, 1)
    mean = total / n
    variance = np.maximum(total_square / n - mean * mean, 0.0)
    cell_mean = greys.within(1) / np.maximum(knowns.within(1), 1)
    excess = (cell_mean - mean) / (np.sqrt(variance) + 3 * floor)
    score = np.clip(excess * (128 / DEVIATIONS), 0, 255).astype(np.uint8)
    score[(count == 0) | ~valid | (mean > 3 * max_background)] = 0
    return score


def background_limit(modality: Modality, phrases: tuple[str, ...]) -> int:
    """Returns the highest mean grey level of the ring: `WATER_LEVEL` for ships, else 256."""
    over_water = any(word in phrase for phrase in phrases for word in ("ship", "boat", "vessel"))
    return WATER_LEVEL[modality] if over_water else 256


class Cfar:
    """The CFAR detector as an `Analyst`. Answers every phrase with the same targets."""

    @classmethod
    def traits(cls) -> AnalystTraits:
        """Returns the detector's context and its limits for objects."""
        return AnalystTraits(
            name="cfar",
            digest=f"cfar-2-{GUARD_PX}-{RING_PX}-{DEVIATIONS}-{SEED_SCORE}-"
            f"{sorted(FLOOR.items())}-{sorted(WATER_LEVEL.items())}",
            context_px=RING_PX,
            tiles_per_batch=1,
            same_object_overlap=0.0,
            min_score=SEED_SCORE,
            min_area_px=6,
            max_area_px=2500,
        )

    @classmethod
    def load(cls) -> Cfar:
        """Returns the detector, which has no weights."""
        return cls()

    def analyse(self, tiles: Sequence[TileInput]) -> list[TileOutput]:
        """Returns the targets in each tile; see `Analyst`."""
        return [_analyse(tile) for tile in tiles]


def _analyse(tile: TileInput) -> TileOutput:
    height, width = tile.valid.shape
    limit = background_limit(tile.modality, tile.phrases or tile.names)
    scores = cfar_scores(tile.pixels, tile.valid, floor=FLOOR[tile.modality], max_background=limit)
    # The ring is cut off near the tile's border; the neighbouring tile answers there.
    answered = np.zeros_like(tile.valid)
    answered[RING_PX : height - RING_PX, RING_PX : width - RING_PX] = True
    scores[~answered] = 0
    detected = (scores >= 128) & tile.wanted
    components, count = ndimage.label(detected, structure=np.ones((3, 3)))
    groundings: list[Grounding] = []
    if tile.phrases:
        for number, window in enumerate(ndimage.find_objects(components), start=1):
            inside = components[window] == number
            score = float(scores[window][inside].max()) / 255
            mask = Mask.from_array(inside, y0=window[0].start, x0=window[1].start)
            groundings.extend(
                Grounding(label=phrase, score=score, mask=mask) for phrase in tile.phrases
            )
    groundings.extend(_answer(prompt, tile, scores, components) for prompt in tile.prompts)
    caption = f"{tile.modality} scene with {count} bright targets" if tile.describe else ""
    stacked = np.broadcast_to(scores, (len(tile.phrases), height, width))
    return TileOutput(
        scores=np.ascontiguousarray(stacked), groundings=tuple(groundings), caption=caption
    )


def _answer(
    prompt: VisualPrompt, tile: TileInput, scores: NDArray[np.uint8], components: NDArray[np.int32]
) -> Grounding:
    """Returns the target that a prompt marks; if none, that there is none, with its low score."""
    drawn = prompt.inside(*tile.valid.shape)
    reach = (
        ndimage.binary_dilation(drawn, iterations=NEAR_PX)
        if isinstance(prompt.place, Point)
        else drawn
    )
    touched = np.unique(components[reach])
    hit = np.isin(components, touched[touched > 0])
    if isinstance(prompt.place, Mask):
        hit &= drawn
    name = tile.names[0] if tile.names else "bright target"
    if hit.any():
        score = float(scores[hit].max()) / 255
        return Grounding(label=name, score=score, mask=Mask.from_array(hit), prompt_id=prompt.id)
    return Grounding(
        label=name,
        score=float(scores[reach].max(initial=0)) / 255,
        mask=Mask.from_array(drawn),
        prompt_id=prompt.id,
        present=False,
    )


_: tuple[AnalystSource, type[Analyst]] = (Cfar, Cfar)

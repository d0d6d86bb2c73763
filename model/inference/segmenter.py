"""Turns hidden states of the language model into masks and boxes in pixels of the images."""

# M queries, N instances, C channels, Y X cells at stride 2

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from earthgptx.model.inference.answers import Instance
from earthgptx.model.inference.instance_mask import instance_mask
from earthgptx.model.inference.suppression import distinct
from earthgptx.model.interface.prompt import VisualPrompt
from earthgptx.model.interface.region import Box, Mask, Point
from earthgptx.model.network.earthgptx import EarthGPTX
from earthgptx.model.network.encoded import Encoded
from earthgptx.model.network.perception import (
    CANDIDATES,
    LOW,
    STRIDE,
    Judged,
    Perceived,
    features_at,
    local_maxima,
    top_peaks,
)

MOST_INSTANCES = 256
"""Most peaks per phrase and image that become instances, the highest first."""
NO_BOX = (float("nan"),) * 4
"""Placeholder for the box of a prompt that draws none."""
PEAK = 0.05
"""Lowest value of the heat map at which a peak becomes a candidate, 0..1."""


class Segmenter:
    """Runs the pixel perception module over one batch of encoded images."""

    def __init__(self, model: EarthGPTX, encoded: Encoded) -> None:
        """Takes the model and the images that it encoded."""
        self._model, self._encoded = model, encoded

    def perceive(self, states: Sequence[Tensor], images: Sequence[int]) -> Perceived:
        """Computes queries from hidden states, each (W), and image numbers."""
        perceived: Perceived = self._model.perception(
            torch.stack(list(states)), images, self._encoded.looked
        )
        return perceived

    def ground(self, perceived: Perceived, images: Sequence[int]) -> Tensor:
        """Returns log-odds (M, rows, cols) that pixels belong to what each query covers."""
        masks = self._model.perception.ground(perceived.queries, images, self._encoded.pixels)
        upsampled = functional.interpolate(
            masks[:, None] + self._model.config.mask_offset,
            self._encoded.size,
            mode="bilinear",
            align_corners=False,
        )
        return upsampled[:, 0]

    def heat(self, perceived: Perceived, images: Sequence[int]) -> Tensor:
        """Returns probabilities (M, Y, X) that cells are the centre of an object of each query."""
        perception = self._model.perception
        return perception.heat(perceived.queries, images, self._encoded.pixels).sigmoid()

    def stuff(self, perceived: Perceived, number: int, ground: Tensor) -> Instance:
        """Returns all ground that query `number` covers, as one mask.

        Args:
            perceived: outputs for all queries.
            number: number of the query.
            ground: (rows, cols) its log-odds, see `ground`.
        """
        inside = (ground > 0).cpu().numpy()
        presence = float(perceived.presence[number].sigmoid())
        quality = float(perceived.quality[number].sigmoid())
        mask = Mask.from_array(inside) if inside.any() else None
        return Instance(mask=mask, score=presence * quality, presence=presence)

    def several(
        self, query: Tensor, heat: Tensor, image: int, presence: float, least: float
    ) -> tuple[Instance, ...]:
        """Returns the objects of a phrase, one per peak of its heat map, without duplicates.

        Args:
            query: (C) query of the phrase.
            heat: (Y, X) its heat map, see `heat`.
            image: number of the image that is searched.
            presence: probability that the image shows any such object, 0..1.
            least: lowest score of an instance that is kept, 0..1.
        """
        # A score is the root of the heat times a probability: no lower peak reaches the least one.
        lowest = max(PEAK, least**2 * (1 - 1e-6))
        rows, cols = torch.nonzero(local_maxima(heat[None])[0] & (heat >= lowest), as_tuple=True)
        if not len(rows):
            return ()
        order = heat[rows, cols].argsort(descending=True, stable=True)[:MOST_INSTANCES]
        places = torch.stack([rows[order], cols[order]], dim=1)
        # Of this image alone: boxes are refined on the features of all images that are given.
        pixels, queries = (
            self._encoded.pixels[image : image + 1],
            query.expand(len(order), -1),
        )
        judged = self._model.perception.judge(queries, [0] * len(order), places, pixels)
        scores = (heat[places[:, 0], places[:, 1]] * judged.worth.sigmoid()).sqrt()
        order = scores.argsort(descending=True, stable=True)[: int((scores >= least).sum())]
        boxes = [self._box(box) for box in judged.boxes[-1][order].tolist()]
        kept = distinct(boxes)
        order = order[kept]
        masks = self._masks(judged.of(order), [0] * len(kept), places[order], pixels)
        return tuple(
            # An object too small to be outlined gets its filled box as mask.
            Instance(mask=mask or _filled(box), score=score, presence=presence, box=box)
            for mask, box, score in zip(
                masks, (boxes[at] for at in kept), scores[order].tolist(), strict=True
            )
        )

    def single(
        self,
        perceived: Perceived,
        images: Sequence[int],
        places: Tensor,
        under: Tensor | None = None,
        within: Tensor | None = None,
    ) -> list[Instance]:
        """Returns the one object of each query, given a place in it.

        Args:
            perceived: outputs for M queries.
            images: M image numbers.
            places: (M, 2) long, row and column at stride 2.
            under: (M, C) features that are pointed at; None for the features at the places.
            within: (M, 4) boxes drawn by the prompts, xyxy at stride 2; NaN for prompts that draw
                none. None if no query has one.
        """
        pixels = self._encoded.pixels
        judged = self._model.perception.judge(perceived.queries, images, places, pixels, under)
        masks = self._masks(judged, images, places, pixels, within)
        boxes = [self._box(box) for box in judged.boxes[-1].tolist()]
        instances = []
        for number, (mask, box) in enumerate(zip(masks, boxes, strict=True)):
            presence = float(perceived.presence[number].sigmoid())
            quality = float(perceived.quality[number].sigmoid())
            score = presence * quality
            instances.append(Instance(mask=mask, score=score, presence=presence, box=box))
        return instances

    def pointed_at(
        self, states: Sequence[Tensor], prompts: Sequence[Sequence[VisualPrompt]]
    ) -> list[Instance]:
        """Returns the object that each prompt points at, image by image.

        Args:
            states: hidden states (W), one per prompt.
            prompts: prompts of each image.
        """
        flat = [(image, prompt) for image, each in enumerate(prompts) for prompt in each]
        images, device = [image for image, _ in flat], self._model.device
        pointed = [self._encoded.pointed[image][prompt.id] for image, prompt in flat]
        perceived = self.perceive(states, images)
        places = torch.tensor([each.middle for each in pointed], device=device)
        within = torch.tensor([each.within or NO_BOX for each in pointed], device=device)
        under = torch.stack([each.under for each in pointed])
        points = [row for row, (_, prompt) in enumerate(flat) if isinstance(prompt.place, Point)]
        places, under = self._centred(perceived.queries, images, places, under, points)
        return self.single(perceived, images, places, under, within)

    def chosen_candidates(
        self, phrases: Sequence[Tensor], perceived: Perceived, images: Sequence[int]
    ) -> Tensor:
        """Returns row and column (M, 2) of the candidate that each query's phrase refers to.

        Args:
            phrases: M tensors (P, W), the hidden states along each phrase.
            perceived: outputs for the queries of the phrases.
            images: M image numbers.
        """
        places, heights = top_peaks(self.heat(perceived, images), CANDIDATES)
        present = heights > LOW
        present[:, 0] = True
        scored = self._model.perception.choose(
            phrases, perceived.queries, images, places, heights, present, self._encoded.pixels
        )
        return places[torch.arange(len(images), device=places.device), scored.argmax(dim=1)]

    def _centred(
        self,
        queries: Tensor,
        images: Sequence[int],
        places: Tensor,
        under: Tensor,
        points: Sequence[int],
    ) -> tuple[Tensor, Tensor]:
        """Moves points that lie off the middle of their object to that middle.

        The model is trained to outline objects from their middles. Other prompts stay. So do points
        at most one cell off, because the middle of a tiny object is not known more precisely.
        """
        if not points:
            return places, under
        pixels, theirs = self._encoded.pixels, [images[row] for row in points]
        perception = self._model.perception
        judged = perception.judge(queries[points], theirs, places[points], pixels, under[points])
        boxes = judged.boxes[-1]
        last = torch.tensor(pixels.shape[-2:], device=pixels.device) - 1
        middles = ((boxes[:, :2] + boxes[:, 2:]) / 2).flip(-1).long().clamp(min=0).minimum(last)
        moved = ((middles - places[points]).abs().amax(dim=1) > 1)[:, None]
        rows = torch.tensor(points, device=places.device)
        placed = torch.where(moved, middles, places[points])
        features = torch.where(moved, features_at(pixels, theirs, middles), under[points])
        return places.index_copy(0, rows, placed), under.index_copy(0, rows, features)

    def _masks(
        self,
        judged: Judged,
        images: Sequence[int],
        places: Tensor,
        pixels: Tensor,
        within: Tensor | None = None,
    ) -> list[Mask | None]:
        """Returns the mask of each instance, None for an empty one; see `masks_within`."""
        windows = self._model.perception.masks_within(judged, images, pixels, within)
        if not windows:
            return []
        drawn = [False] * len(images)
        if within is not None:
            drawn = (~within.isnan().any(dim=1)).tolist()
        # One copy from the device.
        flat = torch.cat([scored.flatten() for *_, scored in windows]).cpu().numpy()
        ends = np.cumsum([scored.numel() for *_, scored in windows])[:-1]
        return [
            instance_mask(values.reshape(tuple(scored.shape)), (y0, x0), (row, col), drawn=given)
            for values, (y0, x0, scored), (row, col), given in zip(
                np.split(flat, ends), windows, places.tolist(), drawn, strict=True
            )
        ]

    def _box(self, cells: Sequence[float]) -> Box:
        """Converts a box from cells of stride 2 to pixels.

        The box is clipped to the image and at least one pixel wide and high.
        """
        rows, cols = self._encoded.size
        x0, y0 = (
            min(max(edge * STRIDE, 0.0), side - 1.0)
            for edge, side in zip(cells[:2], (cols, rows), strict=True)
        )
        x1, y1 = (
            min(edge * STRIDE, float(side))
            for edge, side in zip(cells[2:], (cols, rows), strict=True)
        )
        return Box(x0, y0, max(x1, x0 + 1), max(y1, y0 + 1))


def _filled(box: Box) -> Mask:
    y0, x0, y1, x1 = (round(edge) for edge in (box.y0, box.x0, box.y1, box.x1))
    height, width = max(y1 - y0, 1), max(x1 - x0, 1)
    return Mask(y0, x0, height, width, (0, height * width))

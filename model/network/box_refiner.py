"""Refines and scores boxes from the features in and around them.

The second stage of Faster and Cascade R-CNN (Ren et al. 2015; Cai and Vasconcelos 2018). It reuses
the stride-2 features of the perception module.
"""

# N instances, C channels, Y X cells at stride 2, G samples along a side of a box's sampling grid

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

GRID = 12
"""Samples along each side of a box."""
SPAN = 2.0
"""Extent of the samples in sides of the box. It exceeds 1 so that the true edges are sampled even
where the box is wrong."""
OUTSIDE = 2.0
"""Coordinate outside the image for `grid_sample`, where the image spans -1..1."""
LEAST = 2.0
"""Lower limit, in cells, of the side length that scales the sampling grid and the corrections."""


class BoxRefiner(nn.Module):
    """Corrects boxes and scores how well each holds an object of its phrase."""

    def __init__(self, width: int) -> None:
        """Initialises it for features of `width` channels, with corrections close to zero."""
        super().__init__()
        narrow = width // 2
        self.narrow = nn.Conv2d(width + 1, narrow, 1)
        self.about = nn.Linear(width, narrow)
        self.shape = nn.Conv2d(narrow, narrow, 3, stride=2, padding=1)
        self.whole = nn.Linear(narrow * (GRID // 2) ** 2, 2 * width)
        self.change = nn.Linear(2 * width, 5)
        nn.init.normal_(self.change.weight, std=1e-3)
        nn.init.zeros_(self.change.bias)

    def forward(
        self, boxes: Tensor, mask_query: Tensor, of_image: Sequence[int], pixels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Refines boxes.

        Args:
            boxes: (N, 4) xyxy in cells.
            mask_query: (N, C) queries whose dot product with the features gives the instance masks.
            of_image: N image indices, one per box.
            pixels: (B, C, Y, X) features.

        Returns:
            (N, 4) boxes, xyxy in cells, and (N) log-odds that the box holds such an object, both
            float32.
        """
        unit = (boxes[:, 2:] - boxes[:, :2]).clamp(min=LEAST)
        seen = _sampled((boxes[:, :2] + boxes[:, 2:]) / 2, unit, of_image, pixels).to(
            mask_query.dtype
        )
        alike = torch.einsum("nc,ncyx->nyx", mask_query, seen).sigmoid()[:, None]
        found = (
            self.narrow(torch.cat([seen, alike], dim=1)) + self.about(mask_query)[:, :, None, None]
        )
        found = functional.gelu(self.shape(functional.gelu(found)))
        change = self.change(functional.gelu(self.whole(found.flatten(1)))).float()
        edges = boxes + change[:, :4] * unit.repeat(1, 2)
        low, high = edges[:, :2], edges[:, 2:]
        return torch.cat([torch.minimum(low, high - 0.2), high], dim=1), change[:, 4]


def _sampled(middle: Tensor, unit: Tensor, of_image: Sequence[int], pixels: Tensor) -> Tensor:
    """Samples features in and around each box: (N, C, G, G) float32, zeros outside the image."""
    rows, cols = pixels.shape[-2:]
    steps = ((torch.arange(GRID, device=middle.device) + 0.5) / GRID - 0.5) * SPAN
    x, y = (middle[:, None] + steps[None, :, None] * unit[:, None]).unbind(-1)
    x, y = 2 * x / cols - 1, 2 * y / rows - 1
    places = torch.stack(
        [x[:, None, :].expand(-1, GRID, -1), y[:, :, None].expand(-1, -1, GRID)], dim=-1
    )
    # One call for all images, padded to the largest number of boxes per image: with one call per
    # image, the gradient of each call would be as large as all features.
    slots, counts = [], [0] * len(pixels)
    for image in of_image:
        slots.append(counts[image])
        counts[image] += 1
    where = (
        torch.tensor(of_image, device=middle.device),
        torch.tensor(slots, device=middle.device),
    )
    grid = places.new_full((len(pixels), max(counts), GRID, GRID, 2), OUTSIDE).index_put(
        where, places
    )
    sampled = functional.grid_sample(pixels.float(), grid.flatten(1, 2), align_corners=False)
    return sampled.unflatten(2, (-1, GRID)).transpose(1, 2)[where]

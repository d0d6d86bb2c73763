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
    """Samples features in and around each box: (N, C, G, G) float32, zeros outside the image.

    Bilinear, like `grid_sample` without `align_corners`. Where features are channels last, a cell
    is one row of a table; `grid_sample` reads its channels one by one and is slower.
    """
    rows, cols = pixels.shape[-2:]
    steps = ((torch.arange(GRID, device=middle.device) + 0.5) / GRID - 0.5) * SPAN
    x, y = (middle[:, None] + steps[None, :, None] * unit[:, None] - 0.5).unbind(-1)
    (at_x, share_x), (at_y, share_y) = _neighbours(x, cols), _neighbours(y, rows)
    shares = share_y[:, :, None, :, None] * share_x[:, None, :, None, :]
    first = torch.tensor(of_image, dtype=torch.long, device=middle.device).view(-1, 1, 1) * rows
    cells = (first + at_y)[:, :, None, :, None] * cols + at_x[:, None, :, None, :]
    sampled = functional.embedding_bag(
        cells.reshape(-1, 4),
        pixels.permute(0, 2, 3, 1).flatten(0, 2).float(),
        per_sample_weights=shares.reshape(-1, 4),
        mode="sum",
    )
    return sampled.unflatten(0, (len(middle), GRID, GRID)).permute(0, 3, 1, 2)


def _neighbours(at: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The two cells beside each position along an axis and their shares.

    Args:
        at: (N, G) positions in cells; whole numbers are middles of cells.
        size: cells along the axis.

    Returns:
        (N, G, 2) long, cells of the axis, and (N, G, 2) their shares, 0 for cells outside.
    """
    low = at.floor()
    beside = torch.stack([low, low + 1], dim=-1)
    shares = torch.stack([low + 1 - at, at - low], dim=-1)
    inside = (beside >= 0) & (beside < size)
    # Both comparisons are false for NaN, so that such a position has no cell inside.
    return beside.nan_to_num().clamp(0, size - 1).long(), torch.where(inside, shares, 0.0)

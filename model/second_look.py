"""A second look at a judged box: what lies in and around it, and what box and worth that gives.

The second stage of Faster and Cascade R-CNN (Ren et al. 2015; Cai and Vasconcelos 2018), on features that are there.
"""

# N instances, C channels, Y X cells at stride 2, G cells of a box's own grid

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

GRID = 12
"""Places that are looked at along each side."""
SPAN = 2.0
"""What they span, in sides of the box: its edges are seen though they were judged to lie elsewhere."""
OUTSIDE = 2.0
"""A place beyond the image, whose sides are -1 and 1."""
LEAST = 2.0
"""Cells, a shorter side counts as this."""


class SecondLook(nn.Module):
    """Corrects boxes, and says how well each holds an object of its phrase."""

    def __init__(self, width: int) -> None:
        """Build it so that boxes nearly stay as they are, for features of `width` channels."""
        super().__init__()
        narrow = width // 2
        self.narrow = nn.Conv2d(width + 1, narrow, 1)
        self.about = nn.Linear(width, narrow)
        self.shape = nn.Conv2d(narrow, narrow, 3, stride=2, padding=1)
        self.whole = nn.Linear(narrow * (GRID // 2) ** 2, 2 * width)
        self.change = nn.Linear(2 * width, 5)
        nn.init.normal_(self.change.weight, std=1e-3)
        nn.init.zeros_(self.change.bias)

    def forward(self, boxes: Tensor, asked: Tensor, of_image: Sequence[int], pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Look.

        Args:
            boxes: (N, 4) xyxy in cells.
            asked: (N, C), what is compared with the features where an instance's mask is made.
            of_image: N numbers.
            pixels: (B, C, Y, X).

        Returns:
            (N, 4) xyxy in cells, and (N) log-odds of how well the box holds such an object, float32.
        """
        unit = (boxes[:, 2:] - boxes[:, :2]).clamp(min=LEAST)
        seen = _sampled((boxes[:, :2] + boxes[:, 2:]) / 2, unit, of_image, pixels).to(asked.dtype)
        alike = torch.einsum("nc,ncyx->nyx", asked, seen).sigmoid()[:, None]
        found = self.narrow(torch.cat([seen, alike], dim=1)) + self.about(asked)[:, :, None, None]
        found = functional.gelu(self.shape(functional.gelu(found)))
        change = self.change(functional.gelu(self.whole(found.flatten(1)))).float()
        edges = boxes + change[:, :4] * unit.repeat(1, 2)
        low, high = edges[:, :2], edges[:, 2:]
        return torch.cat([torch.minimum(low, high - 0.2), high], dim=1), change[:, 4]


def _sampled(middle: Tensor, unit: Tensor, of_image: Sequence[int], pixels: Tensor) -> Tensor:
    """Features around each box, (N, C, G, G) float32; nothing beyond the image."""
    rows, cols = pixels.shape[-2:]
    steps = ((torch.arange(GRID, device=middle.device) + 0.5) / GRID - 0.5) * SPAN
    x, y = (middle[:, None] + steps[None, :, None] * unit[:, None]).unbind(-1)
    x, y = 2 * x / cols - 1, 2 * y / rows - 1
    places = torch.stack([x[:, None, :].expand(-1, GRID, -1), y[:, :, None].expand(-1, -1, GRID)], dim=-1)
    # One call for all images, each with as many places as the one with most: else each call's gradient is as large as
    # all features.
    slots, counts = [], [0] * len(pixels)
    for image in of_image:
        slots.append(counts[image])
        counts[image] += 1
    where = (torch.tensor(of_image, device=middle.device), torch.tensor(slots, device=middle.device))
    grid = places.new_full((len(pixels), max(counts), GRID, GRID, 2), OUTSIDE).index_put(where, places)
    sampled = functional.grid_sample(pixels.float(), grid.flatten(1, 2), align_corners=False)
    return sampled.unflatten(2, (-1, GRID)).transpose(1, 2)[where]

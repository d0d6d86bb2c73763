"""Selects the candidate that a phrase refers to, by position, size and appearance.

Words like leftmost, largest, second and nearest compare an object with others. A single query would
have to know the object before it attends to the image. Instead, its heat map shows all objects of
the kind, each peak is a candidate, and the candidates are compared with one another.
"""

# Q phrases, P states per phrase, K candidates per phrase, C channels, W width of the language model

from __future__ import annotations

import torch
from torch import Tensor, nn

from earthgptx.model.network.spatial_encoder import WAVES, waves

LAYERS = 2
SIDES = 3
"""Number of properties by which candidates are ordered: x, y, size."""
SOFT = 0.01
"""Softness of the order, as a fraction of the image's sides: candidates that are closer together
than this have no clear order."""


class ObjectSelector(nn.Module):
    """A transformer in which the candidates and the words of one phrase attend to one another."""

    def __init__(self, width: int, spoken: int, heads: int) -> None:
        """Builds the module with random weights.

        Args:
            width: number of channels C of the features.
            spoken: width W of the language model.
            heads: number of attention heads.
        """
        super().__init__()
        self.words = nn.Linear(spoken, width)
        self.about = nn.Linear(width + 4 * 2 * WAVES + 1 + 2 * SIDES, width)
        layer = nn.TransformerEncoderLayer(
            width,
            heads,
            2 * width,
            dropout=0.0,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.layers = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        # No bias: the same offset for all candidates does not change the choice.
        self.score = nn.Linear(width, 1, bias=False)

    def forward(
        self,
        phrases: Tensor,
        spoken: Tensor,
        under: Tensor,
        boxes: Tensor,
        heights: Tensor,
        present: Tensor,
    ) -> Tensor:
        """Scores the candidates of each phrase.

        Args:
            phrases: (Q, P, W) hidden states of the language model, one per token of the phrase.
            spoken: (Q, P) bool, False for padding beyond the end of a phrase.
            under: (Q, K, C) features at the candidates' positions.
            boxes: (Q, K, 4) xyxy in 0..1 of the image's sides.
            heights: (Q, K) heat map values at the candidates, 0..1.
            present: (Q, K) bool, False for padding where a phrase has fewer candidates. Each phrase
                has at least one candidate.

        Returns:
            (Q, K) log-odds, float32, minus infinity for padding.
        """
        placed = waves(boxes.flatten(0, 1)).unflatten(0, boxes.shape[:2])
        known = torch.cat(
            [placed, heights[..., None], _ranks(boxes, heights * present)], dim=-1
        ).to(under.dtype)
        seen = self.about(torch.cat([under, known], dim=-1))
        both = torch.cat([seen, self.words(phrases).to(seen.dtype)], dim=1)
        compared = self.layers(both, src_key_padding_mask=~torch.cat([present, spoken], dim=1))
        scored: Tensor = self.score(compared[:, : under.shape[1]])[..., 0].float()
        return scored.masked_fill(~present, -torch.inf)


def _ranks(boxes: Tensor, worth: Tensor) -> Tensor:
    """Soft counts per candidate of the others to its left, above, smaller; right, below, larger.

    Args:
        boxes: (Q, K, 4) xyxy in 0..1 of the image's sides.
        worth: (Q, K) weights; each of the others counts with its weight relative to the highest.

    Returns:
        (Q, K, 6) counts, in this order.
    """
    x0, y0, x1, y1 = boxes.unbind(-1)
    octaves = ((x1 - x0) * (y1 - y0)).clamp(min=1e-6).log2()
    ordered = torch.stack([(x0 + x1) / 2, (y0 + y1) / 2, octaves / 20], dim=-1)
    later = ((ordered[:, :, None] - ordered[:, None]) / SOFT).sigmoid()
    each = (worth / worth.amax(dim=1, keepdim=True).clamp(min=1e-6))[:, None, :, None]
    others = each * (1 - torch.eye(boxes.shape[1], device=boxes.device))[:, :, None]
    return torch.cat([(others * later).sum(dim=2), (others * (1 - later)).sum(dim=2)], dim=-1)

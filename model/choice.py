"""Which of several candidates a phrase speaks of: they are compared with one another, by place, size and look.

Leftmost, largest, second and nearest are said of one among others. A query alone has to know which before it looks; here
its heat map shows all of the kind, and each of its peaks is a candidate.
"""

# Q phrases, P states of each, K candidates, C channels, W of the language model

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.spatial_encoder import WAVES, waves

LAYERS = 2
SIDES = 3
"""What candidates are ordered by: x, y, size."""
SOFT = 0.01
"""Of the image's sides: two that are no further apart are next to each other in no order."""


class Choice(nn.Module):
    """Candidates and the words of one phrase see one another, and nothing else."""

    def __init__(self, width: int, spoken: int, heads: int) -> None:
        """Build it with random weights, for features of `width` channels and a language model's of `spoken`."""
        super().__init__()
        self.words = nn.Linear(spoken, width)
        self.about = nn.Linear(width + 4 * 2 * WAVES + 1 + 2 * SIDES, width)
        layer = nn.TransformerEncoderLayer(
            width, heads, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.score = nn.Linear(width, 1, bias=False)  # the same for all would choose nothing

    def forward(
        self, phrases: Tensor, spoken: Tensor, under: Tensor, boxes: Tensor, heights: Tensor, present: Tensor
    ) -> Tensor:
        """Compare.

        Args:
            phrases: (Q, P, W) states of the language model along each phrase.
            spoken: (Q, P) bool, False beyond a phrase's end.
            under: (Q, K, C) features at the candidates' places.
            boxes: (Q, K, 4) xyxy in 0..1 of the image's sides.
            heights: (Q, K) of the heat map, 0..1.
            present: (Q, K) bool, False where a phrase has fewer; one at least of each is there.

        Returns:
            (Q, K) log-odds, float32; minus infinity where there is no candidate.
        """
        placed = waves(boxes.flatten(0, 1)).unflatten(0, boxes.shape[:2])
        known = torch.cat([placed, heights[..., None], _ranks(boxes, heights * present)], dim=-1).to(under.dtype)
        seen = self.about(torch.cat([under, known], dim=-1))
        both = torch.cat([seen, self.words(phrases).to(seen.dtype)], dim=1)
        compared = self.layers(both, src_key_padding_mask=~torch.cat([present, spoken], dim=1))
        scored: Tensor = self.score(compared[:, : under.shape[1]])[..., 0].float()
        return scored.masked_fill(~present, -torch.inf)


def _ranks(boxes: Tensor, worth: Tensor) -> Tensor:
    """(Q, K, 6) how much of the others lies left of each, above it, is smaller; then right, below, larger.

    Each of the others counts as much as its worth (Q, K) is of the highest one's.
    """
    x0, y0, x1, y1 = boxes.unbind(-1)
    octaves = ((x1 - x0) * (y1 - y0)).clamp(min=1e-6).log2()
    ordered = torch.stack([(x0 + x1) / 2, (y0 + y1) / 2, octaves / 20], dim=-1)
    later = ((ordered[:, :, None] - ordered[:, None]) / SOFT).sigmoid()
    each = (worth / worth.amax(dim=1, keepdim=True).clamp(min=1e-6))[:, None, :, None]
    others = each * (1 - torch.eye(boxes.shape[1], device=boxes.device))[:, :, None]
    return torch.cat([(others * later).sum(dim=2), (others * (1 - later)).sum(dim=2)], dim=-1)

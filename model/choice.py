"""Which of several candidates a phrase speaks of: they are compared with one another, by place, size and look.

Leftmost, largest, second and nearest are said of one among others. A query alone has to know which before it looks; here
its heat map shows all of the kind, and each of its peaks is a candidate.
"""

# Q queries, K candidates of each, C channels

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.spatial_encoder import WAVES, waves

LAYERS = 2


class Choice(nn.Module):
    """Candidates of one query see one another and nothing else."""

    def __init__(self, width: int, heads: int) -> None:
        """Build it with random weights, for features of `width` channels."""
        super().__init__()
        self.about = nn.Linear(2 * width + 4 * 2 * WAVES + 1, width)
        layer = nn.TransformerEncoderLayer(
            width, heads, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.score = nn.Linear(width, 1)

    def forward(self, queries: Tensor, under: Tensor, boxes: Tensor, heights: Tensor, present: Tensor) -> Tensor:
        """Compare.

        Args:
            queries: (Q, C).
            under: (Q, K, C) features at the candidates' places.
            boxes: (Q, K, 4) xyxy in 0..1 of the image's sides.
            heights: (Q, K) of the heat map, 0..1.
            present: (Q, K) bool, False where a query has fewer; one at least of each is there.

        Returns:
            (Q, K) log-odds, float32; minus infinity where there is no candidate.
        """
        placed = waves(boxes.flatten(0, 1)).unflatten(0, boxes.shape[:2]).to(under.dtype)
        asked = queries[:, None].expand(-1, under.shape[1], -1)
        seen = self.about(torch.cat([asked, under, placed, heights[..., None].to(under.dtype)], dim=-1))
        compared = self.layers(seen, src_key_padding_mask=~present)
        scored: Tensor = self.score(compared)[..., 0].float()
        return scored.masked_fill(~present, -torch.inf)

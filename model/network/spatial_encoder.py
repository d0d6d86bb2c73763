"""The spatial-aware prompt encoder: a ViT over rasterised prompts.

E_prompt = SAE(V_p) in the paper.
"""

# N prompts, D channels, K tokens per prompt, Y X cells

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from earthgptx.model.interface.config import ModelConfig

PATCHES = 4
"""Number of patches along each side of a prompt's canvas."""
PROMPT_TOKENS = 1 + PATCHES**2
"""Tokens per prompt: one for the whole prompt, then one per patch."""
EDGES = 32
"""Channels of the canvas at full resolution. Few, since there are many canvases."""
WAVES = 8
"""Frequencies that encode a box edge, so that objects below cell size keep position and size."""


class SpatialEncoder(nn.Module):
    """Encodes a batch of prompts independently of one another."""

    def __init__(self, config: ModelConfig) -> None:
        """Builds the module with random weights."""
        super().__init__()
        width = config.hybrid_width
        self.edges = nn.Conv2d(2, EDGES, 3, padding=1)
        self.widen = nn.Linear(EDGES, width)
        self.pool = nn.AdaptiveAvgPool2d(PATCHES)
        self.place = nn.Parameter(torch.randn(1, PATCHES**2, width) * 0.02)
        self.whole = nn.Linear(4 * 2 * WAVES, width)
        layer = nn.TransformerEncoderLayer(
            width,
            config.hybrid_heads,
            2 * width,
            dropout=0.0,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.layers = nn.TransformerEncoder(layer, config.prompt_layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)

    def forward(self, canvas: Tensor, boxes: Tensor) -> Tensor:
        """Encodes prompts.

        Args:
            canvas: (N, 2, Y, X) prompts drawn by `model.interface.prompt.rasterise`.
            boxes: (N, 4) xyxy in 0..1 of the image's sides.

        Returns:
            (N, 17, D) tokens: one for the whole prompt, then one per patch, row by row from the
            top-left corner.
        """
        drawn = self.pool(nn.functional.gelu(self.edges(canvas)))
        tokens = self.widen(drawn.flatten(2).transpose(1, 2)) + self.place
        whole = self.whole(waves(boxes))[:, None]
        encoded: Tensor = self.norm(self.layers(torch.cat([whole, tokens], dim=1)))
        return encoded


def waves(values: Tensor) -> Tensor:
    """Positional encoding of values in 0..1: sines and cosines at octaves, (N, M) to (N, M * 16).

    Tancik et al. (2020), positional encoding.
    """
    octaves = 2.0 ** torch.arange(WAVES, device=values.device, dtype=values.dtype) * math.pi
    angles = (values[..., None] * octaves).flatten(-2)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)

"""The hybrid block: fuses image and prompt features into tokens for the language model.

The paper (arXiv 2504.12795, section III-B):

    V_sa  = SelfAttn(V_img)
    E_ff  = FFN(E_prompt)
    H_ca  = CrossAttn(V_sa, E_ff) + V_sa
    [V-P] = SelfAttn(H_ca)

followed by a projection to the width of the language model. Attention and feed-forward parts are
pre-norm, as in every current transformer.
"""

# B images, L cells, D channels, K tokens of all prompts of an image,
# T tokens for the language model

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from earthgptx.model.interface.config import ModelConfig
from earthgptx.model.network.spatial_encoder import WAVES, waves


class HybridBlock(nn.Module):
    """The hybrid block.

    All prompts of an image are processed together. Without prompts, the cross-attention adds zeros.
    """

    def __init__(self, config: ModelConfig, image_width: int) -> None:
        """Builds the module with random weights.

        Args:
            config: config of the model.
            image_width: number of channels of the encoders' features.
        """
        super().__init__()
        width, heads = config.hybrid_width, config.hybrid_heads
        self.enter = nn.Linear(image_width, width)
        self.place = nn.Linear(2 * 2 * WAVES, width)
        self.norm_image, self.self_image = nn.LayerNorm(width), Attention(width, heads)
        self.feed_prompt = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.norm_cross, self.cross = nn.LayerNorm(width), Attention(width, heads)
        self.norm_both, self.self_both = nn.LayerNorm(width), Attention(width, heads)
        self.per_token = config.token_px // config.cell_px
        self.project = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, config.language.width))

    def forward(self, image: Tensor, prompts: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Fuses images with their prompts.

        Args:
            image: (B, C, Y, X) image features, one per cell.
            prompts: (B, K, D) tokens of all prompts of each image.
            present: (B, K) bool, False for padding where an image has fewer prompts.

        Returns:
            (B, D, Y, X) fused features, one per cell, and (B, T, width) language model tokens.
        """
        batch, _, rows, cols = image.shape
        seen = self.enter(image.flatten(2).transpose(1, 2)) + self.place(
            waves(middles(rows, cols, image))
        )
        seen = seen + self.self_image(self.norm_image(seen))
        fed = self.feed_prompt(prompts)
        both = seen + self.cross(self.norm_cross(seen), fed, present)
        both = both + self.self_both(self.norm_both(both))
        fused = both.transpose(1, 2).reshape(batch, -1, rows, cols)
        tokens = functional.avg_pool2d(fused, self.per_token).flatten(2).transpose(1, 2)
        return fused, self.project(tokens)


class Attention(nn.Module):
    """Multi-head attention that returns zeros for rows whose context is empty."""

    def __init__(self, width: int, heads: int) -> None:
        """Builds the module with random weights."""
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(
        self, x: Tensor, context: Tensor | None = None, present: Tensor | None = None
    ) -> Tensor:
        """Attends from `x` to the context.

        Args:
            x: (B, L, D) queries.
            context: (B, K, D) keys and values; None for self-attention.
            present: (B, K) bool, False for padding in the context; None for no padding.

        Returns:
            (B, L, D), zeros for rows whose context is empty.
        """
        context = x if context is None else context
        if not context.shape[1]:
            return torch.zeros_like(x)
        q, k, v = (
            part(of).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part, of in ((self.query, x), (self.key, context), (self.value, context))
        )
        # Every row needs at least one key. A row with an empty context attends to the padding, and
        # its output is set to zero below.
        mask = (
            None
            if present is None or present.all()
            else (present | ~present.any(dim=1, keepdim=True))[:, None, None, :]
        )
        attended = (
            functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
            .transpose(1, 2)
            .flatten(2)
        )
        out: Tensor = self.out(attended)
        if present is not None:
            out = torch.where(present.any(dim=1)[:, None, None], out, torch.zeros_like(out))
        return out


def middles(rows: int, cols: int, like: Tensor) -> Tensor:
    """Centres of cells in 0..1: (1, rows * cols, 2), x and y, with dtype and device of `like`."""
    y = (torch.arange(rows, device=like.device, dtype=like.dtype) + 0.5) / rows
    x = (torch.arange(cols, device=like.device, dtype=like.dtype) + 0.5) / cols
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).reshape(1, -1, 2)

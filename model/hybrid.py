"""The hybrid block: image and prompts meet, and become tokens of the language model.

The paper (arXiv 2504.12795, section III-B):

    V_sa  = SelfAttn(V_img)
    E_ff  = FFN(E_prompt)
    H_ca  = CrossAttn(V_sa, E_ff) + V_sa
    [V-P] = SelfAttn(H_ca)

and a projection to the language model's width. Norms stand before each part, as in every current transformer.
"""

# B images, L cells, D channels, K tokens of all prompts of an image, T tokens of the language model

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.config import ModelConfig
from model.spatial_encoder import WAVES, waves


class HybridBlock(nn.Module):
    """One block. Prompts of an image go through it together; without prompts the cross-attention adds nothing."""

    def __init__(self, config: ModelConfig, image_width: int) -> None:
        """Build it with random weights.

        Args:
            config: of the model.
            image_width: channels of the encoders' features.
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
        """Fuse.

        Args:
            image: (B, C, Y, X) features on cells.
            prompts: (B, K, D) tokens of all prompts of each image.
            present: (B, K) bool, False where an image has fewer.

        Returns:
            (B, D, Y, X) fused features on cells, and (B, T, width) tokens for the language model.
        """
        batch, _, rows, cols = image.shape
        seen = self.enter(image.flatten(2).transpose(1, 2)) + self.place(waves(middles(rows, cols, image)))
        seen = seen + self.self_image(self.norm_image(seen))
        fed = self.feed_prompt(prompts)
        both = seen + self.cross(self.norm_cross(seen), fed, present)
        both = both + self.self_both(self.norm_both(both))
        fused = both.transpose(1, 2).reshape(batch, -1, rows, cols)
        tokens = functional.avg_pool2d(fused, self.per_token).flatten(2).transpose(1, 2)
        return fused, self.project(tokens)


class Attention(nn.Module):
    """Multi-head attention; of nothing, it is nothing."""

    def __init__(self, width: int, heads: int) -> None:
        """Build it with random weights."""
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, context: Tensor | None = None, present: Tensor | None = None) -> Tensor:
        """Attend.

        Args:
            x: (B, L, D).
            context: (B, K, D); None for x itself.
            present: (B, K) bool, which of the context is there; None for all.

        Returns:
            (B, L, D); zeros for a row whose context is empty.
        """
        context = x if context is None else context
        if not context.shape[1]:
            return torch.zeros_like(x)
        q, k, v = (
            part(of).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part, of in ((self.query, x), (self.key, context), (self.value, context))
        )
        # A row of no context attends to anything, and is set to nothing below: no row may be without a key.
        mask = (
            None
            if present is None or present.all()
            else (present | ~present.any(dim=1, keepdim=True))[:, None, None, :]
        )
        attended = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
        out: Tensor = self.out(attended)
        if present is not None:
            out = torch.where(present.any(dim=1)[:, None, None], out, torch.zeros_like(out))
        return out


def middles(rows: int, cols: int, like: Tensor) -> Tensor:
    """Middles of cells in 0..1, (1, rows * cols, 2) x and y."""
    y = (torch.arange(rows, device=like.device, dtype=like.dtype) + 0.5) / rows
    x = (torch.arange(cols, device=like.device, dtype=like.dtype) + 0.5) / cols
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).reshape(1, -1, 2)

"""Computes the cost of a model: parameters per part, tokens, memory.

The model is built on the meta device, so no memory is allocated.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from earthgptx.model.interface.config import ModelConfig
from earthgptx.model.network.earthgptx import EarthGPTX
from earthgptx.model.network.tokens import Vocabulary


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Parameters, tokens and memory of one model."""

    parameters: dict[str, int]
    """Number of parameters per part."""
    image_tokens: int
    """Tokens of an image of the config's size for the language model, including the sensor mark."""
    bytes_fp32: int
    bytes_bf16: int
    kv_bytes_per_token: int
    """Bytes of the keys and values of one token, bf16."""
    kv_bytes_per_prompt: int
    """Bytes of the keys and values of a prompt's branch with a caption of full budget, bf16. The
    image's tokens are shared and not included."""


def cost_of(config: ModelConfig, caption_tokens: int) -> Cost:
    """Computes the cost of a model.

    Args:
        config: config of the model.
        caption_tokens: token budget of a caption.
    """
    with torch.device("meta"):
        model = EarthGPTX(config, Vocabulary.train((), config.language.vocabulary))
    parts = {
        name: sum(weight.numel() for weight in part.parameters())
        for name, part in model.named_children()
    }
    total, language = sum(parts.values()), config.language
    per_token = 2 * language.layers * language.kv_heads * (language.width // language.heads) * 2
    return Cost(
        parameters=parts,
        image_tokens=1 + (config.image_px // config.token_px) ** 2,
        bytes_fp32=4 * total,
        bytes_bf16=2 * total,
        kv_bytes_per_token=per_token,
        kv_bytes_per_prompt=per_token * (5 + caption_tokens),
    )

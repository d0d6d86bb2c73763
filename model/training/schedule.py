"""Parameter groups, learning rate schedule and moving average of the weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from earthgptx.model.training.config import TrainConfig
from earthgptx.model.training.objective import ObjectiveModule


def parameter_groups(objective: ObjectiveModule, config: TrainConfig) -> Iterator[dict[str, Any]]:
    """Yields trained weights grouped by learning rate and weight decay, for AdamW.

    Biases, norms and embeddings have no weight decay.
    """
    found: dict[tuple[float, float], list[nn.Parameter]] = {}
    for whole_name, weight in objective.named_parameters():
        name = whole_name.removeprefix("model.")
        if weight.requires_grad:
            factor = next(
                (f for first, f in config.lr_factors.items() if name.startswith(first)), 1.0
            )
            decay = 0.0 if weight.ndim < 2 or "embed" in name else config.weight_decay
            found.setdefault((factor, decay), []).append(weight)
    for (factor, decay), weights in found.items():
        yield {"params": weights, "lr": config.lr * factor, "weight_decay": decay}


_Weights = tuple[Tensor, ...] | list[Tensor]


def growing_average(most: float) -> Callable[[_Weights, _Weights, Tensor | int], None]:
    """Returns the update of a moving average whose decay grows to `most`.

    With a constant decay, the average of a short run would still hold the random initial weights.
    """

    @torch.no_grad()
    def update(averaged: _Weights, current: _Weights, updates: Tensor | int) -> None:
        decay = min(most, (1 + float(updates)) / (10 + float(updates)))
        for old, new in zip(averaged, current, strict=True):
            if old.is_floating_point():
                old.lerp_(new.to(old.dtype), 1 - decay)
            else:
                old.copy_(new)

    return update


def rate_at(step: int, config: TrainConfig) -> float:
    """Returns the factor of the learning rate at a step.

    A linear warm-up to 1, then half a cosine down to 0.01.
    """
    if step < config.warmup:
        return (step + 1) / config.warmup
    done = (step - config.warmup) / max(config.steps - config.warmup, 1)
    return 0.01 + 0.99 * (1 + math.cos(math.pi * min(done, 1))) / 2

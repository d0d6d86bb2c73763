"""What a training run would need, counted on the meta device: nothing is allocated, no set is read."""

from __future__ import annotations

import torch

from model.earthgptx import EarthGPTX
from model.folder import config_of
from model.tokens import Vocabulary
from model.training.config import TrainConfig

BYTES = 16
"""Of a weight that learns, in mixed precision: its value, its gradient and AdamW's two moments, 32 bit each."""
AVERAGE_BYTES = 4
"""Of any weight, in the average that is kept."""


def needs_of(config: TrainConfig) -> dict[str, str]:
    """Parameters and memory of one process, activations left out, by name.

    Raises:
        WeightsError: the model's folder cannot be read.
    """
    scale = config_of(config.model)
    with torch.device("meta"):
        model = EarthGPTX(scale, Vocabulary.train((), 1100))
    weights = list(model.named_parameters())
    total = sum(weight.numel() for _, weight in weights)
    learned = sum(w.numel() for name, w in weights if w.requires_grad and not name.startswith(config.frozen))
    held = learned * BYTES + (total - learned) * 4 + total * AVERAGE_BYTES
    weight = sum(size.weight for size in config.sizes)
    batch = sum(size.batch * size.weight for size in config.sizes) / weight
    figures = {
        "weights": f"{total:,}",
        "that learn": f"{learned:,}",
        "memory, without activations": f"{held / 2**30:,.2f} GiB on one device",
        "images": f"{round(config.steps * batch):,} of {', '.join(str(size.px) for size in config.sizes)} px",
    }
    for devices in (8, 32):
        figures[f"sharded over {devices}"] = f"{held / devices / 2**30:,.2f} GiB on each"
    return figures

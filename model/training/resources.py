"""Estimates the resources of a training run.

The model is built on the meta device: no weights are allocated and no dataset is read.
"""

from __future__ import annotations

import torch

from earthgptx.model.interface.folder import config_of
from earthgptx.model.network.earthgptx import EarthGPTX
from earthgptx.model.network.tokens import Vocabulary
from earthgptx.model.training.config import TrainConfig

BYTES = 16
"""Bytes per trained weight in mixed precision: value, gradient and the two moments of AdamW, with
32 bits each."""
AVERAGE_BYTES = 4
"""Bytes per weight, trained or not, in the moving average."""


def resources_of(config: TrainConfig) -> dict[str, str]:
    """Returns parameters, memory without activations, and images, as text by name.

    Memory is that of one process, and per process if sharded over 8 or 32.

    Raises:
        WeightsError: the folder of the model cannot be read.
    """
    scale = config_of(config.model)
    with torch.device("meta"):
        model = EarthGPTX(scale, Vocabulary.train((), 1100))
    weights = list(model.named_parameters())
    total = sum(weight.numel() for _, weight in weights)
    learned = sum(
        w.numel() for name, w in weights if w.requires_grad and not name.startswith(config.frozen)
    )
    held = learned * BYTES + (total - learned) * 4 + total * AVERAGE_BYTES
    weight = sum(size.weight for size in config.sizes)
    batch = sum(size.batch * size.weight for size in config.sizes) / weight
    figures = {
        "weights": f"{total:,}",
        "that learn": f"{learned:,}",
        "memory, without activations": f"{held / 2**30:,.2f} GiB on one device",
        "images": f"{round(config.steps * batch):,} of "
        f"{', '.join(str(size.px) for size in config.sizes)} px",
    }
    for devices in (8, 32):
        figures[f"sharded over {devices}"] = f"{held / devices / 2**30:,.2f} GiB on each"
    return figures

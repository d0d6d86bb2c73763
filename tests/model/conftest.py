from __future__ import annotations

import pytest
import torch

from model.config import preset
from model.earthgptx import EarthGPTX
from model.training.objective import losses
from tests.model.lessons import samples, vocabulary


@pytest.fixture(scope="session")
def tiny() -> EarthGPTX:
    """Random weights."""
    torch.manual_seed(1)
    return EarthGPTX(preset("tiny"), vocabulary()).eval()


@pytest.fixture(scope="session")
def taught() -> EarthGPTX:
    """A tiny model that has learned eight images by heart: it takes half a minute."""
    torch.manual_seed(0)
    model = EarthGPTX(preset("tiny"), vocabulary())
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=300, pct_start=0.1)
    batch = samples()
    for _ in range(300):
        optimizer.zero_grad()
        losses(model, batch)["total"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model.eval()

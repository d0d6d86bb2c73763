from __future__ import annotations

import os
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from filelock import FileLock

from earthgptx.model.evaluation import metrics
from earthgptx.model.interface.config import preset
from earthgptx.model.network.earthgptx import EarthGPTX
from earthgptx.model.training.objective import losses
from tests.model.lessons import samples, vocabulary


@pytest.fixture(scope="session", autouse=True)
def without_meteor() -> Iterator[None]:
    """METEOR starts Java, which takes ten seconds: only its own test measures it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "shutil", SimpleNamespace(which=lambda name: None))
        yield


@pytest.fixture(scope="session")
def tiny() -> EarthGPTX:
    """Random weights."""
    torch.manual_seed(1)
    return EarthGPTX(preset("tiny"), vocabulary()).eval()


@pytest.fixture(scope="session")
def taught(tmp_path_factory: pytest.TempPathFactory) -> EarthGPTX:
    """A tiny model that has learned eight images by heart.

    Teaching it takes a minute: one worker does it, the others load what it learned.
    """
    torch.manual_seed(0)
    model = EarthGPTX(preset("tiny"), vocabulary())
    base = tmp_path_factory.getbasetemp()
    path = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "taught.pt"
    with FileLock(path.with_suffix(".lock")):
        if path.exists():
            model.load_state_dict(torch.load(path, weights_only=True))
        else:
            teach(model)
            torch.save(model.state_dict(), path)
    return model.eval()


def teach(model: EarthGPTX) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=300, pct_start=0.1)
    batch = samples()
    for _ in range(300):
        optimizer.zero_grad()
        losses(model, batch)["total"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()

"""Training on several GPUs and nodes: Ray Train starts the processes, FSDP2 shares the weights among them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from model.training.config import TrainConfig
from workflows.terminal import StepLines


def train_together(config: TrainConfig, out: Path, processes: int) -> None:
    """Train with so many processes, one a GPU where there are GPUs.

    Args:
        config: of the run; its batches are shared among the processes.
        out: folder of the run; every node must see it.
        processes: how many.

    Raises:
        ConfigError: a batch has fewer images than there are processes.
    """
    config.check_shares(processes)
    import ray
    import torch
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    if not ray.is_initialized():
        ray.init(logging_level=logging.WARNING)
    trainer = TorchTrainer(
        _process, train_loop_config={"config": config.model_dump_json(), "out": str(out.absolute())},
        scaling_config=ScalingConfig(num_workers=processes, use_gpu=torch.cuda.is_available()),
        run_config=RunConfig(name="ray", storage_path=str(out.absolute())),
    )  # fmt: skip
    trainer.fit()


def _process(settings: dict[str, Any]) -> None:
    from model.training.team import Team
    from model.training.train import train

    config = TrainConfig.model_validate_json(settings["config"])
    say = print if Team.joined().leads else lambda _: None
    train(config, Path(settings["out"]), StepLines(config.steps, config.log_every, say))

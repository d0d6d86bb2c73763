"""Trains on several GPUs and nodes: Ray Train starts the processes, FSDP2 shards the weights."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from earthgptx.model.training.config import TrainConfig
from earthgptx.workflows.terminal import StepLines


def train_distributed(config: TrainConfig, out: Path, processes: int) -> None:
    """Trains with several processes, one per GPU if there are GPUs.

    Args:
        config: configuration of the run; its batches are divided among the processes.
        out: folder of the run, which every node must be able to access.
        processes: number of processes.

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
        _process,
        train_loop_config={"config": config.model_dump_json(), "out": str(out.absolute())},
        scaling_config=ScalingConfig(num_workers=processes, use_gpu=torch.cuda.is_available()),
        run_config=RunConfig(name="ray", storage_path=str(out.absolute())),
    )
    trainer.fit()


def _process(settings: dict[str, Any]) -> None:
    from earthgptx.model.training.distributed import ProcessGroup
    from earthgptx.model.training.train import train

    config = TrainConfig.model_validate_json(settings["config"])
    say = print if ProcessGroup.current().is_leader else lambda _: None
    train(config, Path(settings["out"]), StepLines(config.steps, config.log_every, say))

"""What a training run is: the config file of `earthgptx train`, validated. Torch-free."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from model.errors import ConfigError
from model.training.mixture import SourceConfig


class StartConfig(BaseModel):
    """Published weights that parts start from; a part without any starts random."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    conv: str | None = None
    vit: str | None = None
    language: str | None = None


class SizeConfig(BaseModel):
    """Batches of one size of image."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    px: int
    """Side of the images."""
    batch: int = Field(gt=0)
    """Images of a step; each is asked ten to twenty questions."""
    weight: float = Field(default=1.0, gt=0)
    """How often, beside the other sizes."""


class TrainConfig(BaseModel):
    """One training run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    """A scale, or a folder of weights to go on from."""
    start: StartConfig = StartConfig()
    """For a scale."""
    sources: tuple[SourceConfig, ...] = Field(min_length=1)
    sizes: tuple[SizeConfig, ...] = Field(min_length=1)
    """Every step has one of them, by chance: a model that saw one size only knows no other."""
    steps: int = Field(gt=0)
    accumulate: int = Field(default=1, gt=0)
    """Steps whose gradients are added before the weights move."""
    lr: float = 1e-3
    lr_factors: dict[str, float] = {}
    """Of the learning rate, by the first letters of weights' names."""
    frozen: tuple[str, ...] = ()
    """First letters of the names of weights that do not learn."""
    warmup: int = 200
    weight_decay: float = 0.05
    clip: float = 1.0
    """Largest norm of the gradient."""
    ema: float = 0.999
    """Most that an update leaves of the weights' average, which is what is kept."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """bf16 is fp32 on a processor that has no such products: a step takes some ten times as long with them there."""
    seed: int = 0
    workers: int = 1
    """Processes that make samples."""
    vocabulary_samples: int = 3000
    """That the vocabulary is learned from."""
    log_every: int = 20
    checkpoint_every: int = 500
    picture_every: int = 1000

    def check_shares(self, processes: int) -> None:
        """Refuse batches that so many processes cannot share.

        Raises:
            ConfigError: one has fewer images than there are processes.
        """
        least = min(size.batch for size in self.sizes)
        if least < processes:
            raise ConfigError(
                f"sizes: {processes} processes share a batch of {least}; each needs an image of every batch"
            )

    @model_validator(mode="after")
    def _whole_updates(self) -> TrainConfig:
        if self.checkpoint_every % self.accumulate or self.steps % self.accumulate:
            raise ValueError(f"steps and checkpoint_every are not whole multiples of accumulate ({self.accumulate})")
        return self


def read_train_config(path: Path) -> TrainConfig:
    """A config file; `$NAME` in it is read from the environment.

    Raises:
        ConfigError: it cannot be read, or a key is wrong.
    """
    try:
        document: Any = yaml.safe_load(os.path.expandvars(path.read_text()))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror})") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is no YAML: {error}") from error
    try:
        return TrainConfig.model_validate(document)
    except ValidationError as error:
        found = error.errors()[0]
        place = ".".join(str(part) for part in found["loc"] if part not in ("Rendered", "Read"))
        raise ConfigError(f"{path}, {place}: {found['msg'].removeprefix('Value error, ')}") from error

"""Schema and validation of the config file of `earthgptx train`. Torch-free."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from earthgptx.model.interface.errors import ConfigError
from earthgptx.model.interface.validation import sentences
from earthgptx.model.samples.mixture import SourceConfig


class StartConfig(BaseModel):
    """Published weights that parts of the model start from; None for random weights."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    conv: str | None = None
    vit: str | None = None
    language: str | None = None


class SizeConfig(BaseModel):
    """Batches of images of one size."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    px: int
    """Side of the images in pixels."""
    batch: int = Field(gt=0)
    """Images per step; each has ten to twenty lessons."""
    weight: float = Field(default=1.0, gt=0)
    """Relative frequency among the sizes."""


class TrainConfig(BaseModel):
    """One training run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    """Name of a scale for a new model, or a folder of weights to continue from."""
    start: StartConfig = StartConfig()
    """Initial weights; used only if `model` is a scale."""
    sources: tuple[SourceConfig, ...] = Field(min_length=1)
    sizes: tuple[SizeConfig, ...] = Field(min_length=1)
    """Image sizes; each step draws one. A model trained on one size fails on others."""
    steps: int = Field(gt=0)
    accumulate: int = Field(default=1, gt=0)
    """Steps whose gradients are averaged for one update of the weights."""
    lr: float = 1e-3
    lr_factors: dict[str, float] = {}
    """Factors of the learning rate by prefix of parameter names; the first match counts."""
    frozen: tuple[str, ...] = ()
    """Prefixes of the names of parameters that are not trained."""
    warmup: int = 200
    """Steps of linear warm-up."""
    weight_decay: float = 0.05
    clip: float = 1.0
    """Largest gradient norm; larger gradients are scaled down to it."""
    ema: float = 0.999
    """Largest decay per update of the moving average of the weights. The average is the saved
    model."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """Precision of the forward pass. On devices without native bf16 products, bf16 falls back to
    fp32, since emulated products make a step about ten times slower."""
    seed: int = 0
    workers: int = 1
    """Processes that create samples."""
    vocabulary_samples: int = 3000
    """Samples from which the vocabulary is learned."""
    log_every: int = 20
    checkpoint_every: int = 500
    picture_every: int = 1000
    """Steps between pictures; 0 for no pictures."""

    def check_shares(self, processes: int) -> None:
        """Checks that every batch has at least one image per process.

        Raises:
            ConfigError: a batch has fewer images than there are processes.
        """
        least = min(size.batch for size in self.sizes)
        if least < processes:
            raise ConfigError(
                f"sizes: {processes} processes share a batch of {least}; "
                "each needs an image of every batch"
            )

    @model_validator(mode="after")
    def _whole_updates(self) -> TrainConfig:
        if self.checkpoint_every % self.accumulate or self.steps % self.accumulate:
            raise ValueError(
                "steps and checkpoint_every are not whole multiples "
                f"of accumulate ({self.accumulate})"
            )
        return self


def read_train_config(path: Path) -> TrainConfig:
    """Reads a config file and replaces `$NAME` by environment variables.

    Raises:
        ConfigError: the file cannot be read or parsed, or a key or value is invalid.
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
        lines = sentences(error, TrainConfig, missing="see docs/training.md")
        raise ConfigError("\n".join(f"{path}: {line}" for line in lines)) from error

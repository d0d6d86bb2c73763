"""Chooses the samples of each training step, for torch's DataLoader."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import Dataset

from earthgptx.model.samples.mixture import Mixture
from earthgptx.model.samples.sample import Sample
from earthgptx.model.training.config import TrainConfig

ZOOM_EVERY = 4
"""Every fourth batch consists of zoomed samples: crops, each with its wider view."""

WantedSample = tuple[int, int, bool]
"""Number of a sample, side of its image in pixels, and whether it is zoomed: a crop with its wider
view."""


def batches(config: TrainConfig, first: int) -> Iterator[list[WantedSample]]:
    """Yields the batch of each step, from step `first` on.

    The batch of a step depends only on the config and the number of the step. Zoomed batches always
    have the largest batch size.
    """
    weights = np.array([size.weight for size in config.sizes])
    most = max(size.batch for size in config.sizes)
    for step in range(first, config.steps):
        rng = np.random.default_rng([config.seed, step])
        size = config.sizes[int(rng.choice(len(weights), p=weights / weights.sum()))]
        zoomed = step % ZOOM_EVERY == ZOOM_EVERY - 1
        yield [
            (step * most + number, size.px, zoomed)
            for number in range(most if zoomed else size.batch)
        ]


class NumberedSamples(Dataset[Sample]):
    """The mixture as a map-style dataset of torch."""

    def __init__(self, mixture: Mixture) -> None:
        self._mixture = mixture

    def __getitem__(self, wanted: WantedSample) -> Sample:
        number, px, zoomed = wanted
        return (
            self._mixture.zoomed_sample(number, px) if zoomed else self._mixture.sample(number, px)
        )


def use_one_thread(_: int) -> None:
    """Limits torch to one thread in a worker of the DataLoader."""
    torch.set_num_threads(1)

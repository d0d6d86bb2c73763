"""Fits the temperature and the mask offset of a trained model on held-out images.

The temperature scales the likelihoods of given names, so that probabilities match the rate of
correct answers (Guo et al. 2017). The offset is added to the mask log-odds of phrases, since the
threshold with the highest IoU is not the one that the loss leads to (Lipton et al. 2014). Both are
stored with the weights.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from earthgptx.model.datasets.record import Record
from earthgptx.model.inference.session import Session
from earthgptx.model.interface.config import Budget
from earthgptx.model.interface.prompt import VisualPrompt
from earthgptx.model.network.earthgptx import EarthGPTX

LOW, HIGH = 0.02, 20.0
"""Bounds of the search, as factors of the present temperature."""
MOST_REGIONS = 8
"""Most regions per image that get a visual prompt."""


def fitted_temperature(model: EarthGPTX, records: Sequence[Record], words: Sequence[str]) -> float:
    """Returns the temperature that maximises the likelihood of the true words.

    Returns the model's present temperature if no record has a region with one of the words.

    Args:
        model: model to calibrate, with its present temperature.
        records: held-out records.
        words: names to choose from.
    """
    sure: list[list[float]] = []
    truth: list[int] = []
    for record in records:
        regions = [region for region in record.regions if region.label in words][:MOST_REGIONS]
        if not regions:
            continue
        prompts = [
            VisualPrompt(id=str(at), place=region.mask.box) for at, region in enumerate(regions)
        ]
        session = Session(
            model,
            torch.from_numpy(record.pixels)[None],
            [record.modality],
            [prompts],
            metres=[record.metres_per_pixel],
            budget=Budget(caption=1),
        )
        for answer, region in zip(session.refer(words)[0], regions, strict=True):
            sure.append([answer.labels[word] for word in words])
            truth.append(words.index(region.label))
    if not truth:
        return model.config.temperature
    # Probabilities to the power of 1 / T, normalised, are those at T times the present temperature.
    logs = np.log(np.maximum(np.array(sure), 1e-30))

    def surprise(log_factor: float) -> float:
        scaled = logs / np.exp(log_factor)
        scaled -= np.logaddexp.reduce(scaled, axis=1, keepdims=True)
        return -float(scaled[np.arange(len(truth)), truth].mean())

    best = minimize_scalar(surprise, bounds=(np.log(LOW), np.log(HIGH)), method="bounded")
    return float(model.config.temperature * np.exp(best.x))


def fitted_offset(model: EarthGPTX, records: Sequence[Record]) -> float:
    """Returns the offset that maximises the IoU of word masks, averaged over words.

    The IoU of a word is computed over all its pixels. Each word weighs as much as it has images.
    Returns the model's present offset if no image has an outlined region of a completely annotated
    word.

    Args:
        model: model to calibrate, with its present offset.
        records: held-out records.
    """
    levels = 256
    tallies: dict[str, NDArray[np.int64]] = {}
    images: Counter[str] = Counter()
    for record in records:
        there = sorted(
            {word for region in record.regions for word in region.labels if word in record.complete}
        )
        truths = {word: truth for word in there if (truth := record.mask_of(word)) is not None}
        if not truths:
            continue
        session = Session(
            model,
            torch.from_numpy(record.pixels)[None],
            [record.modality],
            metres=[record.metres_per_pixel],
        )
        known = True if record.ignored is None else ~record.ignored
        for (word, truth), found in zip(
            truths.items(), session.find([tuple(truths)])[0], strict=True
        ):
            tally = tallies.setdefault(word, np.zeros((2, levels), np.int64))
            images[word] += 1
            for side, where in enumerate((truth & known, ~truth & known)):
                tally[side] += np.bincount(found.scores[where], minlength=levels)
    if not tallies:
        return model.config.mask_offset
    fits = []
    for inside, outside in tallies.values():
        # Pixels at or above each level: true positives and false positives.
        right, wrong = (np.cumsum(side[::-1])[::-1] for side in (inside, outside))
        fits.append(right / (inside.sum() + wrong))
    # A word that occurs in two images gets a weight of only two.
    level = (
        int(np.average(fits, axis=0, weights=[images[word] for word in tallies])[1:].argmax()) + 1
    )
    cut = (level - 0.5) / (levels - 1)
    return float(model.config.mask_offset + np.log((1 - cut) / cut))

"""What is fitted to images that a model was not taught, and stored with its weights.

One temperature for the likelihoods of given names (Guo et al. 2017), so that how sure is how often right; and one offset
for the log-odds of ground, since the cut under which it fits best is not where a loss has it (Lipton et al. 2014).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from model.config import Budget
from model.earthgptx import EarthGPTX
from model.prompt import VisualPrompt
from model.tasks import Asked
from model.training.record import Record

LOW, HIGH = 0.02, 20.0
"""Between which it is looked for."""
MOST_REGIONS = 8
"""Of one image, that are pointed at."""


def fitted_temperature(model: EarthGPTX, records: Sequence[Record], words: Sequence[str]) -> float:
    """The temperature under which the true words are likeliest; the model's own where no image has a region.

    Args:
        model: to ask, with its present temperature.
        records: that it was not taught.
        words: that a region may be called.
    """
    sure: list[list[float]] = []
    truth: list[int] = []
    for record in records:
        regions = [region for region in record.regions if region.label in words][:MOST_REGIONS]
        if not regions:
            continue
        prompts = [VisualPrompt(id=str(at), place=region.mask.box) for at, region in enumerate(regions)]
        asked = Asked(
            model, torch.from_numpy(record.pixels)[None], [record.modality], [prompts], metres=[record.metres_per_pixel],
            budget=Budget(caption=1),
        )  # fmt: skip
        for answer, region in zip(asked.refer(words)[0], regions, strict=True):
            sure.append([answer.labels[word] for word in words])
            truth.append(words.index(region.label))
    if not truth:
        return model.config.temperature
    # Shares to the power of one over T are what a temperature T times the present one gives.
    logs = np.log(np.maximum(np.array(sure), 1e-30))

    def surprise(log_factor: float) -> float:
        scaled = logs / np.exp(log_factor)
        scaled -= np.logaddexp.reduce(scaled, axis=1, keepdims=True)
        return -float(scaled[np.arange(len(truth)), truth].mean())

    best = minimize_scalar(surprise, bounds=(np.log(LOW), np.log(HIGH)), method="bounded")
    return float(model.config.temperature * np.exp(best.x))


def fitted_offset(model: EarthGPTX, records: Sequence[Record]) -> float:
    """The offset under which the ground of words fits best: the IoU of each word, averaged over images and their words.

    Args:
        model: to ask, with its present offset, which stays where no image has an outlined region.
        records: that it was not taught.
    """
    levels = 256
    tallies: dict[str, NDArray[np.int64]] = {}
    images: Counter[str] = Counter()
    for record in records:
        there = sorted({word for region in record.regions for word in region.labels if word in record.complete})
        truths = {word: truth for word in there if (truth := record.ground(word)) is not None}
        if not truths:
            continue
        asked = Asked(model, torch.from_numpy(record.pixels)[None], [record.modality], metres=[record.metres_per_pixel])
        known = True if record.ignored is None else ~record.ignored
        for (word, truth), found in zip(truths.items(), asked.find([tuple(truths)])[0], strict=True):
            tally = tallies.setdefault(word, np.zeros((2, levels), np.int64))
            images[word] += 1
            for side, where in enumerate((truth & known, ~truth & known)):
                tally[side] += np.bincount(found.scores[where], minlength=levels)
    if not tallies:
        return model.config.mask_offset
    fits = []
    for inside, outside in tallies.values():
        # What is said to be there from each level on, among what truly is and what is not.
        right, wrong = (np.cumsum(side[::-1])[::-1] for side in (inside, outside))
        fits.append(right / (inside.sum() + wrong))
    # A word of two images has no more to say than they have.
    level = int(np.average(fits, axis=0, weights=[images[word] for word in tallies])[1:].argmax()) + 1
    cut = (level - 0.5) / (levels - 1)
    return float(model.config.mask_offset + np.log((1 - cut) / cut))

"""Auxiliary head that predicts the words of each cell from the features, to train them directly."""

# B images, C channels, K words, Y X cells at stride 2

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from earthgptx.model.samples.sample import Sample
from earthgptx.model.training import losses as loss_terms
from earthgptx.model.training.mask_targets import (
    mask_targets,
)


class GroundHead(nn.Module):
    """Linear layer that predicts the words of every cell; used only in training."""

    def __init__(self, words: Sequence[str], width: int) -> None:
        """Creates the head with random weights.

        Args:
            words: words to predict.
            width: number of feature channels.
        """
        super().__init__()
        self.words = tuple(words)
        self.score = nn.Conv2d(width, len(self.words), 1, bias=False)
        self.bias = nn.Parameter(torch.full((len(self.words), 1, 1), -3.0))  # most words are absent

    def forward(self, pixels: Tensor) -> Tensor:
        """Maps features (B, C, Y, X) to log-odds of the words (B, K, Y, X), float32."""
        scored: Tensor = self.score(pixels) + self.bias
        return scored.float()


def ground_loss(
    ground: GroundHead, samples: Sequence[Sample], known: Tensor, pixels: Tensor
) -> Tensor:
    """Returns the loss of the head over all annotated words of a batch; 0 if there are none.

    Args:
        ground: the head.
        samples: B samples.
        known: (B, Y, X), 1 where annotations are known, else 0.
        pixels: (B, C, Y, X) features.
    """
    grounds = [
        (image, ground.words.index(each.phrase), each)
        for image, sample in enumerate(samples)
        for each in sample.word_masks
        if each.phrase in ground.words
    ]
    scored = ground(pixels)
    if not grounds:
        return scored.sum() * 0
    truth, taught = mask_targets([(each.masks, each.outlined) for _, _, each in grounds], known)
    mine = scored[[image for image, _, _ in grounds], [word for _, word, _ in grounds]]
    taught = taught * known[[image for image, _, _ in grounds]]
    loss = functional.binary_cross_entropy_with_logits(mine, truth, reduction="none") * taught
    # Dice is a mean over words: present and absent ones weigh the same, whatever area they cover.
    return (
        loss.sum() / taught.sum().clamp(min=1)
        + loss_terms.dice(mine.sigmoid() * taught, truth * taught).mean() * 0.5
    )

"""The training objective: one weighted sum of losses for all tasks and sensors.

Takes samples; returns the losses of text, masks, presence, centres, boxes, candidates and ground.
Text weighs 1 as in the LISA family, mask BCE half as much as there (1 instead of 2), Dice three
times as much (1.5 instead of 0.5), since most objects are small.
"""

# B images, L tokens of a row, W channels of the language model

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn import functional

from earthgptx.model.network.earthgptx import EarthGPTX
from earthgptx.model.network.encoded import Around, Branch, Encoded
from earthgptx.model.samples.sample import Sample
from earthgptx.model.training.ground_head import GroundHead, ground_loss
from earthgptx.model.training.mask_targets import (
    known_cells,
)
from earthgptx.model.training.perception_losses import perception_losses
from earthgptx.model.training.token_targets import branch_targets

WEIGHTS = {
    "text": 1.0,
    "told": 4.0,
    "mask": 1.0,
    "dice": 1.5,
    "presence": 0.5,
    "quality": 0.2,
    "centre": 1.0,
    "box": 0.4,
    "worth": 0.3,
    "choice": 0.5,
    "ground": 0.3,
}


def losses(
    model: EarthGPTX, samples: Sequence[Sample], ground: GroundHead | None = None
) -> dict[str, Tensor]:
    """Returns each loss, and `total`, their weighted sum; scalars.

    Answers of a source have a loss of their own, `told`: they are a few tokens among hundreds that
    are made from geometry. With one mean over all tokens they are not learned.

    Args:
        model: model to train.
        samples: samples with images of one size; all or none of them have a wider view.
        ground: auxiliary head that trains the features directly; None for none.
    """
    pixels = torch.from_numpy(np.stack([sample.pixels for sample in samples]))
    encoded = model.encode(
        pixels,
        [sample.modality for sample in samples],
        [sample.prompts for sample in samples],
        _around(samples),
        [sample.metres_per_pixel for sample in samples],
    )
    taught = [
        branch_targets(model, image, lesson, encoded.size)
        for image, sample in enumerate(samples)
        for lesson in sample.lessons
    ]
    hidden, starts = _read(model, encoded, [each.branch for each in taught])
    says, words, told, asks, truths = [], [], [], [], []
    for start, each in zip(starts, taught, strict=True):
        places = model.places(each.branch)
        for at, token in each.targets:
            says.append((each.branch.image, start + places[at]))
            words.append(token)
            told.append(each.told)
        for at, truth in each.queries:
            asks.append((each.branch.image, start, start + places[at]))
            truths.append(truth)
    said = hidden[[row for row, _ in says], [place for _, place in says]]
    surprise = functional.cross_entropy(
        model.language.logits(said), torch.tensor(words, device=model.device), reduction="none"
    )
    by_source = torch.tensor(told, device=model.device)
    found = {
        name: surprise[at].mean()
        for name, at in (("text", ~by_source), ("told", by_source))
        if at.any()
    }
    known = known_cells(samples, encoded.pixels)
    if asks:
        phrases = [hidden[row, start : end + 1] for row, start, end in asks]
        found |= perception_losses(model, phrases, truths, known, encoded)
    if ground is not None:
        found["ground"] = ground_loss(ground, samples, known, encoded.pixels)
    found["total"] = torch.stack([WEIGHTS[name] * value for name, value in found.items()]).sum()
    return found


def _read(
    model: EarthGPTX, encoded: Encoded, branches: Sequence[Branch]
) -> tuple[Tensor, list[int]]:
    """Runs the language model over each image and all its branches.

    A row holds the prefix of an image and then all its branches. Branches attend to the prefix and
    to themselves, not to each other, so that the prefix is read only once.

    Returns:
        Hidden states (B, L, W), and the position of each branch's first token in its row.
    """
    trunk = encoded.prefix.shape[1]
    rows = [[prefix] for prefix in encoded.prefix.unbind()]
    owners = [[0] * trunk for _ in rows]
    starts = []
    for number, (branch, own) in enumerate(
        zip(branches, model.embed(encoded, branches), strict=True), 1
    ):
        starts.append(len(owners[branch.image]))
        rows[branch.image].append(own)
        owners[branch.image] += [number] * len(own)
    embeds = torch.nn.utils.rnn.pad_sequence([torch.cat(row) for row in rows], batch_first=True)
    owner = torch.zeros(embeds.shape[:2], dtype=torch.long)
    for row, each in enumerate(owners):
        owner[row, : len(each)] = torch.tensor(each)
    ours = (owner[:, :, None] == owner[:, None]) | (owner[:, None] == 0)
    hidden: Tensor = model.language(embeds, tree=ours.tril().to(embeds.device))
    return hidden, starts


def _around(samples: Sequence[Sample]) -> Around | None:
    wider = [sample.around for sample in samples if sample.around is not None]
    if not wider:
        return None
    return Around(
        torch.from_numpy(np.stack([pixels for pixels, _ in wider])),
        [prompts for _, prompts in wider],
    )


class ObjectiveModule(nn.Module):
    """A model and its auxiliary head as one module.

    A step is one call of it, since FSDP gathers sharded weights in `forward`.
    """

    def __init__(self, model: EarthGPTX, ground: GroundHead, *, together: bool) -> None:
        super().__init__()
        self.model, self.ground, self._together = model, ground, together

    def forward(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Returns the losses of a batch; see `losses`."""
        found = losses(self.model, samples, self.ground)
        if self._together:
            # All processes must compute gradients of the same weights, but images without prompts
            # do not use all weights. So every weight enters the loss with factor 0, except the
            # layers of the language model: they are resharded by now and are always used.
            here = [
                weight
                for weight in self.parameters()
                if weight.requires_grad and not isinstance(weight, DTensor)
            ]
            every = [weight.reshape(-1)[:1].sum() for weight in here]
            found["total"] = found["total"] + 0 * torch.stack(every).sum()
        return found

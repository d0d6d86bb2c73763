"""The one objective of all tasks and sensors: words, masks, presence, centres and boxes of a batch, in one sum.

Text and mask BCE weigh as in the LISA family (1 and 2), Dice three times as much: most objects are small. The worth of a
box is how much of an object it holds.
"""

# M queries, N instances, B images, K words of the ground, Y X cells at stride 2

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from model.earthgptx import Around, Branch, EarthGPTX, Encoded
from model.perception import CANDIDATES, LOW, OUTSIDE, Perceived, features_at, top_peaks
from model.region import Mask
from model.training import terms
from model.training.samples import Sample
from model.training.teach import teach
from model.training.truth import Truth, cells, drawn, heat_map, held_box, known_cells, middle, owner_of

WEIGHTS = {
    "text": 1.0, "mask": 1.0, "dice": 1.5, "presence": 0.5, "quality": 0.2, "centre": 1.0, "box": 0.4, "worth": 0.3,
    "choice": 0.5, "ground": 0.3,
}  # fmt: skip
MOST_INSTANCES = 12
"""Of one phrase, whose masks and boxes are taught in one step; the centres of all are."""
MOST_PEAKS = 8
"""Of one phrase's heat map, whose boxes and worth are taught in one step."""


class Ground(nn.Module):
    """What lies in every cell, by word: a linear layer that teaches the features and is thrown away."""

    def __init__(self, words: Sequence[str], width: int) -> None:
        """Build it with random weights, for features of `width` channels."""
        super().__init__()
        self.words = tuple(words)
        self.score = nn.Conv2d(width, len(self.words), 1, bias=False)
        self.bias = nn.Parameter(torch.full((len(self.words), 1, 1), -3.0))  # most words are not there

    def forward(self, pixels: Tensor) -> Tensor:
        """Features (B, C, Y, X) to log-odds (B, K, Y, X), float32."""
        scored: Tensor = self.score(pixels) + self.bias
        return scored.float()


def losses(model: EarthGPTX, samples: Sequence[Sample], ground: Ground | None = None) -> dict[str, Tensor]:
    """Each part of the objective, and `total`, their weighted sum; scalars.

    Args:
        model: to teach.
        samples: images of one size; all or none of them with a wider view.
        ground: where the features are taught directly.
    """
    pixels = torch.from_numpy(np.stack([sample.pixels for sample in samples]))
    encoded = model.encode(
        pixels, [sample.modality for sample in samples], [sample.prompts for sample in samples], _around(samples),
        [sample.metres_per_pixel for sample in samples],
    )  # fmt: skip
    taught = [
        teach(model, image, lesson, encoded.size) for image, sample in enumerate(samples) for lesson in sample.lessons
    ]
    hidden, starts = _read(model, encoded, [each.branch for each in taught])
    says, words, asks, truths = [], [], [], []
    for start, each in zip(starts, taught, strict=True):
        places = model.places(each.branch)
        for at, token in each.targets:
            says.append((each.branch.image, start + places[at]))
            words.append(token)
        for at, truth in each.seen:
            asks.append((each.branch.image, start, start + places[at]))
            truths.append(truth)
    said = hidden[[row for row, _ in says], [place for _, place in says]]
    found = {"text": functional.cross_entropy(model.language.logits(said), torch.tensor(words, device=model.device))}
    known = known_cells(samples, encoded.pixels)
    if asks:
        phrases = [hidden[row, start : end + 1] for row, start, end in asks]
        found |= _seen(model, phrases, truths, known, encoded)
    if ground is not None:
        found["ground"] = _grounded(ground, samples, known, encoded.pixels)
    found["total"] = torch.stack([WEIGHTS[name] * value for name, value in found.items()]).sum()
    return found


def _read(model: EarthGPTX, encoded: Encoded, branches: Sequence[Branch]) -> tuple[Tensor, list[int]]:
    """Hidden states (B, L, W) of each image and all its branches in one row, and where each branch starts there.

    No branch sees another: a row is a tree whose trunk is the image. So an image is read once however much is asked.
    """
    trunk = encoded.prefix.shape[1]
    rows = [[prefix] for prefix in encoded.prefix.unbind()]
    owners = [[0] * trunk for _ in rows]
    starts = []
    for number, (branch, own) in enumerate(zip(branches, model.embed(encoded, branches), strict=True), 1):
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
    return Around(torch.from_numpy(np.stack([pixels for pixels, _ in wider])), [prompts for _, prompts in wider])


@dataclass(frozen=True, slots=True)
class _Judged:
    """Masks that queries gave, judged."""

    queries: list[int]
    losses: dict[str, Tensor]
    worth: Tensor
    """IoU of each with the truth."""


def _seen(
    model: EarthGPTX, phrases: Sequence[Tensor], truths: Sequence[Truth], known: Tensor, encoded: Encoded
) -> dict[str, Tensor]:
    of_image = [truth.image for truth in truths]
    perceived = model.perception(torch.stack([each[-1] for each in phrases]), of_image, encoded.pixels, encoded.looked)
    there = torch.tensor([float(bool(each.masks)) for each in truths], device=model.device)
    found = {"presence": functional.binary_cross_entropy_with_logits(perceived.presence, there)}
    peaked = [at for at, each in enumerate(truths) if each.kind in ("group", "located")]
    if peaked:
        shape = (int(known.shape[1]), int(known.shape[2]))
        heat = torch.from_numpy(np.stack([heat_map(truths[at].masks + truths[at].among, shape) for at in peaked])).to(
            model.device
        )
        found["centre"] = terms.focal(perceived.centres[peaked], heat, known[[of_image[at] for at in peaked]])
    judged = [
        _ground_seen(perceived, truths, known, there), _objects_seen(model, perceived, truths, known, encoded),
        _peaks_seen(model, perceived, truths, known, encoded),
    ]  # fmt: skip
    chosen = _chosen(model, phrases, perceived, truths, known, encoded)
    if chosen is not None:
        found["choice"] = chosen
    rated = [at for each in judged for at in each.queries]
    if rated:
        worth = torch.cat([each.worth for each in judged])
        found["quality"] = functional.mse_loss(perceived.quality[rated].sigmoid(), worth)
    for each in judged:
        for name, value in each.losses.items():
            found[name] = found[name] + value if name in found else value
    return found


def _ground_seen(perceived: Perceived, truths: Sequence[Truth], known: Tensor, there: Tensor) -> _Judged:
    """One mask of all that a phrase fits."""
    ground = [at for at, each in enumerate(truths) if each.kind in ("ground", "group")]
    if not ground:
        return _Judged([], {}, known.new_zeros(0))
    truth, taught = drawn([(truths[at].masks, truths[at].outlined) for at in ground], known)
    taught = taught * known[[truths[at].image for at in ground]]
    scored, some = perceived.masks[ground], there[ground]
    dice = terms.dice(scored.sigmoid() * taught, truth * taught)
    losses = {
        "mask": terms.focal_mask(scored, truth, taught), "dice": (dice * some).sum() / some.sum().clamp(min=1),
    }  # fmt: skip
    return _Judged(ground, losses, terms.overlap(scored, truth, taught))


def _objects_seen(
    model: EarthGPTX, perceived: Perceived, truths: Sequence[Truth], known: Tensor, encoded: Encoded
) -> _Judged:
    """Masks and boxes of single objects."""
    alone = [(at, each) for at, truth in enumerate(truths) if truth.kind != "ground" for each in _some(truth.masks)]
    if not alone:
        return _Judged([], {}, known.new_zeros(0))
    owner = [at for at, _ in alone]
    images = [truths[at].image for at in owner]
    places, under = _places(alone, truths, encoded)
    boxes = torch.stack([cells(mask) for _, mask in alone]).to(model.device)
    # Masks are taught within the true boxes: what an instance is, and where it ends, are learned side by side.
    judged = model.perception.judge(perceived.queries[owner], images, places, encoded.pixels, under)
    scored = model.perception.outline(judged, images, encoded.pixels, boxes)
    truth, taught = drawn([((each,), truths[at].outlined) for at, each in alone], known)
    taught = taught * known[images] * (scored > OUTSIDE)
    each = functional.binary_cross_entropy_with_logits(scored, truth, reduction="none") * taught
    shown = scored.sigmoid()
    outlined = torch.tensor([truths[at].outlined for at in owner], device=model.device)
    losses = {
        "mask": (each.sum((1, 2)) / taught.sum((1, 2)).clamp(min=1)).mean(),
        "dice": torch.where(outlined, terms.dice(shown * taught, truth * taught), terms.reach(shown, boxes)).mean(),
        "box": terms.box_loss(judged.boxes, boxes, places),
    }
    single = [row for row, at in enumerate(owner) if truths[at].kind != "group"]
    worth = terms.overlap(scored[single], truth[single], taught[single])
    return _Judged([owner[row] for row in single], losses, worth)


def _peaks_seen(
    model: EarthGPTX, perceived: Perceived, truths: Sequence[Truth], known: Tensor, encoded: Encoded
) -> _Judged:
    """Boxes and worth of what the heat map itself takes for objects of a group."""
    groups = [at for at, each in enumerate(truths) if each.kind == "group"]
    none = _Judged([], {}, known.new_zeros(0))
    if not groups:
        return none
    images = [truths[at].image for at in groups]
    heat = perceived.centres[groups].detach().sigmoid() * known[images]
    places, heights = top_peaks(heat, MOST_PEAKS)
    row, rank = torch.nonzero(heights > LOW, as_tuple=True)
    if not len(row):
        return none
    at = places[row, rank]
    owner = [groups[int(number)] for number in row]
    judged = model.perception.judge(
        perceived.queries[owner], [truths[each].image for each in owner], at, encoded.pixels
    )
    true = torch.stack([held_box(truths[each].masks, peak) for each, peak in zip(owner, at.tolist(), strict=True)])
    true = true.to(at.device)
    held = ~true[:, 0].isnan()
    worth = torch.zeros_like(judged.worth)
    losses = {}
    if held.any():
        # Half of it is all that is asked for: so sure is what holds half, and less sure what holds less.
        worth[held] = (2 * terms.alike(judged.boxes[-1][held].detach(), true[held], at[held])).clamp(max=1)
        losses["box"] = terms.box_loss([boxes[held] for boxes in judged.boxes], true[held], at[held])
    losses["worth"] = functional.binary_cross_entropy_with_logits(judged.worth, worth)
    return _Judged([], losses, known.new_zeros(0))


def _chosen(
    model: EarthGPTX, phrases: Sequence[Tensor], perceived: Perceived, truths: Sequence[Truth], known: Tensor,
    encoded: Encoded,
) -> Tensor | None:  # fmt: skip
    """How unlikely the true one is among all of its kind, and among what the heat map takes for such; None of none."""
    located = [at for at, each in enumerate(truths) if each.kind == "located" and each.masks]
    if not located:
        return None
    images = [truths[at].image for at in located]
    heat = perceived.centres[located].detach().sigmoid() * known[images]
    own, heights = top_peaks(heat, CANDIDATES)
    shape = (int(heat.shape[1]), int(heat.shape[2]))
    true = torch.tensor([middle(truths[at].masks[0], shape) for at in located], device=heat.device)[:, None]
    right = torch.tensor([
        [owner_of(truths[at].masks + truths[at].among, place) == 0 for place in mine]
        for at, mine in zip(located, own.tolist(), strict=True)
    ], device=heat.device) & (heights > LOW)  # fmt: skip
    # Where no peak shows it, its own middle is a candidate: what is compared is as when it is asked, else.
    missed = ~right.any(dim=1, keepdim=True)
    rows = torch.arange(len(located), device=heat.device)[:, None]
    places, heights = torch.cat([true, own], dim=1), torch.cat([heat[rows, true[..., 0], true[..., 1]], heights], dim=1)
    right, present = torch.cat([missed, right], dim=1), torch.cat([missed, heights[:, 1:] > LOW], dim=1)
    spoken = [phrases[at] for at in located]
    scored = model.perception.choose(
        spoken, perceived.queries[located], images, places, heights, present, encoded.pixels
    )
    hit = scored.masked_fill(~right, -torch.inf)
    return (scored.logsumexp(dim=1) - hit.logsumexp(dim=1)).mean()


def _places(alone: Sequence[tuple[int, Mask]], truths: Sequence[Truth], encoded: Encoded) -> tuple[Tensor, Tensor]:
    """Where each instance is asked from, (N, 2), and what lies there, (N, C): its middle, or its prompt."""
    shape = (int(encoded.pixels.shape[-2]), int(encoded.pixels.shape[-1]))
    pointed = [
        encoded.pointed[truths[at].image][truths[at].prompt] if truths[at].kind == "pointed" else None
        for at, _ in alone
    ]
    middles = [
        middle(mask, shape) if each is None else each.middle for (_, mask), each in zip(alone, pointed, strict=True)
    ]
    places = torch.tensor(middles, device=encoded.pixels.device)
    under = features_at(encoded.pixels, [truths[at].image for at, _ in alone], places)
    rows = [row for row, each in enumerate(pointed) if each is not None]
    if rows:
        given = torch.stack([each.under for each in pointed if each is not None])
        under = under.index_copy(0, torch.tensor(rows, device=places.device), given.to(under.dtype))
    return places, under


def _some(masks: tuple[Mask, ...]) -> list[Mask]:
    if len(masks) <= MOST_INSTANCES:
        return list(masks)
    return [masks[int(at)] for at in np.linspace(0, len(masks) - 1, MOST_INSTANCES)]


def _grounded(ground: Ground, samples: Sequence[Sample], known: Tensor, pixels: Tensor) -> Tensor:
    asked = [
        (image, ground.words.index(each.phrase), each)
        for image, sample in enumerate(samples)
        for each in sample.ground
        if each.phrase in ground.words
    ]
    scored = ground(pixels)
    if not asked:
        return scored.sum() * 0
    truth, taught = drawn([(each.masks, each.outlined) for _, _, each in asked], known)
    mine = scored[[image for image, _, _ in asked], [word for _, word, _ in asked]]
    taught = taught * known[[image for image, _, _ in asked]]
    loss = functional.binary_cross_entropy_with_logits(mine, truth, reduction="none") * taught
    # Words that are there and words that are not weigh the same, whatever ground they cover.
    return loss.sum() / taught.sum().clamp(min=1) + terms.dice(mine.sigmoid() * taught, truth * taught).mean() * 0.5

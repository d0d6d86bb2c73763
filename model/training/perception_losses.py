"""Losses of the perception module: presence, quality, heat maps, masks, boxes, worth and choice.

Takes the hidden states of the queries and their targets; returns scalars by name.
"""

# B images, M queries, N instances, Y X cells at stride 2, C channels, P tokens, W their channels

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from earthgptx.model.interface.region import Mask
from earthgptx.model.network.earthgptx import EarthGPTX
from earthgptx.model.network.encoded import Encoded
from earthgptx.model.network.perception import (
    CANDIDATES,
    LOW,
    OUTSIDE,
    Perceived,
    features_at,
    top_peaks,
)
from earthgptx.model.training import losses as loss_terms
from earthgptx.model.training.mask_targets import (
    MaskTarget,
    box_at_peak,
    box_in_cells,
    centre_cell,
    heat_map,
    mask_targets,
    owner_of,
)

MOST_INSTANCES = 12
"""Instances per phrase whose masks and boxes are taught in one step; all centres are taught."""

MOST_PEAKS = 8
"""Peaks per heat map whose boxes and worth are taught in one step."""


@dataclass(frozen=True, slots=True)
class _Part:
    """Losses of some queries, and the quality of their masks."""

    queries: list[int]
    """Numbers of the queries that the values of `worth` belong to."""
    losses: dict[str, Tensor]
    """Scalars by name."""
    worth: Tensor
    """IoU of each query's mask with the truth, (len(queries)); the target of its quality."""


def perception_losses(
    model: EarthGPTX,
    phrases: Sequence[Tensor],
    truths: Sequence[MaskTarget],
    known: Tensor,
    encoded: Encoded,
) -> dict[str, Tensor]:
    """Returns the losses of all queries of a batch, scalars by name.

    Losses without targets in the batch are left out.

    Args:
        model: model to train.
        phrases: M tensors (P, W), hidden states from the start of the branch up to the query.
        truths: M targets.
        known: (B, Y, X), 1 where annotations are known, else 0.
        encoded: the encoded images.
    """
    of_image = [truth.image for truth in truths]
    perceived = model.perception(
        torch.stack([each[-1] for each in phrases]), of_image, encoded.looked
    )
    there = torch.tensor([float(bool(each.masks)) for each in truths], device=model.device)
    found = {"presence": functional.binary_cross_entropy_with_logits(perceived.presence, there)}
    peaked = [at for at, each in enumerate(truths) if each.kind in ("group", "located")]
    centres: dict[int, Tensor] = {}
    if peaked:
        predicted = model.perception.heat(
            perceived.queries[peaked], [of_image[at] for at in peaked], encoded.pixels
        )
        centres = dict(zip(peaked, predicted.detach().sigmoid(), strict=True))
        shape = (int(known.shape[1]), int(known.shape[2]))
        heat = torch.from_numpy(
            np.stack([heat_map(truths[at].masks + truths[at].among, shape) for at in peaked])
        ).to(model.device)
        found["centre"] = loss_terms.focal(predicted, heat, known[[of_image[at] for at in peaked]])
    judged = [
        _ground_losses(model, perceived, truths, known, there, encoded),
        _object_losses(model, perceived, truths, known, encoded),
        _peak_losses(model, perceived, centres, truths, known, encoded),
    ]
    chosen = _choice_loss(model, phrases, perceived, centres, truths, known, encoded)
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


def _ground_losses(
    model: EarthGPTX,
    perceived: Perceived,
    truths: Sequence[MaskTarget],
    known: Tensor,
    there: Tensor,
    encoded: Encoded,
) -> _Part:
    """Losses of the masks that cover all objects of a phrase (kinds `ground` and `group`)."""
    ground = [at for at, each in enumerate(truths) if each.kind in ("ground", "group")]
    if not ground:
        return _Part([], {}, known.new_zeros(0))
    truth, taught = mask_targets([(truths[at].masks, truths[at].outlined) for at in ground], known)
    images = [truths[at].image for at in ground]
    taught, some = taught * known[images], there[ground]
    scored = model.perception.ground(perceived.queries[ground], images, encoded.pixels)
    dice = loss_terms.dice(scored.sigmoid() * taught, truth * taught)
    losses = {
        "mask": loss_terms.focal_mask(scored, truth, taught),
        "dice": (dice * some).sum() / some.sum().clamp(min=1),
    }
    return _Part(ground, losses, loss_terms.overlap(scored, truth, taught))


def _object_losses(
    model: EarthGPTX,
    perceived: Perceived,
    truths: Sequence[MaskTarget],
    known: Tensor,
    encoded: Encoded,
) -> _Part:
    """Losses of masks and boxes of single objects, from their true centres or visual prompts.

    The IoU is returned only for objects that have their own query (`located` and `pointed`).
    """
    alone = [
        (at, each)
        for at, truth in enumerate(truths)
        if truth.kind != "ground"
        for each in _some(truth.masks)
    ]
    if not alone:
        return _Part([], {}, known.new_zeros(0))
    owner = [at for at, _ in alone]
    images = [truths[at].image for at in owner]
    places, under = _places(alone, truths, encoded)
    boxes = torch.stack([box_in_cells(mask) for _, mask in alone]).to(model.device)
    # Masks end at the true boxes, so that masks and boxes are learned independently.
    judged = model.perception.judge(perceived.queries[owner], images, places, encoded.pixels, under)
    scored = model.perception.instance_masks(judged, images, encoded.pixels, boxes)
    truth, taught = mask_targets([((each,), truths[at].outlined) for at, each in alone], known)
    taught = taught * known[images] * (scored > OUTSIDE)
    each = functional.binary_cross_entropy_with_logits(scored, truth, reduction="none") * taught
    shown = scored.sigmoid()
    outlined = torch.tensor([truths[at].outlined for at in owner], device=model.device)
    losses = {
        "mask": (each.sum((1, 2)) / taught.sum((1, 2)).clamp(min=1)).mean(),
        "dice": torch.where(
            outlined,
            loss_terms.dice(shown * taught, truth * taught),
            loss_terms.reach(shown, boxes),
        ).mean(),
        "box": loss_terms.box_loss(judged.boxes, boxes, places),
    }
    single = [row for row, at in enumerate(owner) if truths[at].kind != "group"]
    worth = loss_terms.overlap(scored[single], truth[single], taught[single])
    return _Part([owner[row] for row in single], losses, worth)


def _peak_losses(
    model: EarthGPTX,
    perceived: Perceived,
    centres: Mapping[int, Tensor],
    truths: Sequence[MaskTarget],
    known: Tensor,
    encoded: Encoded,
) -> _Part:
    """Losses of boxes and worth at the predicted peaks of groups.

    The target of worth is twice the IoU of the box with the object at the peak, at most 1; 0 if
    there is no object.
    """
    groups = [at for at, each in enumerate(truths) if each.kind == "group"]
    none = _Part([], {}, known.new_zeros(0))
    if not groups:
        return none
    images = [truths[at].image for at in groups]
    heat = torch.stack([centres[at] for at in groups]) * known[images]
    places, heights = top_peaks(heat, MOST_PEAKS)
    row, rank = torch.nonzero(heights > LOW, as_tuple=True)
    if not len(row):
        return none
    at = places[row, rank]
    owner = [groups[int(number)] for number in row]
    judged = model.perception.judge(
        perceived.queries[owner], [truths[each].image for each in owner], at, encoded.pixels
    )
    true = torch.stack(
        [
            box_at_peak(truths[each].masks, peak)
            for each, peak in zip(owner, at.tolist(), strict=True)
        ]
    )
    true = true.to(at.device)
    held = ~true[:, 0].isnan()
    worth = torch.zeros_like(judged.worth)
    losses = {}
    if held.any():
        # An IoU of 0.5 suffices: boxes at or above it get the full target, worse ones less.
        worth[held] = (
            2 * loss_terms.alike(judged.boxes[-1][held].detach(), true[held], at[held])
        ).clamp(max=1)
        losses["box"] = loss_terms.box_loss(
            [boxes[held] for boxes in judged.boxes], true[held], at[held]
        )
    losses["worth"] = functional.binary_cross_entropy_with_logits(judged.worth, worth)
    return _Part([], losses, known.new_zeros(0))


def _choice_loss(
    model: EarthGPTX,
    phrases: Sequence[Tensor],
    perceived: Perceived,
    centres: Mapping[int, Tensor],
    truths: Sequence[MaskTarget],
    known: Tensor,
    encoded: Encoded,
) -> Tensor | None:
    """Negative log-likelihood of the described object among the peaks of its heat map.

    Any peak in the box of the object is a correct choice. Returns None if no phrase describes an
    object.
    """
    located = [at for at, each in enumerate(truths) if each.kind == "located" and each.masks]
    if not located:
        return None
    images = [truths[at].image for at in located]
    heat = torch.stack([centres[at] for at in located]) * known[images]
    own, heights = top_peaks(heat, CANDIDATES)
    shape = (int(heat.shape[1]), int(heat.shape[2]))
    true = torch.tensor(
        [centre_cell(truths[at].masks[0], shape) for at in located], device=heat.device
    )[:, None]
    right = torch.tensor(
        [
            [owner_of(truths[at].masks + truths[at].among, place) == 0 for place in mine]
            for at, mine in zip(located, own.tolist(), strict=True)
        ],
        device=heat.device,
    ) & (heights > LOW)
    # If no peak hits the object, its centre is added. Otherwise the candidates are as in inference.
    missed = ~right.any(dim=1, keepdim=True)
    rows = torch.arange(len(located), device=heat.device)[:, None]
    places, heights = (
        torch.cat([true, own], dim=1),
        torch.cat([heat[rows, true[..., 0], true[..., 1]], heights], dim=1),
    )
    right, present = (
        torch.cat([missed, right], dim=1),
        torch.cat([missed, heights[:, 1:] > LOW], dim=1),
    )
    spoken = [phrases[at] for at in located]
    scored = model.perception.choose(
        spoken, perceived.queries[located], images, places, heights, present, encoded.pixels
    )
    hit = scored.masked_fill(~right, -torch.inf)
    return (scored.logsumexp(dim=1) - hit.logsumexp(dim=1)).mean()


def _places(
    alone: Sequence[tuple[int, Mask]], truths: Sequence[MaskTarget], encoded: Encoded
) -> tuple[Tensor, Tensor]:
    """Returns position (N, 2), row and column, and features (N, C) of each instance.

    They are taken at its centre, or from its visual prompt if it has one.
    """
    shape = (int(encoded.pixels.shape[-2]), int(encoded.pixels.shape[-1]))
    pointed = [
        encoded.pointed[truths[at].image][truths[at].prompt]
        if truths[at].kind == "pointed"
        else None
        for at, _ in alone
    ]
    middles = [
        centre_cell(mask, shape) if each is None else each.middle
        for (_, mask), each in zip(alone, pointed, strict=True)
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

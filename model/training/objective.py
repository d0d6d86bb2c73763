"""The one objective of all tasks and sensors: words, masks, presence, centres and boxes of a batch, in one sum.

Weights are those of the LISA family (text 1, mask BCE 2, Dice 0.5); centres by CornerNet's focal loss (Law and Deng
2018, eq. 1).
"""

# M queries, N instances, Y X cells at stride 4

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from model.earthgptx import Branch, EarthGPTX
from model.perception import STRIDE
from model.region import Mask
from model.training.samples import Answer, Describe, Find, Lesson, Locate, Refer, Sample

WEIGHTS = {"text": 1.0, "mask": 2.0, "dice": 0.5, "presence": 0.5, "quality": 0.2, "centre": 1.0, "box": 0.2}


@dataclass(frozen=True, slots=True)
class _Taught:
    """A lesson as a branch: what is read, what is to be said, what is to be seen."""

    branch: Branch
    targets: tuple[tuple[int, int], ...]
    """Token at whose place something is to be said, and the token to say."""
    seen: tuple[tuple[int, tuple[Mask, ...], bool], ...]
    """Token that is a query, the masks to see, and whether they are a group."""


def losses(model: EarthGPTX, samples: Sequence[Sample]) -> dict[str, Tensor]:
    """Each part of the objective, and `total`, their weighted sum; scalars."""
    pixels = torch.from_numpy(np.stack([sample.pixels for sample in samples]))
    encoded = model.encode(pixels, [sample.modality for sample in samples], [sample.prompts for sample in samples])
    taught = [
        _teach(model, image, lesson, encoded.size) for image, sample in enumerate(samples) for lesson in sample.lessons
    ]
    rows = [torch.cat([encoded.prefix[each.branch.image], model.embed(encoded, each.branch)]) for each in taught]
    hidden = model.language(torch.nn.utils.rnn.pad_sequence(rows, batch_first=True))
    first = encoded.prefix.shape[1]
    says, words, asks, truths, groups, of_image = [], [], [], [], [], []
    for row, each in enumerate(taught):
        places = model.places(each.branch)
        for at, token in each.targets:
            says.append(hidden[row, first + places[at]])
            words.append(token)
        for at, masks, group in each.seen:
            asks.append(hidden[row, first + places[at]])
            truths.append(masks)
            groups.append(group)
            of_image.append(each.branch.image)
    found = {
        "text": functional.cross_entropy(
            model.language.logits(torch.stack(says)), torch.tensor(words, device=model.device)
        )
    }
    if asks:
        found |= _seen(model, torch.stack(asks), of_image, truths, groups, encoded.pixels, encoded.looked)
    found["total"] = torch.stack([WEIGHTS[name] * value for name, value in found.items()]).sum()
    return found


def _teach(model: EarthGPTX, image: int, lesson: Lesson, size: tuple[int, int]) -> _Taught:
    words = model.vocabulary
    mark, end = words.mark, words.mark("eos")
    if isinstance(lesson, Find):
        branch = model.find(image, lesson.phrase)
        last = len(branch.tokens) - 1
        return _Taught(branch, ((last - 1, mark("segs" if lesson.masks else "none")),), ((last, lesson.masks, True),))
    if isinstance(lesson, Locate):
        branch = model.locate(image, lesson.phrase)
        last = len(branch.tokens) - 1
        if lesson.mask is None:
            return _Taught(branch, ((last - 1, mark("none")),), ((last, (), False),))
        box = lesson.mask.box
        edges = (box.x0 / size[1], box.y0 / size[0], box.x1 / size[1], box.y1 / size[0])
        said = [mark("box"), *(words.location(edge) for edge in edges[:2]), *(words.edge(edge) for edge in edges[2:])]
        taught = _taught(branch, tuple(said), ((last, (lesson.mask,), False),))
        # The box's mark is given and not said.
        return _Taught(taught.branch, ((last - 1, mark("seg")), *taught.targets[1:]), taught.seen)
    if isinstance(lesson, Refer):
        branch = model.refer(image, lesson.prompt_id)
        tail = (*words.encode(lesson.label), mark("sep"), *words.encode(lesson.caption), end)
        return _taught(branch, tail, ((len(branch.tokens) - 1, (lesson.mask,), False),))
    if isinstance(lesson, Answer):
        branch = model.ask(image, lesson.question, lesson.prompt_ids)
        return _taught(branch, (*words.encode(lesson.answer), end), ())
    assert isinstance(lesson, Describe)
    branch = model.describe(image)
    pieces: list[int] = []
    seen: list[tuple[int, tuple[Mask, ...], bool]] = []
    for text, mask in lesson.pieces:
        if mask is None:
            pieces += words.encode(text)
        else:
            pieces += [mark("p"), *words.encode(text), mark("</p>"), mark("seg")]
            seen.append((len(branch.tokens) + len(pieces) - 1, (mask,), False))
    return _taught(branch, (*pieces, end), tuple(seen))


def _taught(branch: Branch, tail: tuple[int, ...], seen: tuple[tuple[int, tuple[Mask, ...], bool], ...]) -> _Taught:
    start = len(branch.tokens)
    targets = tuple((start - 1 + number, token) for number, token in enumerate(tail))
    return _Taught(Branch(branch.image, (*branch.tokens, *tail[:-1]), branch.regions), targets, seen)


def _seen(
    model: EarthGPTX, asks: Tensor, of_image: Sequence[int], truths: Sequence[tuple[Mask, ...]], groups: Sequence[bool],
    pixels: Tensor, looked: Tensor,
) -> dict[str, Tensor]:  # fmt: skip
    perceived = model.perception(asks, of_image, pixels, looked)
    shape = (int(pixels.shape[-2]), int(pixels.shape[-1]))
    truth = torch.stack([_drawn(masks, shape) for masks in truths]).to(model.device)
    there = torch.tensor([float(bool(masks)) for masks in truths], device=model.device)
    found = _mask_losses(perceived.masks, truth, there)
    found["presence"] = functional.binary_cross_entropy_with_logits(perceived.presence, there)
    with torch.no_grad():
        sure, wanted = perceived.masks > 0, truth > 0.5
        iou = (sure & wanted).sum((1, 2)) / (sure | wanted).sum((1, 2)).clamp(min=1)
    found["quality"] = functional.mse_loss(perceived.quality.sigmoid(), iou)
    group = [at for at, is_group in enumerate(groups) if is_group]
    if not group:
        return found
    middles = [[_middle(mask, shape) for mask in truths[at]] for at in group]
    heat = torch.stack([_heat(places, truths[at], shape) for at, places in zip(group, middles, strict=True)])
    found["centre"] = _focal(perceived.centres[group], heat.to(model.device))
    owner = [at for at, places in zip(group, middles, strict=True) for _ in places]
    if owner:
        peaks = torch.tensor([place for places in middles for place in places], device=model.device)
        masks, boxes = model.perception.instances(
            perceived.queries[owner], [of_image[at] for at in owner], peaks, pixels
        )
        each = [mask for at in group for mask in truths[at]]
        single = torch.stack([_drawn((mask,), shape) for mask in each]).to(model.device)
        true_boxes = (
            torch.tensor([[m.x0, m.y0, m.x0 + m.width, m.y0 + m.height] for m in each], device=model.device) / STRIDE
        )
        alone = _mask_losses(masks, single, torch.ones(len(each), device=model.device))
        found["mask"], found["dice"] = found["mask"] + alone["mask"], found["dice"] + alone["dice"]
        found["box"] = functional.smooth_l1_loss(boxes, true_boxes)
    return found


def _mask_losses(scored: Tensor, truth: Tensor, there: Tensor) -> dict[str, Tensor]:
    """BCE and Dice of (M, Y, X); Dice only where there is something."""
    sure = scored.sigmoid()
    dice = 1 - (2 * (sure * truth).sum((1, 2)) + 1) / (sure.sum((1, 2)) + truth.sum((1, 2)) + 1)
    bce = functional.binary_cross_entropy_with_logits(scored.clamp(min=-15), truth)
    return {"mask": bce, "dice": (dice * there).sum() / there.sum().clamp(min=1)}


def _focal(scored: Tensor, heat: Tensor) -> Tensor:
    sure, peak = scored.sigmoid().clamp(1e-5, 1 - 1e-5), heat == 1
    hit = -((1 - sure) ** 2) * sure.log() * peak
    miss = -((1 - heat) ** 4) * sure**2 * (1 - sure).log() * ~peak
    return (hit.sum() + miss.sum()) / peak.sum().clamp(min=1)


def _drawn(masks: Sequence[Mask], shape: tuple[int, int]) -> Tensor:
    """Masks of one query at stride 4: the part of each cell that they cover."""
    inside = np.zeros((shape[0] * STRIDE, shape[1] * STRIDE), bool)
    for mask in masks:
        inside |= mask.window(0, 0, *inside.shape)
    return torch.from_numpy(inside.reshape(shape[0], STRIDE, shape[1], STRIDE).mean(axis=(1, 3), dtype=np.float32))


def _middle(mask: Mask, shape: tuple[int, int]) -> tuple[int, int]:
    row, col = int(mask.centre.y / STRIDE), int(mask.centre.x / STRIDE)
    return min(max(row, 0), shape[0] - 1), min(max(col, 0), shape[1] - 1)


def _heat(places: Sequence[tuple[int, int]], masks: Sequence[Mask], shape: tuple[int, int]) -> Tensor:
    """1 at each middle, falling off within a third of the object."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    heat = np.zeros(shape, np.float32)
    for (row, col), mask in zip(places, masks, strict=True):
        spread = max(min(mask.height, mask.width) / STRIDE / 6, 0.5)
        near = np.exp(-((y - row) ** 2 + (x - col) ** 2) / (2 * spread**2)).astype(np.float32)
        near[row, col] = 1.0
        heat = np.maximum(heat, np.where(near > 0.01, near, 0))
    return torch.from_numpy(heat)

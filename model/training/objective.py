"""The one objective of all tasks and sensors: words, masks, presence, centres and boxes of a batch, in one sum.

Text and mask BCE weigh as in the LISA family (1 and 2), Dice three times as much: most objects are small. Centres by
CornerNet's focal loss (Law and Deng 2018, eq. 1), boxes by the logarithm of their IoU (Yu et al. 2016). Of an object of
which only the box is known, the inner ellipse of six tenths of its sides is taught as object and what lies outside as
ground; between them nothing.
"""

# M queries, N instances, B images, K words of the ground, Y X cells at stride 4

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from model.earthgptx import Around, Branch, EarthGPTX
from model.perception import STRIDE
from model.region import Mask
from model.training.samples import Answer, Describe, Find, Lesson, Locate, Refer, Sample

WEIGHTS = {
    "text": 1.0, "mask": 2.0, "dice": 1.5, "presence": 0.5, "quality": 0.2, "centre": 1.0, "box": 0.5, "ground": 0.3,
}  # fmt: skip
CORE = 0.6
"""Part of a box's sides that its inner ellipse has."""
MOST_INSTANCES = 12
"""Of one phrase, whose masks and boxes are taught in one step; the centres of all are."""
NEAR = 0.01
"""Height of the heat map under which a centre is far."""


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


@dataclass(frozen=True, slots=True)
class _Truth:
    """What a query is to see."""

    image: int
    masks: tuple[Mask, ...]
    outlined: bool
    apart: bool
    """Whether each of the masks is an instance with a centre of its own."""


@dataclass(frozen=True, slots=True)
class _Taught:
    """A lesson as a branch: what is read, what is to be said, what is to be seen."""

    branch: Branch
    targets: tuple[tuple[int, int], ...]
    """Token at whose place something is to be said, and the token to say."""
    seen: tuple[tuple[int, _Truth], ...]
    """Token that is a query, and what it is to see."""


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
        _teach(model, image, lesson, encoded.size) for image, sample in enumerate(samples) for lesson in sample.lessons
    ]
    prefixes = encoded.prefix.unbind()
    embedded = model.embed(encoded, [each.branch for each in taught])
    rows = [torch.cat([prefixes[each.branch.image], own]) for each, own in zip(taught, embedded, strict=True)]
    hidden = model.language(torch.nn.utils.rnn.pad_sequence(rows, batch_first=True))
    first = encoded.prefix.shape[1]
    says, words, asks, truths = [], [], [], []
    for row, each in enumerate(taught):
        places = model.places(each.branch)
        for at, token in each.targets:
            says.append((row, first + places[at]))
            words.append(token)
        for at, truth in each.seen:
            asks.append((row, first + places[at]))
            truths.append(truth)
    said = hidden[[row for row, _ in says], [place for _, place in says]]
    found = {"text": functional.cross_entropy(model.language.logits(said), torch.tensor(words, device=model.device))}
    known = _known(samples, encoded.pixels)
    if asks:
        queries = hidden[[row for row, _ in asks], [place for _, place in asks]]
        found |= _seen(model, queries, truths, known, encoded.pixels, encoded.looked)
    if ground is not None:
        found["ground"] = _grounded(ground, samples, known, encoded.pixels)
    found["total"] = torch.stack([WEIGHTS[name] * value for name, value in found.items()]).sum()
    return found


def _around(samples: Sequence[Sample]) -> Around | None:
    wider = [sample.around for sample in samples if sample.around is not None]
    if not wider:
        return None
    return Around(torch.from_numpy(np.stack([pixels for pixels, _ in wider])), [prompts for _, prompts in wider])


def _teach(model: EarthGPTX, image: int, lesson: Lesson, size: tuple[int, int]) -> _Taught:
    words = model.vocabulary
    mark, end = words.mark, words.mark("eos")
    if isinstance(lesson, Find):
        branch = model.find(image, lesson.phrase)
        last = len(branch.tokens) - 1
        truth = _Truth(image, lesson.masks, lesson.outlined, lesson.apart)
        return _Taught(branch, ((last - 1, mark("segs" if lesson.masks else "none")),), ((last, truth),))
    if isinstance(lesson, Locate):
        branch = model.locate(image, lesson.phrase)
        last = len(branch.tokens) - 1
        if lesson.mask is None:
            return _Taught(branch, ((last - 1, mark("none")),), ((last, _Truth(image, (), True, False)),))
        box = lesson.mask.box
        edges = (box.x0 / size[1], box.y0 / size[0], box.x1 / size[1], box.y1 / size[0])
        said = [mark("box"), *(words.location(edge) for edge in edges[:2]), *(words.edge(edge) for edge in edges[2:])]
        taught = _taught(branch, tuple(said), ((last, _Truth(image, (lesson.mask,), lesson.outlined, False)),))
        # The box's mark is given and not said.
        return _Taught(taught.branch, ((last - 1, mark("seg")), *taught.targets[1:]), taught.seen)
    if isinstance(lesson, Refer):
        branch = model.refer(image, lesson.prompt_id)
        tail = (*words.encode(lesson.label), mark("sep"), *words.encode(lesson.caption), end)
        truth = _Truth(image, (lesson.mask,), lesson.outlined, False)
        return _taught(branch, tail, ((len(branch.tokens) - 1, truth),))
    if isinstance(lesson, Answer):
        branch = model.ask(image, lesson.question, lesson.prompt_ids)
        return _taught(branch, (*words.encode(lesson.answer), end), ())
    assert isinstance(lesson, Describe)
    branch = model.describe(image)
    pieces: list[int] = []
    seen: list[tuple[int, _Truth]] = []
    for text, mask in lesson.pieces:
        if mask is None:
            pieces += words.encode(text)
        else:
            pieces += [mark("p"), *words.encode(text), mark("</p>"), mark("seg")]
            seen.append((len(branch.tokens) + len(pieces) - 1, _Truth(image, (mask,), lesson.outlined, False)))
    return _taught(branch, (*pieces, end), tuple(seen))


def _taught(branch: Branch, tail: tuple[int, ...], seen: tuple[tuple[int, _Truth], ...]) -> _Taught:
    start = len(branch.tokens)
    targets = tuple((start - 1 + number, token) for number, token in enumerate(tail))
    return _Taught(Branch(branch.image, (*branch.tokens, *tail[:-1]), branch.regions), targets, seen)


def _seen(
    model: EarthGPTX, asks: Tensor, truths: Sequence[_Truth], known: Tensor, pixels: Tensor, looked: Tensor
) -> dict[str, Tensor]:
    of_image = [truth.image for truth in truths]
    perceived = model.perception(asks, of_image, pixels, looked)
    shape = (int(pixels.shape[-2]), int(pixels.shape[-1]))
    truth, taught = _drawn([(each.masks, each.outlined) for each in truths], shape, model.device)
    taught = taught * known[of_image]
    there = torch.tensor([float(bool(each.masks)) for each in truths], device=model.device)
    found = _mask_losses(perceived.masks, truth, taught, there)
    found["presence"] = functional.binary_cross_entropy_with_logits(perceived.presence, there)
    with torch.no_grad():
        sure, wanted = (perceived.masks > 0) & (taught > 0), (truth > 0.5) & (taught > 0)
        iou = (sure & wanted).sum((1, 2)) / (sure | wanted).sum((1, 2)).clamp(min=1)
    found["quality"] = functional.mse_loss(perceived.quality.sigmoid(), iou)
    group = [at for at, each in enumerate(truths) if each.apart]
    if not group:
        return found
    heat = torch.from_numpy(np.stack([_heat(truths[at].masks, shape) for at in group])).to(model.device)
    found["centre"] = _focal(perceived.centres[group], heat, known[[of_image[at] for at in group]])
    chosen = [(at, mask) for at in group for mask in _some(truths[at].masks)]
    if chosen:
        owner = [at for at, _ in chosen]
        peaks = torch.tensor([_middle(mask, shape) for _, mask in chosen], device=model.device)
        masks, boxes = model.perception.instances(
            perceived.queries[owner], [of_image[at] for at in owner], peaks, pixels
        )
        single, alone_taught = _drawn([((mask,), truths[at].outlined) for at, mask in chosen], shape, model.device)
        ones = torch.ones(len(chosen), device=model.device)
        alone = _mask_losses(masks, single, alone_taught * known[[of_image[at] for at in owner]], ones)
        found["mask"], found["dice"] = found["mask"] + alone["mask"], found["dice"] + alone["dice"]
        found["box"] = _box_loss(boxes, [mask for _, mask in chosen], peaks)
    return found


def _some(masks: tuple[Mask, ...]) -> list[Mask]:
    if len(masks) <= MOST_INSTANCES:
        return list(masks)
    return [masks[int(at)] for at in np.linspace(0, len(masks) - 1, MOST_INSTANCES)]


def _grounded(ground: Ground, samples: Sequence[Sample], known: Tensor, pixels: Tensor) -> Tensor:
    shape = (int(pixels.shape[-2]), int(pixels.shape[-1]))
    asked = [
        (image, ground.words.index(each.phrase), each)
        for image, sample in enumerate(samples)
        for each in sample.ground
        if each.phrase in ground.words
    ]
    scored = ground(pixels)
    if not asked:
        return scored.sum() * 0
    truth, taught = _drawn([(each.masks, each.outlined) for _, _, each in asked], shape, pixels.device)
    mine = scored[[image for image, _, _ in asked], [word for _, word, _ in asked]]
    taught = taught * known[[image for image, _, _ in asked]]
    loss = functional.binary_cross_entropy_with_logits(mine, truth, reduction="none") * taught
    # Words that are there and words that are not weigh the same, whatever ground they cover.
    return loss.sum() / taught.sum().clamp(min=1) + _dice(mine.sigmoid() * taught, truth * taught).mean() * 0.5


def _mask_losses(scored: Tensor, truth: Tensor, taught: Tensor, there: Tensor) -> dict[str, Tensor]:
    """BCE and Dice of (M, Y, X) where something is taught; Dice only where there is something."""
    each = functional.binary_cross_entropy_with_logits(scored.clamp(min=-15), truth, reduction="none")
    bce = (each * taught).sum() / taught.sum().clamp(min=1)
    dice = _dice(scored.sigmoid() * taught, truth * taught)
    return {"mask": bce, "dice": (dice * there).sum() / there.sum().clamp(min=1)}


def _dice(sure: Tensor, truth: Tensor) -> Tensor:
    return 1 - (2 * (sure * truth).sum((1, 2)) + 1) / (sure.sum((1, 2)) + truth.sum((1, 2)) + 1)


def _box_loss(boxes: Tensor, masks: Sequence[Mask], peaks: Tensor) -> Tensor:
    """Minus the logarithm of the IoU; both boxes hold the peak, so that it is never of nothing."""
    true = torch.tensor([[m.x0, m.y0, m.x0 + m.width, m.y0 + m.height] for m in masks], device=boxes.device) / STRIDE
    middle = peaks.flip(-1).float() + 0.5
    ours, theirs = (
        torch.cat([middle - edges[:, :2], edges[:, 2:] - middle], dim=1).clamp(min=0.1) for edges in (boxes, true)
    )
    both = torch.minimum(ours, theirs)
    shared, one, other = ((r[:, 0] + r[:, 2]) * (r[:, 1] + r[:, 3]) for r in (both, ours, theirs))
    return -(shared / (one + other - shared)).log().mean()


def _focal(scored: Tensor, heat: Tensor, known: Tensor) -> Tensor:
    sure, peak = scored.sigmoid().clamp(1e-5, 1 - 1e-5), heat == 1
    hit = -((1 - sure) ** 2) * sure.log() * peak
    miss = -((1 - heat) ** 4) * sure**2 * (1 - sure).log() * ~peak * known
    return (hit.sum() + miss.sum()) / peak.sum().clamp(min=1)


def _known(samples: Sequence[Sample], pixels: Tensor) -> Tensor:
    """(B, Y, X) 1 where something is known of the ground, else 0."""
    rows, cols = pixels.shape[-2:]
    known = np.ones((len(samples), rows, cols), np.float32)
    for image, sample in enumerate(samples):
        if sample.ignored is not None:
            known[image] = 1 - sample.ignored.reshape(rows, STRIDE, cols, STRIDE).any(axis=(1, 3))
    return torch.from_numpy(known).to(pixels.device)


def _drawn(
    truths: Sequence[tuple[tuple[Mask, ...], bool]], shape: tuple[int, int], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Masks of each query at stride 4: the part of each cell that they cover, and 1 where that is taught, else 0."""
    truth, taught = (np.zeros((len(truths), *shape), np.float32), np.ones((len(truths), *shape), np.float32))
    for number, (masks, outlined) in enumerate(truths):
        if not masks:
            continue
        inside = np.zeros((shape[0] * STRIDE, shape[1] * STRIDE), bool)
        for mask in masks:
            _put(inside, mask, mask.to_array() if outlined else _ellipse(mask))
        truth[number] = _coarse(inside)
        if not outlined:
            boxes = np.zeros_like(inside)
            for mask in masks:
                _put(boxes, mask, mask.to_array())
            taught[number] = 1 - (_coarse(boxes) > 0) * (truth[number] < 0.5)
    return torch.from_numpy(truth).to(device), torch.from_numpy(taught).to(device)


def _put(canvas: NDArray[np.bool_], mask: Mask, own: NDArray[np.bool_]) -> None:
    y0, x0 = max(mask.y0, 0), max(mask.x0, 0)
    y1, x1 = min(mask.y0 + mask.height, canvas.shape[0]), min(mask.x0 + mask.width, canvas.shape[1])
    if y0 < y1 and x0 < x1:
        canvas[y0:y1, x0:x1] |= own[y0 - mask.y0 : y1 - mask.y0, x0 - mask.x0 : x1 - mask.x0]


def _ellipse(mask: Mask) -> NDArray[np.bool_]:
    y, x = np.ogrid[: mask.height, : mask.width]
    inside = ((y + 0.5) / mask.height - 0.5) ** 2 + ((x + 0.5) / mask.width - 0.5) ** 2 <= (CORE / 2) ** 2
    inside[mask.height // 2, mask.width // 2] = True
    return np.asarray(inside)


def _coarse(inside: NDArray[np.bool_]) -> NDArray[np.float32]:
    rows, cols = inside.shape[0] // STRIDE, inside.shape[1] // STRIDE
    return inside.reshape(rows, STRIDE, cols, STRIDE).mean(axis=(1, 3), dtype=np.float32)


def _middle(mask: Mask, shape: tuple[int, int]) -> tuple[int, int]:
    row, col = int(mask.centre.y / STRIDE), int(mask.centre.x / STRIDE)
    return min(max(row, 0), shape[0] - 1), min(max(col, 0), shape[1] - 1)


def _heat(masks: Sequence[Mask], shape: tuple[int, int]) -> NDArray[np.float32]:
    """1 at each middle, falling off within a third of the object."""
    heat = np.zeros(shape, np.float32)
    for mask in masks:
        row, col = _middle(mask, shape)
        spread = max(min(mask.height, mask.width) / STRIDE / 6, 0.5)
        reach = int(spread * (-2 * np.log(NEAR)) ** 0.5) + 1
        y0, x0 = max(row - reach, 0), max(col - reach, 0)
        window = heat[y0 : row + reach + 1, x0 : col + reach + 1]
        y, x = np.ogrid[: window.shape[0], : window.shape[1]]
        near = np.exp(-((y + y0 - row) ** 2 + (x + x0 - col) ** 2) / (2 * spread**2))
        np.maximum(window, np.where(near > NEAR, near, 0), out=window)
        heat[row, col] = 1.0
    return heat

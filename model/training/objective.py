"""The one objective of all tasks and sensors: words, masks, presence, centres and boxes of a batch, in one sum.

Text and mask BCE weigh as in the LISA family (1 and 2), Dice three times as much: most objects are small. Centres by
CornerNet's focal loss (Law and Deng 2018, eq. 1), boxes by the logarithm of their IoU (Yu et al. 2016), the worth of a
box by how much of an object it holds. Of an object of which only the box is known, the inner ellipse of six tenths of
its sides is taught as object and what lies outside as ground; between them nothing but that the mask reaches the box's
sides (BoxInst's projection, Tian et al. 2021).
"""

# M queries, N instances, B images, K words of the ground, Y X cells at stride 2

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from model.earthgptx import Around, Branch, EarthGPTX, Encoded
from model.perception import CANDIDATES, LOW, OUTSIDE, STRIDE, Perceived, peaks
from model.region import Mask
from model.training.samples import Answer, Describe, Find, Lesson, Locate, Refer, Sample

WEIGHTS = {
    "text": 1.0, "mask": 1.0, "dice": 1.5, "presence": 0.5, "quality": 0.2, "centre": 1.0, "box": 0.4, "worth": 0.3,
    "choice": 0.5, "ground": 0.3,
}  # fmt: skip
CORE = 0.6
"""Part of a box's sides that its inner ellipse has."""
MOST_INSTANCES = 12
"""Of one phrase, whose masks and boxes are taught in one step; the centres of all are."""
MOST_PEAKS = 8
"""Of one phrase's heat map, whose boxes and worth are taught in one step."""
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
    kind: Literal["ground", "group", "located", "pointed"]
    """Ground as one mask; a group that has instances too, each with a middle; one object to be found; one that a
    prompt points at."""
    prompt: str = ""
    """Id of the prompt that points at it."""
    among: tuple[Mask, ...] = ()
    """Others that the heat map is to show too, and the phrase does not speak of."""


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
    known = _known(samples, encoded.pixels)
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


def _teach(model: EarthGPTX, image: int, lesson: Lesson, size: tuple[int, int]) -> _Taught:
    words = model.vocabulary
    mark, end = words.mark, words.mark("eos")
    if isinstance(lesson, Find):
        branch = model.find(image, lesson.phrase)
        last = len(branch.tokens) - 1
        truth = _Truth(image, lesson.masks, lesson.outlined, "group" if lesson.apart else "ground")
        return _Taught(branch, ((last - 1, mark("segs" if lesson.masks else "none")),), ((last, truth),))
    if isinstance(lesson, Locate):
        branch = model.locate(image, lesson.phrase)
        last = len(branch.tokens) - 1
        if lesson.mask is None:
            return _Taught(branch, ((last - 1, mark("none")),), ((last, _Truth(image, (), True, "located")),))
        box = lesson.mask.box
        edges = (box.x0 / size[1], box.y0 / size[0], box.x1 / size[1], box.y1 / size[0])
        said = [mark("box"), *(words.location(edge) for edge in edges[:2]), *(words.edge(edge) for edge in edges[2:])]
        truth = _Truth(image, (lesson.mask,), lesson.outlined, "located", among=lesson.among)
        taught = _taught(branch, tuple(said), ((last, truth),))
        # The box's mark is given and not said.
        return _Taught(taught.branch, ((last - 1, mark("seg")), *taught.targets[1:]), taught.seen)
    if isinstance(lesson, Refer):
        branch = model.refer(image, lesson.prompt_id)
        tail = (*words.encode(lesson.label), mark("sep"), *words.encode(lesson.caption), end)
        truth = _Truth(image, (lesson.mask,), lesson.outlined, "pointed", lesson.prompt_id)
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
            seen.append((len(branch.tokens) + len(pieces) - 1, _Truth(image, (mask,), lesson.outlined, "ground")))
    return _taught(branch, (*pieces, end), tuple(seen))


def _taught(branch: Branch, tail: tuple[int, ...], seen: tuple[tuple[int, _Truth], ...]) -> _Taught:
    start = len(branch.tokens)
    targets = tuple((start - 1 + number, token) for number, token in enumerate(tail))
    return _Taught(Branch(branch.image, (*branch.tokens, *tail[:-1]), branch.regions), targets, seen)


@dataclass(frozen=True, slots=True)
class _Judged:
    """Masks that queries gave, judged."""

    queries: list[int]
    losses: dict[str, Tensor]
    worth: Tensor
    """IoU of each with the truth."""


def _seen(
    model: EarthGPTX, phrases: Sequence[Tensor], truths: Sequence[_Truth], known: Tensor, encoded: Encoded
) -> dict[str, Tensor]:
    of_image = [truth.image for truth in truths]
    perceived = model.perception(torch.stack([each[-1] for each in phrases]), of_image, encoded.pixels, encoded.looked)
    there = torch.tensor([float(bool(each.masks)) for each in truths], device=model.device)
    found = {"presence": functional.binary_cross_entropy_with_logits(perceived.presence, there)}
    peaked = [at for at, each in enumerate(truths) if each.kind in ("group", "located")]
    if peaked:
        shape = (int(known.shape[1]), int(known.shape[2]))
        heat = torch.from_numpy(np.stack([_heat(truths[at].masks + truths[at].among, shape) for at in peaked])).to(
            model.device
        )
        found["centre"] = _focal(perceived.centres[peaked], heat, known[[of_image[at] for at in peaked]])
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


def _ground_seen(perceived: Perceived, truths: Sequence[_Truth], known: Tensor, there: Tensor) -> _Judged:
    """One mask of all that a phrase fits."""
    ground = [at for at, each in enumerate(truths) if each.kind in ("ground", "group")]
    if not ground:
        return _Judged([], {}, known.new_zeros(0))
    truth, taught = _drawn([(truths[at].masks, truths[at].outlined) for at in ground], known)
    taught = taught * known[[truths[at].image for at in ground]]
    scored, some = perceived.masks[ground], there[ground]
    dice = _dice(scored.sigmoid() * taught, truth * taught)
    losses = {
        "mask": _focal_mask(scored, truth, taught), "dice": (dice * some).sum() / some.sum().clamp(min=1),
    }  # fmt: skip
    return _Judged(ground, losses, _overlap(scored, truth, taught))


def _objects_seen(
    model: EarthGPTX, perceived: Perceived, truths: Sequence[_Truth], known: Tensor, encoded: Encoded
) -> _Judged:
    """Masks and boxes of single objects."""
    alone = [(at, each) for at, truth in enumerate(truths) if truth.kind != "ground" for each in _some(truth.masks)]
    if not alone:
        return _Judged([], {}, known.new_zeros(0))
    owner = [at for at, _ in alone]
    images = [truths[at].image for at in owner]
    peaks, under = _peaks(alone, truths, encoded)
    boxes = torch.stack([_cells(mask) for _, mask in alone]).to(model.device)
    # Masks are taught within the true boxes: what an instance is, and where it ends, are learned side by side.
    judged = model.perception.judge(perceived.queries[owner], images, peaks, encoded.pixels, under)
    scored = model.perception.outline(judged, images, encoded.pixels, boxes)
    truth, taught = _drawn([((each,), truths[at].outlined) for at, each in alone], known)
    taught = taught * known[images] * (scored > OUTSIDE)
    each = functional.binary_cross_entropy_with_logits(scored, truth, reduction="none") * taught
    shown = scored.sigmoid()
    outlined = torch.tensor([truths[at].outlined for at in owner], device=model.device)
    losses = {
        "mask": (each.sum((1, 2)) / taught.sum((1, 2)).clamp(min=1)).mean(),
        "dice": torch.where(outlined, _dice(shown * taught, truth * taught), reach(shown, boxes)).mean(),
        "box": _box_loss(judged.boxes, boxes, peaks),
    }
    single = [row for row, at in enumerate(owner) if truths[at].kind != "group"]
    worth = _overlap(scored[single], truth[single], taught[single])
    return _Judged([owner[row] for row in single], losses, worth)


def _peaks_seen(
    model: EarthGPTX, perceived: Perceived, truths: Sequence[_Truth], known: Tensor, encoded: Encoded
) -> _Judged:
    """Boxes and worth of what the heat map itself takes for objects of a group."""
    groups = [at for at, each in enumerate(truths) if each.kind == "group"]
    none = _Judged([], {}, known.new_zeros(0))
    if not groups:
        return none
    images = [truths[at].image for at in groups]
    heat = perceived.centres[groups].detach().sigmoid() * known[images]
    places, heights = peaks(heat, MOST_PEAKS)
    row, rank = torch.nonzero(heights > LOW, as_tuple=True)
    if not len(row):
        return none
    at = places[row, rank]
    owner = [groups[int(number)] for number in row]
    judged = model.perception.judge(
        perceived.queries[owner], [truths[each].image for each in owner], at, encoded.pixels
    )
    true = torch.stack([_held(truths[each].masks, peak) for each, peak in zip(owner, at.tolist(), strict=True)])
    true = true.to(at.device)
    held = ~true[:, 0].isnan()
    worth = torch.zeros_like(judged.worth)
    losses = {}
    if held.any():
        # Half of it is all that is asked for: so sure is what holds half, and less sure what holds less.
        worth[held] = (2 * _alike(judged.boxes[-1][held].detach(), true[held], at[held])).clamp(max=1)
        losses["box"] = _box_loss([boxes[held] for boxes in judged.boxes], true[held], at[held])
    losses["worth"] = functional.binary_cross_entropy_with_logits(judged.worth, worth)
    return _Judged([], losses, known.new_zeros(0))


def _chosen(
    model: EarthGPTX, phrases: Sequence[Tensor], perceived: Perceived, truths: Sequence[_Truth], known: Tensor,
    encoded: Encoded,
) -> Tensor | None:  # fmt: skip
    """How unlikely the true one is among all of its kind, and among what the heat map takes for such; None of none."""
    located = [at for at, each in enumerate(truths) if each.kind == "located" and each.masks]
    if not located:
        return None
    images = [truths[at].image for at in located]
    heat = perceived.centres[located].detach().sigmoid() * known[images]
    own, heights = peaks(heat, CANDIDATES)
    shape = (int(heat.shape[1]), int(heat.shape[2]))
    true = torch.tensor([_middle(truths[at].masks[0], shape) for at in located], device=heat.device)[:, None]
    right = torch.tensor([
        [_owner(truths[at].masks + truths[at].among, place) == 0 for place in mine]
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


def _held(masks: Sequence[Mask], peak: Sequence[int]) -> Tensor:
    """Box in cells of the object that a peak lies in; else not numbers."""
    owner = _owner(masks, peak)
    return torch.full((4,), torch.nan) if owner is None else _cells(masks[owner])


def _owner(masks: Sequence[Mask], peak: Sequence[int]) -> int | None:
    """Which object's box a peak lies in, of several that whose middle is nearest; None for none."""
    y, x = ((each + 0.5) * STRIDE for each in peak)
    around = [
        (m.box.x0 + m.box.x1 - 2 * x) ** 2 + (m.box.y0 + m.box.y1 - 2 * y) ** 2
        if m.x0 <= x <= m.x0 + m.width and m.y0 <= y <= m.y0 + m.height
        else np.inf
        for m in masks
    ]
    nearest = int(np.argmin(around)) if around else 0
    return nearest if around and around[nearest] < np.inf else None


def _cells(mask: Mask) -> Tensor:
    """Its box, (4) xyxy in cells."""
    return torch.tensor([mask.x0, mask.y0, mask.x0 + mask.width, mask.y0 + mask.height]) / STRIDE


def reach(shown: Tensor, boxes: Tensor) -> Tensor:
    """How far masks (N, Y, X) are from reaching all sides of their boxes and no farther, (N)."""
    found = []
    for dim, (start, end) in ((1, (0, 2)), (2, (1, 3))):
        most = shown.amax(dim=dim)
        at = torch.arange(most.shape[1], device=most.device) + 0.5
        wanted = ((at > boxes[:, start, None]) & (at < boxes[:, end, None])).to(most.dtype)
        found.append(_dice(most[:, None], wanted[:, None]))
    return (found[0] + found[1]) / 2


def _peaks(alone: Sequence[tuple[int, Mask]], truths: Sequence[_Truth], encoded: Encoded) -> tuple[Tensor, Tensor]:
    """Where each instance is asked from, (N, 2), and what lies there, (N, C): its middle, or its prompt."""
    shape = (int(encoded.pixels.shape[-2]), int(encoded.pixels.shape[-1]))
    pointed = [
        encoded.pointed[truths[at].image][truths[at].prompt] if truths[at].kind == "pointed" else None
        for at, _ in alone
    ]
    places = [
        _middle(mask, shape) if each is None else each.middle for (_, mask), each in zip(alone, pointed, strict=True)
    ]
    peaks = torch.tensor(places, device=encoded.pixels.device)
    images = torch.tensor([truths[at].image for at, _ in alone], device=peaks.device)
    under = encoded.pixels[images, :, peaks[:, 0], peaks[:, 1]]
    rows = [row for row, each in enumerate(pointed) if each is not None]
    if rows:
        given = torch.stack([each.under for each in pointed if each is not None])
        under = under.index_copy(0, torch.tensor(rows, device=peaks.device), given.to(under.dtype))
    return peaks, under


@torch.no_grad()
def _overlap(scored: Tensor, truth: Tensor, taught: Tensor) -> Tensor:
    """IoU of masks (M, Y, X) where something is taught, (M)."""
    sure, wanted = (scored > 0) & (taught > 0), (truth > 0.5) & (taught > 0)
    return (sure & wanted).sum((1, 2)) / (sure | wanted).sum((1, 2)).clamp(min=1)


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
    truth, taught = _drawn([(each.masks, each.outlined) for _, _, each in asked], known)
    mine = scored[[image for image, _, _ in asked], [word for _, word, _ in asked]]
    taught = taught * known[[image for image, _, _ in asked]]
    loss = functional.binary_cross_entropy_with_logits(mine, truth, reduction="none") * taught
    # Words that are there and words that are not weigh the same, whatever ground they cover.
    return loss.sum() / taught.sum().clamp(min=1) + _dice(mine.sigmoid() * taught, truth * taught).mean() * 0.5


def _focal_mask(scored: Tensor, truth: Tensor, taught: Tensor) -> Tensor:
    """BCE of (M, Y, X) by its distance from the truth, squared (Li et al. 2020, quality focal loss).

    Over the object's own cells and not over the image's: three cells would be a thousandth of a loss, and not learned.
    """
    each = functional.binary_cross_entropy_with_logits(scored, truth, reduction="none")
    focal = each * (scored.detach().sigmoid() - truth) ** 2 * taught
    return (focal.sum((1, 2)) / ((truth * taught).sum((1, 2)) + 1)).mean()


def _dice(sure: Tensor, truth: Tensor) -> Tensor:
    return 1 - (2 * (sure * truth).sum((1, 2)) + 1) / (sure.sum((1, 2)) + truth.sum((1, 2)) + 1)


def _box_loss(looks: Sequence[Tensor], true: Tensor, peaks: Tensor) -> Tensor:
    """Minus the logarithm of the IoU, of all looks; both boxes hold the peak, so that it is never of nothing."""
    return torch.stack([-_alike(boxes, true, peaks).log().mean() for boxes in looks]).mean()


def _alike(boxes: Tensor, true: Tensor, peaks: Tensor) -> Tensor:
    """IoU of boxes that hold their peaks, (N)."""
    middle = peaks.flip(-1).float() + 0.5
    ours, theirs = (
        torch.cat([middle - edges[:, :2], edges[:, 2:] - middle], dim=1).clamp(min=0.1) for edges in (boxes, true)
    )
    both = torch.minimum(ours, theirs)
    shared, one, other = ((r[:, 0] + r[:, 2]) * (r[:, 1] + r[:, 3]) for r in (both, ours, theirs))
    return shared / (one + other - shared)


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


def _drawn(truths: Sequence[tuple[tuple[Mask, ...], bool]], like: Tensor) -> tuple[Tensor, Tensor]:
    """Masks of each query at stride 2: the part of each cell that they cover, and 1 where that is taught, else 0."""
    shape = (int(like.shape[-2]), int(like.shape[-1]))
    truth, taught = (np.zeros((len(truths), *shape), np.float32), np.ones((len(truths), *shape), np.float32))
    for number, (masks, outlined) in enumerate(truths):
        if not masks:
            continue
        inside = np.zeros((shape[0] * STRIDE, shape[1] * STRIDE), bool)
        for mask in masks:
            _put(inside, mask, mask.to_array() if outlined else _ellipse(mask))
        truth[number] = _coarse(inside)
        # What is smaller than a cell has one: else no cell would be half covered, and nothing be seen.
        truth[number] /= max(float(truth[number].max()), 1 / STRIDE**2)
        if not outlined:
            boxes = np.zeros_like(inside)
            for mask in masks:
                _put(boxes, mask, mask.to_array())
            taught[number] = 1 - (_coarse(boxes) > 0) * (truth[number] < 0.5)
    return torch.from_numpy(truth).to(like.device), torch.from_numpy(taught).to(like.device)


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

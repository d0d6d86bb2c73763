"""Converts lessons to branches with target tokens and target masks."""

from __future__ import annotations

from dataclasses import dataclass, replace

from earthgptx.model.network.earthgptx import EarthGPTX
from earthgptx.model.network.encoded import Branch
from earthgptx.model.samples.sample import Answer, Describe, Find, Lesson, Locate, Refer
from earthgptx.model.training.mask_targets import MaskTarget


@dataclass(frozen=True, slots=True)
class BranchTargets:
    """A lesson as a branch, with the targets of its tokens and queries."""

    branch: Branch
    targets: tuple[tuple[int, int], ...]
    """Pairs: index of a token in the branch, and the token that its hidden state predicts."""
    queries: tuple[tuple[int, MaskTarget], ...]
    """Pairs: index of a token that is a query, and its target."""
    told: bool = False
    """Whether the tokens are an answer of the source."""


def branch_targets(
    model: EarthGPTX, image: int, lesson: Lesson, size: tuple[int, int]
) -> BranchTargets:
    """Converts a lesson to a branch with its targets.

    Args:
        model: model whose vocabulary is used.
        image: number of the image in the batch.
        lesson: lesson about the image.
        size: height and width of the image in pixels.
    """
    if isinstance(lesson, Find):
        return _find(model, image, lesson)
    if isinstance(lesson, Locate):
        return _locate(model, image, lesson, size)
    if isinstance(lesson, Refer):
        return _refer(model, image, lesson)
    if isinstance(lesson, Answer):
        words = model.vocabulary
        branch = model.ask(image, lesson.question, lesson.prompt_ids)
        said = _continued(branch, (*words.encode(lesson.answer), words.mark("eos")), ())
        return replace(said, told=lesson.told)
    assert isinstance(lesson, Describe)
    return _describe(model, image, lesson)


def _find(model: EarthGPTX, image: int, lesson: Find) -> BranchTargets:
    branch = model.find(image, lesson.phrase)
    last = len(branch.tokens) - 1
    target = MaskTarget(image, lesson.masks, lesson.outlined, "group" if lesson.apart else "ground")
    said = model.vocabulary.mark("segs" if lesson.masks else "none")
    return BranchTargets(branch, ((last - 1, said),), ((last, target),))


def _locate(model: EarthGPTX, image: int, lesson: Locate, size: tuple[int, int]) -> BranchTargets:
    words = model.vocabulary
    branch = model.locate(image, lesson.phrase)
    last = len(branch.tokens) - 1
    if lesson.mask is None:
        nothing = MaskTarget(image, (), True, "located")
        return BranchTargets(branch, ((last - 1, words.mark("none")),), ((last, nothing),))
    box = lesson.mask.box
    low = (words.location(box.x0 / size[1]), words.location(box.y0 / size[0]))
    high = (words.edge(box.x1 / size[1]), words.edge(box.y1 / size[0]))
    target = MaskTarget(image, (lesson.mask,), lesson.outlined, "located", among=lesson.among)
    said = _continued(branch, (words.mark("box"), *low, *high), ((last, target),))
    # `<box>` is given at inference: the model does not predict it, but that the object is present.
    targets = ((last - 1, words.mark("seg")), *said.targets[1:])
    return BranchTargets(said.branch, targets, said.queries)


def _refer(model: EarthGPTX, image: int, lesson: Refer) -> BranchTargets:
    words = model.vocabulary
    branch = model.refer(image, lesson.prompt_id)
    label, caption = words.encode(lesson.label), words.encode(lesson.caption)
    tail = (*label, words.mark("sep"), *caption, words.mark("eos"))
    target = MaskTarget(image, (lesson.mask,), lesson.outlined, "pointed", lesson.prompt_id)
    return _continued(branch, tail, ((len(branch.tokens) - 1, target),))


def _describe(model: EarthGPTX, image: int, lesson: Describe) -> BranchTargets:
    words = model.vocabulary
    branch = model.describe(image)
    pieces: list[int] = []
    queries: list[tuple[int, MaskTarget]] = []
    for text, mask in lesson.pieces:
        if mask is None:
            pieces += words.encode(text)
            continue
        pieces += [words.mark("p"), *words.encode(text), words.mark("</p>"), words.mark("seg")]
        target = MaskTarget(image, (mask,), lesson.outlined, "ground")
        queries.append((len(branch.tokens) + len(pieces) - 1, target))
    return _continued(branch, (*pieces, words.mark("eos")), tuple(queries))


def _continued(
    branch: Branch, tail: tuple[int, ...], queries: tuple[tuple[int, MaskTarget], ...]
) -> BranchTargets:
    """Appends tokens to a branch and makes each of them a target."""
    start = len(branch.tokens)
    targets = tuple((start - 1 + number, token) for number, token in enumerate(tail))
    return BranchTargets(
        Branch(branch.image, (*branch.tokens, *tail[:-1]), branch.regions), targets, queries
    )

"""A lesson as the model reads it: the branch, the tokens that it is to say, and what its queries are to see."""

from __future__ import annotations

from dataclasses import dataclass

from model.earthgptx import Branch, EarthGPTX
from model.training.samples import Answer, Describe, Find, Lesson, Locate, Refer
from model.training.truth import Truth


@dataclass(frozen=True, slots=True)
class Taught:
    """A lesson as a branch: what is read, what is to be said, what is to be seen."""

    branch: Branch
    targets: tuple[tuple[int, int], ...]
    """Token at whose place something is to be said, and the token to say."""
    seen: tuple[tuple[int, Truth], ...]
    """Token that is a query, and what it is to see."""


def teach(model: EarthGPTX, image: int, lesson: Lesson, size: tuple[int, int]) -> Taught:
    """Read a lesson about an image of `size` (height, width) as a branch of the model's."""
    words = model.vocabulary
    mark, end = words.mark, words.mark("eos")
    if isinstance(lesson, Find):
        branch = model.find(image, lesson.phrase)
        last = len(branch.tokens) - 1
        truth = Truth(image, lesson.masks, lesson.outlined, "group" if lesson.apart else "ground")
        return Taught(branch, ((last - 1, mark("segs" if lesson.masks else "none")),), ((last, truth),))
    if isinstance(lesson, Locate):
        branch = model.locate(image, lesson.phrase)
        last = len(branch.tokens) - 1
        if lesson.mask is None:
            return Taught(branch, ((last - 1, mark("none")),), ((last, Truth(image, (), True, "located")),))
        box = lesson.mask.box
        edges = (box.x0 / size[1], box.y0 / size[0], box.x1 / size[1], box.y1 / size[0])
        said = [mark("box"), *(words.location(edge) for edge in edges[:2]), *(words.edge(edge) for edge in edges[2:])]
        truth = Truth(image, (lesson.mask,), lesson.outlined, "located", among=lesson.among)
        taught = _taught(branch, tuple(said), ((last, truth),))
        # The box's mark is given and not said.
        return Taught(taught.branch, ((last - 1, mark("seg")), *taught.targets[1:]), taught.seen)
    if isinstance(lesson, Refer):
        branch = model.refer(image, lesson.prompt_id)
        tail = (*words.encode(lesson.label), mark("sep"), *words.encode(lesson.caption), end)
        truth = Truth(image, (lesson.mask,), lesson.outlined, "pointed", lesson.prompt_id)
        return _taught(branch, tail, ((len(branch.tokens) - 1, truth),))
    if isinstance(lesson, Answer):
        branch = model.ask(image, lesson.question, lesson.prompt_ids)
        return _taught(branch, (*words.encode(lesson.answer), end), ())
    assert isinstance(lesson, Describe)
    branch = model.describe(image)
    pieces: list[int] = []
    seen: list[tuple[int, Truth]] = []
    for text, mask in lesson.pieces:
        if mask is None:
            pieces += words.encode(text)
        else:
            pieces += [mark("p"), *words.encode(text), mark("</p>"), mark("seg")]
            seen.append((len(branch.tokens) + len(pieces) - 1, Truth(image, (mask,), lesson.outlined, "ground")))
    return _taught(branch, (*pieces, end), tuple(seen))


def _taught(branch: Branch, tail: tuple[int, ...], seen: tuple[tuple[int, Truth], ...]) -> Taught:
    start = len(branch.tokens)
    targets = tuple((start - 1 + number, token) for number, token in enumerate(tail))
    return Taught(Branch(branch.image, (*branch.tokens, *tail[:-1]), branch.regions), targets, seen)

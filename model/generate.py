"""Asking an encoded image many things at once: one past shared by all branches, rows that come and go.

The image's tokens are read once. Branches of all images of a batch decode together; a row that has ended leaves and
the next branch takes its slot. Greedy: the same image gives the same words in any batch and in any order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from model.earthgptx import Branch, EarthGPTX, Encoded
from model.language import Slots

ROWS = 128
"""Branches that decode together."""


@dataclass(slots=True)
class Said:
    """What followed a branch."""

    tokens: list[int] = field(default_factory=list)
    """Without the `<eos>`."""
    hidden: list[Tensor] = field(default_factory=list)
    """Hidden state (W) at each token, once it was read."""
    log_likelihood: float = 0.0
    """Of the tokens and of the end."""
    cut: bool = False
    """Whether the budget ended it."""


@torch.inference_mode()
def remember(model: EarthGPTX, encoded: Encoded) -> Slots:
    """The past that all branches share, a row an image."""
    images, count, _ = encoded.prefix.shape
    past = Slots.empty(model.language, images, count)
    model.language(encoded.prefix, past)
    past.advance([count] * images)
    return past


@torch.inference_mode()
def read(
    model: EarthGPTX, encoded: Encoded, past: Slots, branches: Sequence[Branch], room: int = 0
) -> tuple[list[Tensor], Slots]:
    """Hidden states of branches, each (Q, W), read in one pass, and their slots with room for more tokens."""
    embedded = [model.embed(encoded, branch) for branch in branches]
    counts = [len(each) for each in embedded]
    slots = past.branched([branch.image for branch in branches], max(counts) + room)
    hidden = model.language(torch.nn.utils.rnn.pad_sequence(embedded, batch_first=True), slots)
    slots.advance(counts)
    return [row[:count] for row, count in zip(hidden, counts, strict=True)], slots


@torch.inference_mode()
def decode(
    model: EarthGPTX, encoded: Encoded, past: Slots, branches: Sequence[Branch], budget: int, *, rows: int = ROWS
) -> list[Said]:
    """Go on from each branch until its end, or its budget of tokens.

    Args:
        model: that encoded the images.
        encoded: the images.
        past: see `remember`.
        branches: any number.
        budget: most tokens of each.
        rows: branches that decode together.
    """
    said = [Said() for _ in branches]
    if not branches:
        return said
    waiting = list(range(len(branches)))[::-1]
    first = [waiting.pop() for _ in range(min(rows, len(waiting)))]
    states, slots = read(model, encoded, past, [branches[at] for at in first], budget)
    who: list[int] = first
    last = torch.stack([state[-1] for state in states])
    while True:
        chosen, likelihood = _greedy(model, last)
        leaving = []
        for row, (token, worth) in enumerate(zip(chosen.tolist(), likelihood.tolist(), strict=True)):
            one = said[who[row]]
            one.log_likelihood += worth
            if token == model.vocabulary.mark("eos"):
                leaving.append(row)
            else:
                one.tokens.append(token)
        staying = [row for row in range(len(who)) if row not in set(leaving)]
        if staying:
            slots = slots if not leaving else slots.kept(staying)
            who, chosen = [who[row] for row in staying], chosen[staying]
            last = model.language(model.language.embed(chosen)[:, None], slots)[:, 0]
            slots.advance([1] * len(who))
            for row, at in enumerate(who):
                said[at].hidden.append(last[row])
                said[at].cut = len(said[at].tokens) >= budget
            ended = [row for row, at in enumerate(who) if said[at].cut]
            if ended:
                keep = [row for row in range(len(who)) if row not in set(ended)]
                who, last, slots = [who[row] for row in keep], last[keep], slots.kept(keep)
        else:
            who, last = [], last[:0]
        free = min(rows - len(who), len(waiting))
        if free and (free >= rows // 4 or free == len(waiting)):
            new = [waiting.pop() for _ in range(free)]
            states, entering = read(model, encoded, past, [branches[at] for at in new], budget)
            slots = slots.joined(entering) if who else entering
            last = torch.cat([last, torch.stack([state[-1] for state in states])])
            who = who + new
        if not who:
            return said


@torch.inference_mode()
def likelihoods(
    model: EarthGPTX, encoded: Encoded, past: Slots, branches: Sequence[Branch], names: Sequence[str]
) -> Tensor:
    """How likely each name, ended by `<sep>`, follows each branch: log-likelihood per token, (branches, names).

    All names are read in one pass over their trie.
    """
    end = model.vocabulary.mark("sep")
    tokens, parents, paths = _trie([[*model.vocabulary.encode(name), end] for name in names])
    states, slots = read(model, encoded, past, branches, len(tokens))
    tree = torch.eye(len(tokens), dtype=torch.bool, device=model.device)
    for node, parent in enumerate(parents):
        if parent >= 0:
            tree[node] |= tree[parent]
    embedded = model.language.embed(torch.tensor(tokens, device=model.device)).expand(len(branches), -1, -1)
    hidden = model.language(embedded, slots, tree)
    start = torch.stack([state[-1] for state in states])[:, None]
    scored = model.language.logits(torch.cat([start, hidden], dim=1)).log_softmax(dim=-1)
    worth = scored[:, torch.tensor(parents, device=model.device) + 1, torch.tensor(tokens, device=model.device)]
    return torch.stack([worth[:, path].mean(dim=1) for path in paths], dim=1)


def _greedy(model: EarthGPTX, hidden: Tensor) -> tuple[Tensor, Tensor]:
    scored = model.language.logits(hidden).log_softmax(dim=-1)
    likelihood, chosen = scored.max(dim=-1)
    return chosen, likelihood


def _trie(sequences: Sequence[Sequence[int]]) -> tuple[list[int], list[int], list[list[int]]]:
    """Tokens of the nodes, the parent of each (-1 for the root), and the nodes of each sequence."""
    tokens: list[int] = []
    parents: list[int] = []
    children: dict[tuple[int, int], int] = {}
    paths = []
    for sequence in sequences:
        path, node = [], -1
        for token in sequence:
            if (node, token) not in children:
                children[node, token] = len(tokens)
                tokens.append(token)
                parents.append(node)
            node = children[node, token]
            path.append(node)
        paths.append(path)
    return tokens, parents, paths

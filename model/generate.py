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
from model.tokens import LOCATIONS, Vocabulary

ROWS = 256
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
    embedded = model.embed(encoded, branches)
    counts = [len(each) for each in embedded]
    slots = past.branched([branch.image for branch in branches], max(counts) + room)
    hidden = model.language(torch.nn.utils.rnn.pad_sequence(embedded, batch_first=True), slots)
    slots.advance(counts)
    return [row[:count] for row, count in zip(hidden, counts, strict=True)], slots


@torch.inference_mode()
def decode(
    model: EarthGPTX, encoded: Encoded, past: Slots, branches: Sequence[Branch], budget: int, *,
    marks: Sequence[str] = (), rows: int = ROWS,
) -> list[Said]:  # fmt: skip
    """Go on from each branch until its end, or its budget of tokens.

    After `<box>` come four location tokens, x1 y1 x2 y2, the second pair not before the first; elsewhere words, the
    end, and the marks given.

    Args:
        model: that encoded the images.
        encoded: the images.
        past: see `remember`.
        branches: any number.
        budget: most tokens of each.
        marks: that may be said beside words.
        rows: branches that decode together.
    """
    said = [Said() for _ in branches]
    if not branches:
        return said
    rules = _Rules(model, marks)
    waiting = list(range(len(branches)))[::-1]
    who: list[int] = []
    last = torch.empty(0)
    slots: Slots | None = None
    while True:
        free = min(rows - len(who), len(waiting))
        if free and (not who or free >= rows // 4 or free == len(waiting)):
            new = [waiting.pop() for _ in range(free)]
            states, entering = read(model, encoded, past, [branches[at] for at in new], budget)
            entered = torch.stack([state[-1] for state in states])
            slots = entering if slots is None or not who else slots.joined(entering)
            last = torch.cat([last, entered]) if who else entered
            who = who + new
        if slots is None or not who:
            return said
        chosen, likelihood = rules.choose(last, [(*branches[at].tokens[-4:], *said[at].tokens[-4:]) for at in who])
        staying = []
        for row, (token, worth) in enumerate(zip(chosen.tolist(), likelihood.tolist(), strict=True)):
            one = said[who[row]]
            one.log_likelihood += worth
            if token != rules.end:
                one.tokens.append(token)
                staying.append(row)
        if len(staying) < len(who):
            who, chosen, slots = [who[row] for row in staying], chosen[staying], slots.kept(staying)
        if not who:
            continue
        last = model.language(model.language.embed(chosen)[:, None], slots)[:, 0]
        slots.advance([1] * len(who))
        for row, at in enumerate(who):
            said[at].hidden.append(last[row])
            said[at].cut = len(said[at].tokens) >= budget
        staying = [row for row, at in enumerate(who) if not said[at].cut]
        if len(staying) < len(who):
            who, last, slots = [who[row] for row in staying], last[staying], slots.kept(staying)


@torch.inference_mode()
def likelihoods(model: EarthGPTX, states: Sequence[Tensor], slots: Slots, names: Trie) -> Tensor:
    """How likely each name, with its end, follows each branch: log-likelihood per token, (branches, names).

    All names are read in one pass over their trie.

    Args:
        model: that read the branches.
        states: of the branches, see `read`.
        slots: of the branches, with room for the trie; they stay as they are.
        names: that may follow.
    """
    tokens = torch.tensor(names.tokens, device=model.device)
    tree = torch.eye(len(tokens), dtype=torch.bool, device=model.device)
    for node, parent in enumerate(names.parents):
        if parent >= 0:
            tree[node] |= tree[parent]
    hidden = model.language(model.language.embed(tokens).expand(len(states), -1, -1), slots, tree)
    start = torch.stack([state[-1] for state in states])[:, None]
    scored = model.language.logits(torch.cat([start, hidden], dim=1)).log_softmax(dim=-1)
    worth = scored[:, torch.tensor(names.parents, device=model.device) + 1, tokens]
    return torch.stack([worth[:, path].mean(dim=1) for path in names.paths], dim=1)


class Trie:
    """Names that share their beginnings."""

    def __init__(self, vocabulary: Vocabulary, names: Sequence[str], end: str = "sep") -> None:
        """Tokens of the names, each ended by a mark, as nodes."""
        self.tokens: list[int] = []
        """Of each node."""
        self.parents: list[int] = []
        """Node before each; -1 for the root."""
        self.paths: list[list[int]] = []
        """Nodes of each name."""
        children: dict[tuple[int, int], int] = {}
        for name in names:
            path, node = [], -1
            for token in (*vocabulary.encode(name), vocabulary.mark(end)):
                if (node, token) not in children:
                    children[node, token] = len(self.tokens)
                    self.tokens.append(token)
                    self.parents.append(node)
                node = children[node, token]
                path.append(node)
            self.paths.append(path)


class _Rules:
    """What may be said next."""

    def __init__(self, model: EarthGPTX, marks: Sequence[str]) -> None:
        self._model, words = model, model.vocabulary
        self.end = words.mark("eos")
        self._box = words.mark("box")
        self._first = words.location(0)
        forbidden = words.unsayable(("eos", *marks))
        self._words = torch.zeros(model.config.language.vocabulary, device=model.device)
        self._words[[*forbidden, *range(len(words), len(self._words))]] = -torch.inf
        self._places = torch.full_like(self._words, -torch.inf)
        self._places[self._first : self._first + LOCATIONS] = 0

    def choose(self, hidden: Tensor, before: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """The likeliest token that may follow, and its log-likelihood among all.

        Args:
            hidden: (R, W).
            before: of each row, its last tokens; four at least, where there are as many.
        """
        scored = self._model.language.logits(hidden)
        total = scored.logsumexp(dim=-1)
        rules = self._words.expand_as(scored)
        boxes = {row: at for row, tokens in enumerate(before) if (at := self._in_box(tokens)) is not None}
        if boxes:
            rules = rules.clone()
            for row, least in boxes.items():
                rules[row] = self._places
                rules[row, self._first : self._first + least] = -torch.inf
        highest, chosen = (scored + rules).max(dim=-1)
        return chosen, highest - total

    def _in_box(self, before: Sequence[int]) -> int | None:
        """The least location that may follow inside a box; None outside of one."""
        last = list(before[-4:])
        if self._box not in last:
            return None
        said = last[len(last) - last[::-1].index(self._box) :]
        return said[len(said) - 2] - self._first if len(said) >= 2 else 0

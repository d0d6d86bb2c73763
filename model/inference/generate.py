"""Reads and decodes many branches on encoded images, with one shared prefix per image.

The tokens of an image are read once. Branches of all images of a batch decode together; when a row
ends, it leaves the batch and the next branch takes its slot. Decoding is greedy: the same image
gives the same words in any batch and in any order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from earthgptx.model.network.earthgptx import EarthGPTX
from earthgptx.model.network.encoded import Branch, Encoded
from earthgptx.model.network.language import Slots
from earthgptx.model.network.tokens import LOCATIONS, Vocabulary

ROWS = 256
"""Most branches that decode together."""


@dataclass(slots=True)
class Generated:
    """The continuation of a branch."""

    tokens: list[int] = field(default_factory=list)
    """Generated tokens, without `<eos>`."""
    hidden: list[Tensor] = field(default_factory=list)
    """Hidden state (W) at each token, after the model has read the token."""
    log_likelihood: float = 0.0
    """Log-likelihood of the tokens and `<eos>`."""
    cut: bool = False
    """True if the continuation reached its budget."""


@torch.inference_mode()
def read_prefix(model: EarthGPTX, encoded: Encoded) -> Slots:
    """Reads the prefixes of the images into slots that all branches share, one row per image."""
    images, count, _ = encoded.prefix.shape
    past = Slots.empty(model.language, images, count)
    model.language(encoded.prefix, past)
    past.advance([count] * images)
    return past


@torch.inference_mode()
def read(
    model: EarthGPTX, encoded: Encoded, past: Slots, branches: Sequence[Branch], room: int = 0
) -> tuple[list[Tensor], Slots]:
    """Reads branches in one pass.

    Returns:
        The hidden states of each branch, (Q, W), and the slots of the branches, with space for
        `room` more tokens after the longest branch.
    """
    embedded = model.embed(encoded, branches)
    counts = [len(each) for each in embedded]
    slots = past.branched([branch.image for branch in branches], max(counts) + room)
    hidden = model.language(torch.nn.utils.rnn.pad_sequence(embedded, batch_first=True), slots)
    slots.advance(counts)
    return [row[:count] for row, count in zip(hidden, counts, strict=True)], slots


@torch.inference_mode()
def decode(
    model: EarthGPTX,
    encoded: Encoded,
    past: Slots,
    branches: Sequence[Branch],
    budget: int,
    *,
    marks: Sequence[str] = (),
    rows: int = ROWS,
) -> list[Generated]:
    """Continues each branch until `<eos>` or until its token budget is used up.

    After `<box>` follow four location tokens, x1 y1 x2 y2, where x2 >= x1 and y2 >= y1. Elsewhere
    only words, `<eos>` and the given marks may follow.

    Args:
        model: model that encoded the images.
        encoded: encoded images.
        past: slots of the prefixes, see `read_prefix`.
        branches: branches to continue, any number.
        budget: most tokens per branch.
        marks: marks that may be generated besides words.
        rows: most branches that decode together.
    """
    said = [Generated() for _ in branches]
    rules = _Rules(model, marks)
    waiting = list(range(len(branches)))[::-1]
    batch = _Batch(model)
    while waiting or batch.who:
        free = min(rows - len(batch.who), len(waiting))
        if free and (not batch.who or free >= rows // 4 or free == len(waiting)):
            new = [waiting.pop() for _ in range(free)]
            states, slots = read(model, encoded, past, [branches[at] for at in new], budget)
            batch.enter(new, torch.stack([state[-1] for state in states]), slots)
        before = [(*branches[at].tokens[-4:], *said[at].tokens[-4:]) for at in batch.who]
        chosen, likelihood = rules.choose(batch.last, before)
        tokens = chosen.tolist()
        for at, token, worth in zip(batch.who, tokens, likelihood.tolist(), strict=True):
            said[at].log_likelihood += worth
            if token != rules.end:
                said[at].tokens.append(token)
        staying = [row for row, token in enumerate(tokens) if token != rules.end]
        batch.keep(staying)
        if not batch.who:
            continue
        batch.advance(chosen[staying])
        for row, at in enumerate(batch.who):
            said[at].hidden.append(batch.last[row])
            said[at].cut = len(said[at].tokens) >= budget
        batch.keep([row for row, at in enumerate(batch.who) if not said[at].cut])
    return said


class _Batch:
    """The branches that currently decode together."""

    def __init__(self, model: EarthGPTX) -> None:
        self._model = model
        self.who: list[int] = []
        """Branch number of each row."""
        self.last = torch.empty(0)
        """(R, W) last hidden state of each row."""
        self._slots: Slots | None = None

    def enter(self, who: list[int], last: Tensor, slots: Slots) -> None:
        """Adds rows behind the present ones.

        Args:
            who: number of the branch in each new row.
            last: (R, W) last hidden state of each new row.
            slots: slots of the new rows.
        """
        if self._slots is None or not self.who:
            self.last, self._slots = last, slots
        else:
            self.last = torch.cat([self.last, last])
            self._slots = self._slots.joined(slots)
        self.who = self.who + who

    def keep(self, rows: list[int]) -> None:
        """Drops all rows but these."""
        if len(rows) < len(self.who):
            assert self._slots is not None
            self.who, self.last = [self.who[row] for row in rows], self.last[rows]
            self._slots = self._slots.kept(rows)

    def advance(self, chosen: Tensor) -> None:
        """Appends one token (R) to each row and reads it."""
        assert self._slots is not None
        language = self._model.language
        self.last = language(language.embed(chosen)[:, None], self._slots)[:, 0]
        self._slots.advance([1] * len(self.who))


@torch.inference_mode()
def likelihoods(model: EarthGPTX, states: Sequence[Tensor], slots: Slots, names: Trie) -> Tensor:
    """Scores how likely each name, with its end mark, follows each branch.

    All names are read in one pass over their trie.

    Args:
        model: model that read the branches.
        states: hidden states of the branches, see `read`.
        slots: slots of the branches, with room for the trie; their fill levels do not change.
        names: names that may follow.

    Returns:
        (branches, names) mean log-likelihood per token.
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
    """A prefix tree of the tokens of names; common beginnings share nodes."""

    def __init__(self, vocabulary: Vocabulary, names: Sequence[str], end: str = "sep") -> None:
        """Builds the tree from the tokens of the names, each followed by the mark `end`."""
        self.tokens: list[int] = []
        """Token of each node."""
        self.parents: list[int] = []
        """Parent of each node; -1 for the first token of a name."""
        self.paths: list[list[int]] = []
        """Nodes of each name, from its first token to its end mark."""
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
    """Restricts which tokens may follow and chooses among them."""

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
        """Returns each row's most likely allowed token, and its log-likelihood among all tokens.

        Args:
            hidden: (R, W) last hidden states.
            before: last tokens of each row, at least four (or all, if a row has fewer).
        """
        scored = self._model.language.logits(hidden)
        total = scored.logsumexp(dim=-1)
        rules = self._words.expand_as(scored)
        boxes = {
            row: at for row, tokens in enumerate(before) if (at := self._in_box(tokens)) is not None
        }
        if boxes:
            rules = rules.clone()
            for row, least in boxes.items():
                rules[row] = self._places
                rules[row, self._first : self._first + least] = -torch.inf
        highest, chosen = (scored + rules).max(dim=-1)
        return chosen, highest - total

    def _in_box(self, before: Sequence[int]) -> int | None:
        """Returns the lowest location that may follow inside a box; None outside a box."""
        last = list(before[-4:])
        if self._box not in last:
            return None
        said = last[len(last) - last[::-1].index(self._box) :]
        return said[len(said) - 2] - self._first if len(said) >= 2 else 0

"""One vocabulary for words, boxes, regions, sensors and masks: a byte-level BPE and the marks beside it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import get_args

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from model.errors import ModelError, WeightsError
from model.tile import Modality

LOCATIONS = 512
"""Bins of a box's edge: with 512 every small box of 17,628 real ones keeps IoU >= 0.7, with 100 only 69 %."""
MODALITIES: tuple[Modality, ...] = get_args(Modality)
MARKS = (
    "<pad>", "<eos>", *(f"<{name}>" for name in MODALITIES), "<find>", "<refer>", "<describe>", "<ask>", "<locate>",
    "<mark>", "<sep>", "<p>", "</p>", "<box>", "<seg>", "<segs>", "<none>", "<around>",
)  # fmt: skip
"""`<seg>` is one instance, `<segs>` a group, `<none>` says that there is none; `<mark>` stands before a region's
own tokens; `<p>`, `</p>` enclose words that carry a mask; `<around>` stands before the tokens of the wider view that
an image lies in."""


class Vocabulary:
    """Text to numbers and back."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Wrap a tokenizer that has all marks.

        Raises:
            WeightsError: it lacks some.
        """
        self._tokenizer = tokenizer
        known = tokenizer.get_vocab()
        missing = [name for name in (*MARKS, *_locations()) if name not in known]
        if missing:
            raise WeightsError(
                f"the tokenizer has no token {missing[0]} ({len(missing)} missing); it is another model's"
            )
        self._ids: dict[str, int] = {name: known[name] for name in (*MARKS, *_locations())}
        self._marks = frozenset(self._tokenizer.get_added_tokens_decoder())

    @classmethod
    def train(cls, corpus: Iterable[str], size: int) -> Vocabulary:
        """Learn a byte-level BPE of at most `size` tokens, marks included. No text is unknown to it."""
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        tokenizer.decoder = decoders.ByteLevel()
        # A space before each word, the first too: a word is the same token wherever it stands.
        corpus = (f" {_plain(text)}" for text in corpus)
        trainer = trainers.BpeTrainer(
            vocab_size=size, special_tokens=[*MARKS, *_locations()], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )  # fmt: skip
        tokenizer.train_from_iterator(corpus, trainer)
        return cls(tokenizer)

    @classmethod
    def beside(cls, tokenizer: Tokenizer) -> Vocabulary:
        """A language model's own tokenizer, with the marks added behind its tokens."""
        tokenizer.add_special_tokens([AddedToken(name, special=True) for name in (*MARKS, *_locations())])
        return cls(tokenizer)

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Read `tokenizer.json`.

        Raises:
            WeightsError: it cannot be read.
        """
        try:
            return cls(Tokenizer.from_file(str(path)))
        except Exception as error:  # tokenizers raises bare exceptions
            raise WeightsError(f"{path} is no tokenizer ({error}); the folder is incomplete") from error

    def save(self, path: Path) -> None:
        """Write `tokenizer.json`."""
        path.write_text(json.dumps(json.loads(self._tokenizer.to_str()), ensure_ascii=False))

    def __len__(self) -> int:
        return int(self._tokenizer.get_vocab_size())

    def mark(self, name: str) -> int:
        """The token of a mark, `seg` or `<seg>`."""
        return self._ids[name if name.startswith("<") else f"<{name}>"]

    def location(self, at: float) -> int:
        """The token of the bin that a left or upper edge lies in, `at` in 0..1 of the image's side."""
        return self._ids[f"<loc{min(max(int(at * LOCATIONS), 0), LOCATIONS - 1)}>"]

    def edge(self, at: float) -> int:
        """The token of the last bin before a right or lower edge, `at` in 0..1 of the image's side."""
        return self._ids[f"<loc{min(max(math.ceil(at * LOCATIONS) - 1, 0), LOCATIONS - 1)}>"]

    def place(self, token: int) -> float | None:
        """The middle of a location token's bin, in 0..1; None for any other token."""
        number = token - self._ids["<loc0>"]
        return (number + 0.5) / LOCATIONS if 0 <= number < LOCATIONS else None

    def unsayable(self, marks: Sequence[str]) -> list[int]:
        """Tokens that are neither words nor one of the marks given."""
        allowed = {self.mark(name) for name in marks}
        return sorted(self._marks - allowed)

    def encode(self, text: str) -> list[int]:
        """Tokens of a text. Angle brackets are read as round ones: a phrase cannot smuggle a mark in.

        Raises:
            ModelError: the text is empty.
        """
        plain = _plain(text)
        if not plain:
            raise ModelError("an empty text was given where words are needed")
        return list(self._tokenizer.encode(f" {plain}", add_special_tokens=False).ids)

    def decode(self, tokens: Sequence[int]) -> str:
        """The words among the tokens, marks left out."""
        words = [token for token in tokens if token not in self._marks]
        return str(self._tokenizer.decode(words, skip_special_tokens=False)).strip()


def _plain(text: str) -> str:
    return " ".join(text.replace("<", "(").replace(">", ")").split())


def _locations() -> list[str]:
    return [f"<loc{number}>" for number in range(LOCATIONS)]

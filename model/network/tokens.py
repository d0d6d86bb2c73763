"""The vocabulary: byte-level BPE for text, plus marks for boxes, regions, sensors and masks."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import get_args

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from earthgptx.model.interface.errors import ModelError, WeightsError
from earthgptx.model.interface.tile import Modality

LOCATIONS = 512
"""Bins along a side of the image for box edges. Of 17,628 real boxes, every small one keeps
IoU >= 0.7 with 512 bins, only 69 % with 100."""
MODALITIES: tuple[Modality, ...] = get_args(Modality)
MARKS = (
    "<pad>",
    "<eos>",
    *(f"<{name}>" for name in MODALITIES),
    "<find>",
    "<refer>",
    "<describe>",
    "<ask>",
    "<locate>",
    "<mark>",
    "<sep>",
    "<p>",
    "</p>",
    "<box>",
    "<seg>",
    "<segs>",
    "<none>",
    "<around>",
)
"""`<seg>` stands for one instance, `<segs>` for a group and `<none>` for no object. `<mark>`
precedes the tokens of a region. `<p>` and `</p>` enclose words that have a mask. `<around>`
precedes the tokens of the wider view of an image."""


class Vocabulary:
    """Converts text to token ids and back."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Wraps a tokenizer that has all marks and location tokens.

        Raises:
            WeightsError: if a mark or location token is missing.
        """
        self._tokenizer = tokenizer
        known = tokenizer.get_vocab()
        missing = [name for name in (*MARKS, *_locations()) if name not in known]
        if missing:
            raise WeightsError(
                f"the tokenizer has no token {missing[0]} ({len(missing)} missing); "
                "it is another model's"
            )
        self._ids: dict[str, int] = {name: known[name] for name in (*MARKS, *_locations())}
        self._marks = frozenset(self._tokenizer.get_added_tokens_decoder())

    @classmethod
    def train(cls, corpus: Iterable[str], size: int) -> Vocabulary:
        """Trains a byte-level BPE of at most `size` tokens, with marks. It can encode any text."""
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )
        tokenizer.decoder = decoders.ByteLevel()
        # The first word also gets a leading space, so that a word has the same tokens everywhere.
        corpus = (f" {_plain(text)}" for text in corpus)
        trainer = trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=[*MARKS, *_locations()],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(corpus, trainer)
        return cls(tokenizer)

    @classmethod
    def beside(cls, tokenizer: Tokenizer) -> Vocabulary:
        """Wraps a language model's tokenizer and adds the marks after its tokens, in place."""
        tokenizer.add_special_tokens(
            [AddedToken(name, special=True) for name in (*MARKS, *_locations())]
        )
        return cls(tokenizer)

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Reads `tokenizer.json`.

        Raises:
            WeightsError: if it cannot be read.
        """
        try:
            return cls(Tokenizer.from_file(str(path)))
        except Exception as error:  # tokenizers raises bare exceptions
            raise WeightsError(
                f"{path} is no tokenizer ({error}); the folder is incomplete"
            ) from error

    def save(self, path: Path) -> None:
        """Writes `tokenizer.json`."""
        path.write_text(json.dumps(json.loads(self._tokenizer.to_str()), ensure_ascii=False))

    def __len__(self) -> int:
        return int(self._tokenizer.get_vocab_size())

    def mark(self, name: str) -> int:
        """Token of a mark, given as `seg` or `<seg>`."""
        return self._ids[name if name.startswith("<") else f"<{name}>"]

    def location(self, at: float) -> int:
        """Token of the bin that contains a left or upper edge, `at` in 0..1 of the image's side."""
        return self._ids[f"<loc{min(max(int(at * LOCATIONS), 0), LOCATIONS - 1)}>"]

    def edge(self, at: float) -> int:
        """Token of the last bin before a right or lower edge, `at` in 0..1 of the image's side."""
        return self._ids[f"<loc{min(max(math.ceil(at * LOCATIONS) - 1, 0), LOCATIONS - 1)}>"]

    def place(self, token: int) -> float | None:
        """Centre of a location token's bin, in 0..1; None for any other token."""
        number = token - self._ids["<loc0>"]
        return (number + 0.5) / LOCATIONS if 0 <= number < LOCATIONS else None

    def unsayable(self, marks: Sequence[str]) -> list[int]:
        """Added tokens (marks, locations) except `marks`, sorted; they must not be generated."""
        allowed = {self.mark(name) for name in marks}
        return sorted(self._marks - allowed)

    def encode(self, text: str) -> list[int]:
        """Encodes a text as token ids.

        Angle brackets are replaced by round ones, so that a phrase cannot inject a mark.

        Raises:
            ModelError: if the text is empty.
        """
        plain = _plain(text)
        if not plain:
            raise ModelError("an empty text was given where words are needed")
        return list(self._tokenizer.encode(f" {plain}", add_special_tokens=False).ids)

    def decode(self, tokens: Sequence[int]) -> str:
        """Decodes tokens to text without marks."""
        words = [token for token in tokens if token not in self._marks]
        return str(self._tokenizer.decode(words, skip_special_tokens=False)).strip()


def _plain(text: str) -> str:
    return " ".join(text.replace("<", "(").replace(">", ")").split())


def _locations() -> list[str]:
    return [f"<loc{number}>" for number in range(LOCATIONS)]

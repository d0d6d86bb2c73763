"""The language model behind one thin face: any causal LM of transformers that keeps its past in a cache.

Rows of a batch have slots of their own: each row knows how much of its slot is filled, and a key that lies beyond is
never seen. So there is no padding between the tokens of a row, a row that has ended can leave and another take its
slot, and what a row says does not depend on the others.
"""

# R rows, Q new tokens, L slot length, W width of the language model, H key heads, D channels of a head

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from model.config import LanguageConfig


class Language(nn.Module):
    """A causal language model that reads embeddings."""

    def __init__(self, config: LanguageConfig) -> None:
        """Build a Llama with random weights."""
        super().__init__()
        self.causal: Any = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=config.vocabulary, hidden_size=config.width, num_hidden_layers=config.layers,
                num_attention_heads=config.heads, num_key_value_heads=config.kv_heads, intermediate_size=config.mlp,
                tie_word_embeddings=True, max_position_embeddings=4096, bos_token_id=None,
                eos_token_id=None,
            )
        )  # fmt: skip

    @property
    def width(self) -> int:
        """W."""
        return int(self.causal.config.hidden_size)

    def embed(self, tokens: Tensor) -> Tensor:
        """(...) token numbers to (..., W)."""
        embedded: Tensor = self.causal.get_input_embeddings()(tokens)
        return embedded

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., W) last hidden states to (..., vocabulary) log-odds, float32."""
        scored: Tensor = self.causal.lm_head(hidden)
        return scored.float()

    def forward(self, embeds: Tensor, slots: Slots | None = None, tree: Tensor | None = None) -> Tensor:
        """Hidden states of new tokens, which follow what is in the slots.

        Args:
            embeds: (R, Q, W). Rows with fewer tokens are padded at their end; tell `Slots.advance` their true number.
            slots: the rows' past; None for none, and nothing is kept.
            tree: (Q, Q) bool, which of the new tokens each of them follows, itself included; None for one after the
                other. Tokens of a tree are read, not kept: do not advance after them.

        Returns:
            (R, Q, W).
        """
        rows, count, _ = embeds.shape
        new = torch.arange(count, device=embeds.device)
        start = torch.zeros(rows, dtype=torch.long, device=embeds.device) if slots is None else slots.filled
        if tree is None:
            tree = new[:, None] >= new
        positions = start[:, None] + tree.sum(dim=1) - 1
        last = count if slots is None else slots.longest + count
        # Of the keys, those of the past, and of the new ones those that a token follows.
        behind = torch.arange(last, device=embeds.device) - start[:, None]
        among = tree[:, behind.clamp(0, count - 1)].transpose(0, 1) & (behind >= 0)[:, None] & (behind < count)[:, None]
        seen = (behind < 0)[:, None] | among
        answer = self.causal.model(
            inputs_embeds=embeds, attention_mask=seen[:, None], position_ids=positions, past_key_values=slots,
            use_cache=slots is not None,
        )  # fmt: skip
        hidden: Tensor = answer.last_hidden_state
        return hidden


class Slots:
    """Keys and values of R rows; what transformers calls a cache."""

    is_compileable = False

    def __init__(self, held: Tensor, filled: Tensor) -> None:
        """Keep what rows hold.

        Args:
            held: (layers, 2, R, H, L, D) keys and values.
            filled: (R) long, tokens in each row's slot.
        """
        self._held = held
        self._measure(filled)

    @classmethod
    def empty(cls, language: Language, rows: int, length: int) -> Slots:
        """Room for `rows` rows of at most `length` tokens; nothing is in it."""
        config, like = language.causal.config, next(language.parameters())
        head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        shape = (config.num_hidden_layers, 2, rows, config.num_key_value_heads, length, head)
        held = torch.zeros(shape, dtype=like.dtype, device=like.device)
        return cls(held, torch.zeros(rows, dtype=torch.long, device=like.device))

    def _measure(self, filled: Tensor) -> None:
        self.filled = filled
        """(R) tokens in each row's slot."""
        self.longest = int(filled.max()) if len(filled) else 0
        self.even = bool((filled == self.longest).all())
        """Whether all rows hold as many."""

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Put new keys and values (R, H, Q, D) behind each row's own; transformers calls it in every layer."""
        count = keys.shape[2]
        held_keys, held_values = self._held[layer, 0], self._held[layer, 1]
        last = self.longest + count
        if self.even:  # a slice is written several times faster than scattered places
            held_keys[:, :, self.longest : last] = keys
            held_values[:, :, self.longest : last] = values
        else:
            rows = torch.arange(len(keys), device=keys.device)[:, None]
            places = self.filled[:, None] + torch.arange(count, device=keys.device)
            held_keys[rows, :, places] = keys.transpose(1, 2)
            held_values[rows, :, places] = values.transpose(1, 2)
        return held_keys[:, :, :last], held_values[:, :, :last]

    def get_seq_length(self, layer: int = 0) -> int:  # noqa: ARG002
        """Asked for by transformers."""
        return self.longest

    def advance(self, counts: Sequence[int]) -> None:
        """Say how many of the last tokens of each row were true ones."""
        self._measure(self.filled + torch.tensor(list(counts), dtype=torch.long, device=self.filled.device))

    def branched(self, rows: Sequence[int], length: int) -> Slots:
        """New slots whose rows start as copies of the rows named, with room for `length` tokens more."""
        at = torch.tensor(list(rows), dtype=torch.long, device=self.filled.device)
        held = self._held[:, :, at, :, : self.longest]
        room = torch.zeros((*held.shape[:4], length, held.shape[5]), dtype=held.dtype, device=held.device)
        return Slots(torch.cat([held, room], dim=4), self.filled[at])

    def kept(self, rows: Sequence[int]) -> Slots:
        """The same slots with only some of the rows."""
        return self.branched(rows, self._held.shape[4] - self.longest)

    def joined(self, others: Slots) -> Slots:
        """These rows and then the others'."""
        length = max(self._held.shape[4], others._held.shape[4])
        both = [torch.nn.functional.pad(each._held, (0, 0, 0, length - each._held.shape[4])) for each in (self, others)]
        return Slots(torch.cat(both, dim=2), torch.cat([self.filled, others.filled]))

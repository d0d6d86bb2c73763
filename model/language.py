"""The language model behind one thin face: any causal LM of transformers that keeps its past in a cache.

Rows of a batch have slots of their own: each row knows how much of its slot is filled, and a key that lies beyond is
never seen. So there is no padding between the tokens of a row, a row that has ended can leave and another take its
slot, and what a row says does not depend on the others. What rows go on from, the tokens of their image, is kept once
and not once a row: each image's rows ask its keys together (Juravsky et al. 2024, Hydragen).
"""

# R rows, Q new tokens, L slot length, T tokens of an image, W width of the language model, H key heads, D channels of a
# head, G query heads that share a key head

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, AutoConfig, AutoModelForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from model.config import LanguageConfig
from model.errors import ConfigError

ATTENTION = "image_once"
"""Our attention's name in transformers' register."""
LORA_SCALE = 2
"""Of the adapters' output, times their rank over their rank; 2 as in LISA."""


class Language(nn.Module):
    """A causal language model that reads embeddings."""

    def __init__(self, config: LanguageConfig) -> None:
        """Build it with random weights.

        Raises:
            ConfigError: transformers has no such architecture.
        """
        super().__init__()
        try:
            built = AutoConfig.for_model(
                config.architecture, vocab_size=config.vocabulary, hidden_size=config.width, num_hidden_layers=config.layers,
                num_attention_heads=config.heads, num_key_value_heads=config.kv_heads, intermediate_size=config.mlp,
                bos_token_id=None, eos_token_id=None, pad_token_id=None, **config.details,
            )  # fmt: skip
            self.causal: Any = AutoModelForCausalLM.from_config(built, attn_implementation=ATTENTION)
        except ValueError as error:
            raise ConfigError(
                f"config.json, language.architecture: transformers builds no causal language model of '{config.architecture}' "
                f"({str(error)[:120]})"
            ) from error
        if config.lora_rank:
            self._adapt(config.lora_rank)

    def _adapt(self, rank: int) -> None:
        """Freeze the layers and put adapters beside their projections; embeddings learn, since the marks are new."""
        from peft import LoraConfig, inject_adapter_in_model

        lora = LoraConfig(
            r=rank, lora_alpha=LORA_SCALE * rank, target_modules="all-linear", exclude_modules=["lm_head"]
        )
        inject_adapter_in_model(lora, self.causal)
        for name, weight in self.causal.named_parameters():
            weight.requires_grad = "lora_" in name or "embed_tokens" in name

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
            tree: (Q, Q) bool, or (R, Q, Q) for rows of their own: which of the new tokens each of them follows, itself
                included; None for one after the other. Tokens of a tree are read, not kept: do not advance after them.

        Returns:
            (R, Q, W).
        """
        rows, count, _ = embeds.shape
        new = torch.arange(count, device=embeds.device)
        start = torch.zeros(rows, dtype=torch.long, device=embeds.device) if slots is None else slots.filled
        before = 0 if slots is None or slots.prefix is None else slots.prefix.shape[4]
        if tree is None:
            tree = new[:, None] >= new
        positions = before + start[:, None] + tree.sum(dim=-1) - 1
        last = count if slots is None else slots.longest + count
        # Of the keys, those of the past, and of the new ones those that a token follows.
        behind = torch.arange(last, device=embeds.device) - start[:, None]
        at = behind.clamp(0, count - 1)[:, None].expand(-1, count, -1)
        among = tree.expand(rows, -1, -1).gather(2, at) & (behind >= 0)[:, None] & (behind < count)[:, None]
        seen = (behind < 0)[:, None] | among
        answer = self.causal.model(
            inputs_embeds=embeds, attention_mask=seen[:, None], position_ids=positions, past_key_values=slots,
            use_cache=slots is not None, slots=slots,
        )  # fmt: skip
        hidden: Tensor = answer.last_hidden_state
        return hidden


class Slots:
    """Keys and values of R rows; what transformers calls a cache."""

    is_compileable = False

    def __init__(self, held: Tensor, filled: Tensor, prefix: Tensor | None = None, images: Sequence[int] = ()) -> None:
        """Keep what rows hold.

        Args:
            held: (layers, 2, R, H, L, D) keys and values of the rows' own tokens.
            filled: (R) long, tokens in each row's slot.
            prefix: (layers, 2, B, H, T, D) keys and values of the images that the rows go on from; None for none.
            images: of each row.
        """
        self._held, self.prefix, self._images = held, prefix, list(images)
        self._measure(filled)
        self.groups: list[tuple[int, slice | Tensor]] = []
        """Images, and the rows that go on from each."""
        for image in sorted(set(self._images)):
            rows = [row for row, of in enumerate(self._images) if of == image]
            together = rows[-1] - rows[0] + 1 == len(rows)
            at = slice(rows[0], rows[-1] + 1) if together else torch.tensor(rows, device=filled.device)
            self.groups.append((image, at))

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

    def branched(self, images: Sequence[int], length: int) -> Slots:
        """Empty slots for `length` tokens, whose rows go on from the rows named; all of these hold as many tokens."""
        shape = (*self._held.shape[:2], len(images), self._held.shape[3], length, self._held.shape[5])
        return Slots(
            self._held.new_zeros(shape), self.filled.new_zeros(len(images)), self._held[..., : self.longest, :], images
        )

    def kept(self, rows: Sequence[int]) -> Slots:
        """The same slots with only some of the rows."""
        at = torch.tensor(list(rows), dtype=torch.long, device=self.filled.device)
        return Slots(self._held[:, :, at], self.filled[at], self.prefix, [self._images[row] for row in rows])

    def joined(self, others: Slots) -> Slots:
        """These rows and then the others', which go on from the same images."""
        length = max(self._held.shape[4], others._held.shape[4])
        both = [torch.nn.functional.pad(each._held, (0, 0, 0, length - each._held.shape[4])) for each in (self, others)]
        filled = torch.cat([self.filled, others.filled])
        return Slots(torch.cat(both, dim=2), filled, self.prefix, self._images + others._images)


def _attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, *, scaling: float,
    slots: Slots | None = None, **more: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """Attention of transformers' form, (R, G * H, Q, D) to (R, Q, G * H, D), over the image's keys and a row's own."""
    if slots is None or slots.prefix is None:
        attended: Tensor = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **more)[0]
        return attended, None
    assert attention_mask is not None
    keys, values = slots.prefix[module.layer_idx]
    rows, _, count, _ = query.shape
    heads = key.shape[1]
    asked = query.unflatten(1, (heads, -1)).flatten(2, 3) * scaling  # (R, H, G Q, D)
    own = (asked @ key.mT).unflatten(2, (-1, count)).masked_fill(~attention_mask[:, :, None], -torch.inf).flatten(2, 3)
    shared = own.new_empty((rows, heads, asked.shape[2], keys.shape[2]))
    for image, at in slots.groups:
        shared[at] = _together(asked[at], keys[image].mT)
    weights = torch.cat([shared, own], dim=-1).softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    of_image, of_row = weights.split([shared.shape[-1], own.shape[-1]], dim=-1)
    found = of_row @ value
    for image, at in slots.groups:
        found[at] += _together(of_image[at], values[image])
    return found.unflatten(2, (-1, count)).flatten(1, 2).transpose(1, 2), None


def _together(rows: Tensor, of_image: Tensor) -> Tensor:
    """(N, H, M, D) times (H, D, T) as one product a head, (N, H, M, T)."""
    return (rows.transpose(0, 1).flatten(1, 2) @ of_image).unflatten(1, (len(rows), -1)).transpose(0, 1)


AttentionInterface.register(ATTENTION, _attend)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)

"""The language model: a thin wrapper around any causal LM of transformers with a key-value cache.

Each row of a batch has its own slot in the cache and tracks how much of it is filled; keys beyond
that are masked. So the tokens of a row need no padding between them, a finished row can be replaced
by another, and the output of a row does not depend on other rows. The prefix, the tokens of an
image, is stored once per image instead of once per row: all rows of an image attend to its keys
together (Juravsky et al. 2024, Hydragen).
"""

# R rows, Q new tokens, L slot length, T tokens of an image, W width of the language model,
# H key heads, D channels per head, G query heads per key head

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    AutoConfig,
    AutoModelForCausalLM,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from earthgptx.model.interface.config import LanguageConfig
from earthgptx.model.interface.errors import ConfigError

ATTENTION = "image_once"
"""Name under which `_attend` is registered in transformers."""
LORA_SCALE = 2
"""Scale of the adapters' output (LoRA's alpha divided by the rank); 2 as in LISA."""


class Language(nn.Module):
    """A causal language model that takes embeddings as input."""

    def __init__(self, config: LanguageConfig) -> None:
        """Builds the module with random weights.

        Raises:
            ConfigError: if transformers cannot build a causal language model of this architecture.
        """
        super().__init__()
        try:
            built = AutoConfig.for_model(
                config.architecture,
                vocab_size=config.vocabulary,
                hidden_size=config.width,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                num_key_value_heads=config.kv_heads,
                intermediate_size=config.mlp,
                bos_token_id=None,
                eos_token_id=None,
                pad_token_id=None,
                **config.details,
            )
            self.causal: Any = AutoModelForCausalLM.from_config(
                built, attn_implementation=ATTENTION
            )
        except ValueError as error:
            raise ConfigError(
                "config.json, language.architecture: transformers builds no causal language model "
                f"of '{config.architecture}' ({str(error)[:120]})"
            ) from error
        if config.lora_rank:
            self._adapt(config.lora_rank)

    def _adapt(self, rank: int) -> None:
        """Freezes the layers and adds LoRA adapters to their linear projections.

        Embeddings stay trainable, since the marks are new tokens.
        """
        from peft import LoraConfig, inject_adapter_in_model

        lora = LoraConfig(
            r=rank,
            lora_alpha=LORA_SCALE * rank,
            target_modules="all-linear",
            exclude_modules=["lm_head"],
        )
        inject_adapter_in_model(lora, self.causal)
        for name, weight in self.causal.named_parameters():
            weight.requires_grad = "lora_" in name or "embed_tokens" in name

    @property
    def width(self) -> int:
        """Width W of the hidden states."""
        return int(self.causal.config.hidden_size)

    def embed(self, tokens: Tensor) -> Tensor:
        """Embeds (...) token ids as (..., W)."""
        embedded: Tensor = self.causal.get_input_embeddings()(tokens)
        return embedded

    def logits(self, hidden: Tensor) -> Tensor:
        """Maps (..., W) last hidden states to (..., vocabulary) logits, float32."""
        scored: Tensor = self.causal.lm_head(hidden)
        return scored.float()

    def forward(
        self, embeds: Tensor, slots: Slots | None = None, tree: Tensor | None = None
    ) -> Tensor:
        """Returns hidden states of new tokens that follow the tokens in the slots.

        Args:
            embeds: (R, Q, W) embeddings of the new tokens. Rows with fewer tokens are padded at
                their end; pass their true counts to `Slots.advance`.
            slots: cache of the rows' earlier tokens; None for no earlier tokens and no caching.
            tree: (Q, Q) bool, or (R, Q, Q) for one tree per row: the new tokens that each new token
                attends to, itself included. None for causal order. Do not call `Slots.advance`
                after a tree: its tokens must not stay in the cache.

        Returns:
            (R, Q, W) hidden states.
        """
        rows, count, _ = embeds.shape
        new = torch.arange(count, device=embeds.device)
        start = (
            torch.zeros(rows, dtype=torch.long, device=embeds.device)
            if slots is None
            else slots.filled
        )
        before = 0 if slots is None or slots.prefix is None else slots.prefix.shape[4]
        if tree is None:
            tree = new[:, None] >= new
        positions = before + start[:, None] + tree.sum(dim=-1) - 1
        last = count if slots is None else slots.longest + count
        # A token attends to all past keys of its row and to those new keys that `tree` allows.
        behind = torch.arange(last, device=embeds.device) - start[:, None]
        at = behind.clamp(0, count - 1)[:, None].expand(-1, count, -1)
        among = (
            tree.expand(rows, -1, -1).gather(2, at)
            & (behind >= 0)[:, None]
            & (behind < count)[:, None]
        )
        seen = (behind < 0)[:, None] | among
        answer = self.causal.model(
            inputs_embeds=embeds,
            attention_mask=seen[:, None],
            position_ids=positions,
            past_key_values=slots,
            use_cache=slots is not None,
            slots=slots,
        )
        hidden: Tensor = answer.last_hidden_state
        return hidden


class Slots:
    """Key-value cache of R rows, with the interface of a cache in transformers."""

    is_compileable = False

    def __init__(
        self, held: Tensor, filled: Tensor, prefix: Tensor | None = None, images: Sequence[int] = ()
    ) -> None:
        """Wraps keys and values.

        Args:
            held: (layers, 2, R, H, L, D) keys and values of the rows' own tokens.
            filled: (R) long, number of tokens in each row's slot.
            prefix: (layers, 2, B, H, T, D) keys and values of the images that the rows continue;
                None for no prefix.
            images: image index of each row; empty without a prefix.
        """
        self._held, self.prefix, self._images = held, prefix, list(images)
        self._measure(filled)
        self.groups: list[tuple[int, slice | Tensor]] = []
        """Pairs of an image index and the rows that continue this image."""
        for image in sorted(set(self._images)):
            rows = [row for row, of in enumerate(self._images) if of == image]
            together = rows[-1] - rows[0] + 1 == len(rows)
            at = (
                slice(rows[0], rows[-1] + 1)
                if together
                else torch.tensor(rows, device=filled.device)
            )
            self.groups.append((image, at))

    @classmethod
    def empty(cls, language: Language, rows: int, length: int) -> Slots:
        """Empty slots for `rows` rows of at most `length` tokens."""
        config, like = language.causal.config, next(language.parameters())
        head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        shape = (config.num_hidden_layers, 2, rows, config.num_key_value_heads, length, head)
        held = torch.zeros(shape, dtype=like.dtype, device=like.device)
        return cls(held, torch.zeros(rows, dtype=torch.long, device=like.device))

    def _measure(self, filled: Tensor) -> None:
        self.filled = filled
        """(R) long, number of tokens in each row's slot."""
        self.longest = int(filled.max()) if len(filled) else 0
        self.even = bool((filled == self.longest).all())
        """Whether all rows hold the same number of tokens."""

    def update(
        self, keys: Tensor, values: Tensor, layer: int, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        """Appends new keys and values (R, H, Q, D) to the rows; called by transformers per layer.

        Returns:
            Keys and values of the rows, (R, H, longest + Q, D), without the prefix.
        """
        count = keys.shape[2]
        held_keys, held_values = self._held[layer, 0], self._held[layer, 1]
        last = self.longest + count
        if self.even:  # writing a slice is several times faster than scattering
            held_keys[:, :, self.longest : last] = keys
            held_values[:, :, self.longest : last] = values
        else:
            rows = torch.arange(len(keys), device=keys.device)[:, None]
            places = self.filled[:, None] + torch.arange(count, device=keys.device)
            held_keys[rows, :, places] = keys.transpose(1, 2)
            held_values[rows, :, places] = values.transpose(1, 2)
        return held_keys[:, :, :last], held_values[:, :, :last]

    def get_seq_length(self, layer: int = 0) -> int:  # noqa: ARG002
        """Number of tokens in the fullest slot; required by transformers."""
        return self.longest

    def advance(self, counts: Sequence[int]) -> None:
        """Keeps the first `counts[row]` of each row's last tokens; the others are padding."""
        self._measure(
            self.filled + torch.tensor(list(counts), dtype=torch.long, device=self.filled.device)
        )

    def branched(self, images: Sequence[int], length: int) -> Slots:
        """Empty slots of `length` tokens whose rows continue rows of this cache.

        Args:
            images: row of this cache that each new row continues. All rows of this cache hold the
                same number of tokens.
            length: slot length of the new rows.
        """
        shape = (
            *self._held.shape[:2],
            len(images),
            self._held.shape[3],
            length,
            self._held.shape[5],
        )
        return Slots(
            self._held.new_zeros(shape),
            self.filled.new_zeros(len(images)),
            self._held[..., : self.longest, :],
            images,
        )

    def kept(self, rows: Sequence[int]) -> Slots:
        """Slots with a subset of the rows, which are copied."""
        at = torch.tensor(list(rows), dtype=torch.long, device=self.filled.device)
        return Slots(
            self._held[:, :, at], self.filled[at], self.prefix, [self._images[row] for row in rows]
        )

    def joined(self, others: Slots) -> Slots:
        """These rows followed by the rows of `others`, which must continue the same images."""
        length = max(self._held.shape[4], others._held.shape[4])
        both = [
            torch.nn.functional.pad(each._held, (0, 0, 0, length - each._held.shape[4]))
            for each in (self, others)
        ]
        filled = torch.cat([self.filled, others.filled])
        return Slots(torch.cat(both, dim=2), filled, self.prefix, self._images + others._images)


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    slots: Slots | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """Attends to the keys of a row's image and to the row's own keys.

    Has the signature of an attention function of transformers: maps (R, G * H, Q, D) to
    (R, Q, G * H, D).
    """
    if slots is None or slots.prefix is None:
        attended: Tensor = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **more
        )[0]
        return attended, None
    assert attention_mask is not None
    keys, values = slots.prefix[module.layer_idx]
    rows, _, count, _ = query.shape
    heads = key.shape[1]
    queries = query.unflatten(1, (heads, -1)).flatten(2, 3) * scaling  # (R, H, G Q, D)
    own = (
        (queries @ key.mT)
        .unflatten(2, (-1, count))
        .masked_fill(~attention_mask[:, :, None], -torch.inf)
        .flatten(2, 3)
    )
    shared = own.new_empty((rows, heads, queries.shape[2], keys.shape[2]))
    for image, at in slots.groups:
        shared[at] = _together(queries[at], keys[image].mT)
    weights = torch.cat([shared, own], dim=-1).softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    of_image, of_row = weights.split([shared.shape[-1], own.shape[-1]], dim=-1)
    found = of_row @ value
    for image, at in slots.groups:
        found[at] += _together(of_image[at], values[image])
    return found.unflatten(2, (-1, count)).flatten(1, 2).transpose(1, 2), None


def _together(rows: Tensor, of_image: Tensor) -> Tensor:
    """Multiplies (N, H, M, D) by (H, D, T) with one product per head: (N, H, M, T)."""
    return (
        (rows.transpose(0, 1).flatten(1, 2) @ of_image)
        .unflatten(1, (len(rows), -1))
        .transpose(0, 1)
    )


AttentionInterface.register(ATTENTION, _attend)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)

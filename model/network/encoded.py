"""Inputs and outputs of the network: encoded images, wider views, branches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from earthgptx.model.interface.prompt import VisualPrompt, rasterise
from earthgptx.model.interface.region import Box, Mask
from earthgptx.model.network.perception import STRIDE

REGION_TOKENS = 2
"""Tokens of the region of one visual prompt."""


@dataclass(frozen=True, slots=True)
class Pointed:
    """Features and location of what a visual prompt points at, for its mask."""

    under: Tensor
    """(C) weighted mean of the features under the prompt."""
    middle: tuple[int, int]
    """Row and column of the prompt's centre at stride 2."""
    within: tuple[float, float, float, float] | None
    """Box of the drawn prompt, xyxy in cells of stride 2; the mask is clipped to it. None for
    points and scribbles, which tell where an object is but not its extent."""


@dataclass(frozen=True)
class Encoded:
    """A batch of images, encoded once and shared by all questions about them.

    Features that only masks need are computed for the first mask: they would take most of the time
    of questions that only need text.
    """

    prefix: Tensor
    """(B, 2 + T, W) prefix of each image: sensor mark, scale and image tokens. With a wider view,
    the `<around>` mark and the tokens of that view follow."""
    regions: tuple[dict[str, Tensor], ...]
    """Region tokens (2, W) of each visual prompt by its id, one dict per image."""
    size: tuple[int, int]
    """Rows and columns of the images in pixels."""
    prompts: Sequence[Sequence[VisualPrompt]]
    """Visual prompts of each image."""
    features: Callable[[], tuple[Tensor, Tensor]]
    """Computes the features for masks; see `Perception.pixels`."""

    @cached_property
    def _features(self) -> tuple[Tensor, Tensor]:
        return self.features()

    @property
    def pixels(self) -> Tensor:
        """(B, C, Y, X) features at stride 2, for masks."""
        return self._features[0]

    @property
    def looked(self) -> Tensor:
        """(B, C, rows, cols) features that queries attend to."""
        return self._features[1]

    @cached_property
    def pointed(self) -> tuple[dict[str, Pointed], ...]:
        """What each visual prompt points at, by its id, one dict per image."""
        return pointed_features(self.prompts, self.pixels)


@dataclass(frozen=True, slots=True)
class Around:
    """Wider views that the images are crops of, with the same visual prompts."""

    pixels: Tensor
    """(B, 3, rows, cols) uint8. All views have one size, which may differ from the images' size."""
    prompts: Sequence[Sequence[VisualPrompt]]
    """Visual prompts of each image, in pixels of its wider view."""


@dataclass(frozen=True, slots=True)
class Branch:
    """A question about one image: tokens, with region tokens inserted between them."""

    image: int
    tokens: tuple[int, ...]
    regions: tuple[tuple[int, str], ...] = ()
    """(token index, prompt id) pairs in order: the prompt's region tokens go before the token."""


def pointed_features(
    prompts: Sequence[Sequence[VisualPrompt]], pixels: Tensor
) -> tuple[dict[str, Pointed], ...]:
    """Pools features (B, C, Y, X) at stride 2 under each prompt, a dict by prompt id per image."""
    rows, cols = pixels.shape[-2:]
    found: list[dict[str, Pointed]] = []
    # One `unbind` instead of one slice per image: the gradient of a slice is as large as the batch.
    for each, seen in zip(prompts, pixels.unbind(), strict=True):
        drawn = torch.from_numpy(rasterise(each, rows * STRIDE, cols * STRIDE, STRIDE)).to(pixels)
        under = drawn[:, 0] + 0.05 * drawn[:, 1]
        under = under / under.sum(dim=(1, 2), keepdim=True)
        means = torch.einsum("pyx,cyx->pc", under, seen).unbind()
        middles = [prompt.box(rows * STRIDE, cols * STRIDE).centre for prompt in each]
        found.append(
            {
                prompt.id: Pointed(
                    mean, (int(middle.y / STRIDE), int(middle.x / STRIDE)), _within(prompt)
                )
                for prompt, mean, middle in zip(each, means, middles, strict=True)
            }
        )
    return tuple(found)


def _within(prompt: VisualPrompt) -> tuple[float, float, float, float] | None:
    if not isinstance(prompt.place, Box | Mask):
        return None
    box = prompt.place if isinstance(prompt.place, Box) else prompt.place.box
    return box.x0 / STRIDE, box.y0 / STRIDE, box.x1 / STRIDE, box.y1 / STRIDE

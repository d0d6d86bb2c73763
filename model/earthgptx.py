"""EarthGPT-X: images, visual prompts and words in; words, boxes and masks out. One model for every sensor.

An image with all its prompts is encoded once. Every question about it is a branch that goes on from the image's own
tokens:

    <optical> t t t t ...                                  the image, once
      <find> words <segs>                                  every object that fits the words
      <locate> words <seg> <box> x0 y0 x1 y1               the one object that the words speak of
      <refer> <mark> r r <seg> label <sep> caption <eos>   a prompt
      <describe> words <p>words</p><seg> words <eos>       the scene, grounded
      <ask> words <sep> words <eos>                        a question

`t` are tokens of the hybrid block, `r` the two tokens of a region. Hidden states at `<seg>` and `<segs>` become masks.
"""

# B images, P prompts of an image, W width of the language model

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from model.config import ModelConfig
from model.errors import ConfigError, ModelError
from model.hybrid import HybridBlock
from model.language import Language
from model.perception import STRIDE, Perception
from model.prompt import VisualPrompt, rasterise
from model.region import Box, Mask
from model.spatial_encoder import PROMPT_TOKENS, WAVES, SpatialEncoder, waves
from model.tokens import MODALITIES, Vocabulary
from model.vision import Features, MixedEncoders

REGION_TOKENS = 2


@dataclass(frozen=True, slots=True)
class Pointed:
    """What a prompt points at, as masks see it."""

    under: Tensor
    """(C) mean of the features that lie under it."""
    middle: tuple[int, int]
    """Row and column of its middle at stride 2."""
    within: tuple[float, float, float, float] | None
    """The box of what was drawn, xyxy in cells of stride 2, at which its mask ends; None for points and strokes, which
    tell where an object is but not how far it goes."""


@dataclass(frozen=True)
class Encoded:
    """A batch of images, looked at once; every question goes on from here.

    What only masks are made of is worked out for the first mask: most of the time of words alone would go into it.
    """

    prefix: Tensor
    """(B, 2 + T, W) what the language model reads of each image: sensor, scale, image."""
    regions: tuple[dict[str, Tensor], ...]
    """Per image, the tokens (2, W) of each prompt by its id."""
    size: tuple[int, int]
    """Rows and columns of the images."""
    prompts: Sequence[Sequence[VisualPrompt]]
    """Of each image."""
    features: Callable[[], tuple[Tensor, Tensor]]
    """See `Perception.pixels`."""

    @cached_property
    def _features(self) -> tuple[Tensor, Tensor]:
        return self.features()

    @property
    def pixels(self) -> Tensor:
        """(B, C, Y, X) at stride 2, for masks."""
        return self._features[0]

    @property
    def looked(self) -> Tensor:
        """(B, C, rows, cols) for queries to look at."""
        return self._features[1]

    @cached_property
    def pointed(self) -> tuple[dict[str, Pointed], ...]:
        """Per image, what lies under each prompt, by its id."""
        return _pointed(self.prompts, self.pixels)


@dataclass(frozen=True, slots=True)
class Around:
    """The wider views that images are crops of: the same prompts, seen with what lies around."""

    pixels: Tensor
    """(B, 3, rows, cols) uint8, of one size, not that of the images."""
    prompts: Sequence[Sequence[VisualPrompt]]
    """Of each image, in pixels of its wider view."""


@dataclass(frozen=True, slots=True)
class _Fused:
    """Images and prompts after the hybrid block."""

    conv: tuple[Tensor, ...]
    fine: Tensor
    cells: Tensor
    """(B, D, rows, cols)."""
    tokens: Tensor
    """(B, T, W)."""
    regions: tuple[dict[str, Tensor], ...]
    size: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Branch:
    """A question about one image: tokens, and the regions that stand among them."""

    image: int
    tokens: tuple[int, ...]
    regions: tuple[tuple[int, str], ...] = ()
    """Before which token the tokens of which prompt stand, in order."""


class EarthGPTX(nn.Module):
    """The composition."""

    def __init__(self, config: ModelConfig, vocabulary: Vocabulary) -> None:
        """Build it with random weights.

        Raises:
            ConfigError: the vocabulary is larger than the language model's.
        """
        super().__init__()
        if len(vocabulary) > config.language.vocabulary:
            raise ConfigError(
                f"the tokenizer has {len(vocabulary)} tokens, config.json, language.vocabulary says {config.language.vocabulary}"
            )
        self.config, self.vocabulary = config, vocabulary
        self.encoders = MixedEncoders(config)
        self.spatial = SpatialEncoder(config)
        self.hybrid = HybridBlock(config, self.encoders.width)
        self.region = nn.Sequential(
            nn.Linear(2 * config.hybrid_width, config.language.width), nn.GELU(),
            nn.Linear(config.language.width, REGION_TOKENS * config.language.width),
        )  # fmt: skip
        self.scale = nn.Linear(2 * WAVES, config.language.width)
        self.unscaled = nn.Parameter(torch.empty(config.language.width).normal_(std=0.1))
        self.language = Language(config.language)
        self.perception = Perception(config)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def encode(
        self, pixels: Tensor, modalities: Sequence[str], prompts: Sequence[Sequence[VisualPrompt]] = (),
        around: Around | None = None, metres: Sequence[float | None] = (), features: Features | None = None,
    ) -> Encoded:  # fmt: skip
        """Look at images and their prompts.

        Args:
            pixels: (B, 3, rows, cols) uint8.
            modalities: of each image: optical, sar or infrared.
            prompts: of each image, at most `max_prompts`, in its pixels; empty for none at all.
            around: the wider view that each image lies in; None for none.
            metres: along a side of a pixel, of each image; None where it is not known.
            features: of the encoders, where the same images were looked at before; None to look now.

        Raises:
            ImageError: the images have another dtype or shape.
            ModelError: modalities or prompts do not fit the images.
            RegionError: a prompt covers nothing of its image.
        """
        prompts = prompts or [() for _ in pixels]
        self._check(pixels, modalities, prompts)
        features = features or self.encoders(pixels.to(self.device))
        fused = self._fused(features, prompts, (pixels.shape[-2], pixels.shape[-1]))
        wider = None
        if around is not None:
            self._check(around.pixels, modalities, around.prompts)
            size = (around.pixels.shape[-2], around.pixels.shape[-1])
            wider = self._fused(self.encoders(around.pixels.to(self.device)), around.prompts, size)
        return self._encoded(fused, modalities, prompts, metres, wider)

    def encode_apart(
        self, pixels: Tensor, modalities: Sequence[str], prompts: Sequence[Sequence[VisualPrompt]]
    ) -> Encoded:
        """The paper's own form: each prompt has the hybrid block, and so a prefix, to itself.

        Costs a prefix a prompt; what is said of a prompt does not depend on the others. Arguments as of `encode`.

        Returns:
            As many images as there are prompts, in order.
        """
        self._check(pixels, modalities, prompts)
        of = [image for image, each in enumerate(prompts) for _ in each]
        features = self.encoders(pixels.to(self.device)).of(of)
        alone = [(prompt,) for each in prompts for prompt in each]
        fused = self._fused(features, alone, (pixels.shape[-2], pixels.shape[-1]))
        return self._encoded(fused, [modalities[image] for image in of], alone, (), None)

    def _fused(self, features: Features, prompts: Sequence[Sequence[VisualPrompt]], size: tuple[int, int]) -> _Fused:
        """What the hybrid block makes of images and their prompts."""
        canvas, boxes, present = self._canvas(prompts, *size, features.image.dtype)
        encoded = torch.zeros(
            (*present.shape, PROMPT_TOKENS, self.config.hybrid_width), device=self.device, dtype=features.image.dtype
        )
        if present.any():
            encoded[present] = self.spatial(canvas[present], boxes[present]).to(encoded.dtype)
        keys = encoded.flatten(1, 2)
        cells, tokens = self.hybrid(features.image, keys, present.repeat_interleave(PROMPT_TOKENS, dim=1))
        regions = self._regions(prompts, canvas, encoded[:, :, 0], cells)
        return _Fused(conv=features.conv, fine=features.fine, cells=cells, tokens=tokens, regions=regions, size=size)

    def _encoded(
        self, fused: _Fused, modalities: Sequence[str], prompts: Sequence[Sequence[VisualPrompt]],
        metres: Sequence[float | None], wider: _Fused | None,
    ) -> Encoded:  # fmt: skip
        def marked(names: Sequence[str]) -> Tensor:
            return self.language.embed(
                torch.tensor([[self.vocabulary.mark(name)] for name in names], device=self.device)
            )

        scales = self._scales(metres or [None] * len(modalities), fused.tokens.dtype)
        # A token of its own: added to the sensor's mark it drowned it, and photographs were said to have warm engines.
        prefix = [marked(modalities), scales[:, None], fused.tokens]
        if wider is not None:
            prefix += [marked(["around"] * len(modalities)), wider.tokens]
        return Encoded(
            prefix=torch.cat(prefix, dim=1), regions=fused.regions, size=fused.size, prompts=prompts,
            features=lambda: self.perception.pixels(fused.conv, fused.fine, fused.cells),
        )  # fmt: skip

    def embed(self, encoded: Encoded, branches: Sequence[Branch]) -> list[Tensor]:
        """Branches as embeddings, each (Q, W)."""
        # All tokens at once: a gradient of the whole table for each branch would cost more than the branches do.
        together = torch.tensor([token for each in branches for token in each.tokens], device=self.device)
        split = self.language.embed(together).split([len(each.tokens) for each in branches])
        found = []
        for branch, embedded in zip(branches, split, strict=True):
            pieces, start = [], 0
            for at, name in branch.regions:
                pieces += [embedded[start:at], encoded.regions[branch.image][name]]
                start = at
            found.append(torch.cat([*pieces, embedded[start:]]) if pieces else embedded)
        return found

    def places(self, branch: Branch) -> list[int]:
        """Where each token of a branch stands among its embeddings."""
        before = [REGION_TOKENS * sum(at <= place for at, _ in branch.regions) for place in range(len(branch.tokens))]
        return [place + shift for place, shift in enumerate(before)]

    def find(self, image: int, phrase: str) -> Branch:
        """The branch that looks for all that fits a phrase."""
        mark = self.vocabulary.mark
        return Branch(image, (mark("find"), *self.vocabulary.encode(phrase), mark("segs")))

    def locate(self, image: int, phrase: str) -> Branch:
        """The branch that looks for the one object that a phrase speaks of."""
        mark = self.vocabulary.mark
        return Branch(image, (mark("locate"), *self.vocabulary.encode(phrase), mark("seg")))

    def refer(self, image: int, prompt_id: str) -> Branch:
        """The branch that says what a prompt points at."""
        mark = self.vocabulary.mark
        return Branch(image, (mark("refer"), mark("mark"), mark("seg")), regions=((2, prompt_id),))

    def describe(self, image: int) -> Branch:
        """The branch that describes the scene."""
        return Branch(image, (self.vocabulary.mark("describe"),))

    def ask(self, image: int, question: str, prompt_ids: Sequence[str] = ()) -> Branch:
        """The branch that answers a question, about prompts where they are named."""
        mark = self.vocabulary.mark
        tokens, regions = [mark("ask"), *self.vocabulary.encode(question)], []
        for name in prompt_ids:
            tokens.append(mark("mark"))
            regions.append((len(tokens), name))
        return Branch(image, (*tokens, mark("sep")), tuple(regions))

    def _canvas(
        self, prompts: Sequence[Sequence[VisualPrompt]], rows: int, cols: int, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor, Tensor]:
        most, cell = max((len(each) for each in prompts), default=0), self.config.cell_px
        canvas = torch.zeros((len(prompts), most, 2, rows // cell, cols // cell), dtype=dtype)
        boxes, present = (
            torch.zeros((len(prompts), most, 4), dtype=dtype),
            torch.zeros((len(prompts), most), dtype=torch.bool),
        )
        for image, each in enumerate(prompts):
            if each:
                canvas[image, : len(each)] = torch.from_numpy(rasterise(each, rows, cols, cell)).to(dtype)
                found = [prompt.box(rows, cols) for prompt in each]
                boxes[image, : len(each)] = torch.tensor(
                    [[b.x0 / cols, b.y0 / rows, b.x1 / cols, b.y1 / rows] for b in found], dtype=dtype
                )
                present[image, : len(each)] = True
        return canvas.to(self.device), boxes.to(self.device), present.to(self.device)

    def _scales(self, metres: Sequence[float | None], dtype: torch.dtype) -> Tensor:
        """(B, W) how large the ground of a pixel is; a vector of its own where it is not known."""
        known = [value if value is not None and value > 0 else 1.0 for value in metres]
        # Octaves from 1/32 m to 1024 m lie in 0..1.
        place = (torch.tensor(known, device=self.device).log2() + 5).clamp(0, 15)[:, None] / 15
        given = torch.tensor([value is not None for value in metres], device=self.device)[:, None]
        return torch.where(given, self.scale(waves(place).to(dtype)), self.unscaled.to(dtype))

    def _regions(
        self, prompts: Sequence[Sequence[VisualPrompt]], canvas: Tensor, codes: Tensor, fused: Tensor
    ) -> tuple[dict[str, Tensor], ...]:
        """Tokens of each prompt: what the image has where it lies, and its own code."""
        weights = canvas[:, :, 0] + 0.05 * canvas[:, :, 1]
        weights = weights / weights.sum(dim=(-1, -2), keepdim=True).clamp(min=1e-6)
        pooled = torch.einsum("bpyx,bdyx->bpd", weights, fused)
        tokens = self.region(torch.cat([pooled, codes], dim=-1)).unflatten(-1, (REGION_TOKENS, -1))
        return tuple(
            {prompt.id: tokens[image, number] for number, prompt in enumerate(each)}
            for image, each in enumerate(prompts)
        )

    def _check(self, pixels: Tensor, modalities: Sequence[str], prompts: Sequence[Sequence[VisualPrompt]]) -> None:
        if not len(pixels) == len(modalities) == len(prompts):
            raise ModelError(
                f"{len(pixels)} images, {len(modalities)} modalities and {len(prompts)} lists of prompts were given"
            )
        if odd := sorted(set(modalities) - set(MODALITIES)):
            raise ModelError(f"modality '{odd[0]}' is not known; there are {', '.join(MODALITIES)}")
        most = max((len(each) for each in prompts), default=0)
        if most > self.config.max_prompts:
            raise ModelError(
                f"{most} prompts of one image, at most {self.config.max_prompts} are read together; split them"
            )


def _pointed(prompts: Sequence[Sequence[VisualPrompt]], pixels: Tensor) -> tuple[dict[str, Pointed], ...]:
    rows, cols = pixels.shape[-2:]
    found: list[dict[str, Pointed]] = []
    # All images taken apart at once: the gradient of one slice is as large as the whole.
    for each, seen in zip(prompts, pixels.unbind(), strict=True):
        drawn = torch.from_numpy(rasterise(each, rows * STRIDE, cols * STRIDE, STRIDE)).to(pixels)
        under = drawn[:, 0] + 0.05 * drawn[:, 1]
        under = under / under.sum(dim=(1, 2), keepdim=True)
        means = torch.einsum("pyx,cyx->pc", under, seen).unbind()
        middles = [prompt.box(rows * STRIDE, cols * STRIDE).centre for prompt in each]
        found.append({
            prompt.id: Pointed(mean, (int(middle.y / STRIDE), int(middle.x / STRIDE)), _within(prompt))
            for prompt, mean, middle in zip(each, means, middles, strict=True)
        })  # fmt: skip
    return tuple(found)


def _within(prompt: VisualPrompt) -> tuple[float, float, float, float] | None:
    if not isinstance(prompt.place, Box | Mask):
        return None
    box = prompt.place if isinstance(prompt.place, Box) else prompt.place.box
    return box.x0 / STRIDE, box.y0 / STRIDE, box.x1 / STRIDE, box.y1 / STRIDE

"""EarthGPT-X: one model for all sensors.

Input: images, visual prompts and text. Output: text, boxes and masks. An image is encoded once,
with all its prompts. Every question about it is a branch that continues the tokens of the image:

    <optical> t t t t ...                                  the image, encoded once
      <find> words <segs>                                  all objects that match the phrase
      <locate> words <seg> <box> x0 y0 x1 y1               the one object that the phrase refers to
      <refer> <mark> r r <seg> label <sep> caption <eos>   what a prompt points at
      <describe> words <p>words</p><seg> words <eos>       scene description with grounding
      <ask> words <sep> words <eos>                        a question

`t` are tokens of the hybrid block and `r` the two tokens of a prompt's region. Hidden states at
`<seg>` and `<segs>` are decoded to masks.
"""

# B images, P prompts per image, W width of the language model

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from earthgptx.model.interface.config import ModelConfig
from earthgptx.model.interface.errors import ConfigError, ModelError
from earthgptx.model.interface.prompt import VisualPrompt, rasterise
from earthgptx.model.network.encoded import REGION_TOKENS, Around, Branch, Encoded
from earthgptx.model.network.hybrid import HybridBlock
from earthgptx.model.network.language import Language
from earthgptx.model.network.perception import Perception
from earthgptx.model.network.spatial_encoder import PROMPT_TOKENS, WAVES, SpatialEncoder, waves
from earthgptx.model.network.tokens import MODALITIES, Vocabulary
from earthgptx.model.network.vision import Features, MixedEncoders


@dataclass(frozen=True, slots=True)
class _Fused:
    """Encoder features, fused cells and tokens of images and prompts after the hybrid block."""

    conv: tuple[Tensor, ...]
    fine: Tensor
    cells: Tensor
    """(B, D, rows, cols) fused features."""
    tokens: Tensor
    """(B, T, W) tokens for the language model."""
    regions: tuple[dict[str, Tensor], ...]
    size: tuple[int, int]


class EarthGPTX(nn.Module):
    """The complete model: encoders, hybrid block, language model and perception module."""

    def __init__(self, config: ModelConfig, vocabulary: Vocabulary) -> None:
        """Builds the module with random weights.

        Raises:
            ConfigError: if the vocabulary is larger than the language model's.
        """
        super().__init__()
        if len(vocabulary) > config.language.vocabulary:
            raise ConfigError(
                f"the tokenizer has {len(vocabulary)} tokens, config.json, language.vocabulary "
                f"says {config.language.vocabulary}"
            )
        self.config, self.vocabulary = config, vocabulary
        self.encoders = MixedEncoders(config)
        self.spatial = SpatialEncoder(config)
        self.hybrid = HybridBlock(config, self.encoders.width)
        self.region = nn.Sequential(
            nn.Linear(2 * config.hybrid_width, config.language.width),
            nn.GELU(),
            nn.Linear(config.language.width, REGION_TOKENS * config.language.width),
        )
        self.scale = nn.Linear(2 * WAVES, config.language.width)
        self.unscaled = nn.Parameter(torch.empty(config.language.width).normal_(std=0.1))
        self.language = Language(config.language)
        self.perception = Perception(config)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.parameters()).device

    def encode(
        self,
        pixels: Tensor,
        modalities: Sequence[str],
        prompts: Sequence[Sequence[VisualPrompt]] = (),
        around: Around | None = None,
        metres: Sequence[float | None] = (),
        features: Features | None = None,
    ) -> Encoded:
        """Encodes images and their prompts.

        Args:
            pixels: (B, 3, rows, cols) uint8.
            modalities: modality of each image: optical, sar or infrared.
            prompts: visual prompts of each image in its pixels, at most `max_prompts` per image. An
                empty sequence means no prompts for any image.
            around: wider views that contain the images; None for no wider view.
            metres: side length of a pixel in metres for each image, None where unknown. An empty
                sequence means unknown for all images.
            features: encoder features from an earlier pass over the same images; None to compute
                them.

        Raises:
            ImageError: if the images have a wrong dtype or shape.
            ModelError: if the number of modalities or prompt lists does not match the images, a
                modality is unknown or an image has too many prompts.
            RegionError: if a prompt covers no part of its image.
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
        """Encodes each prompt separately, as in the paper.

        Each prompt gets its own pass through the hybrid block and so its own prefix. This costs one
        prefix per prompt, but answers about a prompt do not depend on other prompts. The arguments
        are those of `encode`.

        Returns:
            One encoded image per prompt, in order.
        """
        self._check(pixels, modalities, prompts)
        of = [image for image, each in enumerate(prompts) for _ in each]
        features = self.encoders(pixels.to(self.device)).of(of)
        alone = [(prompt,) for each in prompts for prompt in each]
        fused = self._fused(features, alone, (pixels.shape[-2], pixels.shape[-1]))
        return self._encoded(fused, [modalities[image] for image in of], alone, (), None)

    def _fused(
        self, features: Features, prompts: Sequence[Sequence[VisualPrompt]], size: tuple[int, int]
    ) -> _Fused:
        """Runs the spatial encoder and the hybrid block on images and their prompts."""
        canvas, boxes, present = self._canvas(prompts, *size, features.image.dtype)
        encoded = torch.zeros(
            (*present.shape, PROMPT_TOKENS, self.config.hybrid_width),
            device=self.device,
            dtype=features.image.dtype,
        )
        if present.any():
            encoded[present] = self.spatial(canvas[present], boxes[present]).to(encoded.dtype)
        keys = encoded.flatten(1, 2)
        cells, tokens = self.hybrid(
            features.image, keys, present.repeat_interleave(PROMPT_TOKENS, dim=1)
        )
        regions = self._regions(prompts, canvas, encoded[:, :, 0], cells)
        return _Fused(
            conv=features.conv,
            fine=features.fine,
            cells=cells,
            tokens=tokens,
            regions=regions,
            size=size,
        )

    def _encoded(
        self,
        fused: _Fused,
        modalities: Sequence[str],
        prompts: Sequence[Sequence[VisualPrompt]],
        metres: Sequence[float | None],
        wider: _Fused | None,
    ) -> Encoded:
        def marked(names: Sequence[str]) -> Tensor:
            return self.language.embed(
                torch.tensor([[self.vocabulary.mark(name)] for name in names], device=self.device)
            )

        scales = self._scales(metres or [None] * len(modalities), fused.tokens.dtype)
        # The scale is a separate token. When it was added to the sensor mark, it drowned the mark:
        # captions of photographs mentioned warm engines.
        prefix = [marked(modalities), scales[:, None], fused.tokens]
        if wider is not None:
            prefix += [marked(["around"] * len(modalities)), wider.tokens]
        return Encoded(
            prefix=torch.cat(prefix, dim=1),
            regions=fused.regions,
            size=fused.size,
            prompts=prompts,
            features=lambda: self.perception.pixels(fused.conv, fused.fine, fused.cells),
        )

    def embed(self, encoded: Encoded, branches: Sequence[Branch]) -> list[Tensor]:
        """Embeds branches: one (Q, W) tensor per branch, with the region tokens inserted."""
        # One lookup for all tokens: with one lookup per branch, each would have a gradient of the
        # size of the whole embedding table, which costs more than the branches themselves.
        together = torch.tensor(
            [token for each in branches for token in each.tokens], device=self.device
        )
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
        """Index of each token of a branch in the embeddings of the branch."""
        before = [
            REGION_TOKENS * sum(at <= place for at, _ in branch.regions)
            for place in range(len(branch.tokens))
        ]
        return [place + shift for place, shift in enumerate(before)]

    def find(self, image: int, phrase: str) -> Branch:
        """The branch that searches for all objects that match a phrase."""
        mark = self.vocabulary.mark
        return Branch(image, (mark("find"), *self.vocabulary.encode(phrase), mark("segs")))

    def locate(self, image: int, phrase: str) -> Branch:
        """The branch that searches for the one object that a phrase refers to."""
        mark = self.vocabulary.mark
        return Branch(image, (mark("locate"), *self.vocabulary.encode(phrase), mark("seg")))

    def refer(self, image: int, prompt_id: str) -> Branch:
        """The branch that names and captions what a prompt points at."""
        mark = self.vocabulary.mark
        return Branch(image, (mark("refer"), mark("mark"), mark("seg")), regions=((2, prompt_id),))

    def describe(self, image: int) -> Branch:
        """The branch that describes the scene."""
        return Branch(image, (self.vocabulary.mark("describe"),))

    def ask(self, image: int, question: str, prompt_ids: Sequence[str] = ()) -> Branch:
        """The branch that answers a question, optionally about the prompts given by id."""
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
                canvas[image, : len(each)] = torch.from_numpy(rasterise(each, rows, cols, cell)).to(
                    dtype
                )
                found = [prompt.box(rows, cols) for prompt in each]
                boxes[image, : len(each)] = torch.tensor(
                    [[b.x0 / cols, b.y0 / rows, b.x1 / cols, b.y1 / rows] for b in found],
                    dtype=dtype,
                )
                present[image, : len(each)] = True
        return canvas.to(self.device), boxes.to(self.device), present.to(self.device)

    def _scales(self, metres: Sequence[float | None], dtype: torch.dtype) -> Tensor:
        """Embeds pixel sizes in metres: (B, W), a learned vector where the size is unknown."""
        known = [value if value is not None and value > 0 else 1.0 for value in metres]
        # Maps sizes from 1/32 m to 1024 m to 0..1 on a logarithmic scale.
        place = (torch.tensor(known, device=self.device).log2() + 5).clamp(0, 15)[:, None] / 15
        given = torch.tensor([value is not None for value in metres], device=self.device)[:, None]
        return torch.where(given, self.scale(waves(place).to(dtype)), self.unscaled.to(dtype))

    def _regions(
        self,
        prompts: Sequence[Sequence[VisualPrompt]],
        canvas: Tensor,
        codes: Tensor,
        fused: Tensor,
    ) -> tuple[dict[str, Tensor], ...]:
        """Region tokens of each prompt, from the fused features under it and from its own code."""
        weights = canvas[:, :, 0] + 0.05 * canvas[:, :, 1]
        weights = weights / weights.sum(dim=(-1, -2), keepdim=True).clamp(min=1e-6)
        pooled = torch.einsum("bpyx,bdyx->bpd", weights, fused)
        tokens = self.region(torch.cat([pooled, codes], dim=-1)).unflatten(-1, (REGION_TOKENS, -1))
        return tuple(
            {prompt.id: tokens[image, number] for number, prompt in enumerate(each)}
            for image, each in enumerate(prompts)
        )

    def _check(
        self, pixels: Tensor, modalities: Sequence[str], prompts: Sequence[Sequence[VisualPrompt]]
    ) -> None:
        if not len(pixels) == len(modalities) == len(prompts):
            raise ModelError(
                f"{len(pixels)} images, {len(modalities)} modalities and {len(prompts)} lists of "
                "prompts were given"
            )
        if odd := sorted(set(modalities) - set(MODALITIES)):
            raise ModelError(f"modality '{odd[0]}' is not known; there are {', '.join(MODALITIES)}")
        most = max((len(each) for each in prompts), default=0)
        if most > self.config.max_prompts:
            raise ModelError(
                f"{most} prompts of one image, at most {self.config.max_prompts} are read "
                "together; split them"
            )

"""The config of a model, and presets for all scales. Torch-free.

Every folder of weights holds this config as `config.json`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from earthgptx.model.interface.errors import ConfigError

SCALES = ("tiny", "nano", "small", "base")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ConvConfig(_Part):
    """The convolutional encoder, with features at strides 4, 8, 16 and 32."""

    kind: Literal["convnext", "efficientnet-lite0"]
    widths: tuple[int, int, int, int]
    depths: tuple[int, int, int, int] = (1, 1, 1, 1)
    """Blocks per stage; used only by ConvNeXt."""


class VitConfig(_Part):
    """The transformer encoder, a DINOv2, with features at stride `patch`."""

    width: int
    layers: int
    heads: int
    patch: int = 16


class LanguageConfig(_Part):
    """The language model, any causal language model of transformers."""

    architecture: str = "llama"
    """Its `model_type` in transformers."""

    width: int
    layers: int
    heads: int
    kv_heads: int
    mlp: int
    vocabulary: int
    """Number of tokens, including marks."""
    details: dict[str, Any] = Field(
        default_factory=lambda: {"tie_word_embeddings": True, "max_position_embeddings": 4096}
    )
    """Further fields of the architecture's config in transformers."""
    lora_rank: int = 0
    """Rank of LoRA adapters on its projections; only they and the embeddings are trained.
    0: no adapters, everything is trained."""


class ModelConfig(_Part):
    """The config of a whole model."""

    image_px: int = 512
    """Side of training images in pixels; other sides must be multiples of `token_px`."""
    conv: ConvConfig
    vit: VitConfig
    hybrid_width: int
    """Channels of the hybrid block and of the spatial-aware prompt encoder."""
    hybrid_heads: int
    prompt_layers: int
    """Layers of the spatial-aware prompt encoder."""
    token_px: int = 32
    """Side in pixels of the area that one image token of the language model represents."""
    mask_width: int
    """Channels of the features at stride 2 from which masks are computed."""
    mask_heads: int
    language: LanguageConfig
    temperature: float = Field(default=1.0, gt=0)
    """Divisor of the log-likelihoods of given names; fitted so that probability equals accuracy."""
    mask_offset: float = 0.0
    """Log-odds added to the ground masks of phrases; fitted so that 0.5 is the best threshold."""
    max_prompts: int = 64
    """Most prompts of one image that are read together; more are split into several turns."""

    @property
    def cell_px(self) -> int:
        """Side in pixels of the cells to which the features of both encoders are aligned."""
        return self.vit.patch

    @model_validator(mode="after")
    def _fits(self) -> ModelConfig:
        for part, width, heads in (
            ("vit", self.vit.width, self.vit.heads),
            ("hybrid", self.hybrid_width, self.hybrid_heads),
            ("language", self.language.width, self.language.heads),
            ("mask", self.mask_width, self.mask_heads),
        ):
            if width % heads:
                raise ValueError(f"{part}: a width of {width} is not whole heads of {heads}")
        if self.language.heads % self.language.kv_heads:
            raise ValueError(
                f"language: {self.language.heads} heads do not share {self.language.kv_heads} "
                "kv_heads evenly"
            )
        if self.token_px % self.cell_px or self.image_px % self.token_px:
            raise ValueError(
                f"cells of {self.cell_px} px, tokens of {self.token_px} px and images of "
                f"{self.image_px} px do not fit into one another"
            )
        return self

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> ModelConfig:
        """Builds a config from plain values.

        Raises:
            ConfigError: a key is unknown or missing, a value is invalid, or the parts do not fit
                together.
        """
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            found = error.errors()[0]
            place = ".".join(str(part) for part in found["loc"]) or "config"
            raise ConfigError(
                f"config.json, {place}: {found['msg'].removeprefix('Value error, ')}"
            ) from error


_TINY = ModelConfig(
    image_px=128,
    conv=ConvConfig(kind="convnext", widths=(16, 32, 48, 64)),
    vit=VitConfig(width=48, layers=2, heads=4),
    hybrid_width=64,
    hybrid_heads=4,
    prompt_layers=1,
    mask_width=32,
    mask_heads=4,
    language=LanguageConfig(width=64, layers=2, heads=4, kv_heads=2, mlp=128, vocabulary=1100),
)
_NANO = ModelConfig(
    conv=ConvConfig(kind="efficientnet-lite0", widths=(24, 40, 112, 320)),
    vit=VitConfig(width=256, layers=4, heads=4),
    hybrid_width=256,
    hybrid_heads=4,
    prompt_layers=2,
    mask_width=96,
    mask_heads=4,
    language=LanguageConfig(width=256, layers=6, heads=8, kv_heads=4, mlp=768, vocabulary=5632),
)
_SMALL = ModelConfig(
    conv=ConvConfig(kind="efficientnet-lite0", widths=(24, 40, 112, 320)),
    vit=VitConfig(width=384, layers=6, heads=6),
    hybrid_width=384,
    hybrid_heads=6,
    prompt_layers=3,
    mask_width=128,
    mask_heads=4,
    language=LanguageConfig(  # SmolLM2-135M, with room for the added marks
        width=576,
        layers=30,
        heads=9,
        kv_heads=3,
        mlp=1536,
        vocabulary=49_728,
        lora_rank=16,
        details={
            "tie_word_embeddings": True,
            "max_position_embeddings": 8192,
            "rope_parameters": {"rope_type": "default", "rope_theta": 100_000.0},
        },
    ),
)
_BASE = ModelConfig(
    conv=ConvConfig(kind="convnext", widths=(192, 384, 768, 1536), depths=(3, 3, 27, 3)),
    vit=VitConfig(width=1024, layers=24, heads=16, patch=16),
    hybrid_width=1024,
    hybrid_heads=16,
    prompt_layers=6,
    mask_width=256,
    mask_heads=8,
    language=LanguageConfig(
        width=4096, layers=32, heads=32, kv_heads=32, mlp=11008, vocabulary=32768
    ),
)


def preset(name: str) -> ModelConfig:
    """Returns the config of a scale.

    Raises:
        ConfigError: there is no scale of that name.
    """
    presets = dict(zip(SCALES, (_TINY, _NANO, _SMALL, _BASE), strict=True))
    if name not in presets:
        raise ConfigError(f"no scale '{name}'; there are {', '.join(SCALES)}")
    return presets[name]


@dataclass(frozen=True, slots=True)
class Budget:
    """Most tokens of an answer, per task; an answer that reaches its budget is marked as cut."""

    caption: int = 32
    scene: int = 64
    answer: int = 48

"""Builds a model from published weights; parts without published weights start random.

Published parts are safetensors in the transformers format, given by folder or hub id. A language
model may also be a `.gguf` file. EfficientNet-Lite0 is the state dict that its authors published,
read without running any code in it.
"""

from __future__ import annotations

import importlib.util
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer, ConvNextModel, Dinov2Model

from earthgptx.model.interface.config import ModelConfig
from earthgptx.model.interface.errors import WeightsError
from earthgptx.model.network.earthgptx import EarthGPTX
from earthgptx.model.network.tokens import Vocabulary

if TYPE_CHECKING:
    from transformers import PretrainedConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainedParts:
    """Source of the weights of each part; None for random weights."""

    conv: str | None = None
    vit: str | None = None
    language: str | None = None
    """Source of the language model, which brings its own tokenizer."""


def assemble(
    config: ModelConfig, parts: PretrainedParts, vocabulary: Vocabulary | None = None
) -> EarthGPTX:
    """Builds a model and loads its published parts.

    Args:
        config: config of the model, with the widths of the parts.
        parts: sources of the parts.
        vocabulary: vocabulary to use if no published language model brings one.

    Raises:
        WeightsError: a part cannot be read, its widths differ from the config, or there is no
            vocabulary.
        ConfigError: the tokenizer has more tokens than the config allows.
    """
    causal: nn.Module | None = None
    if parts.language is not None:
        causal, vocabulary = _language(found(parts.language))
    if vocabulary is None:
        raise WeightsError("no language model is named, and no vocabulary is given")
    model = EarthGPTX(config, vocabulary)
    if causal is not None:
        _fill_language(model, causal, str(parts.language))
    if parts.conv is not None:
        _fill(model.encoders.conv, _conv(config, found(parts.conv)), f"conv {parts.conv}")
    if parts.vit is not None:
        _fill(model.encoders.vit, _vit(config, found(parts.vit)), f"vit {parts.vit}")
    return model


def found(place: str) -> str:
    """Resolves `package:NAME/PATH` to a path inside an installed package; returns others unchanged.

    The package is not imported.

    Raises:
        WeightsError: the package is not installed.
    """
    if not place.startswith("package:"):
        return place
    name, _, path = place.removeprefix("package:").partition("/")
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise WeightsError(f"{place}: package {name} is not installed")
    return str(Path(spec.origin).parent / path)


def _language(place: str) -> tuple[nn.Module, Vocabulary]:
    path = Path(place)
    where: dict[str, Any] = {"pretrained_model_name_or_path": place}
    kind: dict[str, Any] = {"use_safetensors": True}
    if path.suffix == ".gguf":
        where, kind = (
            {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name},
            {},
        )
    try:
        causal = AutoModelForCausalLM.from_pretrained(
            **where, **kind, trust_remote_code=False, dtype=torch.float32
        )
        tokenizer = AutoTokenizer.from_pretrained(**where, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise WeightsError(f"language {place} cannot be read: {str(error)[:200]}") from error
    return causal, Vocabulary.beside(tokenizer.backend_tokenizer)


def _fill_language(model: EarthGPTX, causal: nn.Module, place: str) -> None:
    """Copies all layers and the published rows of the embeddings.

    Rows beyond the published vocabulary, which belong to the added marks, stay random.
    """
    held = dict(causal.state_dict())
    vocabulary = cast("PretrainedConfig", causal.config).vocab_size
    by_token = [name for name, tensor in held.items() if tensor.shape[:1] == (vocabulary,)]
    for name in by_token:
        own = model.language.causal.state_dict()[name].clone()
        if own.shape[0] < len(held[name]) or own.shape[1:] != held[name].shape[1:]:
            raise WeightsError(
                f"language {place}: {name} is {tuple(held[name].shape)}, "
                f"the config says {tuple(own.shape)}"
            )
        own[: len(held[name])] = held[name]
        held[name] = own
    _fill(model.language.causal, held, f"language {place}")


def _conv(config: ModelConfig, place: str) -> dict[str, Tensor]:
    if config.conv.kind == "convnext":
        return {
            f"model.{name}": tensor for name, tensor in _transformers(ConvNextModel, place).items()
        }
    try:
        held = torch.load(place, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise WeightsError(
            f"conv {place} is no state dict of EfficientNet-Lite0: {str(error)[:200]}"
        ) from error
    head = ("_conv_head.", "_bn1.", "_fc.")
    return {name: tensor for name, tensor in held.items() if not name.startswith(head)}


def _vit(config: ModelConfig, place: str) -> dict[str, Tensor]:
    """Returns DINOv2 weights, resampled to the patch size and position grid of the config.

    The published model was trained on patches of 14 px.
    """
    held = _transformers(Dinov2Model, place)
    patches, places = (
        "embeddings.patch_embeddings.projection.weight",
        "embeddings.position_embeddings",
    )
    if patches in held and held[patches].shape[-1] != config.vit.patch:
        held[patches] = functional.interpolate(
            held[patches], (config.vit.patch,) * 2, mode="bicubic"
        )
    if places in held:
        first, grid = held[places][:, :1], held[places][:, 1:]
        side, own = round(grid.shape[1] ** 0.5), config.image_px // config.vit.patch
        grid = grid.reshape(1, side, side, -1).permute(0, 3, 1, 2)
        grid = functional.interpolate(grid, (own, own), mode="bicubic")
        held[places] = torch.cat([first, grid.flatten(2).transpose(1, 2)], dim=1)
    return held


def _transformers(kind: Any, place: str) -> dict[str, Tensor]:
    try:
        published = kind.from_pretrained(
            place, use_safetensors=True, trust_remote_code=False, dtype=torch.float32
        )
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"{place} cannot be read as {kind.__name__}: {str(error)[:200]}"
        ) from error
    return dict(published.state_dict())


def _fill(part: nn.Module, held: dict[str, Tensor], what: str) -> None:
    """Copies weights into a part; LoRA adapters keep their own weights.

    Raises:
        WeightsError: names or shapes differ.
    """
    own = {
        name.replace(".base_layer", ""): tensor
        for name, tensor in part.state_dict().items()
        if "lora_" not in name
    }
    wrong = sorted(own.keys() ^ held.keys())
    wrong += sorted(
        name for name in own.keys() & held.keys() if own[name].shape != held[name].shape
    )
    if wrong:
        raise WeightsError(
            f"{what} does not fit the config: {', '.join(wrong[:4])} ({len(wrong)} tensors differ)"
        )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(held[name])

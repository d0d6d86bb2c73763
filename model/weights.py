"""A model in a folder: `config.json`, `tokenizer.json`, `model.safetensors`. Nothing in it is ever run.

The folder is in Hugging Face's form, so that one on a hub loads by its id.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from model.config import preset
from model.earthgptx import EarthGPTX
from model.errors import WeightsError
from model.folder import KIND, digest, find_folder, read_config
from model.tokens import Vocabulary
from model.training.world import things

HEAD = "language.causal.lm_head.weight"
"""Where it is the same tensor as the embeddings, it is stored once."""


def save_pretrained(model: EarthGPTX, folder: Path, *, dtype: torch.dtype = torch.float32) -> str:
    """Write a model; returns its digest.

    Args:
        model: to write.
        folder: created where it is missing; what is there is replaced.
        dtype: of the stored weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    document = {"model_type": KIND, **model.config.model_dump(mode="json")}
    (folder / "config.json").write_text(json.dumps(document, indent=1) + "\n")
    model.vocabulary.save(folder / "tokenizer.json")
    held = {
        name: tensor.detach().to("cpu", dtype if tensor.is_floating_point() else tensor.dtype).contiguous()
        for name, tensor in model.state_dict().items()
        if name not in _tied(model)
    }
    save_file(held, str(folder / "model.safetensors"), metadata={"format": "pt"})
    return digest(folder)


def from_pretrained(place: str | Path, *, revision: str | None = None) -> EarthGPTX:
    """Read a model, ready to answer.

    Args:
        place: a folder, or an id on the Hugging Face hub, `owner/name`.
        revision: commit of the id; pin it where answers must not change.

    Raises:
        WeightsError: there is none, a file is damaged or another config's, or only pickles are there.
        ConfigError: the config's parts do not fit.
    """
    folder = find_folder(place, revision)
    model = EarthGPTX(read_config(folder), Vocabulary.load(folder / "tokenizer.json"))
    path = folder / "model.safetensors"
    try:
        with safe_open(str(path), framework="pt") as file:
            held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a mapping
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is damaged or no safetensors file ({error}); fetch it again") from error
    own = model.state_dict()
    _check(path, held, {name: tensor for name, tensor in own.items() if name not in _tied(model)})
    model.load_state_dict({name: tensor.to(own[name].dtype) for name, tensor in held.items()}, strict=False)
    return model.eval()


def untrained(scale: str) -> EarthGPTX:
    """A model of a scale with random weights from a fixed seed: its answers mean nothing, its way is the real one.

    Raises:
        ConfigError: there is no such scale.
    """
    config = preset(scale)
    captions = [thing.caption for thing in things(0.0, 6000.0, seed=0, date=0)]
    words = Vocabulary.train(captions, config.language.vocabulary)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return EarthGPTX(config, words).eval()


def _tied(model: EarthGPTX) -> tuple[str, ...]:
    return (HEAD,) if model.language.causal.config.tie_word_embeddings else ()


def _check(path: Path, held: dict[str, torch.Tensor], own: dict[str, torch.Tensor]) -> None:
    wrong = [f"{name} is missing" for name in own.keys() - held.keys()]
    wrong += [f"{name} is not of this config" for name in held.keys() - own.keys()]
    wrong += [
        f"{name} is {tuple(held[name].shape)}, the config says {tuple(own[name].shape)}"
        for name in held.keys() & own.keys()
        if held[name].shape != own[name].shape
    ]
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise WeightsError(f"{path} does not fit its config: {'; '.join(sorted(wrong)[:5])}{more}")

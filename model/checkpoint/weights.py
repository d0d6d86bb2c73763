"""Saves and loads a model as `config.json`, `tokenizer.json` and `model.safetensors`.

The folder has the Hugging Face layout, so a model on the hub loads by its id. No code from the
folder is ever run.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from earthgptx.model.interface.config import preset
from earthgptx.model.interface.errors import WeightsError
from earthgptx.model.interface.folder import KIND, digest, find_folder, read_config
from earthgptx.model.network.earthgptx import EarthGPTX
from earthgptx.model.network.tokens import Vocabulary
from earthgptx.model.synthetic.world import things

HEAD = "language.causal.lm_head.weight"
"""Output head; not stored if it is tied to the embeddings."""


def save_pretrained(model: EarthGPTX, folder: Path, *, dtype: torch.dtype = torch.float32) -> str:
    """Writes a model and returns its digest.

    Args:
        model: model to write.
        folder: target folder, created if missing; existing files are replaced.
        dtype: dtype of the stored floating-point weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    document = {"model_type": KIND, **model.config.model_dump(mode="json")}
    (folder / "config.json").write_text(json.dumps(document, indent=1) + "\n")
    model.vocabulary.save(folder / "tokenizer.json")
    held = {
        name: tensor.detach()
        .to("cpu", dtype if tensor.is_floating_point() else tensor.dtype)
        .contiguous()
        for name, tensor in model.state_dict().items()
        if name not in _tied(model)
    }
    save_file(held, str(folder / "model.safetensors"), metadata={"format": "pt"})
    return digest(folder)


def from_pretrained(place: str | Path, *, revision: str | None = None) -> EarthGPTX:
    """Loads a model in evaluation mode.

    Args:
        place: folder, or id on the Hugging Face hub, `owner/name`.
        revision: commit on the hub; pin it if answers must not change.

    Raises:
        WeightsError: there is no model, a file is damaged or belongs to another config, or the
            weights exist only as pickles.
        ConfigError: the parts of the config do not fit together.
    """
    folder = find_folder(place, revision)
    model = EarthGPTX(read_config(folder), Vocabulary.load(folder / "tokenizer.json"))
    path = folder / "model.safetensors"
    try:
        with safe_open(str(path), framework="pt") as file:
            names = list(file.keys())
            held = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path} is damaged or no safetensors file ({error}); fetch it again"
        ) from error
    own = model.state_dict()
    _check(path, held, {name: tensor for name, tensor in own.items() if name not in _tied(model)})
    model.load_state_dict(
        {name: tensor.to(own[name].dtype) for name, tensor in held.items()}, strict=False
    )
    return model.eval()


def untrained(scale: str) -> EarthGPTX:
    """Builds a model of a scale with random weights from a fixed seed.

    Its answers are meaningless, but it runs through the same code as a trained model.

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

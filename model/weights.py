"""A model in a folder: `config.json`, `tokenizer.json`, `model.safetensors`. Nothing in it is ever run.

The folder is in Hugging Face's form, so that one on a hub loads by its id.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from model.config import ModelConfig
from model.earthgptx import EarthGPTX
from model.errors import WeightsError
from model.tokens import Vocabulary

FILES = ("config.json", "tokenizer.json", "model.safetensors")
KIND = "earthgptx"
TIED = "language.causal.lm_head.weight"
"""The same tensor as the embeddings; stored once."""


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
        if name != TIED
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
    folder = _folder(place, revision)
    document = _config(folder)
    model = EarthGPTX(ModelConfig.from_dict(document), Vocabulary.load(folder / "tokenizer.json"))
    path = folder / "model.safetensors"
    try:
        with safe_open(str(path), framework="pt") as file:
            held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a mapping
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is damaged or no safetensors file ({error}); fetch it again") from error
    _check(path, held, {name: tensor for name, tensor in model.state_dict().items() if name != TIED})
    own = model.state_dict()
    model.load_state_dict({name: tensor.to(own[name].dtype) for name, tensor in held.items()}, strict=False)
    return model.eval()


def digest(folder: Path) -> str:
    """SHA-256 over the three files, 16 digits: another digest, another model."""
    total = hashlib.sha256()
    for name in FILES:
        total.update(name.encode() + b"\0" + hashlib.sha256((folder / name).read_bytes()).digest())
    return total.hexdigest()[:16]


def _folder(place: str | Path, revision: str | None) -> Path:
    folder = Path(place)
    if folder.is_dir():
        missing = [name for name in FILES if not (folder / name).is_file()]
        if "model.safetensors" in missing:
            other = sorted(
                path.name
                for path in folder.iterdir()
                if path.suffix in (".bin", ".pt", ".pth", ".pkl", ".pt2", ".ckpt")
            )
            if other:
                raise WeightsError(
                    f"{folder} has {other[0]} and no model.safetensors; pickled weights can run code and are not read: "
                    "convert them where you trust them"
                )
        if missing:
            raise WeightsError(f"{folder} has no {missing[0]}; a model is {', '.join(FILES)}")
        return folder
    if str(place).count("/") != 1 or str(place).startswith((".", "/")):
        raise WeightsError(f"{place} is no folder, and no id of the form owner/name")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(place), revision=revision, allow_patterns=list(FILES)))
    except Exception as error:  # the hub's client raises anything
        raise WeightsError(f"{place} cannot be fetched from the hub ({type(error).__name__}: {error})") from error


def _config(folder: Path) -> dict[str, object]:
    try:
        document = json.loads((folder / "config.json").read_text())
    except (ValueError, UnicodeDecodeError) as error:
        raise WeightsError(f"{folder / 'config.json'} is not JSON ({error})") from error
    if not isinstance(document, dict) or document.pop("model_type", None) != KIND:
        raise WeightsError(f"{folder / 'config.json'} is another kind of model's: model_type is not '{KIND}'")
    if "auto_map" in document:
        raise WeightsError(f"{folder / 'config.json'} asks for remote code (auto_map); it is never run")
    return document


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

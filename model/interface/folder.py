"""Finds a model's folder, reads its config and computes its digest, without loading the weights.

Torch-free.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from earthgptx.model.interface.config import SCALES, ModelConfig, preset
from earthgptx.model.interface.errors import WeightsError

FILES = ("config.json", "tokenizer.json", "model.safetensors")
KIND = "earthgptx"


def find_folder(place: str | Path, revision: str | None = None) -> Path:
    """Returns the folder of a model: the given one, or a download of the given hub id.

    Raises:
        WeightsError: there is no model, or its weights exist only as pickles.
    """
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
                    f"{folder} has {other[0]} and no model.safetensors; pickled weights can run "
                    "code and are not read: convert them where you trust them"
                )
        if missing:
            raise WeightsError(f"{folder} has no {missing[0]}; a model is {', '.join(FILES)}")
        return folder
    if str(place).count("/") != 1 or str(place).startswith((".", "/")):
        raise WeightsError(f"{place} is no folder, and no id of the form owner/name")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(place), revision=revision, allow_patterns=list(FILES)))
    except Exception as error:  # the hub client raises errors of many types
        raise WeightsError(
            f"{place} cannot be fetched from the hub ({type(error).__name__}: {error})"
        ) from error


def config_of(place: str) -> ModelConfig:
    """Returns the config of a scale, or of a model given by folder or hub id.

    Raises:
        WeightsError: there is no such model.
        ConfigError: the config is invalid.
    """
    return preset(place) if place in SCALES else read_config(find_folder(place))


def digest(folder: Path) -> str:
    """Returns the first 16 hex digits of a SHA-256 over the three files; identifies the model."""
    total = hashlib.sha256()
    for name in FILES:
        total.update(name.encode() + b"\0" + hashlib.sha256((folder / name).read_bytes()).digest())
    return total.hexdigest()[:16]


def read_config(folder: Path) -> ModelConfig:
    """Reads the config from a model's folder.

    Raises:
        WeightsError: the file is not JSON, belongs to another kind of model, or asks for remote
            code.
        ConfigError: the config is invalid.
    """
    try:
        document = json.loads((folder / "config.json").read_text())
    except (ValueError, UnicodeDecodeError) as error:
        raise WeightsError(f"{folder / 'config.json'} is not JSON ({error})") from error
    if not isinstance(document, dict) or document.pop("model_type", None) != KIND:
        raise WeightsError(
            f"{folder / 'config.json'} is another kind of model's: model_type is not '{KIND}'"
        )
    if "auto_map" in document:
        raise WeightsError(
            f"{folder / 'config.json'} asks for remote code (auto_map); it is never run"
        )
    return ModelConfig.from_dict(document)

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from earthgptx.model.checkpoint.weights import from_pretrained, save_pretrained
from earthgptx.model.inference.session import Session
from earthgptx.model.interface.errors import ModelError, WeightsError
from earthgptx.model.interface.folder import digest
from earthgptx.model.network.earthgptx import EarthGPTX
from tests.model.lessons import samples


@pytest.fixture
def folder(tiny: EarthGPTX, tmp_path: Path) -> Path:
    save_pretrained(tiny, tmp_path / "model")
    return tmp_path / "model"


def test_a_model_that_was_saved_answers_the_same(tiny: EarthGPTX, folder: Path) -> None:
    again = from_pretrained(folder)
    sample = samples(1)[0]
    pixels = torch.from_numpy(sample.pixels)[None]
    one, other = (
        Session(model, pixels, ["sar"], [sample.prompts]).find([["ship"]])
        for model in (tiny, again)
    )
    assert one[0][0].scores.tobytes() == other[0][0].scores.tobytes()
    assert again.config == tiny.config
    assert not again.training


def test_the_digest_changes_with_any_byte_and_half_the_bytes_are_kept_as_fp16(
    tiny: EarthGPTX, folder: Path, tmp_path: Path
) -> None:
    first = digest(folder)
    assert save_pretrained(tiny, tmp_path / "again") == first
    half = save_pretrained(tiny, tmp_path / "half", dtype=torch.float16)
    assert half != first
    sizes = [(path / "model.safetensors").stat().st_size for path in (folder, tmp_path / "half")]
    assert sizes[1] < 0.6 * sizes[0]
    assert next(from_pretrained(tmp_path / "half").parameters()).dtype == torch.float32


def change_config(folder: Path, **more: object) -> None:
    document = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(document | more))


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": 1}))


def disguised(folder: Path) -> None:
    torch.save({"weight": torch.zeros(3)}, folder / "model.safetensors")


def without_a_tensor(folder: Path) -> None:
    held = load_file(folder / "model.safetensors")
    del held["perception.centre_bias"]
    held["perception.extra"] = torch.zeros(2)
    save_file(held, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (cut, "is damaged or no safetensors file"),
        (pickled, "pytorch_model.bin and no model.safetensors; pickled weights can run code"),
        (disguised, "is damaged or no safetensors file"),
        (
            without_a_tensor,
            "perception.centre_bias is missing; perception.extra is not of this config",
        ),
        (lambda folder: change_config(folder, mask_width=64), r"the config says \(32, 64\)"),
        (
            lambda folder: change_config(folder, auto_map={"AutoModel": "evil.py"}),
            "asks for remote code",
        ),
        (lambda folder: change_config(folder, model_type="llama"), "another kind of model's"),
        (
            lambda folder: change_config(folder, mask_heads=5),
            "mask: a width of 32 is not whole heads",
        ),
        (lambda folder: (folder / "config.json").write_text("{"), "is not JSON"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer.json"),
    ],
)  # type: ignore[misc]
def test_what_is_damaged_unsafe_or_of_another_config_is_named(
    folder: Path, damage, sentence: str
) -> None:  # type: ignore[no-untyped-def]
    damage(folder)
    with pytest.raises(ModelError, match=sentence):
        from_pretrained(folder)


def test_a_place_that_is_neither_folder_nor_id_is_refused() -> None:
    with pytest.raises(WeightsError, match="is no folder, and no id of the form owner/name"):
        from_pretrained("/nowhere/at/all")

"""Train and evaluate as a user does."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from model.errors import ModelError
from pipeline.errors import JobError
from workflows.cli import app

CONFIG = {
    "model": "tiny", "steps": 2, "sizes": [{"px": 128, "batch": 1}], "workers": 0, "vocabulary_samples": 5, "picture_every": 0,
    "sources": [{"rendered": True, "weight": 1}],
}  # fmt: skip


def earthgptx(*arguments: object) -> str:
    ended = CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)
    assert ended.exit_code == 0
    return ended.output


def a_set(folder: Path, side: int) -> Path:
    """Two SAR images with two ships each."""
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    noise = np.random.default_rng(0)
    for name in ("a", "b"):
        inside = np.zeros((side, side), np.uint8)
        inside[40:60, 30:50] = inside[90:100, 100:120] = 255
        pixels = np.where(inside > 0, 220, noise.integers(5, 60, (side, side))).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{name}.png")
        Image.fromarray(inside).save(folder / "labels" / f"{name}.png")
    (folder / "test.txt").write_text("a\nb\n")
    described = {"name": "mine", "format": "masks", "folder": ".", "modality": "sar", "names": {"x": "ship"}}
    (folder / "earthgptx.yaml").write_text(yaml.safe_dump(described))
    return folder


def test_a_model_is_trained_and_evaluated(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(CONFIG))
    needs = earthgptx("train", tmp_path / "c.yaml", "--out", tmp_path / "run", "--dry-run")
    assert "that learn" in needs
    assert not (tmp_path / "run").exists()
    said = earthgptx("train", tmp_path / "c.yaml", "--out", tmp_path / "run")
    assert str(tmp_path / "run" / "model") in said.replace("\n", "")
    data = a_set(tmp_path / "mine", 128)
    said = earthgptx(
        "evaluate", tmp_path / "run" / "model", data, "--json", tmp_path / "f.json", "--out", tmp_path / "kept"
    )
    assert "find_ap50" in said
    [report] = json.loads((tmp_path / "f.json").read_text())
    assert report["name"] == "mine"
    assert report["images"] == 2
    assert 0 <= report["figures"]["find_ap50"] <= 1
    assert 0 <= report["figures"]["mask_miou/point"] <= 1
    lines = [json.loads(line) for line in (tmp_path / "kept" / "mine" / "answers.jsonl").read_text().splitlines()]
    assert sum(line["task"] == "there" for line in lines) == 4
    assert sum(line["task"] == "regions" for line in lines) == 4 * 3
    assert (tmp_path / "kept" / "mine" / "worst.png").stat().st_size > 10_000


def test_an_image_that_is_too_large_is_found_in_tile_by_tile(tmp_path: Path) -> None:
    data = a_set(tmp_path / "mine", 1100)
    earthgptx("evaluate", "tiny", data, "--json", tmp_path / "f.json")
    [report] = json.loads((tmp_path / "f.json").read_text())
    assert set(report["figures"]) == {"find_ap50", "find_ap50/ship", "find_ap50_from_16_px"}


def test_images_are_brought_to_the_resolution_that_a_job_would_have(tmp_path: Path) -> None:
    data = a_set(tmp_path / "mine", 1100)
    with pytest.raises(ModelError, match="mine: how large a pixel is is not known"):
        earthgptx("evaluate", "tiny", data, "--resolution", "5")
    described = yaml.safe_load((data / "earthgptx.yaml").read_text())
    (data / "earthgptx.yaml").write_text(yaml.safe_dump({**described, "metres_per_pixel": 0.5}))
    earthgptx("evaluate", "tiny", data, "--resolution", "5", "--json", tmp_path / "f.json")
    [report] = json.loads((tmp_path / "f.json").read_text())
    assert "mask_miou/point" in report["figures"]  # 110 px are looked at in one


@pytest.mark.parametrize(
    ("arguments", "kind", "sentence"),
    [
        (("evaluate", "tiny", "nowhere"), ModelError, "nowhere is neither 'rendered' nor a folder of a known set"),
        (("evaluate", "nowhere", "rendered"), JobError, "nowhere is no folder, and no id"),
        (("train", "none.yaml", "--out", "x"), ModelError, "none.yaml cannot be read"),
    ],
)
def test_a_mistake_is_one_sentence(arguments: tuple[str, ...], kind: type[Exception], sentence: str) -> None:
    with pytest.raises(kind, match=sentence):
        CliRunner().invoke(app, list(arguments), catch_exceptions=False)

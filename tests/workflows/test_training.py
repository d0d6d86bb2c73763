"""Train and evaluate as a user does."""

import json
import re
from pathlib import Path
from resource import RUSAGE_SELF, getrusage

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from earthgptx.model.interface.errors import ModelError
from earthgptx.pipeline.errors import JobError
from earthgptx.workflows.cli import app
from tests import REPO

CONFIG = {
    "model": "tiny",
    "steps": 2,
    "sizes": [{"px": 128, "batch": 1}],
    "workers": 0,
    "vocabulary_samples": 5,
    "picture_every": 0,
    "sources": [{"rendered": True, "weight": 1}],
}


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
    described = {
        "name": "mine",
        "format": "masks",
        "modality": "sar",
        "names": {"x": "ship"},
    }
    (folder / "earthgptx.yaml").write_text(yaml.safe_dump(described))
    return folder


def test_a_model_is_trained_and_evaluated(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(CONFIG))
    needs = earthgptx("train", tmp_path / "c.yaml", "--out", tmp_path / "run", "--dry-run")
    assert "that learn" in needs
    assert not (tmp_path / "run").exists()
    said = earthgptx("train", tmp_path / "c.yaml", "--out", tmp_path / "run")
    assert "step 2 of 2, 0:00:00 left: text " in said
    assert str(tmp_path / "run" / "model") in said.replace("\n", "")
    data = a_set(tmp_path / "mine", 128)
    said = earthgptx(
        "evaluate",
        tmp_path / "run" / "model",
        data,
        "--json",
        tmp_path / "f.json",
        "--out",
        tmp_path / "kept",
    )
    assert "find_ap50" in said
    [report] = json.loads((tmp_path / "f.json").read_text())
    assert report["name"] == "mine"
    assert report["images"] == 2
    assert 0 <= report["figures"]["find_ap50"] <= 1
    assert 0 <= report["figures"]["mask_miou/point"] <= 1
    assert set(report["blind"]) == set(report["figures"])
    assert report["commonest"]["region_free_top1"] == 1  # there are ships only
    lines = [
        json.loads(line)
        for line in (tmp_path / "kept" / "mine" / "answers.jsonl").read_text().splitlines()
    ]
    assert sum(line["task"] == "there" for line in lines) == 4
    assert sum(line["task"] == "regions" for line in lines) == 4 * 3
    assert (tmp_path / "kept" / "mine" / "cases.png").stat().st_size > 10_000


def test_what_the_largest_scale_needs_is_said_and_nothing_is_held() -> None:
    config = REPO / "examples" / "train" / "base.yaml"
    before = getrusage(RUSAGE_SELF).ru_maxrss
    said = earthgptx("train", config, "--out", "nowhere", "--dry-run")
    assert (getrusage(RUSAGE_SELF).ru_maxrss - before) / 2**20 < 1  # GiB; its weights alone have 26
    devices = re.findall(r"sharded over (\d+) .*?([\d.]+) GiB on each", said)
    assert [number for number, _ in devices] == ["8", "32"]
    assert 4 * float(devices[1][1]) == pytest.approx(float(devices[0][1]), rel=0.01)
    assert float(devices[0][1]) > 10


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
        (
            ("evaluate", "tiny", "nowhere"),
            ModelError,
            "nowhere is neither 'rendered' nor a folder of a known set",
        ),
        (("evaluate", "nowhere", "rendered"), JobError, "nowhere is no folder, and no id"),
        (("train", "none.yaml", "--out", "x"), ModelError, "none.yaml cannot be read"),
    ],
)
def test_a_mistake_is_one_sentence(
    arguments: tuple[str, ...], kind: type[Exception], sentence: str
) -> None:
    with pytest.raises(kind, match=sentence):
        CliRunner().invoke(app, list(arguments), catch_exceptions=False)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name: mine\nformat: yolo\n", "'modality' is missing; see docs/training.md"),
        (
            "name: mine\nformat: yolo\nmodalty: sar\n",
            "unknown key 'modalty'; did you mean 'modality'?",
        ),
        ("name: mine\nformat: jolo\nmodality: sar\n", "'format': input should be 'coco'"),
        ("name: [", "earthgptx.yaml is not YAML"),
        ("- name", "describes no set; it should start with 'name: ...'"),
    ],
)
def test_a_set_that_is_described_wrongly_gets_a_sentence(
    tmp_path: Path, text: str, sentence: str
) -> None:
    (tmp_path / "earthgptx.yaml").write_text(text)
    with pytest.raises(ModelError) as caught:
        CliRunner().invoke(app, ["evaluate", "tiny", str(tmp_path)], catch_exceptions=False)
    assert sentence in str(caught.value)
    assert "pydantic" not in str(caught.value)

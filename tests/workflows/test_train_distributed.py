"""Several processes train one model: Ray Train and FSDP2, on processors here."""

import json
from pathlib import Path
from typing import Any

import pytest

from earthgptx.model.checkpoint.weights import from_pretrained
from earthgptx.model.interface.errors import ConfigError
from earthgptx.model.training.config import TrainConfig
from earthgptx.model.training.train import train
from earthgptx.workflows.train_distributed import train_distributed
from tests.workflows.test_training import CONFIG


def config(**changes: Any) -> TrainConfig:
    plain = {
        "sizes": [{"px": 128, "batch": 4}],
        "precision": "fp32",
        "log_every": 1,
        "checkpoint_every": 2,
        "lr": 3e-3,
        "warmup": 2,
    }
    return TrainConfig.model_validate(CONFIG | plain | changes)


@pytest.mark.slow
def test_two_processes_learn_as_one_and_go_on_where_they_stopped(
    tmp_path: Path, ray_two: None
) -> None:
    train_distributed(config(steps=2), tmp_path / "both", 2)
    lines = [
        json.loads(line) for line in (tmp_path / "both" / "metrics.jsonl").read_text().splitlines()
    ]
    assert [line["step"] for line in lines] == [1, 2]
    first = from_pretrained(tmp_path / "both" / "model")
    train(config(steps=2), tmp_path / "alone")
    alone = from_pretrained(tmp_path / "alone" / "model")
    moved = {
        name: weight - first.state_dict()[name]
        for name, weight in alone.state_dict().items()
        if weight.is_floating_point()
    }
    # The same images, averaged in another order and grouping: close, and far closer than what two
    # steps moved.
    assert max(float(each.abs().max()) for each in moved.values()) < 0.02
    # One goes on from what two left, and two from what one left: nothing is left to do.
    train(config(steps=2), tmp_path / "both")
    train_distributed(config(steps=2), tmp_path / "alone", 2)
    for name in ("both", "alone"):
        assert len((tmp_path / name / "metrics.jsonl").read_text().splitlines()) == 2


def test_a_batch_that_is_too_small_to_share_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="2 processes share a batch of 1"):
        train_distributed(config(sizes=[{"px": 128, "batch": 1}], steps=2), tmp_path, 2)

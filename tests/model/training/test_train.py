"""What is learned from: records, lessons, mixtures; and that a run which was stopped goes on bit by
bit.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from earthgptx.model.checkpoint.weights import from_pretrained
from earthgptx.model.inference.session import Session
from earthgptx.model.interface.errors import ConfigError
from earthgptx.model.interface.tile import Modality
from earthgptx.model.network.earthgptx import EarthGPTX
from earthgptx.model.samples.mixture import Mixture, RenderedConfig
from earthgptx.model.samples.sample import Answer
from earthgptx.model.synthetic.rendered import rendered
from earthgptx.model.training.config import TrainConfig, read_train_config
from earthgptx.model.training.losses import reach
from earthgptx.model.training.objective import losses
from earthgptx.model.training.pictures import draw_answers
from earthgptx.model.training.train import train
from tests.model.lessons import samples
from tests.model.records import SENSORS, a_record, ship


@pytest.mark.parametrize("sensor", SENSORS)
def test_the_made_world_is_the_same_for_a_seed_and_shows_what_it_says(sensor: Any) -> None:
    one, again, other = rendered(3, 128, sensor), rendered(3, 128, sensor), rendered(4, 128, sensor)
    assert one.pixels.tobytes() == again.pixels.tobytes()
    assert [region.mask for region in one.regions] == [region.mask for region in again.regions]
    assert one.pixels.tobytes() != other.pixels.tobytes()
    for seed in range(12):
        record = rendered(seed, 128, sensor)
        assert record.modality == sensor
        for region in record.regions:
            assert region.label in record.complete
            assert 0 <= region.mask.x0 < region.mask.x0 + region.mask.width <= 128
            if sensor != "optical":
                assert not {"white", "red", "dark", "grey"} & set(region.caption.split())
            if sensor != "infrared":
                assert "warm" not in region.caption


def config(**changes: Any) -> TrainConfig:
    plain = {
        "model": "tiny",
        "sizes": [{"px": 128, "batch": 2, "weight": 3}, {"px": 160, "batch": 1}],
        "steps": 6,
        "warmup": 2,
        "lr": 3e-3,
        "workers": 0,
        "vocabulary_samples": 20,
        "log_every": 1,
        "checkpoint_every": 3,
        "picture_every": 0,
        "precision": "fp32",
        "sources": [{"rendered": True, "weight": 1}],
    }
    return TrainConfig.model_validate(plain | changes)


def test_a_number_gives_always_the_same_sample() -> None:
    one, other = (Mixture.read((RenderedConfig(rendered=True, weight=1),), 5) for _ in range(2))
    for number in (0, 7, 10**6):
        for first, second in (
            (one.sample(number, 128), other.sample(number, 128)),
            (one.zoomed_sample(number, 128), other.zoomed_sample(number, 128)),
        ):
            assert first.pixels.tobytes() == second.pixels.tobytes()
            assert first.lessons == second.lessons
    assert one.sample(0, 128).pixels.tobytes() != one.sample(1, 128).pixels.tobytes()
    zoomed_sample = one.zoomed_sample(3, 128)
    assert zoomed_sample.around is not None
    assert zoomed_sample.around[0].shape == zoomed_sample.pixels.shape == (3, 128, 128)
    assert [prompt.id for prompt in zoomed_sample.around[1]] == [
        prompt.id for prompt in zoomed_sample.prompts
    ]


def test_the_scale_is_not_always_told() -> None:
    mixture = Mixture.read((RenderedConfig(rendered=True, weight=1),), 5)
    told = [mixture.record(number, 128).metres_per_pixel is not None for number in range(60)]
    assert 0.4 < np.mean(told) < 0.9


@pytest.mark.parametrize("modality", SENSORS)
def test_a_specialist_s_mixture_has_its_sensor_alone(modality: Modality) -> None:
    mixture = Mixture.read((RenderedConfig(rendered=True, weight=1, modality=modality),), 5)
    assert {mixture.record(number, 64).modality for number in range(20)} == {modality}


def test_a_run_that_was_stopped_ends_with_the_bytes_of_one_that_was_not(tmp_path: Path) -> None:
    train(config(seed=2), tmp_path / "whole")

    class Stopped(Exception):
        pass

    def stop(step: int, _: dict[str, float]) -> None:
        if step == 4:  # after the checkpoint of the third
            raise Stopped

    with pytest.raises(Stopped):
        train(config(seed=2), tmp_path / "stopped", stop)
    steps: list[int] = []
    train(config(seed=2), tmp_path / "stopped", lambda step, _: steps.append(step))
    assert steps == [4, 5, 6]
    whole, again = (
        (tmp_path / name / "model" / "model.safetensors").read_bytes()
        for name in ("whole", "stopped")
    )
    assert whole == again
    lines = [
        json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()
    ]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert all(np.isfinite(value) for line in lines for value in line.values())
    with pytest.raises(ConfigError, match="is of a run with another config"):
        train(config(seed=2, lr=1e-4), tmp_path / "stopped")
    model = from_pretrained(tmp_path / "whole" / "model")
    records = [rendered(seed, 128) for seed in range(4)]
    asked = Session(
        model,
        torch.from_numpy(np.stack([r.pixels for r in records])),
        [r.modality for r in records],
    )
    assert any(one.caption for one in asked.describe())
    train(config(model=str(tmp_path / "whole" / "model"), steps=1), tmp_path / "further")


def test_it_learns_and_shows_what_it_learned(tmp_path: Path) -> None:
    losses: list[float] = []
    train(
        config(steps=60, checkpoint_every=100, picture_every=60, accumulate=2, warmup=4),
        tmp_path,
        lambda _, found: losses.append(found["text"]),
    )
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    assert (tmp_path / "pictures" / "000060.png").stat().st_size > 10_000
    assert list((tmp_path / "tensorboard").iterdir())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"steps": 0}, "'steps': input should be greater than 0"),
        ({"sources": []}, "'sources': tuple should have at least 1 item"),
        ({"stpes": 3}, "unknown key 'stpes'; did you mean 'steps'"),
    ],
)
def test_a_config_that_cannot_be_is_refused(
    tmp_path: Path, change: dict[str, Any], sentence: str
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(json.loads(config().model_dump_json()) | change))
    with pytest.raises(ConfigError, match=sentence):
        read_train_config(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_train_config(tmp_path / "none.yaml")


def test_ground_that_is_not_known_is_not_taught() -> None:
    from earthgptx.model.training.objective import losses
    from tests.model.lessons import samples

    torch.manual_seed(0)
    from earthgptx.model.interface.config import preset
    from earthgptx.model.network.earthgptx import EarthGPTX
    from tests.model.lessons import vocabulary

    model = EarthGPTX(preset("tiny"), vocabulary())
    sample = samples(1)[0]
    everywhere = np.ones(sample.pixels.shape[1:], bool)
    known, unknown = (losses(model, [replace(sample, ignored=each)]) for each in (None, everywhere))
    assert float(known["mask"].detach()) > 0
    assert float(unknown["mask"]) == 0


def test_a_mask_that_reaches_its_box_is_taught_where_only_the_box_is_known() -> None:
    boxes = torch.tensor([[4.0, 6.0, 12.0, 10.0]])
    shown = torch.zeros(3, 16, 16)
    shown[0, 6:10, 4:12] = 1
    shown[1, 7:9, 6:10] = 1  # the core alone
    shown[2, 4:12, 2:14] = 1  # past the box
    reached, short, far = reach(shown, boxes.expand(3, -1)).tolist()
    assert reached == pytest.approx(0, abs=1e-6)
    assert short > 0.2
    assert far > 0.2


def test_pictures_are_drawn_of_images_of_any_size(tiny: EarthGPTX, tmp_path: Path) -> None:
    draw_answers(
        tiny,
        [("best", a_record(ship(10, 10), side=100)), ("worst", a_record(ship(20, 30), side=70))],
        tmp_path / "p" / "cases.png",
    )
    assert (tmp_path / "p" / "cases.png").stat().st_size > 1000


def test_what_is_asked_of_an_image_is_taught_as_if_it_were_asked_alone(tiny: EarthGPTX) -> None:
    # The first two are finds: one token to say, one presence.
    both = [replace(each, lessons=each.lessons[:2]) for each in samples(2)]
    single = [[replace(each, lessons=(lesson,))] for each in both for lesson in each.lessons]
    with torch.no_grad():
        together, alone = losses(tiny, both), [losses(tiny, each) for each in single]
    for name in ("text", "presence"):
        mean = float(torch.stack([each[name] for each in alone]).mean())
        assert float(together[name]) == pytest.approx(mean, rel=1e-4)


def test_answers_of_a_source_have_a_loss_of_their_own(tiny: EarthGPTX) -> None:
    def found(*answers: Answer) -> dict[str, float]:
        sample = samples(1)[0]
        made = tuple(each for each in sample.lessons if not isinstance(each, Answer))
        torch.manual_seed(0)
        with torch.no_grad():
            parts = losses(tiny, [replace(sample, lessons=(*made, *answers))])
        return {name: float(value) for name, value in parts.items()}

    none = found()
    one, other = (found(Answer("what is it?", word, told=True)) for word in ("sea", "a harbour"))
    assert "told" not in none
    assert one["told"] != other["told"]
    assert one["text"] == pytest.approx(other["text"]) == pytest.approx(none["text"])
    assert found(Answer("what is it?", "sea"))["text"] != pytest.approx(none["text"])

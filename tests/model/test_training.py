"""What is learned from: records, lessons, mixtures; and that a run which was stopped goes on bit by bit."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from model.earthgptx import EarthGPTX
from model.errors import ConfigError
from model.region import Mask
from model.tasks import Asked
from model.tile import Modality
from model.training.config import TrainConfig, read_train_config
from model.training.lessons import locates, pictured, pointed, taught
from model.training.mixture import Mixture, RenderedConfig
from model.training.objective import losses
from model.training.pasted import LENGTHS_PX, PASTED, may_paste, pasted
from model.training.pictures import draw_answers
from model.training.record import Record, Region
from model.training.rendered import rendered
from model.training.samples import Find, Locate, Refer
from model.training.terms import reach
from model.training.train import train
from model.weights import from_pretrained
from tests.model.lessons import samples

SENSORS = ("optical", "sar", "infrared")


def square(y: int, x: int, side: int = 10) -> Mask:
    return Mask.from_array(np.ones((side, side), bool), y0=y, x0=x)


def a_record(*regions: Region, side: int = 100) -> Record:
    pixels = np.zeros((3, side, side), np.uint8)
    for region in regions:
        pixels[:, region.mask.window(0, 0, side, side)] = 200
    return Record(
        pixels=pixels, modality="sar", metres_per_pixel=2.0, regions=regions, complete=frozenset({"ship", "aircraft"})
    )


def ship(y: int, x: int, side: int = 10) -> Region:
    return Region(labels=("ship", "vessel"), mask=square(y, x, side))


@given(
    y=st.integers(0, 85), x=st.integers(0, 85), y0=st.integers(-30, 60), x0=st.integers(-30, 60), side=st.integers(20, 120),
    quarters=st.integers(0, 3), flipped=st.booleans(),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_an_object_stays_on_its_pixels_however_its_image_is_cut_and_turned(
    y: int, x: int, y0: int, x0: int, side: int, quarters: int, flipped: bool
) -> None:
    cut = a_record(ship(y, x)).cropped(y0, x0, side, 64).turned(quarters, flipped=flipped)
    bright = cut.pixels[0] > 100
    inside = np.zeros((64, 64), bool)
    for region in cut.regions:
        inside |= region.mask.window(0, 0, 64, 64)
    unknown = cut.ignored if cut.ignored is not None else np.zeros((64, 64), bool)
    # What is bright is an object or unknown, but for the edge that resampling blurs.
    edge = 2 + int(64 / side)
    from scipy import ndimage

    near = ndimage.binary_dilation(inside | unknown, iterations=edge)
    assert not (bright & ~near).any()
    if cut.regions:
        core = ndimage.binary_erosion(inside, iterations=edge)
        assert bright[core].all()
    assert cut.metres_per_pixel == pytest.approx(2.0 * side / 64)


def test_what_is_cut_to_a_sliver_is_not_taught_either_way() -> None:
    cut = a_record(ship(40, 90)).cropped(40, 0, 91, 91)
    assert not cut.regions
    assert cut.ignored is not None
    assert cut.ignored.sum() > 0


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


def test_only_one_object_fits_a_referring_phrase() -> None:
    record = a_record(ship(10, 10), ship(40, 60, 20), ship(80, 84, 8))
    lessons = {lesson.phrase: lesson for lesson in locates(record, record.regions, np.random.default_rng(0), 50)
               if isinstance(lesson, Locate)}  # fmt: skip
    found = {phrase: lesson.mask for phrase, lesson in lessons.items()}
    first, second, third = (region.mask for region in record.regions)
    assert found["the leftmost ship"] == found["the topmost ship"] == first
    assert found["the largest ship"] == found["the second ship from the left"] == second
    assert found["the rightmost ship"] == found["the smallest ship"] == third
    assert lessons["the largest ship"].among == (first, third)
    # Two that are alike: neither is the largest.
    twins = a_record(ship(10, 10), ship(12, 60))
    phrases = [lesson.phrase for lesson in locates(twins, twins.regions, np.random.default_rng(0), 50)
               if isinstance(lesson, Locate)]  # fmt: skip
    assert not [phrase for phrase in phrases if "largest" in phrase or "smallest" in phrase or "topmost" in phrase]


def located(record: Record) -> dict[str, Mask | None]:
    found = pictured(record, [each for each in record.regions if not each.whole], np.random.default_rng(0), 99)
    return {each.phrase: each.mask for each in found if isinstance(each, Locate)}


def test_a_phrase_may_say_how_its_object_looks_and_what_it_is_by() -> None:
    def building(colour: str, y: int, x: int) -> Region:
        return Region(labels=("building",), mask=square(y, x), caption=f"a {colour} building, 20 m long")

    road = Region(labels=("road",), mask=Mask.from_array(np.ones((4, 100), bool), y0=12), whole=True, caption="a road")
    grey, white, far, other = (
        building(*told) for told in (("grey", 0, 5), ("white", 0, 60), ("white", 60, 30), ("white", 80, 70))
    )
    found = located(a_record(road, grey, white, far, other))
    assert found["the grey building"] == grey.mask
    assert found["the white building by the road"] == white.mask
    assert "the white building" not in found  # there are three
    assert "the building by the road" not in found  # the grey one is as near
    # One that lies little further away than another is by it as well.
    doubtful = located(a_record(road, white, building("white", 22, 60), other))
    assert not [phrase for phrase in doubtful if " by " in phrase]


def test_lessons_say_what_is_there_and_what_is_known_not_to_be() -> None:
    record = a_record(ship(10, 10), ship(50, 50))
    sample = taught(record, np.random.default_rng(0))
    finds = {lesson.phrase: lesson.masks for lesson in sample.lessons if isinstance(lesson, Find)}
    assert len(finds["ship"]) == len(finds["vessel"]) == 2
    assert finds["aircraft"] == ()
    assert "building" not in finds  # nothing is known of buildings
    refers = [lesson for lesson in sample.lessons if isinstance(lesson, Refer)]
    assert {lesson.prompt_id for lesson in refers} == {prompt.id for prompt in sample.prompts}
    assert all(lesson.made for lesson in refers)  # "a ship in the upper left, with one more around"
    told = taught(a_record(replace(ship(10, 10), caption="a ship at anchor")), np.random.default_rng(0))
    assert [(each.caption, each.made) for each in told.lessons if isinstance(each, Refer)] == [
        ("a ship at anchor", False)
    ]
    assert {each.phrase: len(each.masks) for each in sample.ground} == {"aircraft": 0, "ship": 2, "vessel": 2}


@given(seed=st.integers(0, 10**6), kind=st.sampled_from(["point", "box", "free"]))
def test_a_prompt_points_at_its_object(seed: int, kind: str) -> None:
    from model.prompt import VisualPrompt

    rng = np.random.default_rng(seed)
    inside = rng.random((14, 9)) < 0.6
    inside[5, 5] = True
    mask = Mask.from_array(inside, y0=20, x0=30)
    drawn = VisualPrompt(id="p", place=pointed(mask, rng, kind)).inside(64, 64)
    assert (drawn & mask.window(0, 0, 64, 64)).any()


def config(**changes: Any) -> TrainConfig:
    plain = {
        "model": "tiny", "sizes": [{"px": 128, "batch": 2, "weight": 3}, {"px": 160, "batch": 1}], "steps": 6, "warmup": 2, "lr": 3e-3, "workers": 0, "vocabulary_samples": 20,
        "log_every": 1, "checkpoint_every": 3, "picture_every": 0, "precision": "fp32",
        "sources": [{"rendered": True, "weight": 1}],
    }  # fmt: skip
    return TrainConfig.model_validate(plain | changes)


def test_a_number_gives_always_the_same_sample() -> None:
    one, other = (Mixture.read((RenderedConfig(rendered=True, weight=1),), 5) for _ in range(2))
    for number in (0, 7, 10**6):
        for first, second in (
            (one.sample(number, 128), other.sample(number, 128)),
            (one.focal(number, 128), other.focal(number, 128)),
        ):
            assert first.pixels.tobytes() == second.pixels.tobytes()
            assert first.lessons == second.lessons
    assert one.sample(0, 128).pixels.tobytes() != one.sample(1, 128).pixels.tobytes()
    focal = one.focal(3, 128)
    assert focal.around is not None
    assert focal.around[0].shape == focal.pixels.shape == (3, 128, 128)
    assert [prompt.id for prompt in focal.around[1]] == [prompt.id for prompt in focal.prompts]


def test_the_scale_is_not_always_told() -> None:
    mixture = Mixture.read((RenderedConfig(rendered=True, weight=1),), 5)
    told = [mixture.record(number, 128).metres_per_pixel is not None for number in range(60)]
    assert 0.4 < np.mean(told) < 0.9


@pytest.mark.parametrize("modality", SENSORS)
def test_a_specialist_s_mixture_has_its_sensor_alone(modality: Modality) -> None:
    mixture = Mixture.read((RenderedConfig(rendered=True, weight=1, modality=modality),), 5)
    assert {mixture.record(number, 64).modality for number in range(20)} == {modality}


def test_a_run_that_was_stopped_ends_with_the_bytes_of_one_that_was_not(tmp_path: Path) -> None:
    train(config(), tmp_path / "whole")

    class Stopped(Exception):
        pass

    def stop(step: int, _: dict[str, float]) -> None:
        if step == 4:  # after the checkpoint of the third
            raise Stopped

    with pytest.raises(Stopped):
        train(config(), tmp_path / "stopped", stop)
    steps: list[int] = []
    train(config(), tmp_path / "stopped", lambda step, _: steps.append(step))
    assert steps == [4, 5, 6]
    whole, again = ((tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("whole", "stopped"))
    assert whole == again
    lines = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert all(np.isfinite(value) for line in lines for value in line.values())
    with pytest.raises(ConfigError, match="is of a run with another config"):
        train(config(lr=1e-4), tmp_path / "stopped")
    model = from_pretrained(tmp_path / "whole" / "model")
    records = [rendered(seed, 128) for seed in range(4)]
    asked = Asked(model, torch.from_numpy(np.stack([r.pixels for r in records])), [r.modality for r in records])
    assert any(one.caption for one in asked.describe())
    train(config(model=str(tmp_path / "whole" / "model"), steps=1), tmp_path / "further")


def test_it_learns_and_shows_what_it_learned(tmp_path: Path) -> None:
    losses: list[float] = []
    train(
        config(steps=60, checkpoint_every=100, picture_every=60, accumulate=2, warmup=4), tmp_path,
        lambda _, found: losses.append(found["text"]),
    )  # fmt: skip
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    assert (tmp_path / "pictures" / "000060.png").stat().st_size > 10_000
    assert list((tmp_path / "tensorboard").iterdir())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"steps": 0}, "steps: Input should be greater than 0"),
        ({"sources": []}, "sources: Tuple should have at least 1 item"),
        ({"stpes": 3}, "stpes: Extra inputs"),
    ],
)
def test_a_config_that_cannot_be_is_refused(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(json.loads(config().model_dump_json()) | change))
    with pytest.raises(ConfigError, match=sentence):
        read_train_config(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_train_config(tmp_path / "none.yaml")


def test_ground_that_is_not_known_is_not_taught() -> None:
    from model.training.objective import losses
    from tests.model.lessons import samples

    torch.manual_seed(0)
    from model.config import preset
    from model.earthgptx import EarthGPTX
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


def test_ships_are_as_large_as_the_scale_of_their_image_says() -> None:
    """Else a scale of ten metres would mean that there are none."""
    ground = np.full((3, 96, 96), 40, np.uint8)
    words = frozenset(PASTED["sar"])
    for seed in range(20):
        record = Record(pixels=ground, modality="sar", metres_per_pixel=4.0, regions=(), complete=words)
        drawn = pasted(record, np.random.default_rng(seed))
        assert drawn.metres_per_pixel == 4
        for region in drawn.regions:
            assert np.hypot(region.mask.width, region.mask.height) * 4 < 1.3 * 300


@pytest.mark.parametrize("sensor", sorted(PASTED))
def test_what_is_drawn_on_a_real_image_is_outlined_and_hides_what_lies_under_it(sensor: Modality) -> None:
    ground = np.full((3, 96, 96), 40, np.uint8)
    roof = Region(labels=("building",), mask=Mask.from_array(np.ones((20, 20), bool), y0=10, x0=10))
    record = Record(
        pixels=ground,
        modality=sensor,
        metres_per_pixel=0.5,
        regions=(roof,),
        complete=frozenset(("building", *PASTED[sensor])),
    )
    assert may_paste(record)
    assert not may_paste(replace(record, complete=frozenset(("building",))))  # there may be some that nobody marked
    kept = 0
    for seed in range(30):
        drawn = pasted(record, np.random.default_rng(seed))
        longest_px = max(most for _, most in LENGTHS_PX.values())
        shortest_px = min(least for least, _ in LENGTHS_PX.values())
        assert 15 / longest_px <= (drawn.metres_per_pixel or 0) <= 300 / shortest_px
        seen = [region.mask.window(0, 0, 96, 96) for region in drawn.regions]
        assert np.sum(seen, axis=0).max(initial=0) <= 1
        old = [region for region in drawn.regions if region.label == "building"]
        kept += len(old)
        if not old and "building" not in drawn.complete:
            continue  # on another ground
        for region, inside in zip(drawn.regions, seen, strict=True):
            if region.label in PASTED[sensor]:
                assert abs(drawn.pixels.astype(int) - 40).max(axis=0)[inside].mean() > 10
    assert 5 < kept < 25


def test_pictures_are_drawn_of_images_of_any_size(tiny: EarthGPTX, tmp_path: Path) -> None:
    draw_answers(
        tiny, [("best", a_record(ship(10, 10), side=100)), ("worst", a_record(ship(20, 30), side=70))],
        tmp_path / "p" / "cases.png",
    )  # fmt: skip
    assert (tmp_path / "p" / "cases.png").stat().st_size > 1000


def test_what_is_asked_of_an_image_is_taught_as_if_it_were_asked_alone(tiny: EarthGPTX) -> None:
    both = [replace(each, lessons=each.lessons[:2]) for each in samples(2)]  # finds: one token to say, one presence
    single = [[replace(each, lessons=(lesson,))] for each in both for lesson in each.lessons]
    with torch.no_grad():
        together, alone = losses(tiny, both), [losses(tiny, each) for each in single]
    for name in ("text", "presence"):
        mean = float(torch.stack([each[name] for each in alone]).mean())
        assert float(together[name]) == pytest.approx(mean, rel=1e-4)

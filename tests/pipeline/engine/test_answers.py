"""What comes of visual prompts: an object, the answer that there is none, or no answer."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import shapely

from earthgptx import open_result, plan, run
from earthgptx.pipeline.engine.pool import ReplicaPool
from earthgptx.pipeline.results.result import Result
from tests.archive import Archive
from tests.pipeline.engine.runs import lonlat_of

GRID = {"tile_px": 256, "halo_px": 64, "block_px": 256}
PLACES = {
    "on a ship": (100, 110),
    "across a block border": (200, 256),
    "at sea": (40, 40),
    "no pixel": (300, 600),
    "no scene": (300, 1500),
}


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory, pool: ReplicaPool) -> Result:
    folder = tmp_path_factory.mktemp("answers")
    archive = Archive(folder / "archive")
    pixels = np.random.default_rng(0).integers(20, 30, (500, 800)).astype(np.uint8)
    pixels[98:104, 100:120] = 220
    pixels[197:203, 240:272] = 220
    pixels[380:386, 60:80] = 220  # nobody asks about it
    pixels[200:, 420:] = 0
    archive.add("a", pixels)
    archive.save()
    points = {name: shapely.Point(*lonlat_of(archive, *at)) for name, at in PLACES.items()}
    features = [
        {"type": "Feature", "id": name, "properties": {}, "geometry": shapely.geometry.mapping(at)}
        for name, at in points.items()
    ]
    file = folder / "prompts.geojson"
    file.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    job = archive.job(
        folder / "out.zarr",
        grid=GRID,
        tasks={"find": ["ship"], "refer": True},
        prompts={"from": str(file)},
    )
    report = run(plan(job), pool=pool)
    assert report.unanswered_prompts == 1
    assert list(report.refused_prompts) == ["no scene"]
    return open_result(str(folder / "out.zarr"))


def test_every_prompt_has_an_outcome(result: Result) -> None:
    answers = result.answers.set_index("prompt_id")
    assert answers.outcome.to_dict() == {
        "on a ship": "object",
        "across a block border": "object",
        "at sea": "nothing",
        "no pixel": "no data",
    }
    assert (answers.prompt_kind == "point").all()
    assert (answers.model == "cfar").all()
    assert answers.loc["at sea"].item_id == "a"
    assert answers.loc["at sea"].score < 0.5
    assert answers.loc["on a ship"].geometry.geom_type == "Point"


def test_an_answer_that_there_is_nothing_is_no_object(result: Result) -> None:
    assert len(result.objects) == 3
    assert len(result.query(text="ship")) == 3
    raster = result.raster
    assert set(np.unique(raster["object_id"])) - {0} == set(result.objects.object_id)  # type: ignore[call-overload, index]


def test_an_object_says_which_prompt_marks_it(result: Result) -> None:
    objects = result.objects.set_index("object_id")
    asked = result.answers[result.answers.outcome == "object"]
    for answer in asked.itertuples():
        found = objects.loc[answer.object_id]
        assert shlex.split(found.prompt_ids) == [answer.prompt_id]
        assert found.prompt_kind == "point"
        assert found.geometry.intersects(answer.geometry)
    others = objects.drop(asked.object_id)
    assert list(others.prompt_kind) == [""]
    assert (objects.model == "cfar").all()
    assert (objects.model_digest == result.attrs["model"]["digest"]).all()


def test_a_job_without_prompts_has_no_answers(result: Result, pool: ReplicaPool) -> None:
    folder = Path(result.url).parent
    archive = Archive(folder / "plain")
    archive.add("a", np.full((300, 300), 30, np.uint8))
    archive.save()
    run(plan(archive.job(folder / "plain.zarr", grid=GRID)), pool=pool)
    plain = open_result(str(folder / "plain.zarr"))
    assert len(plain.answers) == 0
    assert (plain.slices[["answers", "answer_files"]] == 0).all(axis=None)
    assert not (folder / "plain.answers").exists()


def test_the_group_has_the_rows_of_the_files(result: Result) -> None:
    group = result.group("answers")
    assert sorted(group["prompt_id"].values) == sorted(result.answers.prompt_id)
    assert dict(group.sizes) == {"answer": 4, "bound": 4}

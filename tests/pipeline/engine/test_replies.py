"""Questions in words about tiles and objects: the replies are kept, and can be asked."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from earthgptx import JobSpec, open_result, plan, run
from earthgptx.pipeline.engine.pool import ReplicaPool
from earthgptx.pipeline.errors import JobError
from earthgptx.pipeline.job.sections import Tasks
from earthgptx.pipeline.results.object_table import REPLIES
from earthgptx.pipeline.results.query import count_objects, find_objects
from earthgptx.pipeline.results.result import Result
from earthgptx.workflows.flow.selection import select
from earthgptx.workflows.flow.spec import Select
from tests import REPO
from tests.archive import Archive
from tests.workflows.test_cli import earthgptx

GRID = {"tile_px": 256, "halo_px": 64, "block_px": 256}
ASK: list[Any] = ["how bright?", {"question": "how wide?", "of": "objects"}]
REPLYING = "tests.analysts:Replying"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """A small ship, and a long one across a block's border; the east has no data."""
    made = Archive(tmp_path_factory.mktemp("replies"))
    pixels = np.random.default_rng(0).integers(20, 30, (500, 800)).astype(np.uint8)
    pixels[98:104, 100:120] = 220
    pixels[197:203, 230:282] = 210
    pixels[:, 600:] = 0
    made.add("a", pixels)
    made.save()
    return made


@pytest.fixture(scope="module")
def result(archive: Archive, tmp_path_factory: pytest.TempPathFactory, pool: ReplicaPool) -> Result:
    output = tmp_path_factory.mktemp("result") / "out.zarr"
    tasks = {"find": ["ship"], "ask": ASK}
    run(plan(archive.job(output, grid=GRID, model=REPLYING, tasks=tasks)), pool=pool)
    return open_result(str(output))


def test_each_tile_and_each_object_has_its_reply(result: Result) -> None:
    replies = result.replies
    objects = replies[replies.about == "objects"].set_index("object_id")
    assert set(objects.index) == set(result.objects.object_id)
    assert sorted(objects.reply) == ["22 px", "50 px"], "also of an object that was stitched"
    assert set(objects.question) == {"how wide?"}
    assert set(objects.label) == {"ship"}
    tiles = replies[replies.about == "tiles"]
    done = result.tiles["status"]  # type: ignore[index]
    assert len(tiles) == int((done == 1).sum()), "tiles without data are not asked"
    assert (tiles.object_id == 0).all()
    assert {"220", "210"} <= set(tiles.reply)
    assert (replies.likelihood == 0.25).all()
    assert (replies.item_id == "a").all()
    assert (replies.model == "replying").all()
    west, south, east, north = tiles.total_bounds
    w, s, e, n = result.ground.bounds
    assert w <= west < east <= e + 0.01
    assert s - 0.01 <= south < north <= n + 0.01


def test_they_lie_in_zarr_as_in_geoparquet(result: Result) -> None:
    group: Any = result.root["replies"]
    assert list(group["reply"][:]) == list(result.replies.reply)
    assert int(result.slices.replies.sum()) == len(result.replies)
    item = json.loads(Path(result.url.replace(".zarr", ".item.json")).read_text())
    assert item["assets"]["replies"]["href"] == "./out.replies/"


def test_they_are_asked_as_objects_are(result: Result, tmp_path: Path) -> None:
    found = find_objects([result], rows=REPLIES, where="about = 'objects' AND reply = '50 px'")
    assert found["label"].to_pylist() == ["ship"]
    assert len(find_objects([result], rows=REPLIES, text="wide ship")) == 2
    counted = count_objects([result], "question", "label", rows=REPLIES, label="ship")
    assert counted.to_pylist() == [{"question": "how wide?", "label": "ship", "replies": 2}]
    with pytest.raises(JobError, match="replies have no score"):
        find_objects([result], rows=REPLIES, min_score=0.5)
    surest = find_objects([result], rows=REPLIES, order="-likelihood", limit=3)
    assert (
        surest.to_pylist()
        == find_objects([result], rows=REPLIES, order="-likelihood", limit=3).to_pylist()
    )
    for given, said in (
        ({"rank": True, "text": "wide"}, "not ranked"),
        ({"order": "score"}, "sorted by"),
    ):
        with pytest.raises(JobError, match=said):
            find_objects([result], rows=REPLIES, **given)
    with pytest.raises(JobError, match="caption"):
        find_objects([result], rows=REPLIES, where="caption = 'x'")
    with pytest.raises(JobError, match="objects are not counted by 'reply'"):
        count_objects([result], "reply")
    said, _ = earthgptx("query", result.url, "--replies", "--where", "reply = '50 px'")
    assert "1 replies" in said
    assert "50 px" in said
    said, _ = earthgptx("query", result.url, "--replies", "--count-by", "about", "--json")
    assert {each["about"]: each["replies"] for each in json.loads(said)}["objects"] == 2
    said, _ = earthgptx("query", result.url, "--replies", "--json", "--label", "ship")
    assert {each["properties"]["reply"] for each in json.loads(said)["features"]} == {
        "22 px",
        "50 px",
    }
    asked = Select.model_validate(
        {
            "from": "x",
            "of": "replies",
            "count_by": ["reply"],
            "where": "label = 'ship'",
            "to": "a.csv",
        }
    )
    assert select(result, asked, tmp_path) == 2
    assert "50 px" in (tmp_path / "a.csv").read_text()


@pytest.mark.parametrize(
    ("tasks", "said"),
    [
        ({"ask": [""]}, "question"),
        ({"ask": ["a?", "a?"], "find": ["x"]}, "a question is there twice"),
        ({"ask": [{"question": "a?", "of": "objects"}]}, "questions about objects need some"),
        ({"ask": [{"question": "a?", "of": "pixels"}]}, "'tiles' or 'objects'"),
        ({"ask": [{"quesstion": "a?"}]}, "quesstion"),
        ({"ask": ["a\nb"]}, "one line of words"),
    ],
)
def test_a_question_that_is_none_is_refused(tasks: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Tasks.model_validate(tasks)


def test_a_question_alone_is_a_job_and_a_model_that_does_not_reply_is_refused(
    archive: Archive, tmp_path: Path, pool: ReplicaPool
) -> None:
    job = archive.job(
        tmp_path / "out.zarr", grid=GRID, model=REPLYING, tasks={"ask": ["how bright?"]}
    )
    run(plan(job), pool=pool)
    assert len(open_result(job.output).replies) == open_result(job.output).rows[0].replies > 0
    with pytest.raises(JobError, match="model 'cfar' replies to no questions"):
        plan(archive.job(tmp_path / "a.zarr", grid=GRID, tasks={"ask": ["how bright?"]}))


def test_a_tile_without_a_reply_is_quarantined(
    archive: Archive, tmp_path: Path, pool: ReplicaPool
) -> None:
    job = archive.job(
        tmp_path / "out.zarr",
        grid=GRID,
        model=REPLYING,
        tasks={"ask": ["fail?"]},
        engine={"max_failed_fraction": 1},
    )
    report = run(plan(job), pool=pool)
    assert report.failed_tiles
    assert "the model replied to 0 of 1 questions" in report.failures[0]
    assert len(open_result(job.output).replies) == 0


def test_the_job_file_of_the_readme_is_one() -> None:
    text = (REPO / "README.md").read_text()
    block = text[text.index("    name: harbour") : text.index("Relative paths count")]
    spec = JobSpec.from_dict(yaml.safe_load(textwrap.dedent(block)))
    assert spec.tasks.questions("tiles") == ("how many ships are there?",)
    assert spec.tasks.questions("objects") == ("what is this?",)
    assert spec.engine.max_cost

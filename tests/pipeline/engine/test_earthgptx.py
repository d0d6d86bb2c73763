"""EarthGPT-X in the engine: an untrained tiny model goes the whole way; a taught one finds what it
was taught.
"""

import json
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import xarray as xr

from earthgptx import open_result, plan, run
from earthgptx.model.checkpoint.weights import save_pretrained, untrained
from earthgptx.pipeline.engine.pool import ReplicaPool
from earthgptx.pipeline.errors import JobError
from earthgptx.pipeline.results.result import Result
from tests.archive import Archive, every_kind_of_prompt, targets
from tests.pipeline.engine.test_cluster import TWO_GPUS, alone
from tests.results import same

GRID = {"tile_px": 256, "halo_px": 64, "block_px": 256}


@pytest.fixture
def scene(archive: Archive) -> Archive:
    archive.add("a", targets(5, (400, 500), 20), nodata=None)
    archive.save()
    return archive


def asked(
    scene: Archive, out: Path, origin: str, pool: ReplicaPool | None = None, **more: Any
) -> Result:
    job = scene.job(
        out,
        model="tiny",
        grid=GRID,
        prompts={"from": origin},
        tasks={"find": ["ship", "tank"], "refer": True, "describe": True},
        **more,
    )
    report = run(plan(job), pool=pool)
    assert report.failed_tiles == 0, report.failures
    return open_result(str(out))


def test_every_kind_of_prompt_is_answered_once(
    scene: Archive, tmp_path: Path, pool: ReplicaPool
) -> None:
    shapes = every_kind_of_prompt(scene)
    gpd.GeoDataFrame(
        {"id": list(shapes)}, geometry=list(shapes.values()), crs="EPSG:32631"
    ).to_parquet(tmp_path / "p.parquet")
    for origin in (str(tmp_path / "p.parquet"), "grid", "superpixels", "cfar"):
        result = asked(scene, tmp_path / f"{Path(origin).stem}.zarr", origin, pool)
        answers = result.answers.set_index("prompt_id")
        assert answers.index.is_unique
        assert len(answers)
        assert set(answers["outcome"]) <= {"object", "nothing"}
        marked = answers[answers["outcome"] == "object"]
        assert set(marked["object_id"]) <= set(result.objects["object_id"])
        # Random weights never end a caption: its budget does, and it says so.
        assert all(text.endswith(" ...") for text in result.objects["caption"] if text)
        if origin.endswith(".parquet"):
            assert set(answers.index) == set(shapes)
            wide = answers.loc["wide"].geometry
            assert (wide.bounds[3] - wide.bounds[1]) * 111_000 > 2560  # metres: more than a tile
        raster = result.raster
        assert isinstance(raster, xr.Dataset)
        assert (raster["status"] == 1).all()
        tiles = result.tiles
        assert isinstance(tiles, xr.Dataset)
        assert tiles["seconds"].values.max() > 0


@pytest.mark.slow
def test_two_replicas_on_two_gpus_leave_the_bytes_of_one(
    scene: Archive, tmp_path: Path, ray_two: None
) -> None:
    asked(scene, tmp_path / "one.zarr", "cfar")
    job = scene.job(
        tmp_path / "two.zarr",
        model="tiny",
        grid=GRID,
        prompts={"from": "cfar"},
        tasks={"find": ["ship", "tank"], "refer": True, "describe": True},
        engine={"replicas": 2, "gpus_per_replica": 1},
    )
    report = alone(TWO_GPUS, job)
    assert report["failed_tiles"] == 0
    same(tmp_path / "one.zarr", tmp_path / "two.zarr")


def test_a_folder_of_weights_is_a_model_and_another_digest_another_plan(
    scene: Archive, tmp_path: Path
) -> None:
    save_pretrained(untrained("tiny"), tmp_path / "one")
    first = plan(scene.job(tmp_path / "a.zarr", model=str(tmp_path / "one"), grid=GRID))
    assert first.traits.name == "earthgptx-one"
    again = plan(scene.job(tmp_path / "a.zarr", model=str(tmp_path / "one"), grid=GRID))
    assert first.series == again.series
    config = tmp_path / "one" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text())))
    assert (
        plan(scene.job(tmp_path / "a.zarr", model=str(tmp_path / "one"), grid=GRID)).series
        != first.series
    )
    (tmp_path / "one" / "model.safetensors").unlink()
    with pytest.raises(JobError, match="no analyst '.*one' .*has no model.safetensors"):
        plan(scene.job(tmp_path / "a.zarr", model=str(tmp_path / "one"), grid=GRID))
    with pytest.raises(JobError, match="no analyst 'huge'"):
        plan(scene.job(tmp_path / "a.zarr", model="huge", grid=GRID))


def test_more_prompts_than_fit_are_split_and_none_is_dropped() -> None:
    from earthgptx.model.inference.analyst import EarthGPTXAnalyst
    from earthgptx.model.interface.prompt import VisualPrompt
    from earthgptx.model.interface.region import Point
    from earthgptx.model.interface.tile import TileInput
    from earthgptx.pipeline.analyst import check_output

    model = untrained("tiny")
    count = model.config.max_prompts + 5
    prompts = tuple(
        VisualPrompt(id=str(n), place=Point(1.5 * n + 1, 0.5 * n + 1)) for n in range(count)
    )
    everywhere = np.ones((130, 140), bool)
    tile = TileInput(
        pixels=np.full((3, 130, 140), 90, np.uint8),
        valid=everywhere,
        wanted=everywhere,
        modality="sar",
        metres_per_pixel=10.0,
        phrases=(),
        prompts=prompts,
        names=(),
        describe=False,
        questions=("is there a runway?", "how many ships?"),
        object_questions=("what does it carry?",),
    )
    [answer] = EarthGPTXAnalyst(model).analyse([tile])
    assert [grounding.prompt_id for grounding in answer.groundings] == [
        prompt.id for prompt in prompts
    ]
    assert answer.scores.shape == (0, 130, 140)
    assert [each.question for each in answer.replies] == list(tile.questions)
    assert all(each.text and 0 <= each.likelihood <= 1 for each in answer.replies)
    for grounding in answer.groundings:
        asked = tile.object_questions if grounding.present else ()
        assert tuple(each.question for each in grounding.replies) == asked
    check_output(answer, tile)

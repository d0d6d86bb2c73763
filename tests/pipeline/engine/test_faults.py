"""The engine under faults: tiles that fail, replicas that hang or die, disks that are full."""

from pathlib import Path

import pytest

from earthgptx import open_result
from earthgptx.pipeline.errors import RunFailed
from tests.archive import Archive, targets
from tests.pipeline.engine.runs import (
    done,
    lonlat_of,
    raster,
)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("Raising", "raised RuntimeError: this tile is too much for me"),
        ("WrongShape", "answered scores uint8 (1, 7, 7), expected uint8 (1, 256, 256)"),
        ("Silent", "gave 0 answers to 1 tiles"),
        pytest.param(
            "Killing", "the model's process died on this tile, 5 times", marks=pytest.mark.chaos
        ),
    ],
)
def test_a_tile_that_fails_is_quarantined_and_the_job_goes_on(
    marked: Archive, tmp_path: Path, model: str, reason: str
) -> None:
    out = tmp_path / "a.zarr"
    job = marked.job(
        out, model=f"tests.analysts:{model}", engine={"replicas": 2, "max_failed_fraction": 0.5}
    )
    report = done(job)
    assert report.failed_tiles == 1
    assert reason in report.failures[0]
    assert "tile 2/3 of " in report.failures[0]
    result = open_result(str(out))
    assert result.state == "finished"
    layer = raster(str(out))
    bad = layer["status"].values[0] == 5
    assert bad[256:384, 384:512].all()
    assert bad.sum() == 128 * 128
    assert (layer["status"].values[0][~bad] == 1).all()
    assert (layer["label"].values[0][bad] == 0).all()
    lonlat = lonlat_of(marked, row=300, col=400)
    [answer] = result.why(*lonlat)
    assert answer.status.startswith("quarantined")
    assert reason in answer.reason
    assert "tests.analysts" in result.attrs["job"]["model"]


@pytest.mark.chaos
def test_a_replica_that_hangs_is_replaced_and_its_tile_quarantined(
    marked: Archive, tmp_path: Path
) -> None:
    job = marked.job(
        tmp_path / "a.zarr",
        model="tests.analysts:Hanging",
        engine={"max_failed_fraction": 0.5, "tile_timeout_s": 3, "start_timeout_s": 60},
    )
    report = done(job)
    assert (report.failed_tiles, report.passing_tiles) == (1, 1)
    assert "the model's process hung" in report.failures[0]


def test_too_many_failures_stop_the_job_and_keep_what_is_finished(
    marked: Archive, tmp_path: Path
) -> None:
    out = tmp_path / "a.zarr"
    with pytest.raises(
        RunFailed, match="more than engine.max_failed_fraction 0.0 allows.*too much for me"
    ):
        done(marked.job(out, model="tests.analysts:Raising", engine={"max_failed_fraction": 0}))
    assert open_result(str(out)).state == "error"


def test_a_model_that_cannot_be_loaded_is_named(scene: Archive, tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="RuntimeError: no weights here"):
        done(scene.job(tmp_path / "a.zarr", model="tests.analysts:Unloadable"))


def test_a_broken_item_is_quarantined_with_its_reason(scene: Archive, tmp_path: Path) -> None:
    path = scene.add("broken", targets(6)[:300, :300], col=900, nodata=None)
    scene.save()
    path.write_bytes(path.read_bytes()[:5000])
    out = tmp_path / "a.zarr"
    report = done(scene.job(out, engine={"max_failed_fraction": 0.5}))
    assert report.failed_tiles > 0
    assert "asset image of item broken" in report.failures[0]
    status = raster(str(out))["status"].values[0]
    assert (status[:, :700] == 1).all()
    assert (status[:300, 1100:] == 5).all()

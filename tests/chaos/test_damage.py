"""Files that are torn, flipped, lost or somebody else's.

The runs share a Ray; what a run leaves when it is stopped is what it leaves when it is killed, but
for the state in its root's document and for the lease.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr

from earthgptx import open_result, plan, run
from earthgptx.pipeline.engine import finishing, steps
from earthgptx.pipeline.engine.report import Progress
from earthgptx.pipeline.errors import OutputError, RunFailed, RunLost
from earthgptx.pipeline.results import layout, store
from tests.chaos.harness import Case

chaos = pytest.mark.chaos
Bytes = dict[str, bytes]
FUNCTIONS = {
    "create": (layout, "_create_tables"),
    "stitch": (finishing, "Gathering"),
    "objects": (finishing, "put_files"),
    "publish": (steps, "published_item"),
    "finish": (store, "set_finished"),
}


@pytest.fixture(autouse=True)
def shared_ray(ray_two: None) -> None:
    """One Ray for all runs."""


def stopped(case: Case, moment: str) -> None:
    """Leaves a run that was stopped at a moment."""

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    def on_progress(progress: Progress) -> None:
        here = (progress.stage, moment) in (("infer", "commit"), ("overview", "overview"))
        if here and (progress.done >= 1 or moment == "overview"):
            stop()

    with pytest.MonkeyPatch.context() as patch:
        if moment in FUNCTIONS:
            patch.setattr(*FUNCTIONS[moment], stop)
        with pytest.raises((RunFailed, KeyboardInterrupt)):
            run(plan(case.job), on_progress=on_progress)


def flip(path: Path) -> None:
    """Flips a bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    path.write_bytes(data)


def cut(path: Path) -> None:
    """Leaves the first half of a file."""
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


@pytest.mark.parametrize(
    "kind", ["frames", *(pytest.param(each, marks=chaos) for each in ("scores", "objects"))]
)
@pytest.mark.parametrize(
    "damage", [flip, *(pytest.param(each, marks=chaos) for each in (cut, empty, Path.unlink))]
)
@pytest.mark.parametrize("moment", ["commit", pytest.param("stitch", marks=chaos)])
def test_scratch_that_cannot_be_read_is_made_again(
    case: Case, undisturbed: Bytes, kind: str, damage: Callable[[Path], None], moment: str
) -> None:
    stopped(case, moment)
    kept = case.out.with_suffix(".memory") / "t0"
    for path in (case.out.with_suffix(".parts") if kind == "scores" else kept).glob(f"{kind}/*"):
        damage(path)
    run(plan(case.job))
    assert case.same_as(undisturbed)


@chaos
@pytest.mark.parametrize("folder", [".parts", ".memory"])
def test_scratch_that_is_lost_is_made_again(case: Case, undisturbed: Bytes, folder: str) -> None:
    stopped(case, "stitch")
    for path in sorted(case.out.with_suffix(folder).rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    run(plan(case.job))
    assert case.same_as(undisturbed)


@chaos
def test_scratch_that_is_lost_under_way_ends_the_run_in_words(
    case: Case, undisturbed: Bytes
) -> None:
    def lose(progress: Progress) -> None:
        parts = case.out.with_suffix(".parts")
        if progress.stage == "infer" and progress.done >= 1:
            shutil.rmtree(parts, ignore_errors=True)

    with pytest.raises(RunLost, match="its record is gone"):
        run(plan(case.job), on_progress=lose)
    run(plan(case.job))
    assert case.same_as(undisturbed)


@pytest.mark.parametrize(
    ("layer", "moment"),
    [
        ("label", "overview"),
        *(
            pytest.param(layer, moment, marks=chaos)
            for layer, moment in (
                ("score", "overview"),
                ("status", "overview"),
                ("object_id", "overview"),
                ("label", "stitch"),
                ("status", "stitch"),
                ("status", "objects"),
            )
        ),
    ],
)
def test_a_flipped_shard_is_made_again(
    case: Case, undisturbed: Bytes, layer: str, moment: str
) -> None:
    stopped(case, moment)
    shards = [path for path in (case.out / "raster" / layer / "c").rglob("*") if path.is_file()]
    assert shards
    for path in shards[::2]:
        flip(path)
    run(plan(case.job))
    assert case.same_as(undisturbed)


@chaos
@pytest.mark.parametrize(
    "lost",
    [
        "zarr.json",
        "raster/label/zarr.json",
        "raster/x/zarr.json",
        "raster/x/c/0",
        "blocks/record/zarr.json",
        "tiles/caption/zarr.json",
        "slices/key/zarr.json",
        "overview/zarr.json",
    ],
)
def test_metadata_that_is_lost_is_made_again(case: Case, undisturbed: Bytes, lost: str) -> None:
    stopped(case, "overview")
    (case.out / lost).unlink()
    run(plan(case.job))
    assert case.same_as(undisturbed)


@chaos
def test_a_damaged_ledger_entry_counts_as_not_committed(case: Case, undisturbed: Bytes) -> None:
    stopped(case, "stitch")
    chunks = [path for path in (case.out / "blocks/record/c").rglob("*") if path.is_file()]
    assert chunks
    for path in chunks:
        flip(path)
    run(plan(case.job))
    assert case.same_as(undisturbed)


@chaos
@pytest.mark.parametrize("moment", ["create", "commit", "stitch", "finish"])
def test_overwrite_begins_anew_in_every_state(case: Case, undisturbed: Bytes, moment: str) -> None:
    stopped(case, moment)
    for path in (case.out.parent / "out.parts").rglob("*"):
        if path.is_file() and "run" not in path.parts:
            cut(path)
    (case.out / "zarr.json").unlink()
    run(plan(case.job), overwrite=True)
    assert case.same_as(undisturbed)


@chaos
@pytest.mark.parametrize("record", ["", "{", json.dumps({"token": "a", "beat": 1e12})])
def test_a_lease_that_cannot_be_read_lapses(
    case: Case, undisturbed: Bytes, record: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped(case, "commit")
    (case.out.with_suffix(".parts") / "run" / "holder.json").write_text(record)
    monkeypatch.setenv("EARTHGPTX_LEASE_S", "3")
    run(plan(case.job))
    assert case.same_as(undisturbed)


@pytest.mark.parametrize(
    "name", ["out.parts/thesis.txt", "out.objects/thesis.txt", "out.items.parquet", "out.item.json"]
)
def test_what_is_somebody_elses_stays(case: Case, name: str) -> None:
    precious = case.folder / name
    precious.parent.mkdir(exist_ok=True)
    precious.write_text("ten years of work")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="earthgptx.*choose another output"):
            run(plan(case.job), overwrite=overwrite)
    assert precious.read_text() == "ten years of work"
    assert not case.out.exists()


@chaos
def test_what_is_somebody_elses_in_our_scratch_stays(case: Case) -> None:
    stopped(case, "commit")
    precious = case.out.with_suffix(".parts") / "thesis.txt"
    precious.write_text("ten years of work")
    run(plan(case.job))
    assert precious.read_text() == "ten years of work"


@chaos
def test_a_flipped_shard_of_a_finished_result_is_an_error_and_no_value(case: Case) -> None:
    run(plan(case.job))
    [shard, *_] = [path for path in (case.out / "raster/score/c").rglob("*") if path.is_file()]
    data = bytearray(shard.read_bytes())
    data[20] ^= 1
    shard.write_bytes(data)
    with pytest.raises(Exception, match=r"[Cc]hecksum|crc|decompress"):
        np.asarray(zarr.open_array(case.out / "raster/score", mode="r")[...])
    assert open_result(str(case.out)).state == "finished"

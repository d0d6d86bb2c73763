"""A server of imagery that fails for a while, or for good."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest

from earthgptx import JobSpec, open_result, plan, run
from earthgptx.pipeline.engine.report import Progress
from earthgptx.pipeline.errors import Outage, RunFailed
from tests.archive import Archive, targets
from tests.chaos.harness import GRID, Case
from tests.chaos.servers import FileServer, first, until
from tests.results import alike, contents

chaos = pytest.mark.chaos
Bytes = dict[str, bytes]


@pytest.fixture
def server(tmp_path: Path) -> Any:
    """A server of COGs, and the catalog of what it serves, with addresses that do not change."""
    with FileServer(tmp_path / "served").running() as running:
        yield running


def served(server: FileServer, folder: Path) -> Case:
    """A job over four Items on a server."""
    archive = Archive(folder / "served")
    for number in range(4):
        pixels = np.minimum(targets(5 + number, (700, 225), 8), 200)
        archive.add(f"piece-{number}", pixels, col=225 * number, nodata=None)
    archive.save()
    catalog = pystac.Catalog.from_file(str(archive.folder / "catalog.json"))
    for item in catalog.get_items():
        item.assets["image"].href = f"{server.url}/{item.id}.tif"
    catalog.normalize_and_save(str(folder / "catalog"), pystac.CatalogType.ABSOLUTE_PUBLISHED)
    job = archive.job(folder / "out.zarr", grid=GRID, model="tests.chaos.moments:Moments")
    document = job.model_dump(mode="json", by_alias=True, exclude_none=True)
    document["source"]["catalog"] = str(folder / "catalog" / "catalog.json")
    document["source"]["access"] = {"hosts": [server.url.removeprefix("http://")]}
    document["source"]["access"] = {"hosts": [server.url.removeprefix("http://")]}
    document["source"]["access"] = {"hosts": [server.url.removeprefix("http://")]}
    document["source"]["access"] = {"hosts": [server.url.removeprefix("http://")]}
    document["source"]["access"] = {"hosts": [server.url.removeprefix("http://")]}
    document["source"]["access"] = {"hosts": [server.url.removeprefix("http://")]}
    document["source"]["access"] = {"hosts": [server.url.removeprefix("http://")]}
    document["source"]["access"] = {"hosts": [server.url.removeprefix("http://")]}
    document["source"]["access"] = {"hosts": [server.url.removeprefix("http://")]}
    document["source"]["access"] = {"hosts": [server.url.removeprefix("http://")]}
    document["source"]["access"] = {"hosts": [server.url.removeprefix("http://")]}
    return Case(folder, JobSpec.from_dict(document))


@pytest.fixture(autouse=True)
def shared_ray(ray_two: None) -> None:
    """One Ray for all runs."""


def reference(case: Case, server: FileServer) -> Bytes:
    """The result while the server is well; the output is free again afterwards."""
    server.fault = lambda _method, _path: ""
    run(plan(case.job))
    found = contents(case.out)
    case.job = case.job.model_copy(update={"output": str(case.folder / "again.zarr")})
    return found


@pytest.mark.parametrize(
    "fault",
    [
        "503",
        *(
            pytest.param(each, marks=chaos)
            for each in ("429", "500", "reset", "truncated", "reset in the middle", "garbled")
        ),
    ],
)
def test_a_source_that_fails_for_a_while_leaves_no_hole(
    server: FileServer, tmp_path: Path, fault: str
) -> None:
    case = served(server, tmp_path)
    before = reference(case, server)
    server.fault = first(12, fault, ".tif")
    run(plan(case.job))
    assert server.faults[fault] == 12
    assert alike(contents(case.out), before)


@chaos
@pytest.mark.parametrize("fault", ["reset", "503", "hung"])
def test_a_source_that_is_down_for_a_minute_is_waited_for(
    server: FileServer, tmp_path: Path, fault: str
) -> None:
    case = served(server, tmp_path)
    before = reference(case, server)
    server.fault = until(time.monotonic() + 60, fault)
    run(plan(case.job))
    assert alike(contents(case.out), before)


@pytest.mark.parametrize(
    "fault", [pytest.param(each, marks=chaos) for each in ("404", "403", "reset", "500")]
)
def test_a_source_that_fails_for_good_ends_the_run_and_heals_when_it_is_back(
    server: FileServer, tmp_path: Path, fault: str
) -> None:
    """The same command ends as an outage every time, until the server is well."""
    case = served(server, tmp_path)
    before = reference(case, server)
    server.fault = lambda _method, path: fault if "piece-2" in path else ""
    for retry in (True, True, False):
        with pytest.raises(Outage, match="tiles failed, more than engine.max_failed_fraction"):
            run(plan(case.job), retry_failed=retry)
        assert open_result(str(case.out)).state == "error"
    server.fault = lambda _method, _path: ""
    run(plan(case.job))
    assert alike(contents(case.out), before)


@pytest.mark.parametrize("retry", [pytest.param(True, marks=chaos), False])
def test_holes_in_scratch_count_when_the_run_goes_on(
    server: FileServer, tmp_path: Path, retry: bool
) -> None:
    """A run that stops before it has committed anything leaves its holes in scratch only."""
    case = served(server, tmp_path)
    server.fault = lambda _method, path: "404" if "piece-2" in path else ""
    with pytest.raises(Outage):
        run(plan(case.job))
    for path in (case.out / "blocks").rglob("c/*"):
        if path.is_file():
            path.unlink()
    with pytest.raises(Outage, match="tiles failed"):
        run(plan(case.job), retry_failed=retry)


@chaos
def test_holes_that_are_allowed_heal_when_the_source_is_back(
    server: FileServer, tmp_path: Path
) -> None:
    case = served(server, tmp_path)
    before = reference(case, server)
    case.change(engine={"max_failed_fraction": 0.9})
    server.fault = lambda _method, path: "404" if "piece-2" in path else ""
    report = run(plan(case.job))
    assert report.failed_tiles == report.passing_tiles > 0
    again = run(plan(case.job))
    assert (again.tiles, again.failed_tiles) == (0, report.failed_tiles)
    tiles = open_result(str(case.out)).layer("tiles")
    assert set(tiles["cause"].values[tiles["status"].values == 5]) == {"unreachable"}
    server.fault = lambda _method, _path: ""
    assert run(plan(case.job), retry_failed=True).failed_tiles == 0
    assert alike(contents(case.out), before)


@chaos
@pytest.mark.parametrize("also", ["", "piece-1"])
def test_a_finished_result_that_cannot_be_healed_stays_as_it_is(
    server: FileServer, tmp_path: Path, also: str
) -> None:
    """The same command while imagery is still down, or more of it: no answer is lost."""
    case = served(server, tmp_path)
    case.change(engine={"max_failed_fraction": 0.9})
    server.fault = lambda _method, path: "404" if "piece-2" in path else ""
    failed = run(plan(case.job)).failed_tiles
    assert failed > 0
    before = contents(case.out)
    server.fault = lambda _method, path: (
        "404" if "piece-2" in path or (also and also in path) else ""
    )
    assert run(plan(case.job), retry_failed=True).failed_tiles == failed
    assert alike(contents(case.out), before)


@chaos
def test_a_run_that_dies_while_it_heals_counts_what_is_not_healed(
    server: FileServer, tmp_path: Path
) -> None:
    case = served(server, tmp_path)
    before = reference(case, server)
    case.change(engine={"max_failed_fraction": 0.9})
    server.fault = lambda _method, path: "404" if "piece-2" in path else ""
    run(plan(case.job))
    server.fault = lambda _method, _path: ""

    def stop(progress: Progress) -> None:
        if progress.stage == "infer" and progress.tiles:
            raise KeyboardInterrupt

    with pytest.raises(RunFailed, match="interrupted"):
        run(plan(case.job), retry_failed=True, on_progress=stop)
    assert run(plan(case.job)).failed_tiles == 0
    assert alike(contents(case.out), before)


@chaos
def test_a_committed_block_that_answers_less_when_it_is_inferred_again_is_said(
    server: FileServer, tmp_path: Path
) -> None:
    """The parts of objects of a committed block are lost, and so is its imagery."""
    case = served(server, tmp_path)
    before = reference(case, server)

    def stop(progress: Progress) -> None:
        if progress.stage == "stitch":
            raise KeyboardInterrupt

    with pytest.raises(RunFailed):
        run(plan(case.job), on_progress=stop)
    [lost, *_] = sorted((case.out.with_suffix(".memory") / "t0" / "objects").glob("*r1-c2*"))
    lost.unlink()
    server.fault = lambda _method, path: "404" if "piece-2" in path else ""
    with pytest.raises(Outage, match="tiles failed"):
        run(plan(case.job))
    server.fault = lambda _method, _path: ""
    assert run(plan(case.job)).failed_tiles == 0
    assert alike(contents(case.out), before)

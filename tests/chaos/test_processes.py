"""Processes that die, stop, freeze and wake, at every moment of a run."""

import signal
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from earthgptx import open_result
from tests.chaos.harness import OUTAGE, Case, by_name, end, kill_family
from tests.chaos.moments import DRIVER, REPLICA
from tests.results import contents

chaos = pytest.mark.chaos
Bytes = dict[str, bytes]


def some(moments: tuple[str, ...], *quick: str) -> list[object]:
    """Moments as parameters; only the quick ones run in `make test`."""
    return [each if each in quick else pytest.param(each, marks=chaos) for each in moments]


@pytest.mark.parametrize("moment", some(REPLICA))
def test_a_replica_that_is_killed_needs_nobody(case: Case, undisturbed: Bytes, moment: str) -> None:
    ended = case.run(moment, "kill")
    assert (case.folder / "reached").exists()
    assert ended.code == 0, ended.said
    assert case.same_as(undisturbed)


@pytest.mark.parametrize("moment", some((*DRIVER, *REPLICA)))
def test_a_driver_that_is_killed_goes_on_when_run_again(
    case: Case, undisturbed: Bytes, moment: str
) -> None:
    process = case.start(moment, "kill" if moment in DRIVER else "wait")
    case.reached(process)
    kill_family(process)
    assert process.wait() == -signal.SIGKILL
    ended = case.run()
    assert ended.code == 0, ended.said
    assert case.same_as(undisturbed)


@chaos
def test_a_driver_is_killed_in_every_write_of_the_store(case: Case, undisturbed: Bytes) -> None:
    """As soon as the folder has one more file than the last time, until the store is complete."""
    for count in range(1, 15):
        process = case.start()
        limit = time.monotonic() + 60
        while time.monotonic() < limit and process.poll() is None:
            if sum(path.is_file() for path in case.out.rglob("*")) >= count:
                break
        kill_family(process)
        process.wait()
    case.finish()
    assert case.same_as(undisturbed)


@pytest.mark.parametrize(
    ("signal_", "moment"),
    [
        *(
            pytest.param(which, moment, marks=chaos)
            for which in (signal.SIGTERM, signal.SIGINT)
            for moment in ("load", "infer", "commit", "stitch", "overview", "objects")
        ),
    ],
)
def test_a_signal_ends_a_run_with_a_sentence(
    case: Case, undisturbed: Bytes, signal_: signal.Signals, moment: str
) -> None:
    process = case.start(moment, "wait")
    case.reached(process)
    process.send_signal(signal_)
    time.sleep(0.5)
    case.go()
    ended = end(process)
    assert ended.code == 1, ended.said
    assert ended.in_words, ended.said
    assert "interrupted" in ended.said
    assert "Run the same command again to go on" in ended.said
    assert open_result(str(case.out)).state == "canceled"
    case.finish()
    assert case.same_as(undisturbed)


@chaos
@pytest.mark.parametrize("moment", ["infer", "commit", "overview"])
def test_a_replica_that_freezes_is_replaced(case: Case, undisturbed: Bytes, moment: str) -> None:
    process = case.start(moment, "freeze")
    frozen = case.reached(process)
    ended = end(process)
    with suppress(psutil.Error):
        psutil.Process(frozen).kill()
    assert ended.code == 0, ended.said
    assert case.same_as(undisturbed)


@chaos
@pytest.mark.parametrize("moment", ["create", "stitch", "objects", "publish"])
def test_a_driver_that_wakes_up_goes_on(case: Case, undisturbed: Bytes, moment: str) -> None:
    process = case.start(moment, "freeze")
    case.reached(process)
    time.sleep(12)
    process.send_signal(signal.SIGCONT)
    ended = end(process)
    assert ended.code == 0, ended.said
    assert case.same_as(undisturbed)


@pytest.mark.parametrize("other", ["same", pytest.param("other", marks=chaos)])
@pytest.mark.parametrize("moment", some(DRIVER, "objects"))
def test_a_zombie_writes_nothing_more(case: Case, tmp_path: Path, moment: str, other: str) -> None:
    """A driver freezes, its lease lapses, another run of the same or of another series finishes."""
    process = case.start(moment, "freeze", EARTHGPTX_LEASE_S="4")
    case.reached(process)
    options = []
    if other == "other":
        tasks = case.job.tasks.model_copy(update={"find": ["other"]})
        case.job = case.job.model_copy(update={"tasks": tasks})
        options = ["--overwrite"]
    second = case.run("", "", *options, EARTHGPTX_LEASE_S="4")
    assert second.code == 0, second.said
    before = contents(case.out), _beside(case.out)
    process.send_signal(signal.SIGCONT)
    ended = end(process)
    assert ended.code == 1, ended.said
    assert ended.in_words, ended.said
    assert "this run writes nothing more" in ended.said
    assert (contents(case.out), _beside(case.out)) == before


def _beside(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.parent.glob("out.*") if path.is_file()}


@chaos
@pytest.mark.parametrize("way", ["ahead", "back"])
@pytest.mark.parametrize("moment", ["create", "infer"])
def test_a_clock_that_is_set_changes_nothing(
    case: Case, undisturbed: Bytes, moment: str, way: str
) -> None:
    ended = case.run(moment, way)
    assert ended.code == 0, ended.said
    assert (case.folder / "reached").exists()
    assert case.same_as(undisturbed)


@chaos
def test_two_drivers_at_once_are_one_too_many(case: Case, undisturbed: Bytes) -> None:
    process = case.start("infer", "wait")
    case.reached(process)
    second = Case(case.folder / "second", case.job)
    second.folder.mkdir()
    refused = second.run()
    assert refused.code == 3, refused.said
    assert "is being written by another run" in refused.said
    case.go()
    assert end(process).code == 0
    assert case.same_as(undisturbed)


@chaos
@pytest.mark.parametrize("part", ["raylet/raylet", "gcs_server"])
@pytest.mark.parametrize("moment", ["load", "infer", "paint"])
def test_ray_itself_dies(case: Case, undisturbed: Bytes, part: str, moment: str) -> None:
    process = case.start(moment, "wait")
    case.reached(process)
    for victim in by_name(process, part):
        if victim.name() in ("raylet", "gcs_server"):
            victim.kill()
    case.go()
    ended = end(process)
    assert ended.code in OUTAGE, ended.said
    assert ended.in_words, ended.said
    assert "state-dump" not in ended.said
    case.finish()
    assert case.same_as(undisturbed)


@chaos
@pytest.mark.parametrize("wakes", [True, False], ids=["wakes", "stays"])
@pytest.mark.parametrize("part", ["raylet", "gcs_server"])
@pytest.mark.parametrize("moment", ["load", "infer", "paint"])
def test_ray_itself_freezes(
    case: Case, undisturbed: Bytes, part: str, moment: str, wakes: bool
) -> None:
    """It wakes before Ray counts the node as dead, or never."""
    case.change(engine={"start_timeout_s": 60})
    process = case.start(moment, "wait")
    case.reached(process)
    frozen = [each for each in by_name(process, part) if each.name() == part]
    for each in frozen:
        each.suspend()
    case.go()
    if wakes:
        time.sleep(8)
        for each in frozen:
            each.resume()
    ended = end(process, limit_s=400)
    assert ended.code in ((0,) if wakes else OUTAGE), ended.said
    assert ended.in_words, ended.said
    if ended.code:
        case.finish()
    assert case.same_as(undisturbed)


@chaos
def test_ray_that_is_not_there_is_said(case: Case, ray_two: None) -> None:
    ended = case.run(RAY_ADDRESS="127.0.0.1:6399")
    assert ended.code == 3, ended.said
    assert ended.in_words, ended.said
    assert "does not answer" in ended.said
    assert "RAY_AUTH_TOKEN" not in ended.said
    case.finish()

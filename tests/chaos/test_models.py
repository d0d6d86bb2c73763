"""Models that raise, hang, kill, leak or answer nonsense: on some tiles, on all."""

from typing import Any

import psutil
import pytest

from earthgptx import open_result
from tests.chaos.harness import Case, end
from tests.chaos.models import CAUSES, CLASSES, HOWS

chaos = pytest.mark.chaos


def low_memory() -> dict[str, str]:
    """Has Ray's monitor end processes once two more gigabytes are in use."""
    memory = psutil.virtual_memory()
    share = (memory.total - memory.available + 2 * 2**30) / memory.total
    return {
        "RAY_memory_usage_threshold": f"{share:.3f}",
        "RAY_memory_monitor_refresh_ms": "100",
    }


def engine(**more: Any) -> dict[str, Any]:
    return {"replicas": 2, "max_failed_fraction": 1.0, "tile_timeout_s": 3} | more


LEAK = pytest.param("leak", 20, marks=pytest.mark.alone)


@chaos
@pytest.mark.parametrize(
    ("how", "share"),
    [*((how, 60) for how in HOWS), ("raise", 150), ("nonsense", 150), LEAK],
)
def test_tiles_that_fail_are_quarantined_and_no_others(case: Case, how: str, share: int) -> None:
    model = f"tests.chaos.models:{CLASSES[how, share].__name__}"
    case.change(model=model, engine=engine())
    process = case.start(**(low_memory() if how == "leak" else {}))
    ended = end(process, limit_s=600)  # blame takes several deaths, each half a minute
    assert ended.code == 0, ended.said
    result = open_result(str(case.out))
    tiles = result.layer("tiles")
    bad = tiles["status"].values == 5
    assert 0 < bad.sum() < bad.size / 2
    assert set(tiles["cause"].values[bad]) == {CAUSES[how]}
    assert not (tiles["cause"].values[~bad] != "").any()
    kept = case.out.with_suffix(".parts").exists()
    assert kept == (CAUSES[how] in ("died", "hung", "memory"))


@chaos
@pytest.mark.parametrize("how", HOWS)
def test_a_model_that_fails_on_everything_ends_the_run_in_words(case: Case, how: str) -> None:
    model = f"tests.chaos.models:{CLASSES[how, 1000].__name__}"
    case.change(model=model, engine=engine(max_failed_fraction=0.01))
    ended = end(case.start(), limit_s=600)
    assert ended.code in (1, 3), ended.said
    assert ended.in_words, ended.said
    assert open_result(str(case.out)).state == "error"


@chaos
def test_a_replica_that_fails_on_what_others_can_do_is_replaced(case: Case) -> None:
    sick = "tests.chaos.models:SickAfterAWhile"
    case.change(model=sick, engine=engine(max_failed_fraction=0.0))
    ended = case.run(EARTHGPTX_SICK=str(case.folder / "sick"))
    assert (case.folder / "sick").exists()
    assert ended.code == 0, ended.said
    assert (open_result(str(case.out)).layer("tiles")["status"].values == 1).all()

"""What runs may cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from earthgptx import open_result, plan, run
from earthgptx.pipeline.engine.scheduler import Scheduler
from earthgptx.pipeline.engine.spending import Spending
from earthgptx.pipeline.engine.staff import ENDING_S, Limits
from earthgptx.pipeline.engine.tasks import Failure as Why
from earthgptx.pipeline.engine.tasks import Kind, Lost, Ready, Start, Task, Trouble, Up
from earthgptx.pipeline.errors import CostReached, JobError
from earthgptx.pipeline.job.grid import BlockKey
from earthgptx.pipeline.job.sections import Engine
from tests.archive import Archive


@pytest.mark.parametrize(
    ("engine", "most", "spent", "seconds"),
    [
        ({}, None, 5, None),
        ({"price_per_replica_hour": 2}, None, 5, None),
        ({"price_per_replica_hour": 0}, 1, 0, None),
        ({"price_per_replica_hour": 2, "max_cost": 1}, None, 5, 1800),
        ({"price_per_replica_hour": 2, "max_cost": 1}, 10, 5, 1800),
        ({"price_per_replica_hour": 2, "max_cost": 8}, 10, 5, 9000),
        ({"price_per_replica_hour": 2}, 10, 12, 0),
    ],
)
def test_the_time_that_a_run_may_take(
    engine: dict[str, float], most: float | None, spent: float, seconds: float | None
) -> None:
    assert Spending(most, spent).limit_s(Engine(**engine)) == seconds


def test_a_limit_needs_a_price() -> None:
    with pytest.raises(JobError, match="engine.price_per_replica_hour"):
        Spending(1.0).limit_s(Engine())
    with pytest.raises(ValueError, match="max_cost needs price_per_replica_hour"):
        Engine(max_cost=1)


@pytest.mark.parametrize("amount", [-1.0, float("nan"), float("inf")])
def test_what_is_no_amount_is_refused(amount: float) -> None:
    with pytest.raises(JobError, match="is no amount"):
        Spending(amount)


def test_a_limit_that_does_not_pay_the_start_says_so() -> None:
    scheduler = Scheduler(Limits(1, 1, paid_s=10))
    scheduler.add(Task(Kind.INFER, BlockKey("g", 0, 0, 0)))
    scheduler.decide(0.0)
    scheduler.handle(Up(0), 1.0)
    scheduler.resume(11.0)
    scheduler.decide(11.0)
    assert "none has loaded the model" in str(scheduler.ending)


def test_time_is_paid_from_when_a_process_runs_until_it_is_gone() -> None:
    scheduler = Scheduler(Limits(1, 2, paid_s=100))
    for col in range(8):
        scheduler.add(Task(Kind.INFER, BlockKey("g", 0, 0, col)))
    assert scheduler.decide(0.0) == [Start(0), Start(1)]
    for number, at in ((0, 10.0), (1, 20.0)):
        scheduler.handle(Up(number), at)
        scheduler.handle(Ready(number), at)
    assert scheduler.staff.paid_s(30.0) == 20 + 10
    scheduler.handle(Lost(0, Why(Trouble.DIED, "it died")), 40.0)
    assert scheduler.staff.paid_s(60.0) == 30 + 40
    scheduler.resume(80.0)
    scheduler.decide(80.0)
    assert scheduler.ending is None
    end = 20 + 70 - 2 * ENDING_S  # one that is asked for may come up
    scheduler.decide(end - 0.5)
    assert scheduler.ending is None
    scheduler.decide(end)
    assert isinstance(scheduler.ending, CostReached)


PRICED: dict[str, Any] = {"price_per_replica_hour": 3600.0}


def test_a_run_that_may_cost_no_more_goes_on_later(scene: Archive, tmp_path: Path) -> None:
    output = tmp_path / "out.zarr"
    slow = scene.job(output, model="tests.analysts:Dawdling", engine=PRICED | {"max_cost": 3})
    with pytest.raises(CostReached, match="run the same command again to go on"):
        run(plan(slow))
    assert open_result(str(output)).state == "canceled"
    spending = Spending(most=1000.0)
    report = run(
        plan(scene.job(output, model="tests.analysts:Dawdling", engine=PRICED)), spending=spending
    )
    assert report.cost
    assert report.cost == pytest.approx(spending.spent, rel=0.2)
    assert open_result(str(output)).state == "finished"

    nothing = Spending(most=1.0, spent=1.0)
    again = run(
        plan(scene.job(output, model="tests.analysts:Dawdling", engine=PRICED)), spending=nothing
    )
    assert again.tiles == 0, "what has nothing to do may be run with nothing left"
    with pytest.raises(CostReached, match=r"not begun: 1.00 of at most 1.00 are spent"):
        run(plan(scene.job(tmp_path / "new.zarr", engine=PRICED)), spending=nothing)
    assert nothing.reached

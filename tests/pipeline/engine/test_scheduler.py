"""The scheduler alone: tables of single events, and histories of whole simulated runs."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from earthgptx.pipeline.engine.blame import is_guilty
from earthgptx.pipeline.engine.budgets import BUDGET, DEATHS, SICK
from earthgptx.pipeline.engine.scheduler import Scheduler
from earthgptx.pipeline.engine.staff import SILENCE_S, Limits
from earthgptx.pipeline.engine.tasks import (
    Assign,
    Done,
    Failed,
    Failure,
    Kind,
    Lost,
    Order,
    Pulse,
    Ready,
    Start,
    Step,
    Stop,
    Suspect,
    Task,
    Trouble,
    Up,
)
from earthgptx.pipeline.errors import Outage, RunFailed, RunLost
from earthgptx.pipeline.job.grid import BlockKey
from tests.figures import Record
from tests.pipeline.engine.simulation import Cluster, World

A, B, C = (Task(Kind.INFER, BlockKey("g", 0, 0, col)) for col in range(3))
COMMIT = Task(Kind.COMMIT, BlockKey("g", 0, 0, 0))
DIED = Failure(Trouble.DIED, "its process died")


def ready(count: int, *tasks: Task, limits: Limits | None = None) -> Scheduler:
    """A scheduler with infer tasks of four tiles and replicas that are ready."""
    scheduler = Scheduler(limits or Limits(1, count))
    for task in tasks:
        scheduler.add(task, pieces=4)
    for order in scheduler.decide(0.0):
        assert isinstance(order, Start)
        scheduler.handle(Up(order.replica), 0.0)
        scheduler.handle(Ready(order.replica), 0.0)
    return scheduler


def assigned(orders: list[Order]) -> list[tuple[int, Task, int | None]]:
    return [(each.replica, each.task, each.piece) for each in orders if isinstance(each, Assign)]


def test_work_starts_with_the_first_replica_that_is_ready() -> None:
    scheduler = Scheduler(Limits(1, 3))
    for task in (A, B, C):
        scheduler.add(task)
    assert [type(order) for order in scheduler.decide(0.0)] == [Start] * 3
    scheduler.handle(Ready(1), 1.0)
    assert assigned(scheduler.decide(1.0)) == [(1, A, None), (1, B, None)]


def test_no_more_replicas_are_started_than_there_is_work() -> None:
    scheduler = Scheduler(Limits(1, 64))
    scheduler.add(A)
    assert scheduler.decide(0.0) == [Start(0)]


def test_a_task_waits_for_what_it_needs_and_a_commit_goes_first() -> None:
    scheduler = ready(1, A, B, C)
    scheduler.add(COMMIT, [A, B])
    assert assigned(scheduler.decide(0.0)) == [(0, A, None), (0, B, None)]
    scheduler.handle(Done(0, A), 1.0)
    assert assigned(scheduler.decide(1.0)) == [(0, C, None)]
    scheduler.handle(Done(0, B), 1.0)
    assert assigned(scheduler.decide(1.0)) == [(0, COMMIT, None)]


def test_events_of_the_past_are_ignored() -> None:
    scheduler = ready(1, A)
    scheduler.decide(0.0)
    scheduler.handle(Lost(0, DIED), 1.0)
    scheduler.handle(Done(0, A), 1.0)
    assert not scheduler.finished
    scheduler.handle(Done(7, A), 1.0)
    assert not scheduler.finished


@pytest.mark.parametrize(
    ("trouble", "pauses"),
    [
        (Trouble.SOURCE, [1, 2, 4, 8, 16, 30]),
        (Trouble.STORAGE, [1, 2, 4, 8, 16]),
        (Trouble.BUG, [0, 0]),
    ],
)
def test_a_failure_is_tried_again_after_a_pause_within_its_budget(
    trouble: Trouble, pauses: list[float]
) -> None:
    scheduler, now = ready(1, A), 0.0
    for pause in pauses:
        [(replica, task, _)] = assigned(scheduler.decide(now))
        scheduler.handle(Failed(replica, task, Failure(trouble, "503")), now)
        if pause:
            assert assigned(scheduler.decide(now + pause - 0.01)) == []
            assert scheduler.wake_at == now + pause
        now += pause
    [order] = [each for each in scheduler.decide(now) if isinstance(each, Assign)]
    assert order.last == (trouble == Trouble.SOURCE), "then what cannot be read is quarantined"
    scheduler.handle(Failed(0, A, Failure(trouble, "503")), now)
    assert isinstance(scheduler.ending, Outage if trouble == Trouble.STORAGE else RunFailed)
    assert "503" in str(scheduler.ending)
    assert len(pauses) == BUDGET[trouble]


def test_storage_that_was_waited_for_ends_the_run_at_the_second_failure() -> None:
    """An object store is asked for two minutes before it counts as a failure."""
    scheduler = ready(1, A)
    for moment in (120.0, 241.0):
        assert scheduler.ending is None
        scheduler.decide(moment)
        scheduler.handle(Failed(0, A, Failure(Trouble.STORAGE, "down", waited=True)), moment)
        scheduler.decide(moment + 60)
    assert isinstance(scheduler.ending, Outage)


def test_a_mistake_ends_the_run_at_once() -> None:
    scheduler = ready(1, A)
    scheduler.decide(0.0)
    lost = RunLost("another run holds the output now")
    scheduler.handle(Failed(0, A, Failure(Trouble.BUG, "", error=lost, final=True)), 0.0)
    assert scheduler.ending is lost


def test_what_is_lost_is_made_again_before_the_task_that_reads_it() -> None:
    scheduler = ready(1)
    scheduler.add(A, done=True)
    scheduler.add(COMMIT, [A])
    [Start_] = scheduler.decide(0.0)
    assert isinstance(Start_, Start)
    scheduler.handle(Ready(0), 0.0)
    assert assigned(scheduler.decide(0.0)) == [(0, COMMIT, None)]
    scheduler.handle(Failed(0, COMMIT, Failure(Trouble.INPUT, "torn", (A,))), 0.0)
    assert assigned(scheduler.decide(0.0)) == [(0, A, None)]
    scheduler.handle(Done(0, A), 0.0)
    assert assigned(scheduler.decide(0.0)) == [(0, COMMIT, None)]
    scheduler.handle(Done(0, COMMIT), 0.0)
    assert scheduler.finished


def test_a_lost_machine_is_nobodys_fault() -> None:
    scheduler, now = ready(1, A), 0.0
    for _ in range(2 * DEATHS):
        [(replica, task, piece)] = assigned(scheduler.decide(now))
        assert (task, piece) == (A, None), "it is not tried tile by tile"
        scheduler.handle(Lost(replica, Failure(Trouble.NODE, "its machine is gone")), now)
        [start] = scheduler.decide(now)
        scheduler.handle(Ready(start.replica), now)


def test_a_block_on_which_replicas_die_is_tried_tile_by_tile_when_nothing_else_is_ready() -> None:
    scheduler = ready(1, A)
    for _ in range(DEATHS):
        [(replica, _, _)] = assigned(scheduler.decide(0.0))
        scheduler.handle(Lost(replica, DIED), 0.0)
        [start] = scheduler.decide(0.0)
        scheduler.handle(Ready(start.replica), 0.0)
    scheduler.add(B)
    [(replica, task, _)] = assigned(scheduler.decide(0.0))
    assert task == B
    scheduler.handle(Done(replica, B, tiles=4), 0.0)
    tried = []
    for _ in range(4):
        [(replica, task, piece)] = assigned(scheduler.decide(0.0))
        tried.append(piece)
        scheduler.handle(Done(replica, task, piece, 1), 0.0)
    assert tried == [0, 1, 2, 3]
    assert assigned(scheduler.decide(0.0)) == [(replica, A, None)], "no tile is guilty"


@pytest.mark.parametrize(
    ("kind", "trials", "other_deaths", "survived", "guilty"),
    [
        ("died", 2, 0, 10_000, False),  # never after fewer than three
        ("died", 3, 0, 10_000, True),  # nothing else dies
        ("died", 3, 0, 50, False),
        ("died", 5, 0, 50, True),
        ("died", 5, 300, 1000, False),  # three in ten die anyway
        ("died", 18, 300, 1000, True),
        ("died", 20, 0, 0, False),  # nothing to compare with
        ("hung", 2, 0, 100, True),
        ("hung", 2, 5, 100, False),
    ],
)
def test_guilt_is_what_chance_cannot_explain(
    kind: str, trials: int, other_deaths: int, survived: int, guilty: bool
) -> None:
    assert is_guilty(kind, trials, other_deaths, survived) == guilty


def test_another_replica_is_asked_about_a_tile_on_which_the_model_failed() -> None:
    scheduler = ready(2, A, B)
    assert len(assigned(scheduler.decide(0.0))) == 2
    suspects = (Suspect(2, "raised", proven=True),)
    scheduler.handle(Done(0, A, None, 3, suspects), 0.0)
    assert assigned(scheduler.decide(0.0)) == [(1, A, 2)]
    scheduler.handle(Done(1, A, 2, error="raised"), 0.0)
    scheduler.handle(Done(1, B, None, 4), 0.0)
    assert scheduler.finished, "both failed: the tile is quarantined"


def test_a_replica_that_fails_where_another_does_not_is_replaced() -> None:
    scheduler = ready(2, A, B, limits=Limits(1, 2))
    now = 0.0
    suspects = (Suspect(2, "raised", proven=True),)
    stopped = []
    for _ in range(6):
        for order in scheduler.decide(now):
            if isinstance(order, Stop):
                stopped.append(order.replica)
            elif isinstance(order, Start):
                scheduler.handle(Ready(order.replica), now)
            elif order.piece is not None:
                scheduler.handle(Done(order.replica, order.task, order.piece, 1), now)
            elif order.replica == 0:
                scheduler.handle(Done(0, order.task, None, 3, suspects), now)
            else:
                scheduler.handle(Done(order.replica, order.task, None, 4), now)
    assert scheduler.finished
    assert stopped in ([], [0])


def test_replicas_that_are_sick_one_after_another_end_the_run() -> None:
    scheduler, now = ready(1, A), 0.0
    for _ in range(SICK):
        [(replica, task, piece)] = assigned(scheduler.decide(now))
        scheduler.handle(Failed(replica, task, Failure(Trouble.SICK, "CUDA error"), piece), now)
        orders = scheduler.decide(now)
        if scheduler.ending is None:
            assert Stop(replica, "fails on what other replicas can do") in orders
            scheduler.handle(Ready(orders[-1].replica), now)
    assert "the model fails on everything: CUDA error" in str(scheduler.ending)


@pytest.mark.parametrize(
    ("step", "late"),
    [
        (Step("ask", 29.0), False),
        (Step("ask", 31.0), True),
        (Step("ask", 100.0, tiles=4), False),
        (Step("read", 800.0), False),
        (Step("write", 1801.0), True),
    ],
)
def test_a_replica_that_does_not_get_on_is_replaced(step: Step, late: bool) -> None:
    scheduler = ready(1, A)
    scheduler.decide(0.0)
    scheduler.handle(Pulse(0, (step,), tile_s=1.0), 1.0)
    orders = scheduler.decide(1.0)
    assert any(isinstance(order, Stop) for order in orders) == late


def test_a_replica_that_does_not_answer_is_replaced_unless_the_driver_slept() -> None:
    scheduler = ready(1, A)
    now = 0.0
    while now < SILENCE_S:
        assert not [order for order in scheduler.decide(now) if isinstance(order, Stop)]
        now += 5
    assert [order for order in scheduler.decide(now + 1) if isinstance(order, Stop)]
    scheduler = ready(1, A)
    scheduler.decide(0.0)
    assert not [order for order in scheduler.decide(3600.0) if isinstance(order, Stop)]


@pytest.mark.parametrize(("least", "ending"), [(1, None), (2, Outage)])
def test_a_run_goes_on_with_what_is_left_but_not_with_less_than_its_least(
    least: int, ending: type[Exception] | None
) -> None:
    scheduler = Scheduler(Limits(least, 2, start_s=60))
    scheduler.add(A)
    scheduler.add(B)
    scheduler.decide(0.0)
    scheduler.handle(Ready(0), 0.0)
    now = 0.0
    while now < 70:
        scheduler.handle(Pulse(0), now)
        scheduler.decide(now)
        now += 5
    assert scheduler.ending is None if ending is None else isinstance(scheduler.ending, ending)


def test_a_model_that_cannot_be_loaded_ends_the_run() -> None:
    scheduler = Scheduler(Limits(1, 1))
    scheduler.add(A)
    scheduler.decide(0.0)
    why = RunFailed("no weights here")
    scheduler.handle(Lost(0, Failure(Trouble.BUG, "no weights", error=why, final=True)), 0.0)
    scheduler.decide(0.0)
    assert scheduler.ending is why


def test_processes_that_die_while_they_load_are_started_again_a_few_times() -> None:
    scheduler, now, starts = Scheduler(Limits(1, 1)), 0.0, 0
    scheduler.add(A)
    while scheduler.ending is None:
        for order in scheduler.decide(now):
            assert isinstance(order, Start)
            starts += 1
            scheduler.handle(Lost(order.replica, DIED), now)
        now += 1
    assert (starts, isinstance(scheduler.ending, RunFailed)) == (6, True)
    assert now < 120


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    rows=st.integers(1, 4),
    cols=st.integers(1, 4),
    pieces=st.sampled_from([1, 4, 9]),
    replicas=st.sampled_from([1, 2, 5]),
    deaths=st.sampled_from([0.0, 0.05]),
    nodes=st.sampled_from([0.0, 0.05]),
    source=st.sampled_from([0.0, 30.0]),
    lost=st.sampled_from([0.0, 0.1]),
)
def test_a_run_that_nothing_but_chance_disturbs_finishes_and_quarantines_nothing(
    seed: int,
    rows: int,
    cols: int,
    pieces: int,
    replicas: int,
    deaths: float,
    nodes: float,
    source: float,
    lost: float,
) -> None:
    world = World(
        rows=rows,
        cols=cols,
        pieces=pieces,
        deaths_per_s=deaths,
        node_losses_per_s=nodes,
        source_down_until=source,
        lost_inputs=lost,
    )
    cluster = Cluster(world, Limits(1, replicas), seed)
    cluster.run(limit_s=3600)
    assert cluster.scheduler.ending is None
    assert cluster.quarantined == {}
    assert set(cluster.done) == {
        Task(kind, key) for kind in (Kind.INFER, Kind.COMMIT) for key in cluster.keys
    }
    if not (deaths or nodes or source or lost):
        assert set(cluster.scheduler.assigned.values()) == {1}, "every task once"


def histories(count: int) -> Counter[str]:
    """Random runs in random worlds; returns how they ended. Fails if a property does not hold."""
    ends: Counter[str] = Counter()
    for seed in range(count):
        dice = random.Random(seed)
        rows, cols, pieces = dice.randint(1, 4), dice.randint(1, 4), dice.choice([1, 4, 9])
        replicas = dice.choice([1, 2, 4, 8])
        guilty = {
            (
                BlockKey("g", 0, dice.randrange(rows), dice.randrange(cols)),
                dice.randrange(pieces),
            ): dice.choice(["raise", "kill", "hang", "memory", "sick"])
            for _ in range(dice.choice([0, 0, 0, 1, 2]))
        }
        world = World(
            rows=rows,
            cols=cols,
            pieces=pieces,
            deaths_per_s=dice.choice([0, 0, 0.02, 0.1, 0.3]),
            node_losses_per_s=dice.choice([0, 0, 0.05]),
            source_fails=dice.choice([0, 0, 0.1]),
            source_down_until=dice.choice([0, 0, 20, 60]),
            storage_fails=dice.choice([0, 0, 0.05]),
            lost_inputs=dice.choice([0, 0, 0.1]),
            failed_starts=dice.choice([0, 0, 0.05]),
            flaky=replicas > 2 and dice.random() < 0.2,
            sick_after=dice.choice([0, 0, 0, 0.05]),
            guilty=guilty,
        )
        limits = Limits(1, replicas, tile_s=dice.choice([None, 5.0]))
        cluster = Cluster(world, limits, seed)
        cluster.run(limit_s=24 * 3600)
        scheduler = cluster.scheduler
        quarantined = set(cluster.quarantined) if scheduler.finished else set()
        assert quarantined <= set(guilty), (seed, "an innocent tile is quarantined")
        assert max(scheduler.assigned.values(), default=0) < 60, (seed, "too many tries")
        if scheduler.finished:
            assert set(cluster.quarantined) == set(guilty), (seed, "a guilty tile was answered")
        calm = world == World(rows=rows, cols=cols, pieces=pieces)
        if calm:
            assert set(scheduler.assigned.values()) == {1}, (seed, "a task was done twice")
        ends["finished" if scheduler.finished else type(scheduler.ending).__name__] += 1
    return ends


def test_a_tile_that_one_replica_answers_is_never_quarantined_for_another() -> None:
    scheduler = ready(2, A, B)
    scheduler.decide(0.0)
    both = (Suspect(2, "raised", proven=True), Suspect(3, "raised", proven=True))
    scheduler.handle(Done(0, A, None, 2, both), 0.0)
    assert assigned(scheduler.decide(0.0)) == [(1, A, 2)]
    scheduler.handle(Done(1, A, 2, 1), 0.0)
    scheduler.handle(Lost(1, DIED), 0.0)
    scheduler.decide(0.0)
    assert not scheduler.is_done(A), "it is inferred again"


def test_a_second_opinion_waits_for_those_who_replace_dismissed_replicas() -> None:
    """One replica fails on a tile while all the others are to be replaced and end their work."""
    scheduler = ready(2, A, B, C)
    scheduler.decide(0.0)
    scheduler.handle(Done(0, A, None, 3, (Suspect(2, "raised", proven=True),)), 0.0)
    for task in (C, A):  # the other replica is sick; it is dismissed, and has B to end
        scheduler.decide(0.0)
        piece = 2 if task == A else None
        scheduler.handle(Failed(1, task, Failure(Trouble.SICK, "CUDA error"), piece), 0.0)
    scheduler.decide(0.0)
    assert not scheduler.is_done(A)
    scheduler.handle(Done(1, B, None, 4), 1.0)
    [start] = [each for each in scheduler.decide(1.0) if isinstance(each, Start)]
    scheduler.handle(Ready(start.replica), 2.0)
    assert (start.replica, A, 2) in assigned(scheduler.decide(2.0))


def test_a_block_whose_tiles_are_all_guilty_is_not_tried_for_ever() -> None:
    world = World(
        rows=1,
        cols=6,
        pieces=1,
        guilty={(BlockKey("g", 0, 0, col), 0): "hang" for col in (1, 3, 4)},
    )
    cluster = Cluster(world, Limits(1, 1, tile_s=2.0), seed=0)
    cluster.run(limit_s=3600)
    assert cluster.scheduler.finished or cluster.scheduler.ending


@pytest.mark.parametrize(("replicas", "deaths"), [(1, 20), (30, 60)])
def test_a_model_that_kills_on_everything_ends_the_run(replicas: int, deaths: int) -> None:
    scheduler = ready(replicas, *(Task(Kind.INFER, BlockKey("g", 0, 0, n)) for n in range(200)))
    for number in range(deaths):
        assert scheduler.ending is None, number
        given = assigned(scheduler.decide(0.0))
        scheduler.handle(Lost(given[0][0] if given else number, DIED), 0.0)
        for order in scheduler.decide(0.0):
            if isinstance(order, Start):
                scheduler.handle(Ready(order.replica), 0.0)
    assert "processes died and none answered a tile" in str(scheduler.ending)


def test_machines_that_are_lost_prove_nothing() -> None:
    scheduler = ready(1, Task(Kind.INFER, BlockKey("g", 0, 0, 9)))
    for failure in [DIED] * DEATHS + [Failure(Trouble.NODE, "gone")] * 2 + [DIED]:
        [(replica, _, _)] = assigned(scheduler.decide(0.0))
        scheduler.handle(Lost(replica, failure), 0.0)
        [start] = scheduler.decide(0.0)
        scheduler.handle(Ready(start.replica), 0.0)
    [(_, _, piece)] = assigned(scheduler.decide(0.0))
    assert piece is not None, "it is still tried, not quarantined"


def test_a_thousand_histories() -> None:
    ends = histories(1000)
    assert ends["finished"] > 900


@pytest.mark.chaos
def test_a_hundred_thousand_histories(record: Record) -> None:
    ends = histories(100_000)
    record("scheduler_histories", sum(ends.values()))
    record("scheduler_histories_finished", ends["finished"])


def efficiency(replicas: int) -> float:
    """Share of the replicas' time in which they infer, from the first that is ready to the end."""
    world = World(rows=40, cols=40, pieces=16, tile_s=0.1, start_s=0.0)
    cluster = Cluster(world, Limits(1, replicas), seed=1)
    cluster.run()
    assert cluster.scheduler.finished
    return cluster.busy_s / (replicas * cluster.now)


def test_sixty_four_replicas_are_kept_busy(record: Record) -> None:
    found = efficiency(64)
    record("scaling_efficiency_64_simulated", round(found, 3))
    assert found >= 0.95

"""Runs a plan on Ray: makes an output equal to what its plan found.

Blocks go to replicas, answers to scratch, whole shards to the store.
The driver holds the plan, small reports and objects, but no imagery or rasters. An undisturbed run
infers every block once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from earthgptx.pipeline.engine.interrupts import terminate_as_interrupt
from earthgptx.pipeline.engine.lease import Lease
from earthgptx.pipeline.engine.output import prepare_output
from earthgptx.pipeline.engine.report import Progress, RunReport
from earthgptx.pipeline.engine.scratch import Scratch
from earthgptx.pipeline.engine.spending import Spending
from earthgptx.pipeline.engine.steps import Steps
from earthgptx.pipeline.errors import (
    CostReached,
    Interrupted,
    Outage,
    PipelineError,
    RunLost,
    WaitedFor,
)
from earthgptx.pipeline.planning.plan import Plan
from earthgptx.pipeline.results import store
from earthgptx.pipeline.results.layout import create
from earthgptx.pipeline.storage.errors import storage_errors

if TYPE_CHECKING:
    from earthgptx.pipeline.engine.pool import ReplicaPool


def run(
    plan: Plan,
    *,
    overwrite: bool = False,
    retry_failed: bool = False,
    spending: Spending | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
    pool: ReplicaPool | None = None,
) -> RunReport:
    """Does what an output lacks of a plan: all of it, what a run has left, or what is new.

    Args:
        plan: plan to run.
        overwrite: whether to begin anew, in place of any result that the output holds.
        retry_failed: whether to infer the blocks of finished slices again that have quarantined
            tiles.
        spending: what earlier runs have cost, and what all may; this run is added.
        on_progress: callback that receives the progress of each stage.
        pool: replica pool to use, with its own number of replicas; None to start one as the job
            says.

    Raises:
        OutputError: the output belongs to another series or another run, or cannot be written.
        Outage: storage, imagery or Ray do not answer; the next run resumes from there.
        CostReached: the run may cost no more; the next run resumes from there.
        RunFailed: the run stopped; finished blocks are kept, and the next run resumes from there.
        RunLost: another run took the lease.
    """
    output, started = plan.spec.output, time.monotonic()
    spending = spending or Spending()
    paid_s = spending.limit_s(plan.spec.engine)
    with terminate_as_interrupt(), storage_errors(output), Lease(output) as lease:
        scratch = Scratch(output, lease.fence, plan.content_of)
        prepare_output(plan, scratch, lease, overwrite=overwrite)
        root = create(plan, output, lease.fence)
        steps = Steps(plan, root, lease.fence, on_progress, retry=retry_failed, paid_s=paid_s)
        if steps.is_complete():
            lease.finished = True
            return steps.report(started)
        with ExitStack() as own:
            if steps.work:
                spending.refuse_if_none_is_left()
                # Here, since loading Ray takes longer than to see that there is nothing to do.
                from earthgptx.pipeline.engine.pool import ReplicaPool

                pool = pool or own.enter_context(ReplicaPool(plan.spec.engine))
            own.enter_context(terminate_as_interrupt())
            try:
                with storage_errors(output):
                    steps.all(pool if steps.work else None, lease.token)
                lease.finished = True
            except BaseException as error:
                spending.reached |= isinstance(error, CostReached)
                if pool is not None:
                    pool.stop_all()  # the tasks in flight belong to this run
                raise _ending(error, steps) from error
            finally:
                spending.add(plan.spec.engine, steps.replica_seconds)
        return steps.report(started)


def _ending(error: BaseException, steps: Steps) -> BaseException:
    """Notes in the result how a run has ended, and returns the error to raise."""
    interrupted = isinstance(error, KeyboardInterrupt)
    on_purpose = interrupted or isinstance(error, CostReached)
    # What has not answered for minutes is not asked again.
    if not isinstance(error, RunLost | WaitedFor) and not steps.finished:
        with suppress(PipelineError, OSError):  # the storage may be what has failed
            store.set_state(steps.root, "canceled" if on_purpose else "error", steps.failed.failed)
            store.save(steps.root, "interrupted" if interrupted else "ended by an error")
    if interrupted and not steps.finished:
        return Interrupted(
            f"interrupted; {steps.committed} of {steps.blocks} blocks are finished and "
            "kept. Run the same command again to go on"
        )
    from ray.exceptions import RayError

    if isinstance(error, RayError):
        reason = " ".join(str(error).split())[:300]
        return Outage(
            f"Ray failed: {type(error).__name__}: {reason}. Finished blocks are kept; run the same "
            "command again"
        )
    return error

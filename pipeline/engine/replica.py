"""Replica that hosts one copy of the model and runs the tasks of blocks.

The tasks are infer, commit, blank, paint and overview. Each is idempotent: any replica that repeats
it writes the same bytes. Knows nothing of Ray; the pool hosts the replica in an actor, whose
threads read the next block and write the last one while one block is being inferred.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from earthgptx.model.interface.allocator import trim_allocator, tune_allocator
from earthgptx.model.interface.region import Mask
from earthgptx.model.interface.tile import TileOutput
from earthgptx.pipeline.analysis.questions import Question
from earthgptx.pipeline.analyst import Analyst, find_analyst
from earthgptx.pipeline.engine.asking import DeathNotes, ask
from earthgptx.pipeline.engine.commit import blank_block, commit_block, paint_block
from earthgptx.pipeline.engine.context import RunContext
from earthgptx.pipeline.engine.infer import Ask, BlockReport, ask_about, keep_answers, read_block
from earthgptx.pipeline.engine.overview import overview_shard
from earthgptx.pipeline.job.grid import BlockKey
from earthgptx.pipeline.planning.plan import Plan


class Replica:
    """Hosts one copy of the model and reads, infers and writes blocks."""

    def __init__(self, plan: Plan, output: str, token: str) -> None:
        """Opens the run without loading the model, see `load`. Takes the arguments of `begin`."""
        tune_allocator()
        self._analyst: Analyst | None = None
        self._inferring = threading.Lock()
        self._open(plan, output, token)

    def begin(self, plan: Plan, output: str, token: str) -> None:
        """Switches to another run, after all tasks of the last one have ended.

        Keeps the loaded model if the run uses the same one, else loads the new one.

        Args:
            plan: plan of the run.
            output: URL of the result.
            token: token of the run's lease.
        """
        if plan.spec.model != self._run.plan.spec.model:
            self._analyst = None
        self._open(plan, output, token)
        self.load()

    def load(self) -> None:
        """Loads the model; does nothing if it is already loaded."""
        with self._inferring:
            if self._analyst is None:
                self._analyst = find_analyst(self._run.plan.spec.model).load()

    def infer(self, key: BlockKey, *, careful: bool = False) -> BlockReport:
        """Reads a block, asks the model about its tiles, and keeps the answers in scratch.

        Args:
            key: key of the block.
            careful: whether to infer one question at a time and note each tile before it is tried;
                for a block on which a process has died.
        """
        trim_allocator()
        block = read_block(self._run.plan, key)
        self.load()
        size = 1 if careful else self._run.plan.traits.tiles_per_batch
        # Only the model is held: another thread asks it while this one merges and writes.
        with self._inferring:
            answers = ask_about(self._run.plan, block, self._asker(key, careful=careful), size)
        return keep_answers(self._run, block, answers)

    def commit(self, key: BlockKey) -> None:
        """Writes a block that is inferred and whose neighbours are; see `commit_block`."""
        trim_allocator()
        commit_block(self._run, key)

    def blank(self, key: BlockKey) -> None:
        """Writes why a block is empty; see `blank_block`."""
        blank_block(self._run, key)

    def paint(self, key: BlockKey, masks: Sequence[tuple[int, Mask]]) -> None:
        """Writes the object layer of a block; see `paint_block`."""
        paint_block(self._run, key, masks)

    def overview(self, key: BlockKey, factor: int) -> None:
        """Writes one shard of an overview; see `overview_shard`."""
        trim_allocator()
        overview_shard(self._run, key, factor)

    def _open(self, plan: Plan, output: str, token: str) -> None:
        self._run = RunContext.open(plan, output, token)
        self._notes = DeathNotes(self._run.scratch)

    def _asker(self, key: BlockKey, *, careful: bool) -> Ask:
        analyst = self._analyst
        assert analyst is not None

        def answers(batch: Sequence[Question]) -> list[TileOutput | str]:
            if careful and (reason := self._notes.try_tile(key, batch[0].tile)):
                return [reason]
            return ask(analyst, batch)

        return answers

"""Replica that hosts one copy of the model and runs the tasks of blocks.

Each task is idempotent: any replica that repeats it writes the same bytes. Knows nothing of Ray;
the pool hosts the replica in an actor, whose threads read the next block and write the last one
while one block is being inferred.
"""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from earthgptx.model.interface.allocator import trim_allocator, tune_allocator
from earthgptx.model.interface.tile import TileOutput
from earthgptx.pipeline.analysis.questions import Question
from earthgptx.pipeline.analyst import find_analyst
from earthgptx.pipeline.engine.asking import Asker, Refusal
from earthgptx.pipeline.engine.commit import commit_block, paint_block
from earthgptx.pipeline.engine.context import RunContext
from earthgptx.pipeline.engine.infer import (
    BlockReport,
    ask_about,
    keep_answers,
    read_block,
    try_tile,
)
from earthgptx.pipeline.engine.ledger import Entry
from earthgptx.pipeline.engine.overview import overview_shard
from earthgptx.pipeline.engine.tasks import Effort, Guilty, Kind, Step, Task
from earthgptx.pipeline.planning.plan import Plan
from earthgptx.pipeline.storage.errors import storage_errors
from earthgptx.pipeline.storage.versions import forked


class Replica:
    """Hosts one copy of the model and reads, infers and writes blocks."""

    def __init__(self, plan: Plan, token: str) -> None:
        """Takes the arguments of `begin`; opens nothing yet."""
        tune_allocator()
        self._asker: Asker | None = None
        self._inferring = threading.Lock()
        # One at a time: two would hold more memory than the replica needs to infer.
        self._painting = threading.Lock()
        self._plan, self._token = plan, token
        self._run: RunContext | None = None
        self._steps: dict[int, tuple[str, float, int]] = {}
        self._spent: dict[int, dict[str, float]] = {}
        """Seconds by stage, of the task that each thread does."""
        self._tile_s = 0.0

    def begin(self, plan: Plan, token: str) -> None:
        """Switches to another run, after all tasks of the last one have ended.

        Keeps the loaded model if the run uses the same one, else loads the new one.

        Args:
            plan: plan of the run.
            token: token of the run's lease.
        """
        with self._inferring:  # it may still be opening the last run
            if plan.spec.model != self._plan.spec.model:
                self._asker = None
            self._plan, self._token, self._run = plan, token, None
        self.load()

    def hello(self) -> None:
        """Answers as soon as the process runs."""

    def load(self) -> None:
        """Loads the model, unless it is loaded, and opens the run."""
        with self._inferring:
            if self._asker is None:
                self._asker = Asker(find_analyst(self._plan.spec.model).load())
            if self._run is None:
                with storage_errors(self._plan.spec.output):
                    self._run = RunContext.open(self._plan, self._token)

    def pulse(self) -> tuple[tuple[Step, ...], float]:
        """Returns what the replica's threads are doing, and the longest time of a tile in s."""
        now = time.monotonic()
        steps = [
            Step(stage, now - began, tiles) for stage, began, tiles in list(self._steps.values())
        ]
        return tuple(steps), self._tile_s

    def infer(
        self, task: Task, *, last: bool, skip: Sequence[Guilty]
    ) -> tuple[BlockReport, Effort]:
        """Reads a block, asks the model about its tiles, and keeps the answers in scratch.

        Args:
            task: the block.
            last: whether imagery that cannot be read for now is quarantined instead of raised.
            skip: tiles to quarantine without asking.

        Raises:
            SourceError: imagery cannot be read for now.
            ModelSick: the model fails on everything.
        """
        trim_allocator()
        run = self._ready()
        self._spent.pop(threading.get_ident(), None)  # of a task that failed
        with self._step("read"):
            block = read_block(run.plan, task.key, patient=not last, skip=skip)
        # Only the model is held: another thread asks it while this one merges and writes.
        with self._inferring:
            answers = ask_about(run.plan, block, self._ask)
        with self._step("write"):
            report = keep_answers(run, block, answers)
        return report, self._effort(run, block.scene.pixels.nbytes)

    def probe(self, task: Task, piece: int) -> tuple[int, str]:
        """Asks the model about one tile of a block and keeps nothing.

        Returns:
            Number of tiles that it answered, 1 or 0, and why it failed; an empty text if it did
            not, or if there is nothing to ask.
        """
        run = self._ready()
        with self._step("read"):
            questions = try_tile(run.plan, task.key, piece, patient=True)
        with self._inferring:
            for question in questions:
                [answer] = self._ask([question])
                if isinstance(answer, Refusal):
                    return 0, answer.reason
        return min(len(questions), 1), ""

    def do(self, task: Task, payload: Any, fork: bytes = b"") -> tuple[Entry | None, bytes, Effort]:
        """Does a task that needs no model: commit, paint or overview.

        Args:
            task: the task.
            payload: of a commit, whether only the block's border changes; of a paint, the pieces
                of stitched objects in the block; of the first overview, those in each block
                below that shows objects.
            fork: fork of the result to write into; empty if that is written directly.

        Returns:
            Of a commit, what the ledger is to say of the block; None if that stays. Then the fork
            with what was written, and what the task took.

        Raises:
            ScratchLost: what the task reads of scratch is missing or damaged.
            ShardLost: a shard that the task reads is damaged.
        """
        trim_allocator()
        run = self._ready()
        self._spent.pop(threading.get_ident(), None)
        with self._step("write"):
            session = forked(fork) if fork else None
            entry = self._do(run.in_fork(session) if session else run, task, payload)
            written = pickle.dumps(session) if session else b""
        return entry, written, self._effort(run)

    def _effort(self, run: RunContext, bytes_read: int = 0) -> Effort:
        """Returns what the task of this thread took."""
        seconds = self._spent.pop(threading.get_ident(), {})
        return Effort(seconds, bytes_read, run.fence.take_written())

    def _do(self, run: RunContext, task: Task, payload: Any) -> Entry | None:
        match task.kind:
            case Kind.COMMIT:
                return commit_block(run, task.key, border=bool(payload))
            case Kind.PAINT:
                with self._painting:
                    trim_allocator()
                    paint_block(run, task.key, payload)
            case _:
                with self._painting:
                    trim_allocator()
                    overview_shard(run, task.key, task.factor, payload)
        return None

    def _ready(self) -> RunContext:
        # Without the lock where nothing is to be loaded: it is held while a block is inferred, and
        # the next one is read and the last one written meanwhile.
        run = self._run
        if run is None or self._asker is None:
            self.load()
            run = self._run
        assert run is not None
        return run

    def _ask(self, batch: Sequence[Question]) -> list[TileOutput | Refusal]:
        assert self._asker is not None
        began = time.monotonic()
        with self._step("ask", len(batch)):
            answers = self._asker.ask(batch)
        self._tile_s = max(self._tile_s, (time.monotonic() - began) / len(batch))
        return answers

    @contextmanager
    def _step(self, stage: str, tiles: int = 1) -> Iterator[None]:
        """Notes what this thread does for `pulse`; names the storage in errors."""
        me, began = threading.get_ident(), time.monotonic()
        self._steps[me] = (stage, began, tiles)
        try:
            with storage_errors(self._plan.spec.output):
                yield
        finally:
            self._steps.pop(me, None)
            spent = self._spent.setdefault(me, {})
            spent[stage] = spent.get(stage, 0.0) + time.monotonic() - began

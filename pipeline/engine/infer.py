"""First task of a block: analyse its tiles, blend their scores and merge their objects.

Reads the block's imagery and keeps the answers in scratch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from earthgptx.model.interface.answer import Reply
from earthgptx.model.interface.tile import TileOutput
from earthgptx.pipeline.analysis.questions import Question, tile_questions
from earthgptx.pipeline.engine.asking import Refusal
from earthgptx.pipeline.engine.context import RunContext
from earthgptx.pipeline.engine.found import found_in_block
from earthgptx.pipeline.engine.scratch import BlockScores, TileRecord, count_failed
from earthgptx.pipeline.engine.tasks import Guilty, Suspect
from earthgptx.pipeline.errors import SourceError
from earthgptx.pipeline.job.grid import BlockKey, Grid, Tile, Window
from earthgptx.pipeline.objects.blend import Blend
from earthgptx.pipeline.objects.parts import Part, to_part
from earthgptx.pipeline.planning.plan import Plan
from earthgptx.pipeline.reading.scene import Scene, inside, read_scene
from earthgptx.pipeline.results.store import Cause, Status

Ask = Callable[[Sequence[Question]], list[TileOutput | Refusal]]
"""Answers questions in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockReport:
    """Outcome of a block's tiles."""

    key: BlockKey
    done: int
    empty: int
    """Tiles outside the AOI, without data or masked, which are not inferred."""
    failed: int
    failures: tuple[str, ...]
    """Reasons for the first 5 failures, one sentence each."""
    passing: int
    """Those of `failed` whose cause may pass."""
    suspects: tuple[Suspect, ...]
    """Tiles on which the model failed."""
    seconds: float
    """Inference time in s."""


@dataclass(slots=True)
class ReadBlock:
    """A block's imagery and the questions about it."""

    key: BlockKey
    grid: Grid
    scene: Scene
    search_area: NDArray[np.bool_]
    """(H, W), like the scene. True where objects are searched."""
    questions: list[Question]
    records: dict[Tile, TileRecord]
    """Records of the tiles without questions."""
    tiles: list[Tile]


@dataclass(slots=True)
class BlockAnswers:
    """The model's answers about a block so far."""

    blend: Blend
    records: dict[Tile, TileRecord]
    refusals: dict[Tile, Refusal] = field(default_factory=dict)
    parts: list[Part] = field(default_factory=list)
    replies: dict[Tile, tuple[Reply, ...]] = field(default_factory=dict)
    """Replies about each tile."""
    seconds: float = 0.0
    """Time spent asking, in s."""

    def add(
        self, question: Question, answer: TileOutput | Refusal, seconds: float, plan: Plan
    ) -> None:
        """Adds an answer; the answer about the tile itself must precede those about wider views."""
        tile, before = question.tile, self.records.get(question.tile)
        if isinstance(answer, Refusal):
            self.records[tile] = _quarantined(tile, answer.reason, answer.cause)
            self.refusals[tile] = answer
            return
        if tile in self.refusals:
            return
        if before is None:
            self.blend.add(tile, answer.scores)
            self.records[tile] = _record(tile, answer, seconds)
            self.replies[tile] = answer.replies
        else:
            self.records[tile] = replace(before, seconds=before.seconds + seconds)
        kinds = {each.id: each.kind for each in question.input.prompts}
        for grounding in answer.groundings:
            kind = kinds.get(grounding.prompt_id, "")
            part = to_part(grounding, tile, question.view, plan.traits.context_px, kind)
            self.parts += [part] if part is not None else []


def read_block(
    plan: Plan, key: BlockKey, *, patient: bool = False, skip: Sequence[Guilty] = ()
) -> ReadBlock:
    """Reads a block and its halo; gives each tile its questions, or a record if it has none.

    Args:
        plan: plan of the run.
        key: key of the block.
        patient: whether to raise if imagery cannot be read for now, instead of quarantining it.
        skip: tiles to quarantine without asking about them.

    Raises:
        SourceError: `patient` is set, and imagery cannot be read, which may pass.
    """
    grid = plan.grids[key.grid]
    tiles = grid.tiles(key)
    guilty = {tiles[each.piece]: each for each in skip}
    return _read(plan, key, grid.read_window(key), tiles, guilty, patient=patient)


def try_tile(plan: Plan, key: BlockKey, piece: int, *, patient: bool) -> list[Question]:
    """Reads the ground of one tile and returns the questions about it; see `read_block`."""
    tile = plan.grids[key.grid].tiles(key)[piece]
    return _read(plan, key, tile.window, [tile], {}, patient=patient).questions


def _read(
    plan: Plan,
    key: BlockKey,
    window: Window,
    tiles: list[Tile],
    guilty: dict[Tile, Guilty],
    *,
    patient: bool,
) -> ReadBlock:
    grid = plan.grids[key.grid]
    scene = read_scene(
        grid,
        window,
        plan.scene_items(key.grid, key.time, window),
        compose=plan.spec.compose,
        patient=patient,
    )
    search_area = inside(grid.search_area, grid, window)
    answerable = search_area & scene.valid & ~scene.broken
    block = ReadBlock(key, grid, scene, search_area, [], {}, tiles)
    for tile in tiles:
        core = tile.core.within(window)
        if (scene.broken[core] & search_area[core]).any():
            cause = Cause.UNREACHABLE if scene.unreachable else Cause.DAMAGED
            block.records[tile] = _quarantined(tile, " ".join(scene.errors), cause)
        elif tile in guilty:
            named = guilty[tile]
            block.records[tile] = _quarantined(tile, named.reason, Cause(named.cause))
        elif answerable[core].any():
            try:
                block.questions += tile_questions(
                    plan, key, tile, scene, search_area, patient=patient
                )
            except SourceError as error:
                if patient and error.passing:
                    raise
                cause = Cause.UNREACHABLE if error.unreachable else Cause.DAMAGED
                block.records[tile] = _quarantined(tile, str(error), cause)
        else:
            status = _why_empty(scene, search_area, core)
            block.records[tile] = TileRecord(row=tile.row, col=tile.col, status=status)
    return block


def ask_about(plan: Plan, block: ReadBlock, ask: Ask) -> BlockAnswers:
    """Asks all questions about a block, in batches.

    Args:
        plan: plan of the run.
        block: imagery and questions of the block.
        ask: asks the model.
    """
    phrases = len(plan.spec.tasks.find)
    blend = Blend(block.scene.window, phrases, block.grid.tile_px, plan.traits.context_px)
    answers = BlockAnswers(blend, dict(block.records))
    batch_size = plan.spec.engine.tiles_per_batch or plan.traits.tiles_per_batch
    started = time.perf_counter()
    for start in range(0, len(block.questions), batch_size):
        batch = block.questions[start : start + batch_size]
        clock = time.perf_counter()
        said = ask(batch)
        seconds = (time.perf_counter() - clock) / len(batch)
        for question, answer in zip(batch, said, strict=True):
            answers.add(question, answer, seconds, plan)
    answers.seconds = time.perf_counter() - started
    return answers


def keep_answers(run: RunContext, block: ReadBlock, answers: BlockAnswers) -> BlockReport:
    """Keeps a block's scores, border sums and objects in scratch.

    Raises:
        RunLost: another run holds the output.
    """
    unread, failed = _failed(block.records), _failed(answers.records)
    _keep(run, block, answers, failed)
    inferred = len({question.tile for question in block.questions})
    sentences = [
        f"tile {tile.row}/{tile.col} of {block.key}: {answers.records[tile].error}"
        for tile in failed
    ]
    pieces = {tile: number for number, tile in enumerate(block.tiles)}
    return BlockReport(
        key=block.key,
        done=inferred + len(unread) - len(failed),
        empty=len(block.tiles) - inferred - len(unread),
        failed=len(failed),
        failures=tuple(sentences[:5]),
        passing=count_failed(answers.records.values()).passing,
        suspects=tuple(
            Suspect(pieces[tile], refusal.reason, refusal.proven)
            for tile, refusal in answers.refusals.items()
        ),
        seconds=answers.seconds,
    )


def _keep(run: RunContext, block: ReadBlock, answers: BlockAnswers, failed: list[Tile]) -> None:
    """Writes a block's answers to scratch; scores come last, as they mark the block as inferred."""
    own = block.grid.block_window(block.key)
    run.scratch.drop("scores", [block.key])  # of an earlier attempt: it may have other holes
    found = found_in_block(
        run.plan,
        block.key,
        block.scene,
        block.questions,
        answers.parts,
        {tile: record.status for tile, record in answers.records.items()},
        answers.replies,
    )
    run.scratch.put_objects(block.key, found)
    records = sorted(answers.records.values(), key=lambda record: (record.row, record.col))
    scores = BlockScores(
        scores=answers.blend.sums.crop(own).divided(),
        status=_status(block.grid, own, block.scene, failed),
        tiles=tuple(records),
    )
    run.scratch.put_failed(block.key, count_failed(records))
    run.scratch.put_scores(block.key, scores, answers.blend.frame(own, block.grid.halo_px))


def _failed(records: dict[Tile, TileRecord]) -> list[Tile]:
    return [tile for tile, record in records.items() if record.status == Status.QUARANTINED]


def _quarantined(tile: Tile, reason: str, cause: Cause) -> TileRecord:
    return TileRecord(
        row=tile.row, col=tile.col, status=Status.QUARANTINED, error=reason, cause=cause.value
    )


def _record(tile: Tile, answer: TileOutput, seconds: float) -> TileRecord:
    names = [grounding.label for grounding in answer.groundings if grounding.present]
    label = max(sorted(set(names)), key=names.count) if names else ""
    return TileRecord(
        row=tile.row,
        col=tile.col,
        status=Status.DONE,
        seconds=seconds,
        label=label,
        caption=answer.caption,
    )


def _why_empty(scene: Scene, search_area: NDArray[np.bool_], core: tuple[slice, slice]) -> Status:
    """Returns why a tile has no questions."""
    if not search_area[core].any():
        return Status.OUTSIDE_AOI
    return Status.MASKED if scene.masked[core].any() else Status.NO_SOURCE_DATA


def _status(grid: Grid, own: Window, scene: Scene, failed: list[Tile]) -> NDArray[np.uint8]:
    """Returns the `Status` of each pixel of a block, (h, w) uint8."""
    at = own.within(scene.window)
    status = np.full(own.shape, Status.NO_SOURCE_DATA, np.uint8)
    status[scene.masked[at]] = Status.MASKED
    status[scene.valid[at]] = Status.DONE
    for tile in failed:
        status[(tile.core & own).within(own)] = Status.QUARANTINED
    status[~inside(grid.answer_area, grid, own)] = Status.OUTSIDE_AOI
    return status

"""What one worker does: infer a block, commit it, paint its objects, blank what is not asked for, make overviews.

Each of the five is idempotent: done again, by whomever, it leaves the same bytes. Knows nothing of
Ray; the engine hosts it in an actor, whose threads read the next block and write the last one while
one block is being inferred.
"""

from __future__ import annotations

import ctypes
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from model.region import Mask
from model.tile import TileInput, TileOutput
from pipeline.analyst import Analyst, check_output, find_analyst
from pipeline.assemble import Blend, Part, is_settled, merge, resolve, to_part
from pipeline.errors import AnalystError, PipelineError
from pipeline.grid import BlockKey, Grid, Tile, View, Window
from pipeline.ledger import check, commit
from pipeline.plan import Plan
from pipeline.prompts import tile_prompts, wide_prompts
from pipeline.scene import Scene, inside, read_scene
from pipeline.scratch import BlockScores, Scratch, TileRecord
from pipeline.store import Status, array_at, block_of, group_at, group_path, open_group, write

SECOND_CHANCES = 1
"""How often a tile that failed alone is tried again before it is quarantined."""
STRIP_PX = 256
"""Rows of an overview made at once."""
LAYERS = ("label", "score", "object_id", "status")
"""Layers that have overviews."""
DEATHS = 2
"""How often a tile must have been under way when its process died before it is quarantined."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockReport:
    """What became of a block's tiles."""

    key: BlockKey
    done: int
    empty: int
    """Without data, or outside the AOI: not inferred."""
    failed: int
    failures: tuple[str, ...]
    """One sentence each, the first few."""
    seconds: float
    """Spent inferring."""


@dataclass(frozen=True, slots=True)
class Question:
    """What the model is asked at once."""

    tile: Tile
    view: View
    input: TileInput


class Replica:
    """One copy of the model and the hands around it."""

    def __init__(self, plan: Plan, output: str, token: str) -> None:
        """Keep what is needed; `load` loads the model. Arguments as of `begin`."""
        self._analyst: Analyst | None = None
        self._inferring = threading.Lock()
        self._keep(plan, output, token)

    def begin(self, plan: Plan, output: str, token: str) -> None:
        """Turn to a run, when all tasks of the last one have ended. A model that is loaded stays.

        Args:
            plan: of the run.
            output: URL of the result.
            token: of the run's lease.
        """
        if plan.spec.model != self.plan.spec.model:
            self._analyst = None
        self._keep(plan, output, token)
        self.load()

    def _keep(self, plan: Plan, output: str, token: str) -> None:
        self.plan = plan
        self.scratch = Scratch(output)
        self.token = token
        self._root = open_group(output)
        self._survived: dict[BlockKey, str] = {}

    def load(self) -> None:
        """Load the model; may be called twice."""
        with self._inferring:
            if self._analyst is None:
                self._analyst = find_analyst(self.plan.spec.model).load()

    def infer(self, key: BlockKey, *, careful: bool = False) -> BlockReport:
        """Read a block, ask the model about its tiles, and keep the answers in scratch.

        Args:
            key: which block.
            careful: after a process died on this block: one tile at a time, each named before it is tried.
        """
        _give_back_memory()
        plan, grid = self.plan, self.plan.grids[key.grid]
        window = grid.read_window(key)
        scene = read_scene(grid, window, plan.scene_items(key.grid, key.time, window))
        asked = inside(grid.asked, grid, window)
        tiles = grid.tiles(key)
        answerable = asked & scene.valid & ~scene.broken
        inputs = {
            tile: self._views(grid, key, tile, scene, asked)
            for tile in tiles
            if answerable[tile.core.within(window)].any()
        }
        phrases = len(plan.spec.tasks.find)
        blend = Blend(window, phrases, grid.tile_px, plan.traits.context_px)
        parts: list[Part] = []
        records: dict[Tile, TileRecord] = {}
        refused = self._refused(tiles, scene, asked, inputs, records)
        self.load()
        with self._inferring:
            started = time.perf_counter()
            questions = [Question(tile, *view) for tile, views in inputs.items() for view in views]
            for batch in _batches(questions, 1 if careful else plan.traits.tiles_per_batch):
                clock = time.perf_counter()
                answers = self._ask(key, batch, careful=careful)
                seconds = (time.perf_counter() - clock) / len(batch)
                for question, answer in zip(batch, answers, strict=True):
                    tile, before = question.tile, records.get(question.tile)
                    if isinstance(answer, str):
                        records[tile] = TileRecord(row=tile.row, col=tile.col, status=Status.QUARANTINED, error=answer)
                    elif before is None:  # the tile itself; wider views come after it
                        blend.add(tile, answer.scores)
                        records[tile] = _record(tile, answer, seconds)
                    else:
                        records[tile] = replace(before, seconds=before.seconds + seconds)
                    if not isinstance(answer, str):
                        found = [to_part(g, tile, question.view, plan.traits.context_px) for g in answer.groundings]
                        parts += [part for part in found if part is not None]
            spent = time.perf_counter() - started
        own = grid.block_window(key)
        failed = [tile for tile, record in records.items() if record.status == Status.QUARANTINED]
        lost = {(tile.row, tile.col) for tile in failed}
        self._keep_parts(key, own, [part for part in parts if part.tile not in lost])
        status = self._status(grid, own, scene, failed)
        block = BlockScores(
            scores=blend.sums.part(own).divided(), status=status,
            tiles=tuple(sorted(records.values(), key=lambda record: (record.row, record.col))),
        )  # fmt: skip
        check(self.scratch, self.token)
        self.scratch.put_scores(key, block, blend.frame(own, grid.halo_px))
        sentences = [f"tile {t.row}/{t.col} of {key}: {records[t].error}" for t in failed]
        return BlockReport(
            key=key, done=len(inputs) - len(failed) + refused, empty=len(tiles) - len(inputs) - refused,
            failed=len(failed), failures=tuple(sentences[:5]), seconds=spent,
        )  # fmt: skip

    def commit(self, key: BlockKey) -> None:
        """Blend a block with its neighbours' borders, write its shards, then its ledger entry."""
        _give_back_memory()
        plan = self.plan
        block = self.scratch.get_scores(key)
        own = plan.grids[key.grid].block_window(key)
        around = [
            piece
            for other in key.neighbours()
            if other in plan.block_set
            for piece in self.scratch.get_frame(other, own)
        ]
        scores = block.scores
        for piece in self.scratch.get_frame(key, own):
            window = piece.window & own
            scores[(slice(None), *window.within(own))] = piece.part(window).plus(around).divided()
        scores[:, block.status != Status.DONE] = 0
        group = group_at(self._root, group_path(plan, "raster", key.grid))
        best = scores.max(axis=0) if len(scores) else np.zeros(own.shape, np.uint8)
        label = np.zeros(own.shape, np.uint8)
        for number, plane in reversed(list(enumerate(scores, start=1))):
            label[(plane == best) & (plane >= 128)] = number
        check(self.scratch, self.token)
        write(group, "label", key.time, own, label)
        write(group, "score", key.time, own, best)
        write(group, "status", key.time, own, block.status)
        if "scores" in group:
            write(group, "scores", key.time, own, scores)
        self._write_tiles(key, block)
        failed = sum(tile.status == Status.QUARANTINED for tile in block.tiles)
        commit(self._root, plan, key, self.scratch, self.token, tiles=len(block.tiles), failed=failed)

    def blank(self, key: BlockKey) -> None:
        """Say of a block that no tile of it was asked about, and why: nothing of it is in the AOI, or no Item shows it."""
        grid = self.plan.grids[key.grid]
        own = grid.block_window(key)
        status = np.full(own.shape, Status.NO_SOURCE_DATA, np.uint8)
        status[~inside(grid.owned, grid, own)] = Status.OUTSIDE_AOI
        check(self.scratch, self.token)
        write(group_at(self._root, group_path(self.plan, "raster", key.grid)), "status", key.time, own, status)

    def paint(self, key: BlockKey, masks: Sequence[tuple[int, Mask]]) -> None:
        """Write the object layer of a block; where objects overlap, the last one shows.

        Args:
            key: which block.
            masks: object ids and their pixels in the grid.
        """
        grid = self.plan.grids[key.grid]
        own = grid.block_window(key)
        layer = np.zeros(own.shape, np.uint64)
        for object_id, mask in masks:
            window = own & Window(mask.y0, mask.x0, mask.y0 + mask.height, mask.x0 + mask.width)
            piece = mask.window(window.y0, window.x0, window.y1, window.x1)
            layer[window.within(own)][piece] = object_id
        group = group_at(self._root, group_path(self.plan, "raster", key.grid))
        layer[array_at(group, "status")[key.time, own.y0 : own.y1, own.x0 : own.x1] != Status.DONE] = 0
        check(self.scratch, self.token)
        write(group, "object_id", key.time, own, layer)

    def overview(self, key: BlockKey, factor: int) -> None:
        """Write one shard of an overview from the level below: of four pixels the surest one stays."""
        _give_back_memory()
        grid = self.plan.grids[key.grid]
        target = block_of(grid, key, factor)
        base = group_path(self.plan, "raster", key.grid)
        above = group_path(self.plan, "overview", key.grid)
        source = group_at(self._root, base if factor == 2 else f"{above}/{factor // 2}")
        layers = {name: np.zeros(target.shape, array_at(source, name).dtype) for name in LAYERS}
        # By strips: four times a block's pixels at once would be the largest thing that a replica holds.
        for y0 in range(target.y0, target.y1, STRIP_PX):
            strip = Window(y0, target.x0, min(y0 + STRIP_PX, target.y1), target.x1)
            for name, values in _surest(source, key.time, strip).items():
                layers[name][strip.within(target)] = values
        for name, values in layers.items():
            write(group_at(self._root, f"{above}/{factor}"), name, key.time, target, values)

    def _views(
        self, grid: Grid, key: BlockKey, tile: Tile, scene: Scene, asked: NDArray[np.bool_]
    ) -> list[tuple[View, TileInput]]:
        """The tile as it is, then a wider view for each prompt that does not fit it."""
        plan, at = self.plan, tile.window.within(scene.window)
        placed = plan.prompts.get((key.grid, key.row, key.col), ())
        phrases = tuple(plan.spec.tasks.find)
        own = TileInput(
            pixels=scene.pixels[(slice(None), *at)], valid=scene.valid[at], asked=asked[at] & scene.valid[at],
            modality=plan.modality, metres_per_pixel=abs(grid.transform[0]), phrases=phrases,
            prompts=tile_prompts(plan, grid, tile, scene, placed), names=phrases, describe=plan.spec.tasks.describe,
        )  # fmt: skip
        views = [(View(tile.window), own)]
        for view, prompt in wide_prompts(plan, grid, tile, placed):
            seen = grid.seen(view)
            wide = read_scene(seen, seen.window, plan.scene_items(key.grid, key.time, view.window))
            views.append((view, replace(
                own, pixels=wide.pixels, valid=wide.valid, asked=inside(grid.asked, seen, seen.window) & wide.valid,
                metres_per_pixel=abs(seen.transform[0]), phrases=(), prompts=(prompt,), describe=False,
            )))  # fmt: skip
        return views

    def _refused(
        self, tiles: list[Tile], scene: Scene, asked: NDArray[np.bool_],
        inputs: dict[Tile, list[tuple[View, TileInput]]], records: dict[Tile, TileRecord],
    ) -> int:  # fmt: skip
        """Record the tiles that are not inferred; those whose imagery is broken are quarantined and taken out."""
        for tile in tiles:
            at = tile.core.within(scene.window)
            if (scene.broken[at] & asked[at]).any():
                inputs.pop(tile, None)
                reason = " ".join(scene.errors)
                records[tile] = TileRecord(row=tile.row, col=tile.col, status=Status.QUARANTINED, error=reason)
            elif tile not in inputs:
                status = _commonest_absence(scene, asked, at)
                records[tile] = TileRecord(row=tile.row, col=tile.col, status=status)
        return sum(record.status == Status.QUARANTINED for record in records.values())

    def _ask(self, key: BlockKey, batch: list[Question], *, careful: bool) -> list[TileOutput | str]:
        """An answer per question, or the reason why there is none. A batch that fails is halved until it is found."""
        if careful and (reason := self._deadly(key, batch[0].tile)):
            return [reason]
        assert self._analyst is not None
        questions = [question.input for question in batch]
        for _ in range(1 + (SECOND_CHANCES if len(batch) == 1 else 0)):
            try:
                answers = self._analyst.analyse(questions)
                if len(answers) != len(questions):
                    raise AnalystError(f"the model gave {len(answers)} answers to {len(questions)} tiles")
                for answer, question in zip(answers, questions, strict=True):
                    check_output(answer, question)
                return list(answers)
            except PipelineError as error:
                reason = str(error)
            except Exception as error:  # a model may raise anything
                reason = f"the model raised {type(error).__name__}: {error}"
        if len(batch) == 1:
            return [reason]
        half = len(batch) // 2
        return self._ask(key, batch[:half], careful=careful) + self._ask(key, batch[half:], careful=careful)

    def _deadly(self, key: BlockKey, tile: Tile) -> str:
        """Note that a tile is about to be tried; the reason to leave it where processes died on it before."""
        name = f"{key}.json"
        try:
            noted = json.loads(self.scratch.get("trying", name))
        except FileNotFoundError:
            noted = {}
        place = f"{tile.row}/{tile.col}"
        noted.pop(self._survived.pop(key, ""), None)
        tries = noted.get(place, 0)
        if tries >= DEATHS:
            return f"the model's process died {tries} times on this tile"
        self.scratch.put("trying", name, json.dumps(noted | {place: tries + 1}).encode())
        self._survived[key] = place  # holds if this process is there to ask for the next tile
        return ""

    def _keep_parts(self, key: BlockKey, own: Window, parts: list[Part]) -> None:
        plan = self.plan
        settled: list[Part] = []
        open_parts: list[Part] = []
        for group in merge(parts, plan.traits):
            if is_settled(group, own, plan.traits, plan.spec.grid.halo_px):
                whole = resolve(group, plan.traits)
                settled += [whole] if whole is not None else []
            else:
                open_parts += group
        self.scratch.put_parts(key, settled, open_parts)

    def _status(self, grid: Grid, own: Window, scene: Scene, failed: list[Tile]) -> NDArray[np.uint8]:
        at = own.within(scene.window)
        status = np.full(own.shape, Status.NO_SOURCE_DATA, np.uint8)
        status[scene.masked[at]] = Status.MASKED
        status[scene.valid[at]] = Status.DONE
        for tile in failed:
            status[(tile.core & own).within(own)] = Status.QUARANTINED
        status[~inside(grid.owned, grid, own)] = Status.OUTSIDE_AOI
        return status

    def _write_tiles(self, key: BlockKey, block: BlockScores) -> None:
        group = group_at(self._root, group_path(self.plan, "tiles", key.grid))
        per_block = self.plan.grids[key.grid].block_px // self.plan.grids[key.grid].core_px
        row0, col0 = key.row * per_block, key.col * per_block
        rows = max(tile.row for tile in block.tiles) - row0 + 1
        cols = max(tile.col for tile in block.tiles) - col0 + 1
        for name, kind in (
            ("status", np.uint8),
            ("seconds", np.float32),
            ("label", object),
            ("caption", object),
            ("error", object),
        ):
            values = np.full((rows, cols), "" if kind is object else 0, kind)
            for tile in block.tiles:
                values[tile.row - row0, tile.col - col0] = getattr(tile, name)
            if kind is object:
                values = values.astype(np.dtypes.StringDType())
            array_at(group, name)[key.time, row0 : row0 + rows, col0 : col0 + cols] = values


def _give_back_memory() -> None:
    """Return what the last task freed to the system; glibc keeps it, and a replica would grow by a fifth over a long run."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _surest(source: zarr.Group, time: int, window: Window) -> dict[str, NDArray[Any]]:
    """Layers of a window of an overview: of each four pixels below, the one with an object or the best score."""
    rows, cols = slice(2 * window.y0, 2 * window.y1), slice(2 * window.x0, 2 * window.x1)
    below = {name: array_at(source, name)[time, rows, cols] for name in LAYERS}
    pad = [(0, 2 * side - have) for side, have in zip(window.shape, below["score"].shape, strict=True)]
    if any(after for _, after in pad):
        below = {name: np.pad(layer, pad) for name, layer in below.items()}
    # Object first, then score, then whether it was answered at all.
    worth = below["score"].astype(np.int16) * 2
    worth[below["object_id"] > 0] += 1024
    worth += below["status"] == Status.DONE
    best, chosen = worth[::2, ::2].copy(), {name: layer[::2, ::2].copy() for name, layer in below.items()}
    for quarter in (
        (slice(0, None, 2), slice(1, None, 2)),
        (slice(1, None, 2), slice(0, None, 2)),
        (slice(1, None, 2),) * 2,
    ):
        better = worth[quarter] > best
        np.copyto(best, worth[quarter], where=better)
        for name, layer in below.items():
            np.copyto(chosen[name], layer[quarter], where=better)
    return chosen


def _batches(questions: list[Question], size: int) -> list[list[Question]]:
    return [questions[start : start + size] for start in range(0, len(questions), size)]


def _record(tile: Tile, answer: TileOutput, seconds: float) -> TileRecord:
    names = [grounding.label for grounding in answer.groundings]
    label = max(sorted(set(names)), key=names.count) if names else ""
    return TileRecord(
        row=tile.row, col=tile.col, status=Status.DONE, seconds=seconds, label=label, caption=answer.caption
    )


def _commonest_absence(scene: Scene, asked: NDArray[np.bool_], at: tuple[slice, slice]) -> Status:
    if not asked[at].any():
        return Status.OUTSIDE_AOI
    return Status.MASKED if scene.masked[at].any() else Status.NO_SOURCE_DATA

"""Asks the model a batch of questions and isolates the tile that makes it fail."""

from __future__ import annotations

import json
from collections.abc import Sequence

from earthgptx.model.interface.tile import TileInput, TileOutput
from earthgptx.pipeline.analysis.questions import Question
from earthgptx.pipeline.analyst import Analyst, check_output
from earthgptx.pipeline.engine.scratch import Scratch
from earthgptx.pipeline.errors import AnalystError, PipelineError
from earthgptx.pipeline.job.grid import BlockKey, Tile

SECOND_CHANCES = 1
"""Retries of a tile that failed in a batch of one, before it is quarantined."""
DEATHS = 2
"""Process deaths while the same tile was being tried, after which it is quarantined."""


def ask(analyst: Analyst, batch: Sequence[Question]) -> list[TileOutput | str]:
    """Returns one answer per question, or the reason why it has none.

    A batch that fails is halved until the failing question is alone; then it is tried again.
    """
    inputs = [question.input for question in batch]
    reason = ""
    for _ in range(1 + (SECOND_CHANCES if len(batch) == 1 else 0)):
        try:
            return list(_checked_answers(analyst, inputs))
        except PipelineError as error:
            reason = str(error)
        except Exception as error:  # a model may raise anything
            reason = f"the model raised {type(error).__name__}: {error}"
    if len(batch) == 1:
        return [reason]
    half = len(batch) // 2
    return ask(analyst, batch[:half]) + ask(analyst, batch[half:])


def _checked_answers(analyst: Analyst, inputs: Sequence[TileInput]) -> list[TileOutput]:
    answers = analyst.analyse(inputs)
    if len(answers) != len(inputs):
        raise AnalystError(f"the model gave {len(answers)} answers to {len(inputs)} tiles")
    for answer, tile in zip(answers, inputs, strict=True):
        check_output(answer, tile)
    return answers


class DeathNotes:
    """Records in scratch which tiles were being tried when a process died.

    Used for blocks on which a process has died before. A tile is noted before it is tried. The note
    is removed when the same process tries the next tile of the block.
    """

    def __init__(self, scratch: Scratch) -> None:
        """Keeps the notes in the scratch of a run."""
        self._scratch = scratch
        self._survived: dict[BlockKey, str] = {}

    def try_tile(self, key: BlockKey, tile: Tile) -> str:
        """Notes that a tile is about to be tried.

        Returns:
            Empty text, or the reason to quarantine the tile because too many processes died on it.
        """
        name = f"{key}.json"
        try:
            noted = json.loads(self._scratch.get("trying", name))
        except FileNotFoundError:
            noted = {}
        place = f"{tile.row}/{tile.col}"
        noted.pop(self._survived.pop(key, ""), None)
        tries = noted.get(place, 0)
        if tries >= DEATHS:
            return f"the model's process died {tries} times on this tile"
        self._scratch.put("trying", name, json.dumps(noted | {place: tries + 1}).encode())
        self._survived[key] = place  # proven only if this process gets to try the next tile
        return ""

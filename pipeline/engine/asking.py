"""Asks the model a batch of questions, and tells a tile that fails from a model that fails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from earthgptx.model.interface.tile import TileInput, TileOutput
from earthgptx.pipeline.analysis.questions import Question
from earthgptx.pipeline.analyst import Analyst, check_output
from earthgptx.pipeline.errors import AnalystError, PipelineError
from earthgptx.pipeline.results.store import Cause

SECOND_CHANCES = 1
"""Retries of a tile that failed in a batch of one."""


class ModelSick(Exception):
    """The model fails on a tile that it could answer before: its process has to be replaced."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a question has no answer."""

    reason: str
    cause: Cause
    proven: bool
    """Whether the model answered another tile right afterwards; it has none before its first."""


class Asker:
    """Asks one model, and remembers a tile that it answered: the canary."""

    def __init__(self, analyst: Analyst) -> None:
        """Sets the model; it is used by one thread at a time."""
        self._analyst = analyst
        self._canary: TileInput | None = None

    def ask(self, batch: Sequence[Question]) -> list[TileOutput | Refusal]:
        """Returns one answer per question, or the reason why it has none.

        A batch that fails is halved until the failing question is alone; then it is tried again.

        Raises:
            ModelSick: a question failed, and so does the canary.
        """
        inputs = [question.input for question in batch]
        error: Exception = AnalystError("not asked")
        for _ in range(1 + (SECOND_CHANCES if len(batch) == 1 else 0)):
            try:
                answers = self._checked_answers(inputs)
            except Exception as raised:  # a model may raise anything
                error = raised
            else:
                self._canary = inputs[-1]
                return list(answers)
        if len(batch) > 1:
            half = len(batch) // 2
            return self.ask(batch[:half]) + self.ask(batch[half:])
        return [self._refused(error)]

    def _refused(self, error: Exception) -> Refusal:
        reason = (
            str(error)
            if isinstance(error, PipelineError)
            else f"the model raised {type(error).__name__}: {error}"
        )
        if self._canary is not None:
            try:
                self._checked_answers([self._canary])
            except Exception:
                raise ModelSick(reason) from error
        memory = isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__
        proven = self._canary is not None
        cause = Cause.MEMORY if memory else Cause.MODEL if proven else Cause.UNPROVEN
        return Refusal(reason, cause, proven)

    def _checked_answers(self, inputs: Sequence[TileInput]) -> list[TileOutput]:
        answers = self._analyst.analyse(inputs)
        if len(answers) != len(inputs):
            raise AnalystError(f"the model gave {len(answers)} answers to {len(inputs)} tiles")
        for answer, tile in zip(answers, inputs, strict=True):
            check_output(answer, tile)
        return answers

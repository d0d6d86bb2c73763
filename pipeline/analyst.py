"""The protocol between the engine and a model, and the lookup of a model by name.

The engine knows a model only as an `Analyst`. Processes that only read and write never load torch.
A job file can name any other model: `model: package.module:Class`.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from earthgptx.model.interface.answer import Reply
from earthgptx.model.interface.errors import ModelError
from earthgptx.model.interface.tile import AnalystTraits, TileInput, TileOutput
from earthgptx.pipeline.errors import AnalystError, JobError


class Analyst(Protocol):
    """A model that answers questions about tiles. Deterministic; used by one thread at a time."""

    def analyse(self, tiles: Sequence[TileInput]) -> list[TileOutput]:
        """Returns one output per tile, in order. Must not depend on which tiles share a batch."""
        ...


class AnalystSource(Protocol):
    """Loads an Analyst: a class, or any object with these methods."""

    def traits(self) -> AnalystTraits:
        """Returns what the engine must know about the model. Must not load weights."""
        ...

    def load(self) -> Analyst:
        """Returns an Analyst that is ready to analyse, on this process's GPU if it has one."""
        ...


def find_analyst(name: str) -> AnalystSource:
    """Returns the source of the model that a job file names.

    Args:
        name: `cfar`; a scale, folder or hub id of EarthGPT-X; or `package.module:Class`.

    Raises:
        JobError: no model has that name.
    """
    try:
        if name == "cfar" or ":" in name:
            module, _, attribute = {"cfar": "earthgptx.pipeline.analysis.cfar:Cfar"}.get(
                name, name
            ).partition(":")
            found: AnalystSource = getattr(importlib.import_module(module), attribute)
        else:
            # Imported by name, so that hosting another model never loads torch.
            found = importlib.import_module("earthgptx.model.inference.analyst").source(name)
    except (ImportError, AttributeError, ValueError, ModelError) as error:
        raise JobError(
            f"model: no analyst '{name}' ({error}); use 'cfar', a folder or hub id of EarthGPT-X "
            "weights, or the import path 'package.module:Class' of your own"
        ) from error
    return found


def open_model(name: str) -> Analyst:
    """Loads a model by the name that a job file would use; see `find_analyst`.

    Raises:
        JobError: no model has that name.
    """
    return find_analyst(name).load()


def check_output(output: TileOutput, tile: TileInput) -> None:
    """Checks that an output fits its input.

    Raises:
        AnalystError: the scores have a wrong shape or dtype, a grounding exceeds the tile or has a
            score outside 0..1, or a prompt or a question has no answer.
    """
    height, width = tile.valid.shape
    expected = (len(tile.phrases), height, width)
    if output.scores.shape != expected or output.scores.dtype != np.uint8:
        raise AnalystError(
            f"the model answered scores {output.scores.dtype} {output.scores.shape}, "
            f"expected uint8 {expected}; mend the model's analyse()"
        )
    for grounding in output.groundings:
        box = grounding.box
        if box.x0 < 0 or box.y0 < 0 or box.x1 > width or box.y1 > height:
            raise AnalystError(
                f"the model outlined {box}, outside the tile of {height} x {width} px"
            )
        if not 0.0 <= grounding.score <= 1.0:
            raise AnalystError(f"the model gave the score {grounding.score}, expected 0..1")
    _check_replies(tile.questions, output.replies)
    for grounding in output.groundings:
        if grounding.present:
            _check_replies(tile.object_questions, grounding.replies)
    silent = {prompt.id for prompt in tile.prompts} - {
        grounding.prompt_id for grounding in output.groundings
    }
    if silent:
        raise AnalystError(
            f"the model gave no answer to the prompts {sorted(silent)[:5]}; every prompt needs one"
        )


def _check_replies(questions: Sequence[str], replies: Sequence[Reply]) -> None:
    if tuple(each.question for each in replies) != tuple(questions):
        raise AnalystError(
            f"the model replied to {len(replies)} of {len(questions)} questions; every question "
            "needs a reply, in their order"
        )
    for each in replies:
        if not 0.0 <= each.likelihood <= 1.0:
            raise AnalystError(f"the model gave the likelihood {each.likelihood}, expected 0..1")

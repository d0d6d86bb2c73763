"""The protocol between the engine and a model, and how a model is found by its name.

The engine knows a model only as an `Analyst`. Reading and writing workers never load torch, and
any other model can stand in: `model: package.module:Class` in a job file.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from model.errors import ModelError
from model.tile import AnalystTraits, TileInput, TileOutput
from pipeline.errors import AnalystError, JobError


class Analyst(Protocol):
    """A model that reads tiles. Used by one thread of one process; deterministic."""

    def analyse(self, tiles: Sequence[TileInput]) -> list[TileOutput]:
        """One output per tile, in order. Must not depend on which tiles share a batch."""
        ...


class AnalystSource(Protocol):
    """Where an Analyst comes from: a class, or anything else that can load one."""

    def traits(self) -> AnalystTraits:
        """What the engine has to know; must not load weights."""
        ...

    def load(self) -> Analyst:
        """Ready to analyse, on this process's GPU where it has one."""
        ...


def find_analyst(name: str) -> AnalystSource:
    """What a job file names: `cfar`, EarthGPT-X by a scale, a folder or a hub id, or `package.module:Class`.

    Raises:
        JobError: there is none of that name.
    """
    try:
        if name == "cfar" or ":" in name:
            module, _, attribute = {"cfar": "pipeline.cfar:Cfar"}.get(name, name).partition(":")
            found: AnalystSource = getattr(importlib.import_module(module), attribute)
        else:
            # By name, so that who hosts another model never loads torch.
            found = importlib.import_module("model.analyst").source(name)
    except (ImportError, AttributeError, ValueError, ModelError) as error:
        raise JobError(
            f"model: no analyst '{name}' ({error}); use 'cfar', a folder or hub id of EarthGPT-X weights, or the import path "
            "'package.module:Class' of your own"
        ) from error
    return found


def check_output(output: TileOutput, tile: TileInput) -> None:
    """Refuse an answer that does not fit its question.

    Raises:
        AnalystError: scores of another shape or dtype, a mask past the tile, or a prompt left without answer.
    """
    height, width = tile.valid.shape
    expected = (len(tile.phrases), height, width)
    if output.scores.shape != expected or output.scores.dtype != np.uint8:
        raise AnalystError(
            f"the model answered scores {output.scores.dtype} {output.scores.shape}, expected uint8 {expected}; "
            "mend the model's analyse()"
        )
    for grounding in output.groundings:
        box = grounding.box
        if box.x0 < 0 or box.y0 < 0 or box.x1 > width or box.y1 > height:
            raise AnalystError(f"the model outlined {box}, outside the tile of {height} x {width} px")
        if not 0.0 <= grounding.score <= 1.0:
            raise AnalystError(f"the model gave the score {grounding.score}, expected 0..1")
    silent = {prompt.id for prompt in tile.prompts} - {grounding.prompt_id for grounding in output.groundings}
    if silent:
        raise AnalystError(f"the model gave no answer to the prompts {sorted(silent)[:5]}; every prompt needs one")

"""From a job file to a Zarr result: the way of a tile. Meets a model only as `Analyst`.

What starts Ray or reads results is imported when it is asked for: a worker loads no more than it needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from pipeline.errors import PipelineError
from pipeline.job import JobSpec
from pipeline.plan import Plan, plan

if TYPE_CHECKING:
    from pipeline.engine import RunReport, run
    from pipeline.query import Result, open_result

__all__ = ["JobSpec", "PipelineError", "Plan", "Result", "RunReport", "open_result", "plan", "run"]

_LATER = {"RunReport": "engine", "run": "engine", "Result": "query", "open_result": "query"}


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module 'pipeline' has no attribute '{name}'")
    return getattr(import_module(f"pipeline.{_LATER[name]}"), name)

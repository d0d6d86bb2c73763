"""From a job file to a Zarr result: the way of a tile. Meets a model only as `Analyst`."""

from pipeline.engine import RunReport, run
from pipeline.errors import PipelineError
from pipeline.job import JobSpec
from pipeline.plan import Plan, plan
from pipeline.query import Result, open_result

__all__ = ["JobSpec", "PipelineError", "Plan", "Result", "RunReport", "open_result", "plan", "run"]

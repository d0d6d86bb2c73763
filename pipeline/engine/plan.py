"""Plans a job, with the objects of the result that its visual prompts come from."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import pyarrow as pa
import pystac
from shapely.geometry.base import BaseGeometry

from earthgptx.pipeline.errors import JobError, Outage
from earthgptx.pipeline.job.spec import JobSpec
from earthgptx.pipeline.planning.blocks import NO_OBJECTS, AskedObject, AskedObjects
from earthgptx.pipeline.planning.plan import Plan
from earthgptx.pipeline.planning.resolve import resolve
from earthgptx.pipeline.results.condition import sql_of
from earthgptx.pipeline.results.conditions import Conditions
from earthgptx.pipeline.results.find import find
from earthgptx.pipeline.results.object_table import COLUMNS, outlines_of
from earthgptx.pipeline.results.result import Result, open_result
from earthgptx.pipeline.results.slices_group import EPOCH, MICROSECOND, SliceState
from earthgptx.pipeline.storage.blobs import plain


def plan(
    spec: JobSpec,
    *,
    items: list[pystac.Item] | None = None,
    anew: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> Plan:
    """Resolves a job into a plan.

    Args:
        spec: the job.
        items: Items of a frozen search; None to search the catalog now.
        anew: whether not to go by what the output holds, as a run is to replace it.
        tell: takes a sentence about the progress, now and then.

    Raises:
        JobError: the job asks for something impossible.
        OutputError: the result that its prompts come from is not there, or has no finished slice.
        CatalogError: the search fails or finds no Items, or a collection's profile is unusable.
    """
    asked = NO_OBJECTS
    if spec.prompts.is_result:
        tell("reading the objects that are asked about")
        asked = _objects(spec)
    return resolve(spec, items=items, anew=anew, asked=asked, tell=tell)


def _objects(spec: JobSpec) -> AskedObjects:
    """Returns the objects of another result that concern a job."""
    prompts = spec.prompts
    if plain(prompts.origin) == plain(spec.output):
        raise JobError(f"prompts.from: {prompts.origin} is the job's own output; name another one")
    result = open_result(prompts.origin)
    if prompts.where:  # before anything is searched
        sql_of(prompts.where, COLUMNS)

    def seen(area: BaseGeometry, start: datetime, end: datetime) -> list[AskedObject]:
        _refuse_unfinished(result, start, end)
        conditions = Conditions(within=area, start=start, end=end, where=prompts.where)
        found = find([result.files(conditions)], conditions)
        # Times as numbers: as times pyarrow loads pandas.
        times = found["time"].cast(pa.int64()).to_pylist()
        rows = zip(found["object_id"].to_pylist(), times, outlines_of(found), strict=True)
        return [
            AskedObject(str(name), shape, EPOCH + time * MICROSECOND) for name, time, shape in rows
        ]

    return AskedObjects(str(result.attrs["series"]), seen)


def _refuse_unfinished(result: Result, start: datetime, end: datetime) -> None:
    """Refuses a result of which a time slice is being made: its objects are missing for now.

    Raises:
        Outage: there is such a slice from one time to another.
    """
    for row in result.rows:
        if row.state == SliceState.RUNNING and row.end >= start and row.start <= end:
            raise Outage(
                f"prompts.from: {row.name} of {result.url} is not finished, so that nobody knows "
                "what to ask about; run its job, then this one again"
            )

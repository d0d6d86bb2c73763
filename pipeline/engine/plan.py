"""Plans a job, with the objects of the result that its visual prompts come from."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pyarrow as pa
import pystac

from earthgptx.catalogs.interval import Interval, parse_interval
from earthgptx.pipeline.errors import JobError
from earthgptx.pipeline.job.spec import JobSpec
from earthgptx.pipeline.job.vectors import read_aoi
from earthgptx.pipeline.planning.blocks import NO_OBJECTS, AskedObject, AskedObjects
from earthgptx.pipeline.planning.plan import Plan
from earthgptx.pipeline.planning.resolve import resolve
from earthgptx.pipeline.results.find import Conditions, find
from earthgptx.pipeline.results.object_table import outlines_of
from earthgptx.pipeline.results.result import open_result
from earthgptx.pipeline.results.slices_group import EPOCH, MICROSECOND
from earthgptx.pipeline.storage.blobs import plain

SLICE = {"item": timedelta(0), "day": timedelta(1), "month": timedelta(31)}
"""Longest time by which a time slice exceeds the interval that its Items were searched in."""


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
    """Returns the objects of another result that may concern a job's time slices."""
    prompts = spec.prompts
    if plain(prompts.origin) == plain(spec.output):
        raise JobError(f"prompts.from: {prompts.origin} is the job's own output; name another one")
    result = open_result(prompts.origin)
    start, end = _reach(spec)
    conditions = Conditions(
        within=read_aoi(spec.source.aoi), start=start, end=end, where=prompts.where
    )
    found = find([result.files(conditions)], conditions).select(["object_id", "time", "geometry"])
    # Times as numbers: as times pyarrow loads pandas.
    times = found["time"].cast(pa.int64()).to_pylist()
    rows = zip(found["object_id"].to_pylist(), times, outlines_of(found), strict=True)
    objects = tuple(
        AskedObject(str(name), shape, EPOCH + time * MICROSECOND) for name, time, shape in rows
    )
    return AskedObjects(str(result.attrs["series"]), objects)


def _reach(spec: JobSpec) -> Interval:
    """Returns the time in which an object may concern one of the job's time slices."""
    start, end = parse_interval(spec.source.time)
    if spec.slices not in SLICE:  # one for all
        return None, None
    more = spec.prompts.margin + SLICE[spec.slices]
    return start and start - more, end and end + more

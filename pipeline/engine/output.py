"""Prepares the output of a run and publishes its result.

Before a run, the output is empty, or holds the result of the same plan or of another one.
"""

from __future__ import annotations

from typing import Any

import shapely

from earthgptx.catalogs.publish import Published, publish
from earthgptx.catalogs.search import start_of
from earthgptx.pipeline.engine.scratch import KINDS, Scratch
from earthgptx.pipeline.errors import OutputError
from earthgptx.pipeline.job.spec import items_beside
from earthgptx.pipeline.planning.plan import Plan
from earthgptx.pipeline.planning.projection import to_lonlat
from earthgptx.pipeline.results import store


def prepare_output(plan: Plan, output: str, scratch: Scratch, *, overwrite: bool) -> None:
    """Clears an output and its scratch, unless the plan can resume or reuse the result in it.

    Args:
        plan: plan of the run.
        output: URL of the result.
        scratch: scratch of the run.
        overwrite: whether to replace another plan's result, or a finished one of the same plan.

    Raises:
        OutputError: the output holds another plan's result and `overwrite` is not set, or holds
            something that is no result of earthgptx.
    """
    if not store.exists(output):
        stale = [kind for kind in KINDS if scratch.names(kind)]
        for kind in stale:  # left over from a deleted store
            scratch.drop(kind, scratch.names(kind))
        return
    there = store.mark_of(store.open_group(output, mode="r"))
    if there["plan_id"] == plan.plan_id and not (overwrite and there["state"] == "finished"):
        return
    if not overwrite:
        raise OutputError(
            f"{output} holds the result of another plan ({_difference(there, plan)}); "
            "choose another output, or give --overwrite to replace it"
        )
    store.remove(output)
    for kind in KINDS:
        scratch.drop(kind, scratch.names(kind))


def _difference(there: dict[str, Any], plan: Plan) -> str:
    """Returns a short text that names what differs between a store's job and a plan."""
    job = plan.spec.model_dump(mode="json", by_alias=True)
    keys = [
        key
        for key in ("slices", "grid", "prompts", "tasks", "model")
        if there["job"].get(key) != job[key]
    ]
    keys += [
        f"source.{key}"
        for key in ("collections", "aoi", "time", "filter", "profiles")
        if there["job"]["source"].get(key) != job["source"][key]
    ]
    items = {f"{item.collection_id}/{item.id}" for item in plan.items}
    if set(there["items"]) != items:
        frozen = items_beside(plan.spec.output)
        keys.append(
            f"items ({len(there['items'])} then, {len(items)} now; "
            f"to go on with those of then, set source.catalog to {frozen})"
        )
    if there["model"]["digest"] != plan.traits.digest:
        keys.append("the model's version")
    return "differs in " + ", ".join(keys or ["a file that it reads, or the version of the code"])


def publish_result(plan: Plan, base: str, software: dict[str, str]) -> None:
    """Writes the STAC Item of a result to `{base}.item.json`.

    Args:
        plan: plan of the run.
        base: URL of the result without `.zarr`.
        software: version of each package.
    """
    name = base.rsplit("/", 1)[-1]
    tasks = plan.spec.tasks
    published = Published(
        id=name,
        geometry=shapely.union_all(
            [to_lonlat(grid.answer_area, grid.crs) for grid in plan.grids.values()]
        ),
        start=min(start_of(item) for item in plan.items),
        end=max(start_of(item) for item in plan.items),
        crs=tuple(grid.crs for grid in plan.grids.values()),
        phrases=tuple(tasks.find),
        model=plan.traits.name,
        model_digest=plan.traits.digest,
        plan_id=plan.plan_id,
        software=software,
        tasks=(
            "semantic-segmentation",
            "instance-segmentation",
            *(["image-captioning"] if tasks.describe else []),
        ),
        sources=tuple(
            item.get_self_href() or f"{item.collection_id}/{item.id}" for item in plan.items
        ),
    )
    publish(
        published,
        f"{base}.item.json",
        {
            "raster": (f"./{name}.zarr", "application/vnd.zarr; version=3"),
            "objects": (f"./{name}.objects.parquet", "application/vnd.apache.parquet"),
            "items": (f"./{name}.items.parquet", "application/vnd.apache.parquet"),
        },
    )

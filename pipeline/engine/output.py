"""Prepares the output of a run, and publishes its result in files beside the store.

Before a run, the output is empty, or holds a result of the same series or of another one. Nothing
is deleted or replaced that does not carry our own mark.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import astuple
from typing import Any

import shapely
from shapely.geometry.base import BaseGeometry

from earthgptx.catalogs.geoparquet import thaw_series
from earthgptx.catalogs.moments import start_of
from earthgptx.catalogs.publish import (
    PLAIN_TYPE,
    VERSIONED_TYPE,
    Published,
    is_ours,
    item_bytes,
    result_item,
)
from earthgptx.catalogs.redaction import redacted
from earthgptx.pipeline.engine.lease import Lease
from earthgptx.pipeline.engine.scratch import Scratch
from earthgptx.pipeline.errors import Outage, OutputError
from earthgptx.pipeline.job.lonlat import bbox
from earthgptx.pipeline.job.spec import items_beside
from earthgptx.pipeline.planning.plan import Plan
from earthgptx.pipeline.planning.projection import to_lonlat
from earthgptx.pipeline.results import store
from earthgptx.pipeline.results.object_table import KINDS
from earthgptx.pipeline.results.partitions import is_leftover, is_partition, rows_beside
from earthgptx.pipeline.results.slices_group import SliceRow
from earthgptx.pipeline.storage.blobs import is_versioned, open_blobs, plain, split
from earthgptx.pipeline.storage.fence import fenced

BESIDE = (".items.parquet", ".item.json")
"""Endings of the files beside a store, which replace `.zarr`."""


def prepare_output(plan: Plan, scratch: Scratch, lease: Lease, *, overwrite: bool) -> None:
    """Clears an output and its scratch, unless it holds a result of the plan's series.

    Args:
        plan: plan of the run.
        scratch: scratch of the run.
        lease: lease on the output.
        overwrite: whether to replace whatever result of ours the output holds.

    Raises:
        OutputError: the output holds another series' result and `overwrite` is not set, or the
            output or a file beside it is no result of earthgptx.
    """
    output = plan.spec.output
    ours = bool(lease.owned_series) or store.is_result(output)
    store.refuse_other_kind(output)
    for ending in BESIDE:
        refuse_foreign(beside(output, ending), damaged_is_ours=ours)
    for rows in KINDS:
        _refuse_foreign_rows(rows_beside(output, rows.name), damaged_is_ours=ours)
    if not store.exists(output):
        scratch.clear()  # left over from a deleted store
        scratch.clear_memory()
    elif not store.is_result(output):
        # A store that lost its root's document is ours if the lease's record says so.
        if lease.owned_series != plan.series and not (overwrite and lease.owned_series):
            store.open_group(output)  # raises the reason
        if overwrite:
            _clear(output, scratch, lease)
    elif overwrite:
        _clear(output, scratch, lease)
    else:
        there = store.mark_of(store.open_group(output, unfinished=True))
        if there["series"] != plan.series:
            raise OutputError(
                f"{output} holds the result of another series ({_difference(there, plan)}); "
                "choose another output, or give --overwrite to replace it"
            )
        if there["lattices"] != {crs: list(astuple(each)) for crs, each in plan.lattices.items()}:
            raise Outage(
                f"{output} was begun by another run while this one was planned; "
                "run the same command again"
            )
    lease.own(plan.series)


def _clear(output: str, scratch: Scratch, lease: Lease) -> None:
    """Removes a result and its scratch; the lease's record says that what is left is ours."""
    lease.own(lease.owned_series or "replaced")
    if store.is_result(output) and not is_versioned(output):
        # What is left of it after a kill is no finished result.
        root = store.open_group(output, lease.fence, any_layout=True)
        store.set_state(root, "created", 0)
    store.remove(output, lease.fence)
    for rows in KINDS if is_versioned(output) else ():  # those of all its states
        folder = fenced(rows_beside(output, rows.name), lease.fence)
        folder.delete([name for name in folder.names() if is_partition(name)])
    scratch.clear()
    scratch.clear_memory()


def beside(output: str, ending: str) -> str:
    """Returns the address of a file beside a result."""
    return plain(output).removesuffix(".zarr") + ending


def _refuse_foreign_rows(url: str, *, damaged_is_ours: bool) -> None:
    """Refuses a folder of rows that holds a file without our mark; see `refuse_foreign`."""
    store.exists(url)  # raises if a file lies there
    for name in open_blobs(url).names():
        if is_leftover(name):
            continue
        if not is_partition(name):
            raise OutputError(
                f"{url}/{name} was not written by earthgptx; move it away or choose another output"
            )
        if not damaged_is_ours:  # else each run would read all files of a long history
            refuse_foreign(f"{url}/{name}")


def refuse_foreign(url: str, *, damaged_is_ours: bool = False) -> None:
    """Refuses to replace a file beside an output that does not carry our mark.

    Args:
        url: address of the file.
        damaged_is_ours: whether the output is ours, so that a file that is torn is so too.

    Raises:
        OutputError: such a file exists.
    """
    blobs, name = split(url)
    try:
        with blobs.open(name) as file:
            ours = is_ours(name, file)
    except FileNotFoundError:
        return
    if not (damaged_is_ours if ours is None else ours):
        raise OutputError(
            f"{url} exists and was not written by earthgptx; move it away or choose another output"
        )


def _difference(there: dict[str, Any], plan: Plan) -> str:
    """Returns a short text that names what differs between a store's job and a plan."""
    job = plan.spec.redacted()
    keys = [
        key
        for key in ("slices", "compose", "grid", "prompts", "tasks", "model")
        if there["job"].get(key) != job[key]
    ]
    keys += [
        f"source.{key}"
        for key in ("collections", "aoi", "filter", "profiles")
        if there["job"]["source"].get(key) != job["source"][key]
    ]
    if there["model"]["digest"] != plan.traits.digest:
        keys.append("the model's version")
    return "differs in " + ", ".join(keys or ["a file that it reads, or the version of the code"])


def published_item(
    plan: Plan, software: dict[str, str], rows: Sequence[SliceRow], before: dict[str, Any]
) -> bytes:
    """Returns the STAC Item of a result as a JSON document.

    Args:
        plan: plan of the run.
        software: version of each package.
        rows: finished slices of the result.
        before: the Item that an earlier run has published; empty for none.
    """
    name = beside(plan.spec.output, "").rsplit("/", 1)[-1]
    kind = VERSIONED_TYPE if is_versioned(plan.spec.output) else PLAIN_TYPE
    tasks = plan.spec.tasks
    mine = {piece.name for piece in plan.slices if piece.items}
    others = [row for row in rows if row.name not in mine]
    covered = [_covered(plan)]
    sources = [
        redacted(item.get_self_href() or "") or f"{item.collection_id}/{item.id}"
        for item in plan.items
    ]
    if others and before:
        covered.append(shapely.geometry.shape(before["geometry"]))
        sources += [each["href"] for each in before["links"] if each["rel"] == "derived_from"]
    elif others:  # it is lost
        known = thaw_series(items_beside(plan.spec.output), plan.series) or []
        covered += [shapely.geometry.shape(item.geometry) for item in known if item.geometry]
        sources += [f"{item.collection_id}/{item.id}" for item in known]
    ground = shapely.union_all(covered)
    moments = [start_of(item) for item in plan.items]
    published = Published(
        id=name,
        geometry=ground,
        bbox=tuple(bbox(ground)),
        start=min([*moments, *(row.start for row in others)]),
        end=max([*moments, *(row.end for row in others)]),
        crs=tuple(grid.crs for grid in plan.grids.values()),
        phrases=tuple(tasks.find),
        model=plan.traits.name,
        model_digest=plan.traits.digest,
        series=plan.series,
        software=software,
        tasks=(
            "semantic-segmentation",
            "instance-segmentation",
            *(["image-captioning"] if tasks.describe else []),
        ),
        sources=tuple(dict.fromkeys(sources)),
    )
    item = result_item(
        published,
        {
            "raster": (f"./{name}.zarr", kind),
            "objects": (f"./{name}.objects/", "application/vnd.apache.parquet"),
            **(
                {"answers": (f"./{name}.answers/", "application/vnd.apache.parquet")}
                if tasks.refer and plan.spec.prompts.origin != "none"
                else {}
            ),
            **(
                {"replies": (f"./{name}.replies/", "application/vnd.apache.parquet")}
                if tasks.ask
                else {}
            ),
            "items": (f"./{name}.items.parquet", "application/vnd.apache.parquet"),
        },
    )
    return item_bytes(item)


def published_before(url: str) -> dict[str, Any]:
    """Returns the Item that an earlier run has published; empty if there is none to read."""
    blobs, name = split(url)
    try:
        document = json.loads(blobs.get(name).data)
    except (FileNotFoundError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _covered(plan: Plan) -> BaseGeometry:
    """Returns the part of the AOI that Items show, lon/lat."""
    pieces = []
    for name, grid in plan.grids.items():
        shown = shapely.union_all([each for each in plan.footprints[name] if not each.is_empty])
        if shown.is_empty:
            continue
        pieces.append(to_lonlat(shown.intersection(grid.answer_area), grid.crs))
    return shapely.union_all(pieces)

"""Objects and answers to prompts as rows, as blocks keep them until their slice is finished.

What of them depends on the slice as a whole is completed then: distances to neighbours, times.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from earthgptx.model.interface.answer import Reply
from earthgptx.model.interface.region import Mask
from earthgptx.pipeline.job.lonlat import unwrapped

if TYPE_CHECKING:
    from earthgptx.pipeline.objects.measure import GroundedObject

EDGES = ("xmin", "ymin", "xmax", "ymax")
BBOX = pa.struct([(edge, pa.float64()) for edge in EDGES])
REPLY = pa.struct([("question", pa.string()), ("reply", pa.string()), ("likelihood", pa.float64())])
FINAL = pa.schema(
    [
        ("object_id", pa.int64()),
        ("label", pa.string()),
        ("score", pa.float64()),
        ("caption", pa.string()),
        ("length_m", pa.float64()),
        ("width_m", pa.float64()),
        ("orientation_deg", pa.float64()),
        ("area_m2", pa.float64()),
        ("prompt_ids", pa.string()),
        ("prompt_kind", pa.string()),
        ("item", pa.string()),
        ("lon", pa.float64()),
        ("lat", pa.float64()),
        ("geometry", pa.binary()),
        ("bbox", BBOX),
        ("window", pa.list_(pa.int64(), 4)),
        ("runs", pa.list_(pa.int64())),
        ("replies", pa.list_(REPLY)),
    ]
)
"""Columns of an object. `caption` is the model's, empty for none; `item` collection and id; `lon`
and `lat` the centre; `window` (y0, x0, height, width) and `runs` its mask in pixels of the grid."""
MASK = ["window", "runs"]
"""Columns that hold the mask."""
ANSWER = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("prompt_kind", pa.string()),
        ("outcome", pa.string()),
        ("object_id", pa.int64()),
        ("label", pa.string()),
        ("score", pa.float64()),
        ("caption", pa.string()),
        ("item", pa.string()),
        ("geometry", pa.binary()),
        ("bbox", BBOX),
    ]
)
"""Columns of an answer. `outcome` is a value of `Outcome`; `geometry` is that of the prompt."""
TILE_REPLY = pa.schema(
    [
        ("question", pa.string()),
        ("reply", pa.string()),
        ("likelihood", pa.float64()),
        ("item", pa.string()),
        ("geometry", pa.binary()),
        ("bbox", BBOX),
    ]
)
"""Columns of a reply about a tile; `geometry` is the tile's core."""
PENDING = -1
"""Id of an object whose block could not decide it alone."""


class Outcome(StrEnum):
    """What came of a visual prompt."""

    OBJECT = "object"
    """It marks an object, which the result has."""
    NOTHING = "nothing"
    """It marks no such object."""
    NO_DATA = "no data"
    """Its tile saw no valid pixel, or lies outside the AOI."""
    FAILED = "failed"
    """Its tile is quarantined."""


UNANSWERED = (Outcome.NO_DATA, Outcome.FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptAnswer:
    """A visual prompt and what came of it."""

    prompt_id: str
    prompt_kind: str
    outcome: Outcome
    object_id: int = 0
    """Id of the object; 0 for none, `PENDING` if it is not decided yet."""
    label: str = ""
    score: float = 0.0
    caption: str = ""
    item: str = ""
    """Collection and id of the Item that was seen there."""


def finals_table(objects: Sequence[GroundedObject]) -> pa.Table:
    """Returns objects as rows of `FINAL`, in their order."""
    outlines = np.array([each.geometry for each in objects], object)
    west, south, east, north = shapely.bounds(unwrapped(outlines)).reshape(-1, 4).T
    parts = [each.part for each in objects]
    masks = [part.mask for part in parts]
    columns: dict[str, Any] = {
        "object_id": [each.object_id for each in objects],
        "label": [part.label for part in parts],
        "score": [part.score for part in parts],
        "caption": [part.caption for part in parts],
        "length_m": [each.length_m for each in objects],
        "width_m": [each.width_m for each in objects],
        "orientation_deg": [each.orientation_deg for each in objects],
        "area_m2": [each.area_m2 for each in objects],
        "prompt_ids": [shlex.join(part.prompt_ids) for part in parts],
        "prompt_kind": [part.prompt_kind for part in parts],
        "item": [part.item for part in parts],
        "lon": ((west + east) / 2 + 180) % 360 - 180,
        "lat": (south + north) / 2,
        "window": [[mask.y0, mask.x0, mask.height, mask.width] for mask in masks],
        "runs": [mask.runs for mask in masks],
        "replies": [reply_rows(part.replies) for part in parts],
    }
    geometry, bbox = outline_columns(outlines)
    arrays = [
        geometry
        if field.name == "geometry"
        else bbox
        if field.name == "bbox"
        else pa.array(columns[field.name], field.type)
        for field in FINAL
    ]
    return pa.Table.from_arrays(arrays, schema=FINAL)


def reply_rows(replies: Sequence[Reply]) -> list[dict[str, str | float]]:
    """Returns replies as values of `REPLY`."""
    return [
        {"question": each.question, "reply": each.text, "likelihood": each.likelihood}
        for each in replies
    ]


def tile_replies_table(
    replies: Sequence[tuple[Sequence[Reply], str]], cores: NDArray[np.object_]
) -> pa.Table:
    """Returns the replies about tiles as rows of `TILE_REPLY`, in their order.

    Args:
        replies: replies about each of N tiles, and collection and id of the Item that it shows.
        cores: (N,) outlines of their cores, lon/lat.
    """
    rows = [row | {"item": item} for said, item in replies for row in reply_rows(said)]
    of = np.repeat(np.arange(len(cores)), [len(said) for said, _ in replies])
    columns = [
        pa.array([row[name] for row in rows], TILE_REPLY.field(name).type)
        for name in ("question", "reply", "likelihood", "item")
    ]
    return pa.Table.from_arrays([*columns, *outline_columns(cores[of])], schema=TILE_REPLY)


def answers_table(answers: Sequence[PromptAnswer], places: NDArray[np.object_]) -> pa.Table:
    """Returns answers as rows of `ANSWER`.

    Args:
        answers: N answers.
        places: (N,) geometries of their prompts, lon/lat.
    """
    geometry, bbox = outline_columns(places)
    arrays = [
        pa.array([getattr(each, field.name) for each in answers], field.type)
        for field in ANSWER
        if field.name not in ("geometry", "bbox")
    ]
    return pa.Table.from_arrays([*arrays, geometry, bbox], schema=ANSWER)


def outline_columns(outlines: NDArray[np.object_]) -> tuple[pa.Array, pa.Array]:
    """Returns the columns `geometry` and `bbox` of (N,) geometries."""
    edges = shapely.bounds(outlines).reshape(-1, 4).T
    box = pa.StructArray.from_arrays([pa.array(edge) for edge in edges], list(EDGES))
    return pa.array(shapely.to_wkb(outlines), pa.binary()), box


def masks_of(table: pa.Table) -> list[tuple[float, int, Mask]]:
    """Returns score, id and mask of the objects of a table of `FINAL`."""
    return [
        (score, object_id, Mask(y0, x0, height, width, tuple(runs)))
        for score, object_id, (y0, x0, height, width), runs in zip(
            *(table[name].to_pylist() for name in ("score", "object_id", "window", "runs")),
            strict=True,
        )
    ]

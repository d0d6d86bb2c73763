"""Completes the rows of a time slice: what depends on the slice as a whole, and on its Items."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from earthgptx.pipeline.objects.captions import caption_of
from earthgptx.pipeline.objects.finals import PENDING, Outcome
from earthgptx.pipeline.results.object_table import ANSWER_SCHEMA, MOMENT, REPLY_SCHEMA, SCHEMA

if TYPE_CHECKING:
    from earthgptx.pipeline.planning.plan import Plan

NEAR = ("same_m", "same_deg", "other", "other_m", "other_deg", "landmark")
"""Columns of an object's neighbours, see `captions.caption_of`."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What is the same of all rows of a time slice."""

    start: datetime
    """Start of the slice."""
    times: Mapping[str, datetime]
    """Time of each of its Items, by collection and id."""
    model: str
    digest: str
    """Name and digest of the model."""

    @classmethod
    def of(cls, plan: Plan, time: int) -> Origin:
        """Returns the origin of the rows of a slice."""
        from earthgptx.catalogs.moments import start_of

        piece = plan.slices[time]
        times = {plan.sources[at].name: start_of(plan.items[at]) for at in piece.items}
        return cls(piece.start, times, plan.traits.name, plan.traits.digest)

    def columns(self, items: pa.ChunkedArray) -> dict[str, pa.Array]:
        """Returns the columns that follow from the Item of each row.

        Args:
            items: collection and id of each row's Item; empty for none.
        """
        rows = len(items)
        coded = items.combine_chunks().dictionary_encode()
        names = coded.dictionary.to_pylist()
        moments = pa.array([self.times.get(name, self.start) for name in names], MOMENT)
        ids = pa.array([name.partition("/")[2] for name in names], pa.string())
        return {
            "slice": pa.repeat(pa.scalar(self.start, MOMENT), rows),
            "time": moments.take(coded.indices),
            "item_id": ids.take(coded.indices),
            "model": pa.repeat(pa.scalar(self.model), rows),
            "model_digest": pa.repeat(pa.scalar(self.digest), rows),
        }


def completed(finals: pa.Table, origin: Origin) -> pa.Table:
    """Returns the rows of `SCHEMA` of objects, along a Hilbert curve, then by id.

    Args:
        finals: N rows of `finals.FINAL`, and the columns `NEAR` of their neighbours.
        origin: what is the same of all.
    """
    measures = ("caption", "label", "length_m", "width_m", "orientation_deg", *NEAR)
    values = (finals[name].to_pylist() for name in measures)
    captions = [caption_of(*each) for each in zip(*values, strict=True)]
    given = origin.columns(finals["item"]) | {
        "caption": pa.array(captions, pa.string()),
        "track_id": finals["object_id"],  # until it is known which were there before
    }
    table = _with(given, finals, SCHEMA)
    along = along_curve(finals["lon"].to_numpy(), finals["lat"].to_numpy())
    return table.take(pa.array(np.lexsort([table["object_id"].to_numpy(), along])))


def completed_answers(answers: pa.Table, objects: Mapping[str, int], origin: Origin) -> pa.Table:
    """Returns the rows of `ANSWER_SCHEMA` of answers, in their order.

    Args:
        answers: rows of `finals.ANSWER`.
        objects: object by prompt id, of those that no block could decide alone.
        origin: what is the same of all.
    """
    ids, outcomes = answers["object_id"].to_pylist(), answers["outcome"].to_pylist()
    names = answers["prompt_id"].to_pylist()
    for at, found in enumerate(ids):
        if found == PENDING:
            ids[at] = objects.get(names[at], 0)
            outcomes[at] = Outcome.OBJECT if ids[at] else Outcome.NOTHING
    given = origin.columns(answers["item"]) | {
        "object_id": pa.array(ids, pa.int64()),
        "outcome": pa.array(outcomes, pa.string()),
    }
    return _with(given, answers, ANSWER_SCHEMA)


def completed_replies(tiles: pa.Table, objects: pa.Table, origin: Origin) -> pa.Table:
    """Returns the rows of `REPLY_SCHEMA` of the replies about tiles, then about objects.

    Args:
        tiles: rows of `finals.TILE_REPLY`.
        objects: rows of `finals.FINAL`.
        origin: what is the same of all.
    """
    of = pc.list_parent_indices(objects["replies"].combine_chunks())
    said = pc.list_flatten(objects["replies"].combine_chunks())
    fields = {name: said.field(name) for name in ("question", "reply", "likelihood")}
    names = ("object_id", "label", "item", "geometry", "bbox")
    fields |= {name: objects[name].combine_chunks().take(of) for name in names}
    about_objects = pa.table(fields)
    about_tiles = tiles.append_column("object_id", pa.repeat(pa.scalar(0), len(tiles)))
    about_tiles = about_tiles.append_column("label", pa.repeat(pa.scalar(""), len(tiles)))
    rows = pa.concat_tables([about_tiles, about_objects.select(about_tiles.column_names)])
    which = ["tiles"] * len(tiles) + ["objects"] * len(of)
    given = origin.columns(rows["item"]) | {"about": pa.array(which, pa.string())}
    return _with(given, rows, REPLY_SCHEMA)


def _with(given: Mapping[str, pa.Array], table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Returns the columns of a schema: those that are given, the others of a table."""
    columns = [given[name] if name in given else table[name] for name in schema.names]
    return pa.Table.from_arrays(columns, schema=schema)


def along_curve(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.int64]:
    """Returns the distance of N places along a Hilbert curve over their bounds, (N,)."""
    import geopandas as gpd

    if not len(x):
        return np.empty(0, np.int64)
    return np.asarray(gpd.GeoSeries(gpd.points_from_xy(x, y)).hilbert_distance())

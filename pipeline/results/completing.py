"""Completes the rows of a time slice: what depends on the slice as a whole, and on its Items."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from earthgptx.pipeline.objects.finals import ANSWER, FINAL, PENDING, Outcome
from earthgptx.pipeline.objects.measure import measured_caption
from earthgptx.pipeline.results.object_table import ANSWER_SCHEMA, MOMENT, SCHEMA

if TYPE_CHECKING:
    from earthgptx.pipeline.planning.plan import Plan


@dataclass(frozen=True, slots=True)
class Origin:
    """What is the same of all rows of a time slice."""

    start: datetime
    """Start of the slice."""
    times: Mapping[str, datetime]
    """Time of each Item, by collection and id."""
    model: str
    digest: str
    """Name and digest of the model."""

    @classmethod
    def of(cls, plan: Plan, time: int) -> Origin:
        """Returns that of a slice of a plan."""
        from earthgptx.catalogs.moments import start_of

        named = zip(plan.sources, plan.items, strict=True)
        times = {source.name: start_of(item) for source, item in named}
        return cls(plan.slices[time].start, times, plan.traits.name, plan.traits.digest)

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


def completed(finals: pa.Table, nearest_m: NDArray[np.float64], origin: Origin) -> pa.Table:
    """Returns the rows of `SCHEMA` of objects, along a Hilbert curve, then by id.

    Args:
        finals: N rows of `finals.FINAL`.
        nearest_m: (N,) distance of each to the nearest other one of its label; NaN for none.
        origin: what is the same of all.
    """
    measures = ("label", "length_m", "width_m", "orientation_deg", "caption")
    captions = [
        caption or measured_caption(label, length, width, orientation, nearest)
        for label, length, width, orientation, caption, nearest in zip(
            *(finals[name].to_pylist() for name in measures), nearest_m.tolist(), strict=True
        )
    ]
    given = origin.columns(finals["item"]) | {"caption": pa.array(captions, pa.string())}
    columns = [
        given.get(name, finals[name] if name in FINAL.names else None) for name in SCHEMA.names
    ]
    table = pa.Table.from_arrays(columns, schema=SCHEMA)
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
    columns = [given.get(n, answers[n] if n in ANSWER.names else None) for n in ANSWER_SCHEMA.names]
    return pa.Table.from_arrays(columns, schema=ANSWER_SCHEMA)


def along_curve(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.int64]:
    """Returns the distance of N places along a Hilbert curve over their bounds, (N,)."""
    import geopandas as gpd

    if not len(x):
        return np.empty(0, np.int64)
    return np.asarray(gpd.GeoSeries(gpd.points_from_xy(x, y)).hilbert_distance())

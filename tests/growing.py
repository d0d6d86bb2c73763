"""A small archive that changes, and results that grow with it: what their tests share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import geopandas as gpd
import geopandas.testing
import numpy as np
import xarray as xr

from earthgptx import JobSpec, open_result, plan, run
from earthgptx.pipeline.engine.pool import ReplicaPool
from earthgptx.pipeline.engine.report import RunReport
from earthgptx.pipeline.storage.fence import Fence
from tests.archive import Archive, targets

DAYS = ("2026-01-01", "2026-01-02", "2026-01-05")
COLS = (0, 350)
SHAPE = (500, 500)
GRID = {"tile_px": 256, "halo_px": 64, "block_px": 256}
ASKED = {
    "tasks": {"find": ["target"], "refer": True},
    "prompts": {"from": "grid", "spacing_px": 100},
}
ASKED_ALL = ASKED | {
    "model": "tests.analysts:Replying",
    "tasks": {
        "find": ["target"],
        "refer": True,
        "ask": ["how bright?", {"question": "how wide?", "of": "objects"}],
    },
}
"""Every kind of rows."""
NAMES = [f"{day}-{col}" for day in DAYS for col in COLS]


class Killed(Exception):
    """Stands for the death of the driver."""


@contextmanager
def dying(writes: int) -> Iterator[None]:
    """The driver dies before its write of this number; it never writes again."""
    check, count = Fence.check, [0]

    def counted(fence: Fence) -> None:
        count[0] += 1
        if count[0] >= writes:
            raise Killed
        check(fence)

    with patch.object(Fence, "check", counted):
        yield


def growing_archive(folder: Path) -> Archive:
    """Two scenes a day that overlap, each in two versions."""
    made = Archive(folder)
    for number, name in enumerate(NAMES):
        for version in ("", "@2"):
            pixels = targets(2 * number + len(version), SHAPE)
            hour = 10 + number % 2
            made.add(
                name + version,
                np.minimum(pixels, 200),
                col=int(name.rpartition("-")[2]),
                when=f"{name[:10]}T{hour}:00:00Z",
                nodata=None,
                properties={"updated": f"2026-02-0{1 + len(version)}T00:00:00Z"},
            )
    return made


def grown(job: JobSpec, pool: ReplicaPool, **more: Any) -> RunReport:
    return run(plan(job), pool=pool, **more)


Content = tuple[
    dict[str, xr.Dataset],
    gpd.GeoDataFrame,
    gpd.GeoDataFrame,
    dict[str, np.ndarray],
    gpd.GeoDataFrame,
]


def content(url: str, **version: Any) -> Content:
    """Returns all that a reader sees of a result."""
    result = open_result(url, **version)
    factors = sorted(name for name, _ in result.root["overview"].groups())  # type: ignore[union-attr]
    layers = {
        kind: result.layer(kind)[["label", "score", "object_id", "status"]].load()
        for kind in ("raster", *(f"overview/{factor}" for factor in factors))
    }
    layers["tiles"] = result.layer("tiles").drop_vars("seconds").load()
    objects = result.objects.sort_values(["slice", "object_id"]).reset_index(drop=True)
    answers = result.answers.sort_values(["slice", "prompt_id"]).reset_index(drop=True)
    rows = {}
    for row in result.time_slices:
        at = slice(row.first_object, row.first_object + row.objects)
        group: Any = result.root["objects"]
        rows[row.name] = np.concatenate(
            [group["object_id"][at], group["track_id"][at], group["caption"][at]], dtype=object
        )
        at = slice(row.first_answer, row.first_answer + row.answers)
        group = result.root["answers"]
        rows[f"{row.name} answers"] = np.concatenate(
            [group["prompt_id"][at], group["object_id"][at]], dtype=object
        )
        at = slice(row.first_reply, row.first_reply + row.replies)
        group = result.root["replies"]
        rows[f"{row.name} replies"] = np.concatenate(
            [group["reply"][at], group["object_id"][at]], dtype=object
        )
    replies = result.replies
    replies = replies.assign(at=replies.geometry.to_wkb()).sort_values(
        ["slice", "about", "question", "object_id", "at"]
    )
    return layers, objects, answers, rows, replies.reset_index(drop=True)


def same(one: Content, other: Content) -> None:
    for kind, layer in one[0].items():
        xr.testing.assert_identical(layer.drop_attrs(), other[0][kind].drop_attrs())
    geopandas.testing.assert_geodataframe_equal(one[1], other[1])
    geopandas.testing.assert_geodataframe_equal(one[2], other[2])
    geopandas.testing.assert_geodataframe_equal(one[4], other[4])
    assert one[3].keys() == other[3].keys()
    for name, rows in one[3].items():
        assert list(rows) == list(other[3][name]), name

"""The result does not depend on the tiling: the oracle is CFAR on the whole scene at once."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from earthgptx import open_result, plan, run
from earthgptx.pipeline.analysis.cfar import FLOOR, Cfar, cfar_scores
from tests.archive import Archive, targets

SHAPE = (700, 900)


def outcome(
    folder: Path, pixels: np.ndarray, cuts: list[int], **job: Any
) -> tuple[xr.Dataset, gpd.GeoDataFrame]:
    """Run a job over a scene that is cut into Items at the columns given."""
    archive = Archive(folder / "archive")
    edges = [0, *sorted(cuts), pixels.shape[1]]
    for left, right in itertools.pairwise(edges):
        if right > left:
            archive.add(f"piece-{left:04d}", pixels[:, left:right], col=left, nodata=None)
    archive.save()
    spec = archive.job(folder / "out.zarr", **job)
    run(plan(spec))
    result = open_result(str(folder / "out.zarr"))
    raster = result.raster
    assert isinstance(raster, xr.Dataset)
    loaded = raster[["label", "score", "object_id", "status"]].load()
    columns = [
        "object_id",
        "label",
        "score",
        "length_m",
        "width_m",
        "orientation_deg",
        "area_m2",
        "caption",
        "geometry",
    ]
    return loaded, result.objects[columns]


@pytest.fixture(scope="module")
def reference(
    tmp_path_factory: pytest.TempPathFactory, ray_two: None
) -> tuple[np.ndarray, xr.Dataset, gpd.GeoDataFrame]:
    pixels = targets(3)
    one_tile = {"tile_px": 1152, "halo_px": 64, "block_px": 1024}
    raster, objects = outcome(tmp_path_factory.mktemp("reference"), pixels, [], grid=one_tile)
    return pixels, raster, objects


def test_one_tile_says_what_plain_cfar_says(
    reference: tuple[np.ndarray, xr.Dataset, gpd.GeoDataFrame],
) -> None:
    pixels, raster, objects = reference
    valid = np.ones(SHAPE, bool)
    scores = cfar_scores(np.stack([pixels] * 3), valid, floor=FLOOR["sar"], max_background=256)
    assert np.array_equal(np.rint(raster["score"].values[0] * 255), scores)
    labels, count = ndimage.label(scores >= 128, structure=np.ones((3, 3)))
    traits = Cfar.traits()
    highest = ndimage.maximum(scores, labels, np.arange(1, count + 1))
    sizes = ndimage.sum_labels(scores >= 128, labels, np.arange(1, count + 1))
    kept = (
        (highest >= traits.min_score * 255)
        & (sizes >= traits.min_area_px)
        & (sizes <= traits.max_area_px)
    )
    assert len(objects) == kept.sum() > 10
    assert np.array_equal(
        raster["object_id"].values[0] > 0, np.isin(labels, np.flatnonzero(kept) + 1)
    )
    assert objects["length_m"].max() > 10 * 256, (
        "the scene should hold an object longer than a tile"
    )


@st.composite
def tilings(draw: st.DrawFn) -> dict[str, Any]:
    halo = draw(st.integers(41, 64))
    core = draw(st.sampled_from([96, 128, 160, 192, 320]))
    per_block = draw(st.integers(1, 4))
    return {
        "grid": {"tile_px": core + 2 * halo, "halo_px": halo, "block_px": core * per_block},
        "engine": {"replicas": draw(st.integers(1, 3))},
        "model": draw(st.sampled_from(["cfar", "tests.analysts:Dawdling"])),
        "cuts": draw(st.lists(st.integers(1, SHAPE[1] - 1), max_size=3)),
    }


@settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(tiling=tilings())
def test_the_result_is_bit_identical_for_any_tiling(
    reference: tuple[np.ndarray, xr.Dataset, gpd.GeoDataFrame], tiling: dict[str, Any]
) -> None:
    pixels, raster, objects = reference
    folder = Path(tempfile.mkdtemp())
    try:
        ours, found = outcome(folder, pixels, tiling.pop("cuts"), **tiling)
        assert ours.identical(raster) or _explain(ours, raster)
        assert found.drop(columns="geometry").equals(objects.drop(columns="geometry"))
        assert found.geometry.to_wkb().equals(objects.geometry.to_wkb())
    finally:
        shutil.rmtree(folder)


def _explain(ours: xr.Dataset, reference: xr.Dataset) -> bool:
    """Values and coordinates agree bit by bit; attributes of the store may name other paths."""
    for name in ("label", "score", "object_id", "status", "x", "y", "time"):
        assert np.array_equal(ours[name].values, reference[name].values), name
    return True

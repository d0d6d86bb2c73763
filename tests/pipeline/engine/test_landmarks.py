"""Captions name the quay that a ship lies at, whatever tiles have seen them."""

import numpy as np
import pytest

from earthgptx import open_result
from tests.archive import Archive
from tests.pipeline.engine.runs import done


@pytest.fixture
def harbour(archive: Archive, ray_two: None) -> Archive:
    """A quay of 4 km at pixels of 10 m, with four ships at, on and off it."""
    pixels = np.zeros((400, 600), np.uint8)
    pixels[200:220, 100:500] = 150
    for top in (198, 180, 100):
        pixels[top : top + 2, 300:309] = 250
    pixels[208:210, 400:409] = 250
    archive.add("a", pixels, nodata=None)
    archive.save()
    return archive


@pytest.mark.parametrize(
    "grid", [{"tile_px": 256, "block_px": 128}, {"tile_px": 640, "block_px": 512}]
)
def test_a_ship_lies_at_its_quay_in_any_tiling(harbour: Archive, grid: dict[str, int]) -> None:
    job = harbour.job(
        harbour.folder / "out.zarr",
        tasks={"find": ["quay", "ship"]},
        model="tests.analysts:Levels",
        grid=grid,
    )
    done(job)
    objects = open_result(str(job.output)).objects
    assert (objects["label"] == "quay").sum() == 1
    ships = objects[objects["label"] == "ship"]
    from_north = ships.iloc[np.argsort(-ships.bounds["maxy"])]
    assert [caption.rpartition(", ")[2] for caption in from_north["caption"]][1:] == [
        "191 m north of the nearest quay",
        "beside a quay",
        "on a quay",
    ]
    assert "quay" not in from_north["caption"].iloc[0], "it lies a kilometre off"

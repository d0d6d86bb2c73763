"""Every source of prompts: the tile whose core holds a thing's centre asks about it, once."""

from collections import Counter
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely

from earthgptx import plan
from earthgptx.model.interface.prompt import VisualPrompt
from earthgptx.model.interface.region import Box, Mask, Point
from earthgptx.pipeline.analysis.prompts import tile_prompts, wide_prompts
from earthgptx.pipeline.errors import JobError
from earthgptx.pipeline.job.grid import View
from earthgptx.pipeline.reading.scene import read_scene
from tests.archive import Archive, targets


def asked(archive: Archive, **more: Any) -> list[tuple[tuple[int, int], VisualPrompt]]:
    """All prompts of a job, each with the origin of its tile."""
    made = plan(archive.job("a.zarr", **more))
    [grid] = made.grids.values()
    found = []
    for key in made.blocks:
        window = grid.read_window(key)
        scene = read_scene(grid, window, made.scene_items(key.grid, key.time, window))
        placed = made.prompts.get((key.grid, key.row, key.col), ())
        for tile in grid.tiles(key):
            found += [
                ((tile.window.y0, tile.window.x0), p)
                for p in tile_prompts(made, grid, tile, scene, placed)
            ]
    assert max(Counter(prompt.id for _, prompt in found).values(), default=1) == 1
    return found


@pytest.fixture
def scene(archive: Archive) -> Archive:
    archive.add("a", targets(3), nodata=None)
    archive.save()
    return archive


def refer(origin: str, **more: Any) -> dict[str, Any]:
    return {"prompts": {"from": origin, **more}, "tasks": {"find": ["target"], "refer": True}}


def test_grid_prompts_lie_on_the_lattice_whatever_the_tiling(scene: Archive) -> None:
    small = {p.id for _, p in asked(scene, **refer("grid", spacing_px=100))}
    large = {
        p.id
        for _, p in asked(
            scene,
            **refer("grid", spacing_px=100),
            grid={"tile_px": 448, "halo_px": 64, "block_px": 960},
        )
    }
    assert small == large
    assert len(small) == 63


def test_cfar_prompts_are_the_targets_whatever_the_tiling(scene: Archive) -> None:
    small = {(p.id) for _, p in asked(scene, **refer("cfar"))}
    large = {
        p.id
        for _, p in asked(
            scene, **refer("cfar"), grid={"tile_px": 448, "halo_px": 64, "block_px": 960}
        )
    }
    # The long line is cut by every tile; a target that touches it is a part of it.
    assert len(small & large) > 10
    assert all(isinstance(p.place, Mask) for _, p in asked(scene, **refer("cfar")))


@pytest.mark.parametrize("spacing", [64, 4000])
def test_superpixels_fill_the_core_without_overlap(scene: Archive, spacing: int) -> None:
    total = np.zeros((1200, 1400), int)
    for (y0, x0), prompt in asked(scene, **refer("superpixels", spacing_px=spacing)):
        assert isinstance(prompt.place, Mask)
        mask = prompt.place.moved(dx=x0 + 200, dy=y0 + 200)
        total[mask.y0 : mask.y0 + mask.height, mask.x0 : mask.x0 + mask.width] += mask.to_array()
    assert total.max() == 1
    assert total[200:900, 200:1100].mean() > 0.95


def test_vectors_become_points_boxes_and_masks_in_their_own_tile(
    scene: Archive, tmp_path: Path
) -> None:
    def at(row: float, col: float) -> tuple[float, float]:
        return scene.west + col * 10, scene.north - row * 10

    shapes = {
        "point": shapely.Point(at(100.5, 200.5)),
        "box": shapely.box(*at(310, 300), *at(300, 320)),
        "polygon": shapely.Polygon([at(400, 400), at(400, 420), at(415, 410)]),
        "line": shapely.LineString([at(500, 100), at(500, 140)]),
        "speck": shapely.Polygon([at(600.2, 600.2), at(600.2, 600.4), at(600.4, 600.3)]),
    }
    frame = gpd.GeoDataFrame({"id": list(shapes)}, geometry=list(shapes.values()), crs="EPSG:32631")
    frame.to_parquet(tmp_path / "p.parquet")
    found = {
        prompt.id: (origin, prompt.place)
        for origin, prompt in asked(scene, **refer(str(tmp_path / "p.parquet")))
    }
    assert set(found) == set(shapes)
    kinds = {name: type(place) for name, (_, place) in found.items()}
    assert kinds == {"point": Point, "box": Box, "polygon": Mask, "line": Mask, "speck": Mask}
    (y0, x0), box = found["box"]
    assert isinstance(box, Box)
    assert (box.y0 + y0, box.x0 + x0, box.y1 + y0, box.x1 + x0) == pytest.approx(
        (300, 300, 310, 320), abs=0.1
    )
    (y0, x0), polygon = found["polygon"]
    assert isinstance(polygon, Mask)
    assert polygon.area == pytest.approx(150, abs=12)
    assert (polygon.y0 + y0, polygon.x0 + x0) == pytest.approx((400, 400), abs=1)


def test_a_prompt_larger_than_a_tile_is_asked_on_coarser_pixels_whatever_the_tiling(
    scene: Archive, tmp_path: Path
) -> None:
    def at(row: float, col: float) -> tuple[float, float]:
        return scene.west + col * 10, scene.north - row * 10

    shapes = {
        "field": shapely.box(*at(700, 100), *at(100, 900)),
        "coast": shapely.Polygon([at(200, 200), at(200, 700), at(700, 300)]),
        "small": shapely.box(*at(310, 300), *at(300, 320)),
    }
    gpd.GeoDataFrame(
        {"id": list(shapes)}, geometry=list(shapes.values()), crs="EPSG:32631"
    ).to_parquet(tmp_path / "p.parquet")

    def wide(**grid: int) -> dict[str, tuple[View, VisualPrompt]]:
        made = plan(scene.job("a.zarr", **refer(str(tmp_path / "p.parquet")), grid=grid))
        [area] = made.grids.values()
        found: dict[str, tuple[View, VisualPrompt]] = {}
        for key in made.blocks:
            placed = made.prompts.get((key.grid, key.row, key.col), ())
            for tile in area.tiles(key):
                found |= {
                    prompt.id: (view, prompt)
                    for view, prompt in wide_prompts(made, area, tile, placed)
                }
        return found

    found = wide(tile_px=256, halo_px=64, block_px=256)
    assert set(found) == {"field", "coast"}
    view, field = found["field"]
    assert view.factor == 8
    assert isinstance(field.place, Box)
    assert (field.place.x1 - field.place.x0, field.place.y1 - field.place.y0) == pytest.approx(
        (100, 75), rel=1e-3
    )
    assert (
        view.window.y0 + 8 * field.place.y0,
        view.window.x0 + 8 * field.place.x0,
    ) == pytest.approx((100, 100), abs=0.1)
    assert isinstance(found["coast"][1].place, Mask)
    assert found == wide(tile_px=256, halo_px=64, block_px=384)
    with pytest.raises(JobError, match="larger than 16 tiles"):
        huge = shapely.Point(*at(300, 300)).buffer(3e4, cap_style="square")
        gpd.GeoDataFrame({"id": ["huge"]}, geometry=[huge], crs="EPSG:32631").to_parquet(
            tmp_path / "p.parquet"
        )
        wide(tile_px=256, halo_px=64, block_px=256)

import numpy as np
import pytest
from matplotlib.image import imread

from earthgptx import open_result, plan, run
from earthgptx.pipeline.engine.pool import ReplicaPool
from earthgptx.pipeline.errors import OutputError
from earthgptx.pipeline.results.picture import COLOURS, draw
from tests.archive import Archive, targets


def colour_share(png: str, colour: str) -> float:
    pixels = imread(png)[..., :3]
    wanted = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return float((np.abs(pixels - wanted).max(axis=-1) < 0.02).mean())


@pytest.mark.parametrize(("shape", "wide"), [((700, 300), False), ((300, 900), True)])
def test_objects_are_outlined_on_the_scene(
    archive: Archive, tmp_path, pool: ReplicaPool, shape: tuple[int, int], wide: bool
) -> None:  # type: ignore[no-untyped-def]
    archive.add("a", targets(4, shape, 12), nodata=None)
    archive.save()
    run(plan(archive.job(tmp_path / "a.zarr")), pool=pool)
    draw(open_result(str(tmp_path / "a.zarr")), tmp_path / "a.png")
    assert colour_share(str(tmp_path / "a.png"), COLOURS[0]) > 0.002
    height, width = imread(tmp_path / "a.png").shape[:2]
    assert (width > height) or not wide


def test_a_result_without_objects_is_drawn_too_and_lost_imagery_is_said(
    archive: Archive, tmp_path, pool: ReplicaPool
) -> None:  # type: ignore[no-untyped-def]
    path = archive.add("a", np.full((300, 300), 20, np.uint8), nodata=None)
    archive.save()
    run(plan(archive.job(tmp_path / "a.zarr")), pool=pool)
    draw(open_result(str(tmp_path / "a.zarr")), tmp_path / "a.png")
    assert colour_share(str(tmp_path / "a.png"), COLOURS[0]) == 0
    path.unlink()
    with pytest.raises(OutputError, match="imagery cannot be read any more"):
        draw(open_result(str(tmp_path / "a.zarr")), tmp_path / "a.png")

import numpy as np
import pytest
from matplotlib.image import imread

from earthgptx import open_result, plan, run
from earthgptx.pipeline.engine.pool import ReplicaPool
from earthgptx.pipeline.errors import JobError, OutputError
from earthgptx.pipeline.results import picture
from earthgptx.pipeline.results.chosen import chosen
from earthgptx.pipeline.results.colours import LABELS
from earthgptx.pipeline.results.picture import draw
from earthgptx.pipeline.results.png_file import check_png
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
    phrase = {"find": ["ship $\\frac$"]}  # a formula that is none
    run(plan(archive.job(tmp_path / "a.zarr", tasks=phrase)), pool=pool)
    draw(open_result(str(tmp_path / "a.zarr")), tmp_path / "a.png")
    assert colour_share(str(tmp_path / "a.png"), LABELS[0]) > 0.002
    height, width = imread(tmp_path / "a.png").shape[:2]
    assert (width > height) or not wide


def test_a_result_without_objects_is_drawn_too_and_lost_imagery_is_said(
    archive: Archive, tmp_path, pool: ReplicaPool
) -> None:  # type: ignore[no-untyped-def]
    path = archive.add("a", np.full((300, 300), 20, np.uint8), nodata=None)
    archive.save()
    run(plan(archive.job(tmp_path / "a.zarr")), pool=pool)
    draw(open_result(str(tmp_path / "a.zarr")), tmp_path / "a.png")
    assert colour_share(str(tmp_path / "a.png"), LABELS[0]) == 0
    path.unlink()
    with pytest.raises(OutputError, match="imagery cannot be read any more"):
        draw(open_result(str(tmp_path / "a.zarr")), tmp_path / "a.png")


def test_many_objects_are_drawn_as_their_density(
    archive: Archive, tmp_path, pool: ReplicaPool, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    archive.add("a", targets(4, (700, 700), 30), nodata=None)
    archive.save()
    run(plan(archive.job(tmp_path / "a.zarr")), pool=pool)
    result = open_result(str(tmp_path / "a.zarr"))
    draw(result, tmp_path / "outlines.png")
    monkeypatch.setattr(picture, "OUTLINES", len(result.objects) - 1)
    draw(result, tmp_path / "density.png")
    drawn, dense = imread(tmp_path / "outlines.png"), imread(tmp_path / "density.png")
    assert drawn.shape == dense.shape
    assert (drawn != dense).any(axis=-1).mean() > 0.005


@pytest.mark.parametrize(
    ("labels", "scores", "places", "count", "wanted"),
    [
        ([], [], np.zeros((0, 2)), 3, []),
        (["ship"], [0.5], [[0, 0]], 3, [0]),
        # Labels take turns, whatever their scores.
        (["tank", "tank", "tank", "ship"], [0.9, 0.8, 0.7, 0.1], np.zeros((4, 2)), 2, [0, 3]),
        # The second tank is the surest, the third is far enough away.
        (["tank"] * 3, [0.9, 0.8, 0.7], [[0, 0], [1, 0], [100, 0]], 2, [0, 2]),
        # Of those that are as far away, the surest.
        (["tank"] * 4, [0.9, 0.6, 0.7, 0.1], [[0, 0], [99, 0], [100, 0], [1, 0]], 2, [0, 2]),
        (["tank"] * 3, [0.9, 0.9, 0.9], np.zeros((3, 2)), 9, [0, 1, 2]),
    ],
)
def test_close_ups_show_each_label_and_the_whole_map(
    labels: list[str], scores: list[float], places: object, count: int, wanted: list[int]
) -> None:
    assert chosen(labels, np.array(scores), np.array(places, float), count) == wanted


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("a.txt", "does not end in .png"),
        ("folder.png", "folder.png is a folder; name a file"),
        ("no/a.png", "there is no folder"),
    ],
)
def test_a_picture_that_cannot_be_written_is_said_before_it_is_drawn(
    tmp_path, name: str, sentence: str
) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(JobError, match=sentence):
        check_png(tmp_path / name)

"""Drawn airliners: outlines that can be drawn, as large as they are said to be."""

import numpy as np
import pytest
import shapely

from earthgptx.model.synthetic.airliner import airliner
from earthgptx.model.synthetic.canvas import Canvas


@pytest.mark.parametrize("seed", range(30))
def test_its_parts_are_convex_and_joined_and_as_long_as_they_are_said_to_be(seed: int) -> None:
    one = airliner(100.0, 90.0, 60.0, np.random.default_rng(seed))
    parts = [shapely.Polygon(ring) for ring in one.rings]
    assert all(
        part.is_valid and part.area == pytest.approx(part.convex_hull.area) for part in parts
    )
    whole = shapely.union_all(parts)
    nose, *rest = one.body
    assert max(np.hypot(*(corner - nose)) for corner in rest) == pytest.approx(60, rel=0.01)
    tips = [corner for wing in one.wings for corner in wing]
    span = max(np.hypot(*(first - second)) for first in tips for second in tips)
    assert 0.7 * 60 <= span <= 1.1 * 60
    assert whole.geom_type == "Polygon"


def test_it_shows_on_its_ground_and_nowhere_else() -> None:
    canvas = Canvas(np.full((3, 128, 128), 20.0))
    one = airliner(64.0, 64.0, 80.0, np.random.default_rng(3))
    mask = canvas.mask(one.rings)
    assert mask is not None
    one.paint(canvas, np.random.default_rng(4))
    inside = mask.window(0, 0, 128, 128)
    changed = np.abs(canvas.layers - 20).max(axis=0)
    assert np.isfinite(canvas.layers).all()
    assert (changed[inside] > 5).mean() > 0.98
    assert (changed[~inside] > 5).mean() < 0.03  # edges

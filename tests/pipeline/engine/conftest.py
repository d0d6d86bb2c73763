"""Scenes for the tests of the engine."""

import numpy as np
import pytest

from tests.analysts import MARK
from tests.archive import Archive, targets


@pytest.fixture
def scene(archive: Archive, ray_two: None) -> Archive:
    archive.add("a", np.minimum(targets(5), MARK - 1), nodata=None)
    archive.save()
    return archive


@pytest.fixture
def marked(archive: Archive, ray_two: None) -> Archive:
    """The same scene with a pixel on which an Analyst misbehaves, in the core of tile 2/3."""
    pixels = np.minimum(targets(5), MARK - 1)
    pixels[2 * 128 + 60, 3 * 128 + 60] = MARK
    archive.add("a", pixels, nodata=None)
    archive.save()
    return archive

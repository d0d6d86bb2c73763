"""What the header of a file asks for is bounded before anything is read."""

import resource
from pathlib import Path
from typing import Any

import pytest
import rasterio

from earthgptx.catalogs.access import Access, Opening
from earthgptx.pipeline.errors import SourceError
from earthgptx.pipeline.reading.assets import open_raster
from earthgptx.pipeline.reading.sources import Raster


def sparse(path: Path, **how: Any) -> tuple[Raster, Opening]:
    """A file of a few kilobytes whose header claims more."""
    how = {"width": 30_000, "height": 30_000, "count": 1, "dtype": "uint16"} | how
    with rasterio.open(path, "w", driver="GTiff", sparse_ok=True, compress="deflate", **how):
        pass
    opening = Opening.of("https://example.org", Access(folders=(str(path.parent),)))
    return Raster("a", "image", str(path)), opening


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"blockysize": 30_000}, "stored in pieces of 30000 x 30000 px"),
        ({"tiled": True, "blockxsize": 16_384, "blockysize": 16_384}, "512 MiB"),
        (
            {"tiled": True, "blockxsize": 2048, "blockysize": 2048, "count": 60}
            | {"interleave": "pixel"},
            "480 MiB",
        ),
        (
            {"width": 300_000, "height": 300_000, "tiled": True, "bigtiff": "YES"},
            "no file of that size",
        ),
    ],
)
def test_a_header_that_asks_for_too_much_is_refused(
    tmp_path: Path, how: dict[str, Any], reason: str
) -> None:
    source, opening = sparse(tmp_path / "a.tif", **how)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(SourceError, match=reason), open_raster(source, opening):
        pass
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 64 * 1024, "in KiB"


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("how", [{}, {"tiled": True}, {"blockysize": 4000}])
def test_what_imagery_is_like_is_opened(tmp_path: Path, how: dict[str, Any]) -> None:
    source, opening = sparse(tmp_path / "a.tif", **how)
    with open_raster(source, opening) as raster:
        assert raster.shape == (30_000, 30_000)

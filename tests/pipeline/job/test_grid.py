import numpy as np
import shapely
from hypothesis import given
from hypothesis import strategies as st

from earthgptx.pipeline.job.grid import BlockKey, Grid, Window

windows = st.builds(Window, *[st.integers(-30, 30)] * 4)


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    core, halo, per_block = (
        draw(st.integers(4, 20)),
        draw(st.integers(1, 4)),
        draw(st.integers(1, 4)),
    )
    shape = (draw(st.integers(1, 150)), draw(st.integers(1, 150)))
    area = shapely.box(0, -10 * shape[0], 10 * shape[1], 0)
    return Grid(
        name="g",
        crs="EPSG:32631",
        transform=(10, 0, 0, 0, -10, 0),
        shape=shape,
        lattice=(0, 0),
        tile_px=core + 2 * halo,
        halo_px=halo,
        block_px=core * per_block,
        search_area=area,
        answer_area=area,
        zone=None,
    )


def blocks(grid: Grid) -> list[BlockKey]:
    rows, cols = grid.blocks_shape
    return [BlockKey("g", 0, row, col) for row in range(rows) for col in range(cols)]


@given(grids())
def test_blocks_and_cores_each_cover_every_pixel_once(grid: Grid) -> None:
    by_block, by_core = np.zeros(grid.shape, int), np.zeros(grid.shape, int)
    for key in blocks(grid):
        by_block[grid.block_window(key).within(grid.window)] += 1
        for tile in grid.tiles(key):
            by_core[tile.core.within(grid.window)] += 1
            assert (tile.core & grid.block_window(key)) == tile.core, "a core lies in one block"
    assert (by_block == 1).all()
    assert (by_core == 1).all()


@given(grids())
def test_what_is_read_for_a_block_holds_its_tiles(grid: Grid) -> None:
    for key in blocks(grid):
        read = grid.read_window(key)
        for tile in grid.tiles(key):
            assert (tile.window & read) == tile.window
            assert tile.window.shape == (grid.tile_px, grid.tile_px)
            assert tile.core.grown(grid.halo_px) & tile.window == tile.core.grown(grid.halo_px)


@given(windows, windows)
def test_an_intersection_holds_what_both_hold(one: Window, other: Window) -> None:
    both = one & other
    for y in range(-30, 30, 7):
        for x in range(-30, 30, 7):
            inside = [w.y0 <= y < w.y1 and w.x0 <= x < w.x1 for w in (one, other, both)]
            assert inside[2] == (inside[0] and inside[1])
    assert both.empty == (0 in both.shape)


def test_a_block_has_eight_neighbours() -> None:
    key = BlockKey("g", 1, 4, 5)
    found = set(key.neighbours())
    assert len(found) == 8
    assert key not in found
    assert all(abs(n.row - 4) <= 1 and abs(n.col - 5) <= 1 and n.time == 1 for n in found)

"""Opens the pixels that the model sees, over a whole region, as a lazy xarray Dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from earthgptx.pipeline.errors import JobError, SourceError
from earthgptx.pipeline.job.grid import BlockKey, Window
from earthgptx.pipeline.job.spec import JobSpec
from earthgptx.pipeline.planning.plan import Plan
from earthgptx.pipeline.planning.resolve import resolve
from earthgptx.pipeline.reading.scene import Scene, read_scene

if TYPE_CHECKING:
    import xarray as xr

BANDS = ("first", "second", "third")
"""Names of the model's channels: red, green and blue, or what the profile has in their place."""


def open_scene(job: JobSpec | Plan, slice: int = 0, *, grid: str | None = None) -> xr.Dataset:
    """Returns the mosaic of a time slice as a Dataset of one Dask chunk per block.

    Nothing is read before it is computed. A chunk has the very pixels that a replica reads for its
    block: mosaicked, masked and scaled to 8 bit.

    Args:
        job: a job, which is planned first, or its plan.
        slice: number of the time slice.
        grid: name of the grid; None if the plan has only one.

    Returns:
        `pixels` (band, y, x) uint8, 0 where not valid; `valid` and `masked` (y, x) bool; `item`
        (y, x) int16, the position in the attribute `items` of the Item that a pixel shows, -1 for
        none. Georeferenced as rioxarray reads it (`spatial_ref`).

    Raises:
        JobError: there is no such slice or grid.
        CatalogError: the search fails.
        SourceError: when a chunk is computed whose imagery cannot be read.
    """
    import dask.array as da
    import xarray as xr
    from dask.delayed import delayed

    made = job if isinstance(job, Plan) else resolve(job)
    name = _grid_name(made, grid)
    if not 0 <= slice < len(made.slices):
        raise JobError(f"there is no time slice {slice}; the plan has 0 to {len(made.slices) - 1}")
    target = made.grids[name]
    read = delayed(_read, pure=True)
    kinds = {
        "pixels": ((3,), np.uint8),
        "valid": ((), bool),
        "masked": ((), bool),
        "item": ((), np.int16),
    }
    rows: dict[str, list[list[da.Array]]] = {kind: [] for kind in kinds}
    for row in range(target.blocks_shape[0]):
        for each in rows.values():
            each.append([])
        for col in range(target.blocks_shape[1]):
            window = target.block_window(BlockKey(name, slice, row, col))
            found = read(made, name, slice, window)
            for kind, (front, dtype) in kinds.items():
                shape = (*front, *window.shape)
                rows[kind][-1].append(da.from_delayed(found[kind], shape, dtype))
    x, y = _centres(made, name)
    data = {
        kind: ((*(("band",) if front else ()), "y", "x"), da.block(rows[kind]))
        for kind, (front, _) in kinds.items()
    }
    result = xr.Dataset(
        data,
        coords={"band": list(BANDS), "y": y, "x": x},
        attrs={
            "items": [made.sources[at].name for at in made.slices[slice].items],
            "time": made.slices[slice].start.isoformat(),
            "modality": made.modality,
            "warnings": list(made.warnings),
        },
    )
    import rioxarray  # noqa: F401  registers the accessor

    placed: xr.Dataset = result.rio.write_crs(target.crs).rio.write_transform(target.affine)
    return placed


def _read(made: Plan, name: str, time: int, window: Window) -> dict[str, np.ndarray]:
    """Reads a block; the Items are numbered as in the time slice."""
    scene: Scene = read_scene(
        made.grids[name],
        window,
        made.scene_items(name, time, window),
        compose=made.spec.compose,
    )
    if scene.errors:
        raise SourceError(" ".join(scene.errors), unreachable=scene.unreachable)
    return {
        "pixels": scene.pixels,
        "valid": scene.valid,
        "masked": scene.masked,
        "item": _numbered(made, name, time, window, scene.source),
    }


def _numbered(made: Plan, name: str, time: int, window: Window, source: np.ndarray) -> np.ndarray:
    """Turns positions among the Items of a window into positions in the time slice."""
    near = [id(each.source) for each in made.scene_items(name, time, window)]
    everyone = [id(made.sources[at]) for at in made.slices[time].items]
    table = np.array([*(everyone.index(each) for each in near), -1], np.int16)
    return table[source]


def _grid_name(made: Plan, grid: str | None) -> str:
    if grid is None and len(made.grids) == 1:
        return next(iter(made.grids))
    if grid not in made.grids:
        raise JobError(f"name one of the plan's grids: {', '.join(made.grids)}")
    return grid


def _centres(made: Plan, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns x of the columns' and y of the rows' centres."""
    target = made.grids[name]
    a, _, c, _, e, f = target.transform
    return c + (np.arange(target.shape[1]) + 0.5) * a, f + (np.arange(target.shape[0]) + 0.5) * e

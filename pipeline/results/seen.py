"""Where a time slice of a result has answers."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pyproj
import structlog
import zarr
from numpy.typing import NDArray

from earthgptx.pipeline.job.lonlat import LONLAT
from earthgptx.pipeline.results.store import Status, array_at, array_for, grids_of, group_at

log = structlog.get_logger()


def answered(
    root: zarr.Group, time: int, lon: NDArray[np.float64], lat: NDArray[np.float64]
) -> tuple[NDArray[np.bool_], bool]:
    """Returns for N places whether a time slice has an answer there, (N,).

    And whether all of it could be read: places on a damaged shard count as not seen.

    Args:
        root: root group of a result.
        time: position of the slice, whose data may be there before the arrays say so.
        lon: (N,) longitudes in degrees.
        lat: (N,) latitudes in degrees.
    """
    found, whole = np.zeros(len(lon), bool), True
    for grid in grids_of(root) if len(lon) else ():
        group = group_at(root, f"{grid}/raster" if grid else "raster")
        crs = array_at(group, "spatial_ref").attrs["crs_wkt"]
        x, y = pyproj.Transformer.from_crs(LONLAT, crs, always_xy=True).transform(lon, lat)
        a, _, c, _, e, f = cast("list[float]", group.attrs["spatial:transform"])[:6]
        status = array_for(group, "status", time)
        with np.errstate(invalid="ignore"):  # a place that the CRS cannot show is infinite
            row, col = np.floor((y - f) / e), np.floor((x - c) / a)
            inside = (row >= 0) & (row < status.shape[1]) & (col >= 0) & (col < status.shape[2])
        at = np.flatnonzero(inside)
        values, read = _at(status, time, row[at].astype(np.int64), col[at].astype(np.int64))
        found[at] |= values == Status.DONE
        whole &= read
    return found, whole


def _at(
    status: Any, time: int, row: NDArray[np.int64], col: NDArray[np.int64]
) -> tuple[NDArray[np.uint8], bool]:
    """Returns values of a raster layer at N pixels, (N,), and whether all could be read."""
    values, whole = np.zeros(len(row), np.uint8), True
    side = status.shards[-1] if status.shards else status.chunks[-1]
    shards = np.column_stack([row // side, col // side])
    for place in np.unique(shards, axis=0):
        here = np.flatnonzero((shards == place).all(axis=1))
        top, left = row[here].min(), col[here].min()
        rows, cols = slice(top, row[here].max() + 1), slice(left, col[here].max() + 1)
        try:
            shown = np.asarray(status[time, rows, cols])
        except (ValueError, RuntimeError):  # of the checksum or the codec
            log.warning("a shard is damaged, and counts as not seen", layer=status.path, time=time)
            whole = False
            continue
        values[here] = shown[row[here] - top, col[here] - left]
    return values, whole

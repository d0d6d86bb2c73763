"""Exports a result as COGs and CSV, for programs that do not read sharded Zarr."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rioxarray  # noqa: F401  gives xarray its .rio

from earthgptx.pipeline.errors import OutputError
from earthgptx.pipeline.results.result import Result

LAYERS = ("label", "score", "status")
"""Layers that are exported as they are; 0 is nodata in all of them."""


def export_cogs(result: Result, folder: Path) -> list[Path]:
    """Writes the layers label, score, status and object, one COG per zone and time slice.

    No GIS keeps 63-bit object ids. The layer `object` holds row numbers of `objects.csv` instead,
    counted from 1 for the first object; 0 is no object. The table has the ids.

    Args:
        result: a finished result.
        folder: folder to write to; created if it does not exist.

    Returns:
        Paths of the written files; the last one is `objects.csv`.

    Raises:
        OutputError: the folder cannot be created, or the run is not finished.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be created: {error.strerror}") from error
    written: list[Path] = []
    objects = result.objects
    order = np.argsort(objects["object_id"].to_numpy())
    sorted_ids = objects["object_id"].to_numpy()[order].astype(np.uint64)
    for grid in result.grids:
        raster = result.layer("raster", grid)
        for time in range(raster.sizes["time"]):
            piece = raster.isel(time=time)
            name = (
                f"{str(np.datetime_as_string(piece['time'].values, unit='s')).replace(':', '')}"
                f"{'-' + grid if grid else ''}"
            )
            layers = {
                key: (piece[key] * 255).round() if key == "score" else piece[key] for key in LAYERS
            }
            ids = piece["object_id"].values
            rows = np.zeros(ids.shape, np.uint32)
            rows[ids > 0] = order[np.searchsorted(sorted_ids, ids[ids > 0])] + 1
            layers["object"] = piece["label"].copy(data=rows)
            for key, values in layers.items():
                path = folder / f"{key}-{name}.tif"
                values = values.drop_vars("time").astype(np.uint32 if key == "object" else np.uint8)
                values.attrs = {}
                values.encoding = {}
                values.rio.write_nodata(0).rio.to_raster(
                    path, driver="COG", compress="deflate", overview_resampling="nearest"
                )
                written.append(path)
    table = folder / "objects.csv"
    numbered = objects.drop(columns="geometry")
    numbered.index += 1  # rows as the layer `object` counts them
    numbered.to_csv(table, index_label="row")
    return [*written, table]

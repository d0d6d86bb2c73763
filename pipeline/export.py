"""A result's layers as COGs, for programs that do not read sharded Zarr."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rioxarray  # noqa: F401  gives xarray its .rio

from pipeline.errors import OutputError
from pipeline.query import Result

LAYERS = {"label": 0, "score": 0, "status": 0}
"""Layer and the value that means nothing there."""


def export_cogs(result: Result, folder: Path) -> list[Path]:
    """Write label, score, status and object number per zone and time slice.

    Object ids have 63 bits, which no GIS keeps: `object` holds the row of the object in
    `objects.csv`, which has the ids, counted from 1.

    Raises:
        OutputError: the folder cannot be written.
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
            name = f"{str(np.datetime_as_string(piece['time'].values, unit='s')).replace(':', '')}{'-' + grid if grid else ''}"
            layers = {key: (piece[key] * 255).round() if key == "score" else piece[key] for key in LAYERS}
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
    objects.drop(columns="geometry").to_csv(table, index_label="row")
    return [*written, table]

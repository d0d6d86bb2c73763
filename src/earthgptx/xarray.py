"""Objects, reasons and labels from a Dataset that plain xarray has opened: `ds.earthgptx`.

Importing this module registers the accessor.

    import earthgptx.xarray
    import xarray as xr

    ds = xr.open_zarr("results/harbour.zarr", group="raster")
    ds.sel(x=slice(500_000, 505_000)).earthgptx.query(text="ship")
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
import xarray as xr
from shapely.geometry.base import BaseGeometry

from earthgptx.pipeline.errors import OutputError
from earthgptx.pipeline.job.lonlat import cut
from earthgptx.pipeline.results.conditions import check_limit
from earthgptx.pipeline.results.result import Result, Why, open_result

if TYPE_CHECKING:
    import geopandas as gpd


@xr.register_dataset_accessor("earthgptx")
class EarthgptxAccessor:
    """What the result of a Dataset knows of its ground and times."""

    def __init__(self, dataset: xr.Dataset) -> None:
        """Wraps a Dataset; reads nothing yet."""
        self._dataset = dataset

    @cached_property
    def result(self) -> Result:
        """The result that the Dataset comes from.

        Raises:
            OutputError: it does not come from one.
        """
        source = self._dataset.encoding.get("source")
        if not isinstance(source, str):
            raise OutputError(
                "the dataset does not say which store it comes from; open it with xarray.open_zarr "
                "of a path or URL, or use earthgptx.open_result"
            )
        return open_result(source)

    @property
    def labels(self) -> tuple[str, ...]:
        """The phrases that were searched; value n of the layer `label` stands for the n-th."""
        return tuple(self.result.attrs["job"]["tasks"]["find"])

    @cached_property
    def ground(self) -> BaseGeometry:
        """The ground that the Dataset shows, lon/lat.

        Raises:
            OutputError: it has no pixels.
        """
        from earthgptx.pipeline.planning.projection import to_lonlat

        ds = self._dataset
        affine = ds.attrs.get("spatial:transform")
        if affine is None or not {"x", "y", "spatial_ref"} <= set(ds.coords):
            raise OutputError("the dataset shows no ground; open raster or an overview of a result")
        x, y = np.atleast_1d(ds["x"].values), np.atleast_1d(ds["y"].values)
        if not (x.size and y.size):
            raise OutputError("the dataset has no pixels; select some")
        wide, high = abs(affine[0]) / 2, abs(affine[4]) / 2
        box = shapely.box(x.min() - wide, y.min() - high, x.max() + wide, y.max() + high)
        return to_lonlat(box, str(ds["spatial_ref"].attrs["crs_wkt"]))

    def query(self, *, order: str = "", limit: int | None = None, **asked: Any) -> gpd.GeoDataFrame:
        """Returns the objects on the Dataset's ground, of its time slices; see `Result.query`."""
        check_limit(limit)
        within = asked.pop("within", None)
        area = self.ground if within is None else self.ground.intersection(cut(within))
        found = self.result.query(order=order, within=area, **asked)
        if "time" in self._dataset.coords:
            times = np.atleast_1d(self._dataset["time"].values)
            found = found[found["slice"].dt.tz_localize(None).isin(times)]
        return found.iloc[:limit].reset_index(drop=True)

    def why(self, lon: float, lat: float) -> list[Why]:
        """Returns the values at a place and their reason; see `Result.why`."""
        return self.result.why(lon, lat)

"""Reads and queries a result.

Gives rasters as xarray Datasets, objects as a GeoDataFrame, and the reason for the values of a
pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import shapely
import xarray as xr
from rasterio.crs import CRS
from shapely.geometry.base import BaseGeometry

from earthgptx.catalogs.errors import CatalogError
from earthgptx.catalogs.search import parse_interval
from earthgptx.pipeline.errors import JobError, OutputError
from earthgptx.pipeline.job.vectors import LONLAT
from earthgptx.pipeline.results.store import (
    STATUS_WORDS,
    Status,
    group_at,
    mark_of,
    open_group,
    zarr_store,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """Values of a result at one place in one time slice, and the reason for them."""

    time: str
    """Start of the time slice, ISO 8601."""
    status: str
    """Status in words, one of `STATUS_WORDS`."""
    label: str
    """Phrase; empty for none."""
    score: float
    """Score of the best phrase, 0..1."""
    object_id: int
    """Id of the object; 0 for none."""
    reason: str
    """Error of the tile if it is quarantined; otherwise empty."""


class Result:
    """A result, opened for reading."""

    def __init__(self, url: str) -> None:
        """Opens a result.

        Args:
            url: fsspec URL or local path of the store.

        Raises:
            OutputError: there is no result at `url`.
        """
        self.url = url.rstrip("/")
        self._root = open_group(self.url)
        self.attrs: dict[str, Any] = mark_of(self._root)

    @property
    def state(self) -> str:
        """Job status as in openEO: created, queued, running, finished, error or canceled."""
        return str(self.attrs["state"])

    @cached_property
    def grids(self) -> tuple[str, ...]:
        """Names of the groups below `raster`; a single empty name if the result has one grid."""
        raster = group_at(self._root, "raster")
        return ("",) if "label" in raster else tuple(sorted(name for name, _ in raster.groups()))

    def layer(self, kind: str, grid: str = "") -> xr.Dataset:
        """Opens a group as xarray Dataset.

        Args:
            kind: "raster", "tiles", "blocks" or "overview/N", N the overview factor.
            grid: one of `grids`.
        """
        head, _, tail = kind.partition("/")
        path = "/".join(part for part in (head, grid, tail) if part)
        return xr.open_zarr(zarr_store(self.url), group=path, consolidated=False)

    @cached_property
    def raster(self) -> xr.Dataset | dict[str, xr.Dataset]:
        """The raster layers; one Dataset per grid if the result has several."""
        if self.grids == ("",):
            return self.layer("raster")
        return {grid: self.layer("raster", grid) for grid in self.grids}

    @cached_property
    def tiles(self) -> xr.Dataset | dict[str, xr.Dataset]:
        """Outcome of each tile; one Dataset per grid if the result has several."""
        if self.grids == ("",):
            return self.layer("tiles")
        return {grid: self.layer("tiles", grid) for grid in self.grids}

    @cached_property
    def objects(self) -> gpd.GeoDataFrame:
        """All objects with lon/lat outlines.

        Raises:
            OutputError: the run is not finished, so the table does not exist yet.
        """
        if self.state != "finished":
            raise OutputError(
                f"{self.url} is {self.state}: its objects come at the end of a run; "
                "run the job again to go on"
            )
        group = group_at(self._root, "objects")
        columns = {name: np.asarray(array[...]) for name, array in group.arrays()}
        geometry = shapely.from_wkb(columns.pop("geometry").astype(object))
        columns.pop("bbox")
        moments = pd.to_datetime(columns.pop("time"), unit="s", utc=True)
        order = (
            "object_id",
            "time",
            "label",
            "score",
            "caption",
            "length_m",
            "width_m",
            "orientation_deg",
            "area_m2",
            "prompt_ids",
            "item_id",
        )
        table = {"time": moments} | {
            name: values if values.dtype.kind in "iuf" else values.astype(object)
            for name, values in columns.items()
        }
        return gpd.GeoDataFrame(
            {name: table[name] for name in order}, geometry=geometry, crs=LONLAT
        )

    def query(
        self,
        *,
        label: str | None = None,
        text: str | None = None,
        within: BaseGeometry | None = None,
        time: str | None = None,
        min_score: float = 0.0,
    ) -> gpd.GeoDataFrame:
        """Returns the objects that satisfy all conditions.

        Args:
            label: exact label.
            text: words, each of which label or caption must contain; case is ignored.
            within: lon/lat geometry that the objects must intersect.
            time: closed interval that holds the start of the time slice, as in a job file.
            min_score: lowest score that is kept, 0..1.

        Raises:
            JobError: the interval cannot be parsed.
            OutputError: the run is not finished.
        """
        found = self.objects
        keep = found["score"] >= min_score
        if label is not None:
            keep &= found["label"] == label
        for word in (text or "").lower().split():
            keep &= (
                (found["label"] + " " + found["caption"])
                .str.lower()
                .str.contains(word, regex=False)
            )
        if time is not None:
            try:
                start, end = parse_interval(time)
            except CatalogError as error:
                raise JobError(str(error)) from error
            keep &= (found["time"] >= start) if start else True
            keep &= (found["time"] <= end) if end else True
        if within is not None:
            keep &= found.intersects(within)
        kept: gpd.GeoDataFrame = found[keep].reset_index(drop=True)
        return kept

    def why(self, lon: float, lat: float) -> list[Why]:
        """Returns the values at a place and their reason, one answer per grid and time slice.

        Leaves out answers outside the AOI if there are others.

        Args:
            lon: longitude in degrees.
            lat: latitude in degrees.

        Raises:
            JobError: the place lies outside the result.
        """
        answers: list[Why] = []
        for grid in self.grids:
            layer = self.layer("raster", grid)
            crs = CRS.from_wkt(layer["spatial_ref"].attrs["crs_wkt"])
            x, y = pyproj.Transformer.from_crs(LONLAT, crs.to_wkt(), always_xy=True).transform(
                lon, lat
            )
            step_x, step_y = (
                float(abs(layer[axis][1] - layer[axis][0])) if layer.sizes[axis] > 1 else 1.0
                for axis in ("x", "y")
            )
            col = int(np.abs(layer["x"].values - x).argmin())
            row = int(np.abs(layer["y"].values - y).argmin())
            if (
                abs(float(layer["x"][col]) - x) > step_x / 2
                or abs(float(layer["y"][row]) - y) > step_y / 2
            ):
                continue
            answers += [
                self._answer(layer, grid, number, row, col) for number in range(layer.sizes["time"])
            ]
        inside = [answer for answer in answers if answer.status != STATUS_WORDS[Status.OUTSIDE_AOI]]
        if not answers:
            raise JobError(f"lon {lon}, lat {lat} lies outside the result {self.url}")
        return inside or answers

    def _answer(self, layer: xr.Dataset, grid: str, time: int, row: int, col: int) -> Why:
        pixel = layer.isel(time=time, y=row, x=col)
        status = Status(int(pixel["status"]))
        phrases = self.attrs["job"]["tasks"]["find"]
        label = int(pixel["label"])
        reason = ""
        if status == Status.QUARANTINED:
            spec = self.attrs["job"]["grid"]
            core = spec["tile_px"] - 2 * spec["halo_px"]
            reason = str(
                self.layer("tiles", grid)["error"]
                .isel(time=time, row=row // core, col=col // core)
                .values
            )
        return Why(
            time=str(np.datetime_as_string(pixel["time"].values, unit="s")),
            status=STATUS_WORDS[status],
            label=phrases[label - 1] if label else "",
            score=round(float(pixel["score"]), 4),
            object_id=int(pixel["object_id"]),
            reason=reason,
        )


def open_result(url: str) -> Result:
    """Opens a result; see `Result`."""
    return Result(url)

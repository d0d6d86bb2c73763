"""Asking a result: its rasters as xarray, its objects as a GeoDataFrame, why a place is as it is."""

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

from catalogs.errors import CatalogError
from catalogs.search import parse_interval
from pipeline.errors import JobError, OutputError
from pipeline.store import STATUS_WORDS, Status, group_at, mark_of, open_group
from pipeline.vectors import LONLAT


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """What a result says of one place at one time."""

    time: str
    status: str
    """In words."""
    label: str
    """Phrase; empty for none."""
    score: float
    object_id: int
    """0 for none."""
    reason: str
    """The error of its tile, where that failed."""


class Result:
    """A result store, opened for reading."""

    def __init__(self, url: str) -> None:
        """Open a store.

        Args:
            url: where the result is; any fsspec URL.

        Raises:
            OutputError: there is no result.
        """
        self.url = url.rstrip("/")
        self._root = open_group(self.url, mode="r")
        self.attrs: dict[str, Any] = mark_of(self._root)

    @property
    def state(self) -> str:
        """One of openEO's: created, queued, running, finished, error, canceled."""
        return str(self.attrs["state"])

    @cached_property
    def grids(self) -> tuple[str, ...]:
        """Names of the raster groups below `raster`; one empty name where there is a single grid."""
        raster = group_at(self._root, "raster")
        return ("",) if "label" in raster else tuple(sorted(name for name, _ in raster.groups()))

    def layer(self, kind: str, grid: str = "") -> xr.Dataset:
        """A group as xarray.

        Args:
            kind: raster, tiles, blocks or overview/N.
            grid: one of `grids`.
        """
        head, _, tail = kind.partition("/")
        path = "/".join(part for part in (head, grid, tail) if part)
        return xr.open_zarr(self.url, group=path, consolidated=False)

    @cached_property
    def raster(self) -> xr.Dataset | dict[str, xr.Dataset]:
        """The rasters; by zone where there are several."""
        if self.grids == ("",):
            return self.layer("raster")
        return {grid: self.layer("raster", grid) for grid in self.grids}

    @cached_property
    def tiles(self) -> xr.Dataset | dict[str, xr.Dataset]:
        """What became of each tile; by zone where there are several."""
        if self.grids == ("",):
            return self.layer("tiles")
        return {grid: self.layer("tiles", grid) for grid in self.grids}

    @cached_property
    def objects(self) -> gpd.GeoDataFrame:
        """All objects, lon/lat.

        Raises:
            OutputError: the run is not finished, so that there are none yet.
        """
        if "objects" not in self._root:
            raise OutputError(
                f"{self.url} is {self.state}: its objects come at the end of a run; run the job again to go on"
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
            name: values if values.dtype.kind in "iuf" else values.astype(object) for name, values in columns.items()
        }
        return gpd.GeoDataFrame({name: table[name] for name in order}, geometry=geometry, crs=LONLAT)

    def query(
        self,
        *,
        label: str | None = None,
        text: str | None = None,
        within: BaseGeometry | None = None,
        time: str | None = None,
        min_score: float = 0.0,
    ) -> gpd.GeoDataFrame:
        """Objects that fit all that is asked.

        Args:
            label: their label, exactly.
            text: words that their label or caption holds, upper or lower case.
            within: lon/lat geometry that they meet.
            time: interval, as in a job file.
            min_score: least score.

        Raises:
            JobError: the interval cannot be read.
        """
        found = self.objects
        keep = found["score"] >= min_score
        if label is not None:
            keep &= found["label"] == label
        for word in (text or "").lower().split():
            keep &= (found["label"] + " " + found["caption"]).str.lower().str.contains(word, regex=False)
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
        """What the result says of a place, one answer per time slice.

        Raises:
            JobError: the place lies outside the result.
        """
        answers: list[Why] = []
        for grid in self.grids:
            layer = self.layer("raster", grid)
            crs = CRS.from_wkt(layer["spatial_ref"].attrs["crs_wkt"])
            x, y = pyproj.Transformer.from_crs(LONLAT, crs.to_wkt(), always_xy=True).transform(lon, lat)
            step_x, step_y = (
                float(abs(layer[axis][1] - layer[axis][0])) if layer.sizes[axis] > 1 else 1.0 for axis in ("x", "y")
            )
            col = int(np.abs(layer["x"].values - x).argmin())
            row = int(np.abs(layer["y"].values - y).argmin())
            if abs(float(layer["x"][col]) - x) > step_x / 2 or abs(float(layer["y"][row]) - y) > step_y / 2:
                continue
            answers += [self._answer(layer, grid, number, row, col) for number in range(layer.sizes["time"])]
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
            reason = str(self.layer("tiles", grid)["error"].isel(time=time, row=row // core, col=col // core).values)
        return Why(
            time=str(np.datetime_as_string(pixel["time"].values, unit="s")), status=STATUS_WORDS[status],
            label=phrases[label - 1] if label else "", score=round(float(pixel["score"]), 4),
            object_id=int(pixel["object_id"]), reason=reason,
        )  # fmt: skip


def open_result(url: str) -> Result:
    """Open a result; see `Result`."""
    return Result(url)

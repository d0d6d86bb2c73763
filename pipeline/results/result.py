"""A result, opened for reading: rasters as xarray Datasets, objects as a GeoDataFrame, reasons."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from earthgptx.pipeline.errors import JobError, OutputError
from earthgptx.pipeline.job.lonlat import LONLAT
from earthgptx.pipeline.results.conditions import Conditions
from earthgptx.pipeline.results.duck import ObjectFiles
from earthgptx.pipeline.results.find import every_row
from earthgptx.pipeline.results.object_table import (
    ANSWERS,
    OBJECTS,
    REPLIES,
    Rows,
    files_in,
    to_frame,
)
from earthgptx.pipeline.results.partitions import rows_beside
from earthgptx.pipeline.results.query import count_objects, find_objects
from earthgptx.pipeline.results.slices_group import COLUMNS, SliceRow, read_slices
from earthgptx.pipeline.results.store import (
    STATUS_WORDS,
    Status,
    grids_of,
    mark_of,
    open_group,
)
from earthgptx.pipeline.storage.blobs import is_versioned
from earthgptx.pipeline.storage.versions import LAST, Version, history

if TYPE_CHECKING:
    import geopandas as gpd
    import matplotlib as mpl
    import pandas as pd
    import xarray as xr


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
    """Error of the tile if it is quarantined, or why there is no answer; otherwise empty."""


class Result:
    """A result, opened for reading."""

    def __init__(self, url: str, version: Version = LAST, *, unfinished: bool = False) -> None:
        """Opens a result.

        Args:
            url: fsspec URL or local path of the store.
            version: state of a result that keeps its states.
            unfinished: whether to see what a run has done that has not ended.

        Raises:
            OutputError: there is no result at `url`, or no such state of it.
        """
        self.url = url.rstrip("/")
        self.root = open_group(self.url, version=version, unfinished=unfinished)
        self.attrs: dict[str, Any] = mark_of(self.root)

    def as_runs_left_it(self) -> Result:
        """Returns the result with what a run has done that has not ended, or ended by an error."""
        return Result(self.url, unfinished=True) if is_versioned(self.url) else self

    @property
    def state(self) -> str:
        """Job status as in openEO: created, queued, running, finished, error or canceled."""
        return str(self.attrs["state"])

    @cached_property
    def grids(self) -> tuple[str, ...]:
        """Names of the groups of its zones; a single empty name if the series has one CRS."""
        return grids_of(self.root)

    def layer(self, kind: str, grid: str = "") -> xr.Dataset:
        """Opens a group as xarray Dataset: its finished slices by time, without padding.

        Args:
            kind: "raster", "tiles", "blocks" or "overview/N", N the overview factor.
            grid: one of `grids`.
        """
        found = self.group(kind, grid)
        if "time" in found.sizes:
            rows = list(enumerate(self.rows[: found.sizes["time"]]))
            shown = sorted((row.start, row.name, at) for at, row in rows if row.finished)
            found = found.isel(time=[at for *_, at in shown])
        if "x" in found.sizes:
            factor = int(kind.partition("/")[2] or 1)
            shapes: dict[str, list[int]] = self.attrs["grids"]
            rows_px, cols_px = shapes[grid] if grid else next(iter(shapes.values()))
            found = found.isel(y=slice(-(-rows_px // factor)), x=slice(-(-cols_px // factor)))
        return found

    def group(self, kind: str, grid: str = "") -> xr.Dataset:
        """Opens a group as it is stored: slices in the order of arrival, in whole blocks."""
        import xarray as xr

        path = f"{grid}/{kind}" if grid else kind
        return xr.open_zarr(self.root.store, group=path, consolidated=False)

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
            OutputError: no time slice is finished yet.
        """
        return self.query()

    @cached_property
    def answers(self) -> gpd.GeoDataFrame:
        """What came of each visual prompt, with the prompt's geometry, lon/lat.

        Raises:
            OutputError: no time slice is finished yet, or a file of answers is missing or damaged.
        """
        return to_frame(every_row(self.files_of(self.time_slices, ANSWERS), ANSWERS))

    @cached_property
    def replies(self) -> gpd.GeoDataFrame:
        """The replies to the questions of `tasks.ask`, with what they are about, lon/lat.

        Raises:
            OutputError: no time slice is finished yet, or a file of replies is missing or damaged.
        """
        return to_frame(every_row(self.files_of(self.time_slices, REPLIES), REPLIES))

    @cached_property
    def slices(self) -> pd.DataFrame:
        """The time slices in the order of arrival; see `SliceRow`."""
        import pandas as pd

        table = pd.DataFrame([asdict(each) for each in self.rows], columns=list(COLUMNS))
        return table.astype({"start": "datetime64[us, UTC]", "end": "datetime64[us, UTC]"})

    @cached_property
    def rows(self) -> list[SliceRow]:
        """The time slices in the order of arrival."""
        return read_slices(self.root)

    @cached_property
    def versions(self) -> pd.DataFrame:
        """The states that readers have seen, the last one first, if the result keeps them.

        Each as its `snapshot`, `time`, `message` and `tags`.

        Raises:
            OutputError: the result keeps its last state only.
        """
        import pandas as pd

        if not is_versioned(self.url):
            raise OutputError(
                f"{self.url} keeps its last state only; an output that begins with icechunk+ keeps "
                "them all"
            )
        return pd.DataFrame(history(self.url))

    @cached_property
    def time_slices(self) -> list[SliceRow]:
        """The finished time slices.

        Raises:
            OutputError: none is finished yet.
        """
        found = [row for row in self.rows if row.finished]
        if not found and self.state != "finished":
            raise OutputError(
                f"{self.url} is {self.state}: objects come with the first finished time slice; "
                "run the job again to go on"
            )
        return found

    @property
    def slices_in_time(self) -> list[SliceRow]:
        """The finished time slices in the order of time, as the time axis of `layer` has them.

        Raises:
            OutputError: none is finished yet.
        """
        return sorted(self.time_slices, key=lambda row: (row.start, row.name))

    @cached_property
    def ground(self) -> BaseGeometry:
        """Bounds of the rasters, lon/lat."""
        from affine import Affine
        from rasterio.transform import array_bounds

        from earthgptx.pipeline.planning.projection import to_lonlat

        found = []
        for grid in self.grids:
            layer = self.layer("raster", grid)
            height, width = layer.sizes["y"], layer.sizes["x"]
            affine = layer.attrs["spatial:transform"]
            box = shapely.box(*array_bounds(height, width, Affine(*affine)))
            found.append(to_lonlat(box, layer["spatial_ref"].attrs["crs_wkt"]))
        return shapely.union_all(found)

    def query(
        self, *, order: str = "", limit: int | None = None, rank: bool = False, **asked: Any
    ) -> gpd.GeoDataFrame:
        """Returns the objects that satisfy all conditions.

        Args:
            order: column to sort by, one of `find.ORDERS`, with `-` before it for the largest
                first; empty for the order of slices, and along a curve on the ground.
            limit: largest number of objects; None for all.
            rank: whether objects need only have some of the words of `text`, and those that match
                them best come first; see `find.find`.
            asked: conditions; see `find_objects`.

        Raises:
            JobError: a condition cannot be read, or is one that the result cannot have.
            OutputError: no time slice is finished yet.
        """
        return to_frame(find_objects([self], order=order, limit=limit, rank=rank, **asked))

    def count(self, *by: str, **asked: Any) -> pd.DataFrame:
        """Returns how many objects satisfy all conditions.

        Args:
            by: names of `find.GROUPS`, such as `label` and `month`; none for one number.
            asked: conditions; see `find_objects`.

        Raises:
            JobError: a condition cannot be read, or is one that the result cannot have.
            OutputError: no time slice is finished yet.
        """
        return count_objects([self], *by, **asked).to_pandas()

    def diff(
        self, before: str, after: str, *, moved_m: float = 200.0, **asked: Any
    ) -> gpd.GeoDataFrame:
        """Returns what became of the objects of one time slice in another one; see `diff.diff`."""
        from earthgptx.pipeline.results.diff import diff

        return diff(self, before, after, moved_m=moved_m, **asked)

    def plot(
        self,
        layer: Literal["label", "score", "status"] = "label",
        time_slice: str = "",
        zone: str = "",
        ax: mpl.axes.Axes | None = None,
    ) -> mpl.axes.Axes:
        """Plots a layer of a time slice in map coordinates; see `notebook.plot`."""
        from earthgptx.pipeline.results.notebook import plot

        return plot(self, layer, time_slice, zone, ax)

    def explore(self, **asked: Any) -> Any:
        """Returns a map of objects by lonboard or folium; see `notebook.explore`."""
        from earthgptx.pipeline.results.notebook import explore

        return explore(self, **asked)

    def _repr_html_(self) -> str:
        from earthgptx.pipeline.results.notebook import as_html

        return as_html(self)

    def files(self, conditions: Conditions, rows: Rows = OBJECTS) -> ObjectFiles:
        """Returns the files of the rows of those slices that may satisfy the conditions."""
        start, end = conditions.start, conditions.end
        met = [
            row
            for row in self.time_slices
            if not (start and row.end < start) and not (end and row.start > end)
        ]
        return self.files_of(met, rows)

    def files_of(self, slices: Iterable[SliceRow], rows: Rows) -> ObjectFiles:
        """Returns the files of the rows of some slices."""
        folder = rows_beside(self.url, rows.name)
        names = [name for row in slices for name in files_in(row, rows)]
        return ObjectFiles(self.url, tuple(f"{folder}/{name}" for name in names))

    def why(self, lon: float, lat: float) -> list[Why]:
        """Returns the values at a place and their reason, one answer per grid and time slice.

        Leaves out answers outside the AOI if there are others.

        Args:
            lon: longitude in degrees.
            lat: latitude in degrees.

        Raises:
            JobError: the place lies outside the result.
            OutputError: no time slice is finished yet.
        """
        import pyproj
        from rasterio.crs import CRS

        answers: list[Why] = []
        _ = self.time_slices  # raises if there are none
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
        if status == Status.NO_ANSWER:
            reason = "no item shows the AOI there"
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


def open_result(
    url: str, *, snapshot: str = "", tag: str = "", as_of: datetime | str | None = None
) -> Result:
    """Opens a result, or an earlier state of one that keeps its states.

    Args:
        url: fsspec URL or local path of the store.
        snapshot: id of a snapshot; see `Result.versions`.
        tag: name of a tag: that of a time slice, for the state in which it was finished.
        as_of: moment, also as ISO 8601, UTC if it names no zone: the state that readers saw then.

    Raises:
        JobError: more than one state is named, or the moment cannot be read.
        OutputError: there is no result at `url`, or no such state of it.
    """
    if isinstance(as_of, str):
        try:
            as_of = datetime.fromisoformat(as_of)
        except ValueError as error:
            raise JobError(f"'{as_of}' is no moment; give one as 2026-01-31T12:00:00Z") from error
    if as_of is not None and as_of.tzinfo is None:
        as_of = as_of.replace(tzinfo=UTC)
    return Result(url, Version(snapshot, tag, as_of or None))

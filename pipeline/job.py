"""The job file: what a user asks for, validated. Unknown keys are refused with the nearest right name."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from catalogs.collections import CollectionProfile
from catalogs.errors import CatalogError
from catalogs.search import parse_filter, parse_interval
from pipeline.errors import JobError

Slicing = Literal["item", "day", "month", "all"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BboxAoi(_Section):
    """An AOI as lon/lat bounds."""

    bbox: tuple[float, float, float, float]
    """West, south, east, north, degrees. East below west crosses the antimeridian and is refused."""

    @field_validator("bbox")
    @classmethod
    def _ordered(cls, bbox: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
        west, south, east, north = bbox
        if not (-180 <= west < east <= 180 and -90 <= south < north <= 90):
            raise ValueError(
                f"{list(bbox)} is not [west, south, east, north] in degrees with west < east, south < north"
            )
        return bbox


class WktAoi(_Section):
    """An AOI as WKT in lon/lat."""

    wkt: str


def _aoi_tag(value: Any) -> str:
    return (
        "File"
        if isinstance(value, str)
        else "Wkt"
        if isinstance(value, WktAoi | dict) and "wkt" in dict(value)
        else "Bbox"
    )


# A tag picks one reading of a value, so that a mistake in it gets one sentence and not one per reading.
Aoi = Annotated[
    Annotated[str, Tag("File")] | Annotated[BboxAoi, Tag("Bbox")] | Annotated[WktAoi, Tag("Wkt")],
    Discriminator(_aoi_tag),
]
Profile = Annotated[
    Annotated[CollectionProfile, Tag("Described")] | Annotated[str, Tag("Named")],
    Discriminator(lambda value: "Named" if isinstance(value, str) else "Described"),
]
Side = Annotated[
    Annotated[Literal["native"], Tag("Native")] | Annotated[float, Field(gt=0), Tag("Number")],
    Discriminator(lambda value: "Native" if isinstance(value, str) else "Number"),
]


class Source(_Section):
    """Which imagery."""

    catalog: str
    """Static catalog, STAC API, or stac-geoparquet file."""
    collections: Annotated[list[str], Field(min_length=1)]
    aoi: Aoi
    """File (GeoJSON, GeoParquet), bounds or WKT."""
    time: str = "../.."
    filter: str | None = None
    """CQL2 text."""
    profiles: dict[str, Profile] = {}
    """How collections are read that are not known, or to be read as another known one."""

    @field_validator("time")
    @classmethod
    def _time(cls, text: str) -> str:
        return _refuse(parse_interval, text)

    @field_validator("filter")
    @classmethod
    def _filter(cls, text: str | None) -> str | None:
        return text if text is None else _refuse(parse_filter, text)


class GridSpec(_Section):
    """The pixels of the result."""

    crs: str = "auto"
    """`auto` (the Items' own, by UTM zone where they have several) or a CRS."""
    resolution: Side = "native"
    """`native` or a pixel's side in units of the CRS."""
    tile_px: int = Field(512, ge=32)
    halo_px: int = Field(64, ge=1)
    block_px: int = Field(3072, ge=32)

    @property
    def core_px(self) -> int:
        """Side of the part of a tile that is its own."""
        return self.tile_px - 2 * self.halo_px

    @property
    def chunk_px(self) -> int:
        """Side of a chunk: the largest divisor of the block up to 512."""
        return max(side for side in range(1, min(512, self.block_px) + 1) if self.block_px % side == 0)

    @model_validator(mode="after")
    def _fits(self) -> GridSpec:
        if self.core_px < self.halo_px:
            raise ValueError(
                f"tile_px {self.tile_px} with halo_px {self.halo_px} leaves a core of {self.core_px} px, less than the "
                f"halo; the smallest tile for this halo is {3 * self.halo_px}"
            )
        if self.block_px % self.core_px:
            near = max(1, round(self.block_px / self.core_px)) * self.core_px
            raise ValueError(
                f"block_px {self.block_px} is not whole cores of {self.core_px} px (tile_px - 2 halo_px); the nearest "
                f"that is: {near}"
            )
        if self.chunk_px < min(128, self.block_px):
            step = self.core_px * 128 // _gcd(self.core_px, 128)
            near = max(1, round(self.block_px / step)) * step
            raise ValueError(
                f"block_px {self.block_px} has no chunk size between 128 and 512 px that divides it; the nearest that "
                f"is whole cores and whole chunks: {near}"
            )
        return self


class Prompts(_Section):
    """What is pointed at in the imagery."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)
    origin: str = Field("none", alias="from")
    """none | grid | superpixels | cfar | a vector file of points, boxes or polygons."""
    spacing_px: int = Field(128, ge=8)
    """Distance of grid points, and side of superpixels, in pixels."""

    @property
    def is_file(self) -> bool:
        """Whether the prompts come from a vector file."""
        return self.origin not in ("none", "grid", "superpixels", "cfar")


class Tasks(_Section):
    """What is asked of the model."""

    find: list[str] = []
    """Phrases; every object that fits one is found."""
    refer: bool = False
    """Whether each visual prompt is answered."""
    describe: bool = False
    """Whether each tile gets a caption."""
    keep_scores: bool = False
    """Whether the score of each phrase is kept, not only the best one's."""

    @field_validator("find")
    @classmethod
    def _phrases(cls, phrases: list[str]) -> list[str]:
        clean = [phrase.strip() for phrase in phrases]
        if "" in clean or len(set(clean)) != len(clean) or len(clean) > 254:
            raise ValueError("phrases must be words, each only once, at most 254")
        return clean

    @model_validator(mode="after")
    def _something(self) -> Tasks:
        if not (self.find or self.refer or self.describe):
            raise ValueError("nothing is asked for; set find, refer or describe")
        return self


class Engine(_Section):
    """How the work runs; nothing here changes the result."""

    replicas: int = Field(1, ge=1)
    gpus_per_replica: float = Field(0, ge=0)
    max_failed_fraction: float = Field(0.01, ge=0, le=1)
    """Part of the tiles that may fail before the job stops."""


class JobSpec(_Section):
    """A job, as a file says it."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    source: Source
    slices: Slicing = "day"
    grid: GridSpec = GridSpec()
    prompts: Prompts = Prompts()
    tasks: Tasks
    model: str = "cfar"
    output: str
    """Any fsspec URL that ends in .zarr."""
    engine: Engine = Engine()

    @field_validator("output")
    @classmethod
    def _zarr(cls, url: str) -> str:
        if not url.rstrip("/").endswith(".zarr"):
            raise ValueError(f"'{url}' does not end in .zarr")
        return url.rstrip("/")

    @model_validator(mode="after")
    def _prompted(self) -> JobSpec:
        if self.tasks.refer and self.prompts.origin == "none":
            raise ValueError("tasks.refer needs prompts; set prompts.from to grid, superpixels, cfar or a vector file")
        return self

    @classmethod
    def from_yaml(cls, path: str | Path, *, output: str | None = None) -> JobSpec:
        """Read a job file; relative paths in it are relative to its folder.

        Args:
            path: the file.
            output: takes the place of the file's own, relative to the working directory.

        Raises:
            JobError: the file cannot be read, or is not a job; one sentence per mistake.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise JobError(f"cannot read the job file {path}: {error}") from error
        try:
            document = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise JobError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
        if not isinstance(document, dict):
            raise JobError(f"{path} holds no job; it should start with 'name: ...'")
        if output is not None:
            document["output"] = output if "://" in output else str(Path(output).absolute())
        return cls.from_dict(document, where=str(path), folder=Path(path).absolute().parent)

    @classmethod
    def from_dict(cls, document: dict[str, Any], *, where: str = "job", folder: Path | None = None) -> JobSpec:
        """Validate a job given as nested dicts; see `from_yaml`."""
        try:
            spec = cls.model_validate(document)
        except ValidationError as error:
            raise JobError("\n".join(f"{where}: {line}" for line in _sentences(error))) from error
        return spec._placed(folder) if folder else spec

    def _placed(self, folder: Path) -> JobSpec:
        source = self.source.model_copy(
            update={
                "catalog": _place(self.source.catalog, folder),
                "aoi": _place(self.source.aoi, folder) if isinstance(self.source.aoi, str) else self.source.aoi,
            }
        )
        prompts = self.prompts
        if prompts.is_file:
            prompts = prompts.model_copy(update={"origin": _place(prompts.origin, folder)})
        return self.model_copy(update={"source": source, "prompts": prompts, "output": _place(self.output, folder)})


def items_beside(output: str) -> str:
    """Where the Items of a result are frozen, as stac-geoparquet."""
    return output.removesuffix(".zarr") + ".items.parquet"


def _place(path: str, folder: Path) -> str:
    return path if "://" in path or os.path.isabs(path) else os.path.normpath(folder / path)


def _gcd(a: int, b: int) -> int:
    while b:
        a, b = b, a % b
    return a


def _refuse(parse: Any, text: str) -> str:
    try:
        parse(text)
    except CatalogError as error:
        raise ValueError(str(error)) from error
    return text


def _sentences(error: ValidationError) -> list[str]:
    sentences = []
    for found in error.errors():
        place = [part for part in found["loc"] if not (isinstance(part, str) and part[:1].isupper())]
        key = ".".join(str(part) for part in place) or "job"
        if found["type"] == "extra_forbidden":
            names = _names_at(tuple(place[:-1]))
            near = difflib.get_close_matches(str(place[-1]), names, n=1, cutoff=0.5)
            hint = f"did you mean '{near[0]}'?" if near else f"known here: {', '.join(names)}"
            sentences.append(f"unknown key '{key}'; {hint}")
        elif found["type"] == "missing":
            sentences.append(f"'{key}' is missing; see the README for a job file explained line by line")
        else:
            message = found["msg"].removeprefix("Value error, ")
            given = "" if found["type"] == "value_error" else f" (given: {found['input']!r:.80})"
            sentences.append(f"'{key}': {message[:1].lower() + message[1:]}{given}")
    return sorted(set(sentences), key=sentences.index)


def _names_at(place: tuple[int | str, ...]) -> list[str]:
    model: Any = JobSpec
    for part in place:
        field = getattr(model, "model_fields", {}).get(part)
        if field is None:
            if model is not CollectionProfile and place[:2] == ("source", "profiles"):
                model = CollectionProfile
            continue
        kinds = [kind for kind in (field.annotation, *get_args(field.annotation)) if isinstance(kind, type)]
        model = next((kind for kind in kinds if issubclass(kind, BaseModel)), model)
    return sorted((field.alias or name) for name, field in model.model_fields.items())

"""The sections of a job file: its imagery, pixels, prompts, tasks and how it runs."""

from __future__ import annotations

import math
from datetime import date, datetime
from typing import Annotated, Any, Literal

from dateutil.relativedelta import relativedelta
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from earthgptx.catalogs.access import Access
from earthgptx.catalogs.errors import CatalogError
from earthgptx.catalogs.interval import duration, parse_interval
from earthgptx.catalogs.profiles import CollectionProfile
from earthgptx.catalogs.search import parse_filter
from earthgptx.pipeline.job.lonlat import is_bbox

Slicing = Literal["item", "day", "month", "all"]
Compose = Literal["first", "latest", "least_cloud", "median"]


class Section(BaseModel):
    """Part of a job file; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class BboxAoi(Section):
    """An AOI as lon/lat bounds."""

    bbox: tuple[float, float, float, float]
    """West, south, east, north in degrees; west exceeds east across the antimeridian."""

    @field_validator("bbox")
    @classmethod
    def _ordered(cls, bbox: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
        if not is_bbox(*bbox):
            raise ValueError(
                f"{list(bbox)} is not [west, south, east, north] in degrees with west < east, "
                "south < north (west > east crosses the antimeridian: less than 180 degrees)"
            )
        return bbox


class WktAoi(Section):
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


# A tag selects one type per value, so that a mistake gives one sentence, not one per type.
Aoi = Annotated[
    Annotated[str, Tag("File")] | Annotated[BboxAoi, Tag("Bbox")] | Annotated[WktAoi, Tag("Wkt")],
    Discriminator(_aoi_tag),
]
Profile = Annotated[
    Annotated[CollectionProfile, Tag("Described")] | Annotated[str, Tag("Named")],
    Discriminator(lambda value: "Named" if isinstance(value, str) else "Described"),
]
Side = Annotated[
    Annotated[Literal["native", "finest", "coarsest"], Tag("Native")]
    | Annotated[float, Field(gt=0), Tag("Number")],
    Discriminator(lambda value: "Native" if isinstance(value, str) else "Number"),
]


class Source(Section):
    """The imagery of a job."""

    catalog: str
    """Address of a static catalog, a STAC API, or a stac-geoparquet file."""
    collections: Annotated[list[str], Field(min_length=1)]
    aoi: Aoi
    """Vector file (such as GeoJSON or GeoParquet), bounds or WKT."""
    time: str = "../.."
    filter: str | None = None
    """CQL2 text; None for no filter."""
    profiles: dict[str, Profile] = {}
    """By collection: its profile, or the name of a known profile to read it with."""
    access: Access = Access()
    max_failed_items: int = Field(10, ge=0)
    """Items that may be left out because they cannot be used, before the job stops."""

    @field_validator("time", mode="before")
    @classmethod
    def _yaml_date(cls, value: object) -> object:
        """YAML reads 2018-07-16 without quotes as a date, and 2018 as a number."""
        if isinstance(value, datetime):
            return value.isoformat()
        return str(value) if isinstance(value, date | int) else value

    @field_validator("time")
    @classmethod
    def _time(cls, text: str) -> str:
        return _refuse(parse_interval, text)

    @field_validator("filter")
    @classmethod
    def _filter(cls, text: str | None) -> str | None:
        return text if text is None else _refuse(parse_filter, text)


class GridSpec(Section):
    """The pixels of the result."""

    crs: str = "auto"
    """A CRS, or `auto`: a grid per native CRS of the Items (UTM for geographic or rotated ones)."""
    resolution: Side = "native"
    """Side of a pixel in units of the CRS; or that of the first Item (`native`), of the finest, or
    of the coarsest Item."""
    tile_px: int = Field(512, ge=32, le=4096)
    halo_px: int = Field(64, ge=1)
    block_px: int = Field(3072, ge=32, le=16384)

    @property
    def core_px(self) -> int:
        """Side of a tile's core in pixels."""
        return self.tile_px - 2 * self.halo_px

    @property
    def chunk_px(self) -> int:
        """Side of a chunk in pixels: the largest divisor of `block_px` up to 512."""
        return max(
            side for side in range(1, min(512, self.block_px) + 1) if self.block_px % side == 0
        )

    @model_validator(mode="after")
    def _fits(self) -> GridSpec:
        if self.core_px < self.halo_px:
            raise ValueError(
                f"tile_px {self.tile_px} with halo_px {self.halo_px} leaves a core of "
                f"{self.core_px} px, less than the halo; the smallest tile for this halo is "
                f"{3 * self.halo_px}"
            )
        if self.block_px % self.core_px:
            near = max(1, round(self.block_px / self.core_px)) * self.core_px
            raise ValueError(
                f"block_px {self.block_px} is not whole cores of {self.core_px} px "
                f"(tile_px - 2 halo_px); the nearest that is: {near}"
            )
        if self.chunk_px < min(128, self.block_px):
            step = math.lcm(self.core_px, 128)
            near = max(1, round(self.block_px / step)) * step
            raise ValueError(
                f"block_px {self.block_px} has no chunk size between 128 and 512 px that divides "
                f"it; the nearest that is whole cores and whole chunks: {near}"
            )
        return self


class Prompts(Section):
    """The visual prompts of a job."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)
    origin: str = Field("none", alias="from")
    """none | grid | superpixels | cfar | a vector file of points, boxes, polygons or lines | the
    objects of a result (.zarr)."""
    spacing_px: int = Field(128, ge=8)
    """Distance between grid points, and side of superpixels, in pixels."""
    where: str = ""
    """Of a result: which of its objects, as CQL2 text over their columns; empty for all."""
    grow_m: float = Field(0, ge=0, le=100_000)
    """Of a result: metres by which the box around an object is widened; 0 for its outline."""
    within: str | None = None
    """Of a result: ISO 8601 duration that an object may be older or younger than a time slice."""

    @property
    def is_result(self) -> bool:
        """Whether the prompts are the objects of a result."""
        return self.origin.endswith(".zarr")

    @property
    def is_file(self) -> bool:
        """Whether the prompts come from a vector file."""
        return not self.is_result and self.origin not in ("none", "grid", "superpixels", "cfar")

    @property
    def margin(self) -> relativedelta:
        """What `within` says."""
        return duration(self.within or "P0D")

    @field_validator("origin")
    @classmethod
    def _no_slash(cls, text: str) -> str:
        return text.rstrip("/") if text.rstrip("/").endswith(".zarr") else text

    @field_validator("within")
    @classmethod
    def _within(cls, text: str | None) -> str | None:
        return text if text is None else _refuse(duration, text)

    @model_validator(mode="after")
    def _of_a_result(self) -> Prompts:
        if self.is_result and self.within is None:
            raise ValueError(
                "prompts.from is a result: set prompts.within, such as P3D, so that a time slice "
                "is asked only about what was seen in its time"
            )
        given = [name for name in ("where", "grow_m", "within") if getattr(self, name)]
        if given and not self.is_result:
            raise ValueError(f"prompts.{given[0]} goes with objects of a result as prompts.from")
        return self


class TextQuestion(Section):
    """A question in words."""

    question: Annotated[str, Field(min_length=1, max_length=300)]
    of: Literal["tiles", "objects"] = "tiles"
    """Whether it is asked about each tile, or about each object."""

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        return {"question": value} if isinstance(value, str) else value

    @field_validator("question")
    @classmethod
    def _words(cls, text: str) -> str:
        if not text.strip() or not text.isprintable():
            raise ValueError("a question is one line of words")
        return text.strip()


class Tasks(Section):
    """The tasks of the model."""

    find: list[str] = []
    """Phrases to search; every matching object is reported."""
    refer: bool = False
    """Whether visual prompts are answered."""
    describe: bool = False
    """Whether each tile gets a caption."""
    ask: list[TextQuestion] = []
    """Questions in words, about each tile or each object."""
    keep_scores: bool = False
    """Whether the scores of all phrases are kept, not only the highest score per pixel."""

    @field_validator("find")
    @classmethod
    def _phrases(cls, phrases: list[str]) -> list[str]:
        clean = [phrase.strip() for phrase in phrases]
        if "" in clean or len(set(clean)) != len(clean) or len(clean) > 254:
            raise ValueError("phrases must be words, each only once, at most 254")
        if unseen := [phrase for phrase in clean if not phrase.isprintable()]:
            raise ValueError(f"phrase {unseen[0]!r} holds characters that cannot be printed")
        return clean

    def questions(self, of: Literal["tiles", "objects"]) -> tuple[str, ...]:
        """Returns the questions about each tile, or about each object."""
        return tuple(each.question for each in self.ask if each.of == of)

    @property
    def about_tiles(self) -> bool:
        """Whether anything is asked that is not about visual prompts alone."""
        return bool(self.find or self.describe or self.questions("tiles"))

    @model_validator(mode="after")
    def _something(self) -> Tasks:
        if not (self.find or self.refer or self.describe or self.ask):
            raise ValueError("nothing is asked for; set find, refer, describe or ask")
        if len(set(self.ask)) != len(self.ask):
            raise ValueError("ask: a question is there twice")
        if self.questions("objects") and not (self.find or self.refer):
            raise ValueError("ask: questions about objects need some; set find or refer")
        return self


class Replicas(Section):
    """How many replicas a run works with."""

    min: int = Field(1, ge=1)
    """Fewer for longer than `start_timeout_s` end the run."""
    max: int = Field(1, ge=1)

    @model_validator(mode="after")
    def _ordered(self) -> Replicas:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is more than max {self.max}")
        return self


ReplicaCount = Annotated[
    Annotated[int, Field(ge=1), Tag("Number")] | Annotated[Replicas, Tag("Range")],
    Discriminator(lambda value: "Range" if isinstance(value, Replicas | dict) else "Number"),
]


class Engine(Section):
    """How the job runs; nothing here changes the result."""

    replicas: ReplicaCount = 1
    """A number is the largest; work starts with the first replica that is ready."""
    start_timeout_s: float = Field(600, gt=0)
    """Time that a replica may take to load the model."""
    tile_timeout_s: float | None = Field(None, gt=0)
    """Time that the model may take for a tile; None to derive it from the times measured."""
    tiles_per_batch: int | None = Field(None, ge=1)
    """Tiles that the model is asked about at once; None for the model's own number."""
    gpus_per_replica: float = Field(0, ge=0)
    order: Literal["oldest", "newest"] = "oldest"
    """Which new time slices come first."""
    max_failed_fraction: float = Field(0.01, ge=0, le=1)
    """Fraction of tiles that may fail before the job stops, 0..1."""
    price_per_replica_hour: float | None = Field(None, ge=0, allow_inf_nan=False)
    """What an hour of a replica costs, in any currency."""
    max_cost: float | None = Field(None, gt=0, allow_inf_nan=False)
    """What one run may cost in that currency; it ends before it costs more."""

    @model_validator(mode="after")
    def _priced(self) -> Engine:
        if self.max_cost is not None and not self.price_per_replica_hour:
            raise ValueError("max_cost needs price_per_replica_hour, what an hour of one costs")
        return self

    @property
    def least(self) -> int:
        """Smallest number of replicas to work with."""
        return self.replicas.min if isinstance(self.replicas, Replicas) else 1

    @property
    def most(self) -> int:
        """Largest number of replicas to start."""
        return self.replicas.max if isinstance(self.replicas, Replicas) else self.replicas


def _refuse(parse: Any, text: str) -> str:
    try:
        parse(text)
    except CatalogError as error:
        raise ValueError(str(error)) from error
    return text

"""The flow file as a validated model: steps that are jobs, checks, tables and publications."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import ConfigDict, Field, ValidationError, field_validator, model_validator

from earthgptx.model.interface.validation import sentences
from earthgptx.pipeline.errors import JobError
from earthgptx.pipeline.job.sections import Section
from earthgptx.pipeline.job.spec import JobSpec
from earthgptx.pipeline.results.condition import sql_of
from earthgptx.pipeline.results.find import GROUPS, REPLY_GROUPS
from earthgptx.pipeline.results.object_table import COLUMNS, OBJECTS, REPLIES, Rows

Kind = Literal["job", "check", "select", "publish"]
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"


def _condition(text: str) -> str:
    """Lets a condition over the columns of objects pass."""
    if text:
        sql_of(text, COLUMNS)
    return text


class StepPrompts(Section):
    """Objects of another step's result that a job is asked about."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)
    origin: str = Field(alias="from")
    """Name of a step that is a job."""
    where: str = ""
    grow_m: float = 0
    within: str
    """As in a job file."""

    @field_validator("where")
    @classmethod
    def _where(cls, text: str) -> str:
        return _condition(text)


class Bounds(Section):
    """What each time slice of a result has to keep to before it is published."""

    failed: float | None = Field(None, ge=0, le=1)
    """Largest share of its tiles that is quarantined."""
    empty: float | None = Field(None, ge=0, le=1)
    """Largest share of its pixels that has no answer: of those of the AOI in blocks that Items show
    and that were asked about anything."""
    objects: tuple[int, int] | None = None
    """Least and largest number of its objects."""
    unusual: float | None = Field(None, gt=0)
    """Largest deviation of its objects a tile from the slices of its season, in robust standard
    deviations."""
    drift: float | None = Field(None, gt=0, le=1)
    """Largest distance (Kolmogorov-Smirnov) of its scores from those of the slices before, beyond
    what chance gives."""
    seam: float | None = Field(None, ge=1)
    """Most changes of labels and scores on borders of tiles and blocks, divided by those inside."""
    holes: int | None = Field(None, ge=0)
    """Most pixels without any answer in blocks that have answers."""
    step: float | None = Field(None, ge=0, le=1)
    """Largest mean step of scores across the border of two blocks."""
    duplicates: float | None = Field(None, ge=0, le=1)
    """Largest share of its objects that another one of their label overlaps."""
    cut: float | None = Field(None, ge=1)
    """Most straight edges of objects on borders of tiles, divided by those on other lines."""
    accept: tuple[str, ...] = ()
    """Names of slices that somebody has looked at: they pass."""

    @field_validator("accept", mode="before")
    @classmethod
    def _days(cls, names: Any) -> Any:
        """YAML reads 2026-03-04 without quotes as a date."""
        if not isinstance(names, list | tuple):
            return names
        return tuple(each.isoformat() if isinstance(each, date) else each for each in names)

    @field_validator("objects")
    @classmethod
    def _least_first(cls, objects: tuple[int, int] | None) -> tuple[int, int] | None:
        if objects is not None and not 0 <= objects[0] <= objects[1]:
            raise ValueError("objects are the least number, then the largest")
        return objects

    @model_validator(mode="after")
    def _something(self) -> Bounds:
        measures = [name for name in Bounds.model_fields if name != "accept"]
        if all(getattr(self, name) is None for name in measures):
            raise ValueError(f"nothing is checked; set one of {', '.join(measures)}")
        return self


class Select(Section):
    """A table made of a step's objects."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)
    origin: str = Field(alias="from")
    """Name of a step that is a job."""
    of: Literal["objects", "replies"] = "objects"
    """What of it: objects, or replies to questions in words."""
    where: str = ""
    """Which of them, as CQL2 text; empty for all."""
    count_by: tuple[str, ...] = ()
    """What they are counted by, as of `query --count-by`; empty to keep them."""
    areas: str | None = None
    """Vector file of areas, in which they are counted, by the column `name` or `id`."""
    to: str
    """File to write; ends in .csv, .parquet or .geojson."""

    @property
    def rows(self) -> Rows:
        """Kind of the rows that it takes."""
        return REPLIES if self.of == "replies" else OBJECTS

    @model_validator(mode="after")
    def _columns(self) -> Select:
        if self.where:
            sql_of(self.where, self.rows.columns)
        known = GROUPS if self.of == "objects" else REPLY_GROUPS
        unknown = [name for name in self.count_by if name not in known]
        if unknown:
            raise ValueError(f"count_by: '{unknown[0]}' is none of {', '.join(known)}")
        return self

    @field_validator("to")
    @classmethod
    def _path(cls, text: str) -> str:
        if "://" in text:
            raise ValueError(f"'{text}' is no path; tables are written to a disk")
        return text

    @model_validator(mode="after")
    def _suffix(self) -> Select:
        allowed = [".csv", ".parquet"]
        allowed += [] if self.count_by or self.areas else [".geojson"]
        if Path(self.to).suffix not in allowed:
            raise ValueError(f"'{self.to}' does not end in {' or '.join(allowed)}")
        return self


class Step(Section):
    """A step of a flow: one of job, check, select and publish."""

    name: Annotated[str, Field(pattern=NAME)] | None = None
    """By default that of the job's file, else what the step does."""
    job: str | None = None
    """A job file."""
    prompts: StepPrompts | None = None
    check: Bounds | None = None
    select: Select | None = None
    publish: str | None = None
    """Folder or URL of a static STAC catalog."""
    of: list[str] | None = None
    """Names of the jobs that are checked or published; by default all before this step."""

    @field_validator("publish")
    @classmethod
    def _catalog(cls, url: str | None) -> str | None:
        if url and url.startswith(("http://", "https://")):
            raise ValueError(f"'{url}' cannot be written; give a folder, s3://, gs:// or az://")
        return url

    @property
    def kind(self) -> Kind:
        """What the step is."""
        return next(
            kind
            for kind in ("job", "check", "select", "publish")
            if getattr(self, kind) is not None
        )

    @model_validator(mode="after")
    def _one(self) -> Step:
        given = [k for k in ("job", "check", "select", "publish") if getattr(self, k) is not None]
        if len(given) != 1:
            said = " and ".join(given) or "nothing"
            raise ValueError(f"a step is one of job, check, select and publish; this one is {said}")
        if self.prompts and not self.job:
            raise ValueError("prompts goes with a job")
        if self.of is not None and not (self.check or self.publish):
            raise ValueError("of goes with check or publish")
        return self


class Notify(Section):
    """Where the end of a run is told."""

    url: str
    """Webhook: http:// or https://."""
    secret: str | None = None
    """Environment variable with the key that signs the message."""

    @field_validator("url")
    @classmethod
    def _url(cls, url: str) -> str:
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"'{url}' is no http:// or https:// address")
        return url


class FlowSpec(Section):
    """A flow, as described by a flow file."""

    name: Annotated[str, Field(pattern=NAME)]
    steps: Annotated[list[Step], Field(min_length=1)]
    notify: Notify | None = None


def read_flow(path: Path) -> tuple[FlowSpec, Path]:
    """Reads a flow file, or a job file as a flow of one step; returns also its folder.

    Raises:
        JobError: the file cannot be read or is no flow; one sentence a mistake.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise JobError(f"cannot read the flow file {path}: {error}") from error
    except yaml.YAMLError as error:
        raise JobError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    folder = path.absolute().parent
    if isinstance(document, dict) and "steps" not in document and "source" in document:
        spec = JobSpec.from_yaml(path)
        return FlowSpec(name=spec.name, steps=[Step(job=path.name, name=spec.name)]), folder
    try:
        return FlowSpec.model_validate(document), folder
    except ValidationError as error:
        raise JobError(_mistakes(path, error)) from error


def _mistakes(path: Path, error: ValidationError) -> str:
    lines = sentences(error, FlowSpec, missing="see docs/workflows.md", whole="flow")
    return "\n".join(f"{path}: {line}" for line in lines)


def job_of(step: Step, folder: Path, outputs: dict[str, str], time: str | None) -> JobSpec:
    """Returns the job of a step.

    Args:
        step: a step that is a job.
        folder: folder of the flow file.
        outputs: output of each step that its prompts may come from, by name.
        time: interval that replaces the job file's; None to keep it.

    Raises:
        JobError: the job file is wrong.
    """
    assert step.job is not None, "the step is a job"
    prompts: dict[str, Any] | None = None
    if step.prompts is not None:
        prompts = step.prompts.model_dump(by_alias=True)
        prompts["from"] = outputs[step.prompts.origin]
    return JobSpec.from_yaml(folder / step.job, time=time, prompts=prompts)

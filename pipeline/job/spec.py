"""The job file as a validated model. Errors name the nearest valid key for each unknown key."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from earthgptx.catalogs.access import Opening
from earthgptx.catalogs.redaction import redact_all, redacted
from earthgptx.model.interface.validation import sentences
from earthgptx.pipeline.errors import JobError
from earthgptx.pipeline.job.sections import (
    Compose,
    Engine,
    GridSpec,
    Prompts,
    Section,
    Slicing,
    Source,
    Tasks,
)
from earthgptx.pipeline.storage.blobs import ICECHUNK, is_versioned, plain

WHERE_EXPLAINED = "see the README for a job file explained line by line"


class JobSpec(Section):
    """A job, as described by a job file."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    source: Source
    slices: Slicing = "day"
    compose: Compose = "first"
    """Which Item of a time slice a pixel shows: the first or latest with data, the one of the least
    cloudy Item, or the median of all."""
    grid: GridSpec = GridSpec()
    prompts: Prompts = Prompts()
    tasks: Tasks
    model: str = "cfar"
    output: str
    """fsspec URL of the result; ends in .zarr."""
    engine: Engine = Engine()

    @field_validator("output")
    @classmethod
    def _zarr(cls, url: str) -> str:
        if url != redacted(url):
            raise ValueError(
                f"'{redacted(url)}' has user info, a query or a fragment; "
                "credentials of an output come from the environment"
            )
        if not url.rstrip("/").endswith(".zarr"):
            raise ValueError(f"'{url}' does not end in .zarr")
        return url.rstrip("/")

    @model_validator(mode="after")
    def _prompted(self) -> JobSpec:
        if self.tasks.refer and self.prompts.origin == "none":
            raise ValueError(
                "tasks.refer needs prompts; "
                "set prompts.from to grid, superpixels, cfar, a vector file or a result"
            )
        return self

    @classmethod
    def from_yaml(
        cls,
        path: str | Path,
        *,
        output: str | None = None,
        time: str | None = None,
        prompts: dict[str, Any] | None = None,
    ) -> JobSpec:
        """Reads a job file; its relative paths are relative to its folder.

        Args:
            path: path of the job file.
            output: URL that replaces the file's `output`, relative to the working directory.
            time: interval that replaces the file's `source.time`.
            prompts: section that replaces the file's `prompts`.

        Raises:
            JobError: the file cannot be read or is not a job; one sentence per mistake.
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
            document["output"] = _place(output, Path.cwd())
        if time is not None and isinstance(document.get("source"), dict):
            document["source"]["time"] = time
        if prompts is not None:
            document["prompts"] = prompts
        return cls.from_dict(document, where=str(path), folder=Path(path).absolute().parent)

    @classmethod
    def from_dict(
        cls, document: dict[str, Any], *, where: str = "job", folder: Path | None = None
    ) -> JobSpec:
        """Validates a job given as nested dicts; see `from_yaml`.

        Args:
            document: content of a job file.
            where: source of the document, for error messages.
            folder: folder that relative paths are relative to; None to keep them.

        Raises:
            JobError: the document is not a job; one sentence per mistake.
        """
        try:
            spec = cls.model_validate(document)
        except ValidationError as error:
            lines = sentences(error, cls, missing=WHERE_EXPLAINED, whole="job")
            raise JobError("\n".join(f"{where}: {line}" for line in lines)) from error
        return spec._placed(folder) if folder else spec

    def opening(self) -> Opening:
        """Returns what is needed to open the imagery.

        Raises:
            CatalogError: the environment lacks a variable that `source.access` names.
        """
        return Opening.of(self.source.catalog, self.source.access)

    def redacted(self) -> dict[str, Any]:
        """Returns the job as a JSON document without passwords, tokens and signatures."""
        document: dict[str, Any] = redact_all(self.model_dump(mode="json", by_alias=True))
        return document

    def _placed(self, folder: Path) -> JobSpec:
        source = self.source.model_copy(
            update={
                "access": self.source.access.model_copy(
                    update={
                        "folders": tuple(
                            _place(each, folder) for each in self.source.access.folders
                        )
                    }
                ),
                "catalog": _place(self.source.catalog, folder),
                "aoi": _place(self.source.aoi, folder)
                if isinstance(self.source.aoi, str)
                else self.source.aoi,
            }
        )
        prompts = self.prompts
        if prompts.is_file or prompts.is_result:
            prompts = prompts.model_copy(update={"origin": _place(prompts.origin, folder)})
        return self.model_copy(
            update={"source": source, "prompts": prompts, "output": _place(self.output, folder)}
        )


def items_beside(output: str) -> str:
    """Returns the URL of the frozen Items of a result, a stac-geoparquet file."""
    return plain(output).removesuffix(".zarr") + ".items.parquet"


def _place(path: str, folder: Path) -> str:
    """Returns a path that does not depend on the working directory; a URL as it is."""
    if is_versioned(path):
        return f"{ICECHUNK}{_place(plain(path), folder)}"
    return path if "://" in path or os.path.isabs(path) else os.path.normpath(folder / path)

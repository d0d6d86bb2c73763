"""A flow as files for a cluster: its documents, and the small files that they name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from earthgptx.pipeline.errors import JobError
from earthgptx.pipeline.job.spec import JobSpec
from earthgptx.pipeline.storage.blobs import is_local, plain
from earthgptx.workflows.flow.running import Flow

SHAPEFILE = (".shp", ".shx", ".dbf", ".prj", ".cpg")
"""Endings of the files that a shapefile consists of."""


@dataclass(slots=True)
class Packed:
    """Files that lie in one folder and name one another without one."""

    main: str = ""
    """Name of the flow file, or of the job file that is run as one."""
    is_job: bool = False
    """Whether it is a job file."""
    files: dict[str, bytes] = field(default_factory=dict)

    def add(self, path: Path, data: bytes | None = None) -> str:
        """Adds a file, or what is to be in its place; returns its name.

        Raises:
            JobError: it cannot be read.
        """
        name = re.sub(r"[^-._a-zA-Z0-9]", "_", path.name)
        while name in self.files:
            name = f"_{name}"
        try:
            self.files[name] = path.read_bytes() if data is None else data
        except OSError as error:
            raise JobError(f"{path} cannot be sent to a cluster: {error}") from error
        return name

    def add_vectors(self, path: Path) -> str:
        """Adds a vector file, with those beside it if it is a shapefile; returns its name."""
        name = self.add(path)
        if path.suffix.lower() == SHAPEFILE[0]:
            for beside in path.parent.iterdir():
                if beside.stem == path.stem and beside.suffix.lower() in SHAPEFILE[1:]:
                    self.files[Path(name).with_suffix(beside.suffix).name] = beside.read_bytes()
        return name


def pack(path: Path, flow: Flow, *, most_bytes: int, shared: Sequence[str] = ()) -> Packed:
    """Returns the files of a flow.

    Args:
        path: path of the flow file, or of a job file.
        flow: the flow.
        most_bytes: bytes that all files may have together.
        shared: folders that all machines of the cluster share: paths in them are left as they are.

    Raises:
        JobError: the flow names what a cluster does not reach, or too much.
    """
    packed = Packed()
    folders = tuple(Path(each).absolute() for each in shared)
    whole = _document(path)
    names: dict[str, str] = {}
    for node in flow.nodes:
        if node.step.publish and _is_here(node.step.publish, folders):
            raise JobError(f"step '{node.name}': {node.step.publish} is a local path; name a URL")
        if node.step.select:
            raise JobError(
                f"step '{node.name}' writes a local table, which a cluster loses; leave it out"
            )
        if node.step.job:
            job = flow.jobs[node.name]
            _refuse_local(node.name, job, folders)
            file = flow.folder / node.step.job
            document = _document(file)
            _place_files(document, job, packed, own_prompts=node.step.prompts is None)
            names[node.step.job] = packed.add(file, _text(document))
    if "steps" in whole:
        for step in whole["steps"]:
            if "job" in step:
                step.setdefault("name", Path(step["job"]).stem)  # the file may get another name
                step["job"] = names[step["job"]]
        packed.main = packed.add(path, _text(whole))
    else:
        [packed.main] = names.values()
        packed.is_job = True
    size = sum(map(len, packed.files.values()))
    if size > most_bytes:
        largest = max(packed.files, key=lambda name: len(packed.files[name]))
        raise JobError(
            f"the files of the flow have {size:,} bytes, and a cluster is sent at most "
            f"{most_bytes:,}; {largest} is the largest: name a URL for it"
        )
    return packed


def _document(path: Path) -> dict[str, Any]:
    """Returns a document that has been validated."""
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


def _text(document: dict[str, Any]) -> bytes:
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True).encode()


def _place_files(
    document: dict[str, Any], job: JobSpec, packed: Packed, *, own_prompts: bool
) -> None:
    """Adds the vector files of a job, and has its document name them as they are sent.

    Other paths are shared ones, and become whole: the document will lie elsewhere.

    Args:
        document: the job file.
        job: the job.
        packed: takes the files.
        own_prompts: whether the prompts are those of the job file, and not of its step.
    """
    aoi, prompts = job.source.aoi, job.prompts
    if isinstance(aoi, str) and is_local(aoi):
        document["source"]["aoi"] = packed.add_vectors(_path(aoi))
    if own_prompts and prompts.is_file and is_local(prompts.origin):
        document["prompts"]["from"] = packed.add_vectors(_path(prompts.origin))
    if own_prompts and prompts.is_result:
        document["prompts"]["from"] = prompts.origin
    document["source"]["catalog"], document["output"] = job.source.catalog, job.output
    if job.source.access.folders:
        document["source"]["access"]["folders"] = list(job.source.access.folders)
    if Path(job.model).is_dir():
        document["model"] = str(Path(job.model).absolute())


def _refuse_local(name: str, job: JobSpec, shared: Sequence[Path]) -> None:
    """Refuses a job whose catalog, output, model, or result of prompts only this machine has.

    Raises:
        JobError: it is one.
    """
    named = [("source.catalog", job.source.catalog), ("output", job.output)]
    named += [("prompts.from", job.prompts.origin)] if job.prompts.is_result else []
    named += [("model", job.model)] if Path(job.model).is_dir() else []  # a folder of weights
    named += [("source.access.folders", each) for each in job.source.access.folders]
    for key, address in named:
        if _is_here(address, shared):
            raise JobError(
                f"step '{name}': {key} {address} is a local path, which a cluster does not reach; "
                "name a URL"
            )


def _is_here(address: str, shared: Sequence[Path]) -> bool:
    """Whether an address is a path that only this machine has."""
    if not is_local(address):
        return False
    return not any(_path(address).is_relative_to(each) for each in shared)


def _path(address: str) -> Path:
    """Returns the path of a local address."""
    return Path(plain(address).removeprefix("file://")).absolute()

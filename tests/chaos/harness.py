"""Runs of the command in processes of their own, broken at a moment and compared byte for byte."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import yaml

from earthgptx import JobSpec, plan, run
from tests import PATH, REPO
from tests.archive import Archive, targets
from tests.chaos.moments import NAME
from tests.results import alike, contents

GRID = {"tile_px": 256, "halo_px": 64, "block_px": 256}
"""Twelve blocks of four tiles over the scene of 700 x 900 px."""
OUTAGE = (0, 3)


@lru_cache(maxsize=1)
def scene() -> Archive:
    """The archive of all cases of a process: results are the same only if their Items are."""
    archive = Archive(Path(tempfile.mkdtemp(prefix="chaos-")))
    archive.add("a", np.minimum(targets(5), 200), nodata=None)
    archive.save()
    return archive


@dataclass
class Ended:
    """How a command ended."""

    code: int
    said: str

    @property
    def in_words(self) -> bool:
        """Whether it ended with a sentence of ours instead of a traceback."""
        return "Traceback" not in self.said and (self.code == 0 or "error:" in self.said)


@dataclass
class Case:
    """A job over a small scene, and its folder."""

    folder: Path
    job: JobSpec

    @classmethod
    def make(cls, folder: Path, output: str = "", **more: Any) -> Case:
        folder.mkdir(parents=True, exist_ok=True)
        archive = scene()
        settings: dict[str, Any] = {"grid": GRID, "model": "tests.chaos.moments:Moments"}
        job = archive.job(output or folder / "out.zarr", **(settings | more))
        return cls(folder, job)

    @property
    def out(self) -> Path:
        return Path(self.job.output)

    def change(self, **more: Any) -> None:
        """Changes keys of the job; those of a section one by one."""
        document = self.job.model_dump(by_alias=True)
        for key, value in more.items():
            document[key] = document[key] | value if isinstance(value, dict) else value
        self.job = JobSpec.model_validate(document)

    def start(
        self, moment: str = "", action: str = "", *options: str, **env: str
    ) -> subprocess.Popen[str]:
        """Starts the command, armed with a moment."""
        path = self.folder / "job.yaml"
        document = self.job.model_dump(mode="json", by_alias=True, exclude_none=True)
        path.write_text(yaml.safe_dump(document))
        for name in ("reached", "go"):
            (self.folder / name).unlink(missing_ok=True)
        armed = {NAME: f"{moment} {action} {self.folder}"} if moment else {}
        return subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.run_armed", "run", str(path), *options],
            cwd=REPO,
            env={**os.environ, "PYTHONPATH": PATH, **armed, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, moment: str = "", action: str = "", *options: str, **env: str) -> Ended:
        """Runs the command to its end."""
        return end(self.start(moment, action, *options, **env))

    def finish(self) -> None:
        """Runs the job again to its end, in this process, on the Ray that the tests share."""
        run(plan(self.job))

    def reached(self, process: subprocess.Popen[str], limit_s: float = 90) -> int:
        """Waits until a process has reached the moment; returns its id."""
        limit = time.monotonic() + limit_s
        while time.monotonic() < limit:
            with suppress(FileNotFoundError, ValueError):
                return int((self.folder / "reached").read_text())
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.05)
        raise AssertionError("the moment was not reached")

    def go(self) -> None:
        """Lets a process that waits at the moment go on."""
        (self.folder / "go").touch()

    def same_as(self, other: Mapping[str, bytes]) -> bool:
        """Whether the output is the same, byte for byte, and nothing is left beside it."""
        alike(contents(self.out), other)
        assert self.out.with_suffix(".item.json").exists()
        assert not self.out.with_suffix(".parts").exists()
        return True


def end(process: subprocess.Popen[str], limit_s: float = 300) -> Ended:
    """Waits for a command; kills what it leaves behind."""
    children = family(process)
    try:
        said, _ = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        kill_family(process)
        said, _ = process.communicate()
        raise AssertionError(f"stuck: {said[-2000:]}") from None
    for child in children:
        with suppress(psutil.Error):
            child.kill()
    return Ended(process.returncode, said)


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Returns the processes that Ray has started for a command."""
    with suppress(psutil.Error):
        return psutil.Process(process.pid).children(recursive=True)
    return []


def kill_family(process: subprocess.Popen[str]) -> None:
    """Kills a command, and what Ray has started for it, at once."""
    children = family(process)
    with suppress(psutil.Error):
        process.kill()
    for child in children:
        with suppress(psutil.Error):
            child.kill()


def by_name(process: subprocess.Popen[str], text: str) -> list[psutil.Process]:
    """Returns the processes of a command's family whose command line holds a text."""
    found = []
    for child in family(process):
        with suppress(psutil.Error):
            if text in " ".join(child.cmdline()):
                found.append(child)
    return found

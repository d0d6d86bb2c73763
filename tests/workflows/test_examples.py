"""Every job file of `examples/` runs right after the demo, or says first what it needs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from earthgptx import JobSpec, plan, run
from earthgptx.pipeline.engine.pool import ReplicaPool
from tests import REPO

EXAMPLES = sorted((REPO / "examples").glob("*.yaml"))
NEEDY = [path for path in EXAMPLES if path.read_text().startswith("# Needs ")]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory, sample_archive: Path) -> Path:
    """A checkout after `make demo`, as far as examples see it."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(REPO / "examples", folder / "examples")
    (folder / "demo").mkdir()
    (folder / "demo" / "sample").symlink_to(sample_archive)
    return folder


def test_some_examples_need_nothing_but_the_demo() -> None:
    assert {path.stem for path in EXAMPLES} - {path.stem for path in NEEDY} == {"harbour", "heat"}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_says_what_it_does_or_needs_first_and_is_valid(path: Path) -> None:
    assert path.read_text().startswith("# ")
    assert JobSpec.from_yaml(path).name


@pytest.mark.parametrize(
    "path", [p for p in EXAMPLES if p not in NEEDY], ids=lambda path: path.stem
)
def test_an_example_runs_after_the_demo(path: Path, checkout: Path, pool: ReplicaPool) -> None:
    report = run(plan(JobSpec.from_yaml(checkout / "examples" / path.name)), pool=pool)
    assert report.failed_tiles == 0
    assert report.objects > 0
    assert Path(report.output) == checkout / "results" / f"{path.stem}.zarr"

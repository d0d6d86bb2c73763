from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from pipeline.crew import Crew
from pipeline.job import Engine
from tests.archive import Archive
from workflows.sample import make_sample

DATA = Path(os.environ.get("EARTHGPTX_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def data() -> Path:
    """Real imagery; a test that needs it is skipped where it is missing."""
    if not DATA.is_dir():
        pytest.skip(f"real data is not at {DATA}; set EARTHGPTX_DATA")
    return DATA


@pytest.fixture(scope="session")
def ray_two() -> Iterator[None]:
    """One Ray for the whole session: starting takes seconds."""
    tests = str(Path(__file__).parent.parent)
    ray.init(
        num_cpus=4, include_dashboard=False, logging_level="ERROR", log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": tests}},
    )  # fmt: skip
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def crew(ray_two: None) -> Iterator[Crew]:
    """A replica that a file's runs share which are not about replicas: its process takes seconds to start."""
    with Crew(Engine()) as crew:
        yield crew


@pytest.fixture(scope="session")
def sample_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive") / "sample"
    make_sample(folder)
    return folder


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path / "archive")

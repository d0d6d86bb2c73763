from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import ray

from earthgptx.pipeline.engine.pool import ReplicaPool
from earthgptx.pipeline.job.sections import Engine
from earthgptx.workflows.sample import make_sample
from tests import PATH, REPO
from tests.archive import Archive

pytest_plugins = ["tests.figures"]
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")
if WORKER:
    # `ray.init()` joins a cluster that `ray start` has left in the temporary folder; workers have
    # their own.
    os.environ["RAY_TMPDIR"] = tempfile.mkdtemp(prefix=f"ray-{WORKER}-", dir="/tmp")
# Tests time nothing: how long an example takes depends on the machine and on what runs beside it.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")
FIRST = ("evaluation", "engine", "chaos", "golden", "training", "packaging", "checkpoint")
DATA = Path(os.environ.get("EARTHGPTX_DATA", REPO.parent / "shared" / "data"))


def pytest_unconfigure() -> None:
    if WORKER:
        shutil.rmtree(os.environ["RAY_TMPDIR"], ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow files start first, so that no worker is left with one of them at the end.

    Those of `inference` start last: they need the taught model, which those of `evaluation` make.
    """

    def rank(item: pytest.Item) -> int:
        folder = item.path.parent.name
        return FIRST.index(folder) if folder in FIRST else len(FIRST) + (folder == "inference")

    items.sort(key=rank)


@pytest.fixture(scope="session")
def data() -> Path:
    """Real imagery; a test that needs it is skipped where it is missing."""
    if not DATA.is_dir():
        pytest.skip(f"real data is not at {DATA}; set EARTHGPTX_DATA")
    return DATA


@pytest.fixture(scope="session")
def ray_two() -> Iterator[None]:
    """One Ray for the whole session: starting takes seconds."""
    ray.init(
        num_cpus=4,
        include_dashboard=False,
        logging_level=logging.ERROR,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": PATH}},
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def pool(ray_two: None) -> Iterator[ReplicaPool]:
    """A replica that a file's runs share which are not about replicas: its process takes seconds to
    start.
    """
    with ReplicaPool(Engine()) as pool:
        yield pool


@pytest.fixture(scope="session")
def sample_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive") / "sample"
    make_sample(folder)
    return folder


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path / "archive")

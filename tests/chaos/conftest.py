"""What the chaos tests share: the undisturbed result, and a case to break."""

from pathlib import Path

import pytest

from earthgptx import plan, run
from tests.chaos.harness import Case
from tests.results import contents


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, ray_two: None) -> dict[str, bytes]:
    """Every file of a result that nothing disturbed."""
    case = Case.make(tmp_path_factory.mktemp("undisturbed"))
    run(plan(case.job))
    return contents(case.out)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case.make(tmp_path / "case")

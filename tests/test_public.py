"""The package as its users import it."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

import earthgptx
from tests import REPO


def test_the_public_names_are_the_list() -> None:
    names = ["JobSpec", "__version__", "open_model", "open_result", "open_scene", "plan", "run"]
    assert sorted(earthgptx.__all__) == dir(earthgptx) == names
    assert all(getattr(earthgptx, name) is not None for name in earthgptx.__all__)
    with pytest.raises(AttributeError, match="no attribute 'pool'"):
        _ = earthgptx.pool


def test_importing_the_package_imports_neither_torch_nor_ray() -> None:
    script = "import sys, earthgptx; print(sorted({'torch', 'ray', 'xarray'} & set(sys.modules)))"
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert ended.stdout.strip() == "[]"


def test_nothing_imports_the_folders_by_their_bare_names() -> None:
    """A bare name works where the repository is the working directory, and makes a second copy
    of every class.
    """
    floors = "catalogs|model|pipeline|workflows"
    bare = re.compile(
        rf"(?:^|[;\"'])[ \t]*(?:from (?:{floors})[\w.]* import|import (?:{floors})\b)", re.MULTILINE
    )
    folders = (*floors.split("|"), "src", "tests", "benchmarks", "docs", "infra")
    paths = [REPO / "README.md", *(path for name in folders for path in (REPO / name).rglob("*"))]
    texts = {path: path.read_text() for path in paths if path.suffix in (".py", ".md", ".yaml")}
    assert [
        f"{path}: {found[0]}" for path, text in texts.items() for found in bare.finditer(text)
    ] == []

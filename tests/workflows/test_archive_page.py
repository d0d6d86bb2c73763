"""The commands of `docs/archive.md` run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from earthgptx import open_result
from tests import PATH, REPO


@pytest.mark.slow
def test_the_page_on_growing_results_runs_as_it_stands(tmp_path: Path) -> None:
    page = (REPO / "docs" / "archive.md").read_text()
    blocks = re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
    (tmp_path / "bin").mkdir()
    for name, module in (("earthgptx", "-m earthgptx.workflows.cli"), ("python", "")):
        command = tmp_path / "bin" / name
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" {module} "$@"\n')
        command.chmod(0o755)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    ended = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(blocks)],
        cwd=tmp_path,
        env={**os.environ, "PATH": path, "PYTHONPATH": PATH},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "nothing to do" in ended.stdout
    result = open_result(str(tmp_path / "results" / "watch.zarr"))
    assert list(result.slices["state"]) == ["finished"] * 5
    assert list(result.slices["items"]) == [3] * 5

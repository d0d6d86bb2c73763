"""Runs the commands of a page of the documentation as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests import PATH


def run_page(page: Path, folder: Path) -> str:
    """Runs the bash blocks of a page one after the other in a folder; returns what they print."""
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL)
    (folder / "bin").mkdir()
    for name, module in (("earthgptx", "-m earthgptx.workflows.cli"), ("python", "")):
        command = folder / "bin" / name
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" {module} "$@"\n')
        command.chmod(0o755)
    ended = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(blocks)],
        cwd=folder,
        env={
            **os.environ,
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": PATH,
        },
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout

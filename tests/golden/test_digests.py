"""Moving code changes no answer: two small jobs leave the arrays and objects that were written
down.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests import PATH, REPO
from tests.golden.jobs import PORTABLE

WRITTEN = Path(__file__).with_name("digests.json")


def test_two_jobs_leave_the_digests_that_were_written_down(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.golden.jobs", str(tmp_path)],
        env=os.environ | PORTABLE | {"PYTHONPATH": PATH},
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    [said] = [line for line in ended.stdout.splitlines() if line.startswith("{")]
    found, written = json.loads(said), json.loads(WRITTEN.read_text())
    for name, arrays in written.items():
        changed = sorted(
            path
            for path in arrays.keys() | found[name].keys()
            if arrays.get(path) != found[name].get(path)
        )
        assert not changed, (
            f"{name}: {changed} changed; if that is meant, raise planning.resolve.ALGORITHM"
        )

"""Entry point of a submitted job: passes the job file in `EARTHGPTX_JOB` to `earthgptx run`."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from earthgptx.workflows.cli import main

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "job.yaml"
        path.write_text(os.environ["EARTHGPTX_JOB"])
        sys.argv = ["earthgptx", "run", str(path)]
        main()

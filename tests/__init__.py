import os
from pathlib import Path

REPO = Path(__file__).parents[1]
PATH = f"{REPO / 'src'}{os.pathsep}{REPO}"
"""PYTHONPATH of the processes that tests start, so that they import this checkout."""

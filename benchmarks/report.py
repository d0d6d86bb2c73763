"""What every benchmark shares: its arguments, its table, its JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
from pathlib import Path

from rich.console import Console
from rich.table import Table


def arguments(doc: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--quick", action="store_true", help="a small run that shows that it works")
    parser.add_argument("--json", type=Path, help="write the figures here")
    return parser.parse_args()


def report(title: str, figures: dict[str, float | str], path: Path | None) -> None:
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    table = Table("figure", "value", title=f"{title} ({machine})")
    for name, value in figures.items():
        table.add_row(name, f"{value:,.3f}" if isinstance(value, float) else str(value))
    Console().print(table)
    if path:
        path.write_text(json.dumps({"machine": machine, **figures}, indent=1) + "\n")

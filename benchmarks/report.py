"""What every benchmark shares: its arguments, its table, its JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
from pathlib import Path

from rich.console import Console
from rich.table import Table


def parser(doc: str | None) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=doc)
    made.add_argument("--json", type=Path, help="write the figures here")
    return made


def arguments(doc: str | None) -> argparse.Namespace:
    made = parser(doc)
    made.add_argument("--quick", action="store_true", help="a small run that shows that it works")
    return made.parse_args()


def report(title: str, figures: dict[str, float | str], path: Path | None) -> None:
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    table = Table("figure", "value", title=f"{title} ({machine})")
    for name, value in figures.items():
        table.add_row(name, f"{value:,.3f}" if isinstance(value, float) else str(value))
    Console().print(table)
    if path:
        path.write_text(json.dumps({"machine": machine, **figures}, indent=1) + "\n")

"""Logs the figures of a training run as JSON lines and for TensorBoard."""

from __future__ import annotations

import json
from pathlib import Path


class MetricsLog:
    """Appends figures to `metrics.jsonl` and to the TensorBoard log of a run."""

    def __init__(self, out: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._lines = (out / "metrics.jsonl").open("a")
        self._board = SummaryWriter(str(out / "tensorboard"))

    def write(self, step: int, figures: dict[str, float]) -> None:
        """Writes the figures of one step."""
        self._lines.write(
            json.dumps({"step": step, **{name: round(value, 6) for name, value in figures.items()}})
            + "\n"
        )
        self._lines.flush()
        for name, value in figures.items():
            self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Closes both logs."""
        self._lines.close()
        self._board.close()

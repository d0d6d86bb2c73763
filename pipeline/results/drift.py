"""How far the scores of objects are from those of other time slices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from earthgptx.pipeline.results.find import every_row
from earthgptx.pipeline.results.object_table import OBJECTS
from earthgptx.pipeline.results.result import Result
from earthgptx.pipeline.results.slices_group import SliceRow

BEFORE = 16
"""Slices before one whose scores it is compared with."""
ENOUGH_SCORES = 30
"""Objects of a slice, and of those before it, from which their scores are compared."""


def drift(result: Result, rows: Sequence[SliceRow], at: int) -> float | None:
    """Returns how far the scores of a slice are from those of the slices before it; see `distance`.

    Args:
        result: the result.
        rows: its finished slices, in order of time.
        at: position of the slice among them.
    """
    return distance(_scores(result, [rows[at]]), _scores(result, rows[max(at - BEFORE, 0) : at]))


def distance(scores: NDArray[np.float64], before: NDArray[np.float64]) -> float | None:
    """Returns the Kolmogorov-Smirnov distance of two samples beyond chance; None for small ones.

    From the distance is subtracted what two samples of one distribution have in one case of a
    thousand, sqrt(-ln(0.0005) / 2 * (n + m) / (n * m)).
    """
    n, m = len(scores), len(before)
    if min(n, m) < ENOUGH_SCORES:
        return None
    from scipy.stats import ks_2samp

    chance = float(np.sqrt(-np.log(0.0005) / 2 * (n + m) / (n * m)))
    return max(float(ks_2samp(scores, before).statistic) - chance, 0.0)


def _scores(result: Result, rows: Sequence[SliceRow]) -> NDArray[np.float64]:
    return every_row(result.files_of(rows, OBJECTS), OBJECTS, ["score"])["score"].to_numpy()

"""Checks of a result before it is published: each time slice against its bounds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from earthgptx.pipeline.results import inspection
from earthgptx.pipeline.results.result import Result
from earthgptx.pipeline.results.slices_group import SliceRow
from earthgptx.pipeline.results.status import pixels_of
from earthgptx.pipeline.results.store import Status
from earthgptx.workflows.flow.passed import Passed
from earthgptx.workflows.flow.spec import Bounds

INSPECTED = ("seam", "holes", "step", "drift", "duplicates", "cut")
"""Bounds that the inspector measures by."""
SEASON_DAYS = 45
"""Days of the year before and after a slice that are its season, in any year."""
ENOUGH_SLICES = 8
"""Slices of a season from which it is known what is usual."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One measure of a time slice."""

    slice: str
    measure: str
    """Name of one of the fields of `Bounds`, or of a measure of the inspector."""
    value: float
    bound: str
    """What it has to keep to, in words."""
    holds: bool

    @property
    def sentence(self) -> str:
        """What is found, in words."""
        return f"{self.measure} {self.value:.4g} of {self.slice} is not {self.bound}"


def check(result: Result, bounds: Bounds) -> tuple[int, list[Finding]]:
    """Checks the finished slices of a result that have not passed yet as they are.

    What cannot be compared yet, for want of slices or objects, is let pass.

    Returns:
        Number of slices that were checked, and what does not hold.
    """
    rows = result.slices_in_time
    known = Passed(result.url, bounds)
    wrong: list[Finding] = []
    passed: list[SliceRow] = []
    checked = 0
    for at, row in enumerate(rows):
        if known.has(row) or row.name in bounds.accept:
            continue
        checked += 1
        broken = [each for each in _of_slice(result, bounds, rows, at) if not each.holds]
        wrong += broken
        passed += [] if broken else [row]
    known.add(passed)
    return checked, wrong


def _of_slice(
    result: Result, bounds: Bounds, rows: Sequence[SliceRow], at: int
) -> Iterator[Finding]:
    row = rows[at]
    if bounds.failed is not None:
        yield _most(row, "failed", row.failed / max(row.tiles, 1), bounds.failed)
    if bounds.empty is not None:
        yield _most(row, "empty", empty_share(pixels_of(result, [row])[row.name]), bounds.empty)
    if bounds.objects is not None:
        least, most = bounds.objects
        holds = least <= row.objects <= most
        yield Finding(row.name, "objects", row.objects, f"{least} to {most}", holds)
    if bounds.unusual is not None:
        found = deviation(row, [each for each in rows if each is not row])
        if found is not None:
            yield _most(row, "unusual", found, bounds.unusual)
    limits = inspection.Bounds(**{name: getattr(bounds, name) for name in INSPECTED})
    for each in inspection.inspect_slice(result, rows, at, limits):
        measure = " ".join(filter(None, [each.measure, each.zone and f"in {each.zone}"]))
        yield Finding(row.name, measure, each.value, f"at most {each.bound:g}", each.holds)


def _most(row: SliceRow, measure: str, value: float, bound: float) -> Finding:
    return Finding(row.name, measure, value, f"at most {bound:g}", value <= bound)


def empty_share(pixels: NDArray[np.int64]) -> float:
    """Returns the share of pixels without an answer, of those that were asked about, 0..1.

    Args:
        pixels: number of pixels by `Status`.
    """
    asked = pixels.sum() - pixels[Status.OUTSIDE_AOI] - pixels[Status.NO_ANSWER]
    return float(1 - pixels[Status.DONE] / asked) if asked else 0.0


def deviation(row: SliceRow, others: Sequence[SliceRow]) -> float | None:
    """Returns how far a slice's objects a tile are from those of its season.

    In standard deviations of their logarithm, which are estimated by the median of absolute
    deviations (times 1.4826); at least a tenth, so that a season without variation is none with an
    infinite deviation. None if too few slices of the season are known.
    """
    season = [other for other in others if _days_apart(row.start, other.start) <= SEASON_DAYS]
    if len(season) < ENOUGH_SLICES:
        return None
    usual = np.array([_density(other) for other in season])
    middle = float(np.median(usual))
    spread = max(1.4826 * float(np.median(np.abs(usual - middle))), 0.1)
    return abs(_density(row) - middle) / spread


def _density(row: SliceRow) -> float:
    return float(np.log((row.objects + 1) / max(row.tiles - row.failed, 1)))


def _days_apart(one: datetime, other: datetime) -> int:
    """Returns the days between two days of the year, whatever the years."""
    apart = abs(one.timetuple().tm_yday - other.timetuple().tm_yday)
    return min(apart, 366 - apart)

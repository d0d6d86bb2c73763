"""Colours of labels and statuses, the same in pictures, exported files and on the map."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from earthgptx.pipeline.results.store import Status

LABELS = (
    "#06d6a0",
    "#ffd166",
    "#ef476f",
    "#4cc9f0",
    "#f78c6b",
    "#c77dff",
    "#90be6d",
    "#f9c74f",
)
"""Colours of the phrases of a job, in their order, and again from the first on."""
CLEAR = ""
"""Colour of what is not drawn."""
STATUSES = {
    Status.DONE: "#06d6a0",
    Status.OUTSIDE_AOI: CLEAR,
    Status.NO_SOURCE_DATA: "#36414d",
    Status.MASKED: "#9fb3c8",
    Status.QUARANTINED: "#ef476f",
}
SCORES = ((1, "#1e3c78"), (128, "#fad25a"), (255, "#f03c3c"))
"""A ramp over stored scores."""


def colours_of(phrases: Sequence[str], labels: Iterable[str] = ()) -> dict[str, str]:
    """Returns a colour by label: those of the job's phrases, then of other labels by name."""
    names = dict.fromkeys([*phrases, *sorted(set(labels))])
    return {name: LABELS[at % len(LABELS)] for at, name in enumerate(names)}


def rgba(colour: str) -> tuple[int, int, int, int]:
    """Returns a colour, or `CLEAR`, as red, green, blue and opacity, 0 to 255."""
    return (*rgb(colour), 255) if colour else (0, 0, 0, 0)


def rgb(colour: str) -> tuple[int, int, int]:
    """Returns a colour such as #06d6a0 as red, green and blue, 0 to 255."""
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return red, green, blue

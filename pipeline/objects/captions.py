"""Captions of objects that hold on a map, whatever tiles they were seen in.

A caption says what an object is, in the model's words where it has some, its size as it was
measured, how it lies, and where it lies from its neighbours.
"""

from __future__ import annotations

import math
import re

AXES = ("north-south", "north-east to south-west", "east-west", "north-west to south-east")
COMPASS = (
    "north",
    "north-east",
    "east",
    "south-east",
    "south",
    "south-west",
    "west",
    "north-west",
)
LONG = 1.3
"""Ratio of length and width from which an object lies in a direction."""
_SIZED = re.compile(r"\b\d+(\.\d+)? ?m (long|across|wide)\b")
_DIRECTED = re.compile(r"\b(north|south|east|west)\b")


def caption_of(
    words: str,
    label: str,
    length_m: float,
    width_m: float,
    orientation_deg: float,
    same_m: float,
    same_deg: float,
    other: str,
    other_m: float,
    other_deg: float,
) -> str:
    """Returns the caption of an object.

    Args:
        words: what the model says of it; empty for its label alone.
        label: its label.
        length_m: its long side in metres.
        width_m: its short side in metres.
        orientation_deg: direction of the long side, degrees clockwise from north.
        same_m: metres to the nearest other object of its label; NaN for none.
        same_deg: direction in which it lies from there, degrees clockwise from north.
        other: label of the nearest object of another label; empty for none.
        other_m: metres to it.
        other_deg: direction in which it lies from there.
    """
    said = [words or label]
    if not _SIZED.search(words):
        said.append(f"about {length_m:.0f} m long and {width_m:.0f} m wide")
    if length_m > LONG * width_m and not _DIRECTED.search(words):
        said.append(f"lying {AXES[round(orientation_deg / 45) % 4]}")
    if not math.isnan(same_m):
        said.append(f"{_metres(same_m)} {_towards(same_deg)} of the nearest other")
    # Nearer than that it is the same thing, found for another phrase.
    if other and other_m > width_m / 2:
        said.append(f"{_metres(other_m)} {_towards(other_deg)} of the nearest {other}")
    return ", ".join(said)


def _metres(distance: float) -> str:
    return f"{distance:.0f} m" if distance < 10_000 else f"{distance / 1000:.0f} km"


def _towards(degrees: float) -> str:
    return COMPASS[round(degrees / 45) % 8]

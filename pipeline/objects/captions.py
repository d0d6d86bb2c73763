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
ON = (
    "airstrip",
    "apron",
    "bridge",
    "highway",
    "jetty",
    "pier",
    "quay",
    "railway",
    "road",
    "runway",
    "street",
    "taxiway",
    "wharf",
)
"""Last words of landmarks that objects lie on; they lie within all others."""
BESIDE_M = 10.0
"""Distance between an object and a landmark up to which it lies beside it, in metres."""
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
    landmark: bool,
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
        landmark: whether the other is a landmark, and `other_m` the distance from its outline.
    """
    said = [words or label]
    if not _SIZED.search(words):
        said.append(f"about {length_m:.0f} m long and {width_m:.0f} m wide")
    if length_m > LONG * width_m and not _DIRECTED.search(words):
        said.append(f"lying {AXES[round(orientation_deg / 45) % 4]}")
    if not math.isnan(same_m):
        said.append(f"{_metres(same_m)} {_towards(same_deg)} of the nearest other")
    if other:
        there = f"{_metres(other_m)} {_towards(other_deg)} of the nearest {other}"
        if landmark and other_m == 0:
            flat = other.lower().split()[-1].removesuffix("s") in ON
            there = f"{'on' if flat else 'within'} {_indefinite(other)}"
        elif landmark:
            turn = math.radians(other_deg - orientation_deg)
            reach = (length_m * abs(math.cos(turn)) + width_m * abs(math.sin(turn))) / 2
            there = f"beside {_indefinite(other)}" if other_m <= reach + BESIDE_M else there
        said.append(there)
    return ", ".join(said)


def _indefinite(label: str) -> str:
    """Returns a label with its indefinite article; plurals and water have none."""
    if label.lower().endswith(("s", "water")):
        return label
    return f"{'an' if label[0].lower() in 'aeiou' else 'a'} {label}"


def _metres(distance: float) -> str:
    return f"{distance:.0f} m" if distance < 10_000 else f"{distance / 1000:.0f} km"


def _towards(degrees: float) -> str:
    return COMPASS[round(degrees / 45) % 8]

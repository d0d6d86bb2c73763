"""Wording of lessons: counts, plurals, articles, and questions about presence and number."""

from __future__ import annotations

import re

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")

MANY = "more than ten"

PLURALS = {
    "aircraft": "aircraft",
    "person": "people",
    "lorry": "lorries",
    "water": "water",
    "flood water": "flood water",
}

_PLACED = re.compile(r"\s*\bin the (?:(?:upper|middle|lower) (?:left|centre|right)|centre)$")
_COMPANY = re.compile(r"alone|among many|with \w+ more around")
_SIZE = re.compile(r"(?:about )?\d+ m (?:long|across|wide)(?: and \d+ m wide)?")


def counted(name: str, count: int) -> str:
    """Returns a name with its count: `a ship`, `three ships`, or `many ships` above ten."""
    if count == 1:
        return with_article(name)
    return f"{number_word(count) if count <= 10 else 'many'} {plural(name)}"


def how_many(name: str) -> str:
    """Returns the question for the number of objects."""
    return f"how many {plural(name)} are there?"


def is_there(name: str) -> str:
    """Returns the question for presence, answered by yes or no."""
    return f"is there {with_article(name)}?"


def count_word(count: int) -> str:
    """Returns the answer to `how_many`: a word up to ten, `MANY` above."""
    return NUMBERS[count] if count < len(NUMBERS) else MANY


def plural(name: str) -> str:
    """Returns the plural of a name."""
    return PLURALS.get(name, f"{name}s")


def number_word(count: int) -> str:
    """Returns a number as a word up to ten, in digits above."""
    return NUMBERS[count] if count < len(NUMBERS) else str(count)


def lasting(caption: str) -> str:
    """Returns what of an object's caption holds wherever its image is cut.

    Leaves out where in the image the object lies, how many others there are around, and a size that
    is read off the image and not measured.
    """
    kept = []
    for clause in caption.split(", "):
        plain = _PLACED.sub("", clause)
        if plain and not _COMPANY.fullmatch(plain) and not _SIZE.fullmatch(plain):
            kept.append(plain)
    return ", ".join(kept)


def with_article(name: str) -> str:
    """Returns a name with its indefinite article; water has none."""
    if name in ("water", "flood water"):
        return name
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"

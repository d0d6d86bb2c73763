"""Cron expressions of five fields: validated, and as a systemd calendar. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from earthgptx.pipeline.errors import JobError

FIELDS: tuple[tuple[str, int, int], ...] = (
    ("minute", 0, 59),
    ("hour", 0, 23),
    ("day of the month", 1, 31),
    ("month", 1, 12),
    ("day of the week", 0, 7),
)
DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WORD = "[0-9A-Za-z]+"
_PART = re.compile(rf"(?:\*|(?P<low>{_WORD})(?:-(?P<high>{_WORD}))?)(?:/(?P<step>[0-9]+))?")


@dataclass(frozen=True, slots=True)
class Cron:
    """When something runs."""

    text: str
    values: tuple[frozenset[int], ...]
    """Minutes, hours, days of the month, months and days of the week (Sunday is 0)."""
    restricted: tuple[bool, ...]
    """Whether a field is other than `*`."""


def parse_cron(text: str) -> Cron:
    """Parses a cron expression such as `0 6 * * *`.

    Raises:
        JobError: it is none.
    """
    fields = text.split()
    if len(fields) != len(FIELDS):
        raise JobError(
            f"'{text}' is no cron line: it has {len(fields)} fields, not five (minute, hour, day "
            "of the month, month, day of the week); for example: 0 6 * * *"
        )
    values = []
    for field, (name, least, most) in zip(fields, FIELDS, strict=True):
        found = {at for part in field.split(",") for at in _values(text, part, name, least, most)}
        values.append(frozenset(0 if name == FIELDS[4][0] and at == 7 else at for at in found))
    return Cron(" ".join(fields), tuple(values), tuple(field != "*" for field in fields))


def _values(text: str, part: str, name: str, least: int, most: int) -> range:
    found = _PART.fullmatch(part)
    if found is None:
        raise JobError(f"'{text}' is no cron line: {name} '{part}' cannot be read")
    low = _number(text, found["low"], name, least, most) if found["low"] else least
    high = _number(text, found["high"], name, least, most) if found["high"] else None
    if found["step"] and found["low"] and high is None:
        raise JobError(f"'{text}' is no cron line: {name} '{part}' has a step, but no range")
    step = int(found["step"] or 1)
    if step < 1:
        raise JobError(f"'{text}' is no cron line: a step of 0 in {name} '{part}'")
    if high is None:
        high = most if found["low"] is None else low
    if high < low:
        raise JobError(f"'{text}' is no cron line: {name} '{part}' ends before it starts")
    return range(low, high + 1, step)


def _number(text: str, word: str, name: str, least: int, most: int) -> int:
    names = {FIELDS[4][0]: DAYS, FIELDS[3][0]: MONTHS}.get(name, ())
    if word.lower() in names:
        return names.index(word.lower()) + least
    if not word.isdecimal() or not least <= int(word) <= most:
        raise JobError(f"'{text}' is no cron line: {name} {word} is not {least} to {most}")
    return int(word)


def calendar_of(cron: Cron) -> str:
    """Returns a cron expression as systemd's `OnCalendar`.

    Raises:
        JobError: it restricts both the day of the month and of the week, of which cron takes
            either, and systemd both.
    """
    weekdays = cron.values[4]
    if cron.restricted[2] and cron.restricted[4]:
        raise JobError(
            f"'{cron.text}' names days of the month and of the week: cron runs on either, systemd "
            "only on both; make two schedules"
        )
    on = ",".join(DAYS[day].capitalize() for day in sorted(weekdays, key=lambda day: (day - 1) % 7))
    minute, hour, day, month, _ = (
        ",".join(f"{value:02}" for value in sorted(values)) if restricted else "*"
        for values, restricted in zip(cron.values, cron.restricted, strict=True)
    )
    date, time = f"*-{month}-{day}", f"{hour}:{minute}:00"
    return f"{on + ' ' if cron.restricted[4] else ''}{date} {time}"


def check_zone(zone: str) -> None:
    """Lets the name of a time zone pass.

    Raises:
        JobError: it is none.
    """
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise JobError(f"'{zone}' is no time zone; write Etc/UTC or Europe/Berlin") from error

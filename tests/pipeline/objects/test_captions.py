import math
from typing import Any

import pytest

from earthgptx.pipeline.objects.captions import caption_of

ALONE = (math.nan, 0.0, "", math.nan, 0.0, False)


@pytest.mark.parametrize(
    ("words", "measures", "near", "caption"),
    [
        ("", (20, 20, 0), ALONE, "ship, about 20 m long and 20 m wide"),
        ("", (90, 20, 92), ALONE, "ship, about 90 m long and 20 m wide, lying east-west"),
        (
            "",
            (90, 20, 40),
            (1000.4, 200, "", math.nan, 0, False),
            "ship, about 90 m long and 20 m wide, lying north-east to south-west, "
            "1000 m south of the nearest other",
        ),
        (
            "a white ship, moored at a quay, bow to the south",
            (90, 20, 0),
            (12_345, 359, "storage tank", 80, 91, False),
            "a white ship, moored at a quay, bow to the south, about 90 m long and 20 m wide, "
            "12 km north of the nearest other, 80 m east of the nearest storage tank",
        ),
        ("a ship, 80 m long, at anchor", (85, 84, 0), ALONE, "a ship, 80 m long, at anchor"),
        *(
            (f"a ship, {size} m long", (size, 20, 0), (math.nan, 0, other, metres, 91, True), said)
            for size, other, metres, said in [
                (20, "quay", 19.9, "a ship, 20 m long, beside a quay"),
                (20, "quay", 60, "a ship, 20 m long, 60 m east of the nearest quay"),
                (20, "stone quay", 0, "a ship, 20 m long, on a stone quay"),
                (20, "Quays", 0, "a ship, 20 m long, on Quays"),
                (20, "water", 0, "a ship, 20 m long, within water"),
                (20, "Oil port", 0, "a ship, 20 m long, within an Oil port"),
            ]
        ),
        # Moored bow-on, its middle is half its length away.
        (
            "",
            (80, 20, 90),
            (math.nan, 0, "quay", 45, 91, True),
            "ship, about 80 m long and 20 m wide, lying east-west, beside a quay",
        ),
        (
            "",
            (80, 20, 0),
            (math.nan, 0, "quay", 45, 91, True),
            "ship, about 80 m long and 20 m wide, lying north-south, 45 m east of the nearest quay",
        ),
    ],
)
def test_a_caption_says_what_holds_on_a_map(
    words: str,
    measures: tuple[Any, ...],
    near: tuple[Any, ...],
    caption: str,
) -> None:
    assert caption_of(words, "ship", *measures, *near) == caption

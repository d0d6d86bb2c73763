import math
from typing import Any

import pytest

from earthgptx.pipeline.objects.captions import caption_of

ALONE = (math.nan, 0.0, "", math.nan, 0.0)


@pytest.mark.parametrize(
    ("words", "measures", "near", "caption"),
    [
        ("", (20, 20, 0), ALONE, "ship, about 20 m long and 20 m wide"),
        ("", (90, 20, 92), ALONE, "ship, about 90 m long and 20 m wide, lying east-west"),
        (
            "",
            (90, 20, 40),
            (1000.4, 200, "", math.nan, 0),
            "ship, about 90 m long and 20 m wide, lying north-east to south-west, "
            "1000 m south of the nearest other",
        ),
        (
            "a white ship, moored at a quay, bow to the south",
            (90, 20, 0),
            (12_345, 359, "storage tank", 80, 91),
            "a white ship, moored at a quay, bow to the south, about 90 m long and 20 m wide, "
            "12 km north of the nearest other, 80 m east of the nearest storage tank",
        ),
        ("a ship, 80 m long, at anchor", (85, 84, 0), ALONE, "a ship, 80 m long, at anchor"),
    ],
)
def test_a_caption_says_what_holds_on_a_map(
    words: str,
    measures: tuple[Any, ...],
    near: tuple[Any, ...],
    caption: str,
) -> None:
    assert caption_of(words, "ship", *measures, *near) == caption

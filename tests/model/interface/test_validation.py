"""Mistakes in a file are sentences: which key, what is wrong, what is the right name."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError

from earthgptx.model.interface.validation import sentences


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    width: int = Field(gt=0)


Side = Annotated[
    Annotated[Literal["own"], Tag("Own")] | Annotated[float, Field(gt=0), Tag("Number")],
    Discriminator(lambda value: "Own" if isinstance(value, str) else "Number"),
]


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    parts: dict[str, Inner] = {}
    rows: list[Inner] = []
    side: Side = "own"


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({}, "'name' is missing; see the manual"),
        ({"name": "a", "nmae": "b"}, "unknown key 'nmae'; did you mean 'name'?"),
        ({"name": "a", "zzz": 1}, "unknown key 'zzz'; known here: name, parts, rows, side"),
        ({"name": "a", "Name": 1}, "unknown key 'Name'; did you mean 'name'?"),
        ({"name": "a", "parts": {"X": {}}}, "'parts.X.width' is missing; see the manual"),
        ({"name": "a", "side": -1}, "'side': input should be greater than 0 (given: -1)"),
        (
            {"name": "a", "parts": {"x": {"width": 1, "widht": 2}}},
            "unknown key 'parts.x.widht'; did you mean 'width'?",
        ),
        (
            {"name": "a", "rows": [{"width": 1}, {"width": 0}]},
            "'rows.1.width': input should be greater than 0 (given: 0)",
        ),
    ],
)
def test_a_mistake_is_one_sentence(document: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(document)
    assert sentences(caught.value, Outer, missing="see the manual") == [expected]

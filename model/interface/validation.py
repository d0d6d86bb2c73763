"""Turns pydantic's validation errors into readable sentences."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any, get_args

from pydantic import BaseModel, Tag, ValidationError


def sentences(
    error: ValidationError,
    root: type[BaseModel],
    *,
    missing: str = "",
    whole: str = "the document",
) -> list[str]:
    """Returns one sentence per mistake: the key, what is wrong, the nearest right name.

    Args:
        error: error of the validation.
        root: model that was validated.
        missing: where a user finds all keys; follows the sentence about a missing key.
        whole: name of the document, for mistakes that no single key has.
    """
    tags = _tags_in(root)
    found = []
    for each in error.errors():
        *path, last = each["loc"] or (whole,)
        place = [part for part in path if part not in tags]
        if each["type"] == "extra_forbidden" or last not in tags:
            place.append(last)
        key = ".".join(str(part) for part in place)
        if each["type"] == "extra_forbidden":
            names = _names_at(root, place[:-1])
            near = difflib.get_close_matches(str(last), names, n=1, cutoff=0.5)
            hint = f"did you mean '{near[0]}'?" if near else f"known here: {', '.join(names)}"
            found.append(f"unknown key '{key}'; {hint}")
        elif each["type"] == "missing":
            found.append(f"'{key}' is missing" + (f"; {missing}" if missing else ""))
        else:
            message = each["msg"].removeprefix("Value error, ")
            own = each["type"] == "value_error"
            given = "" if own else f" (given: {each['input']!r:.80})"
            found.append(f"'{key}': {message[:1].lower() + message[1:]}{given}")
    return sorted(set(found), key=found.index)


def _names_at(root: type[BaseModel], place: Sequence[int | str]) -> list[str]:
    """Returns the keys that a mapping at a place may have.

    Keys of dicts and numbers of lists in the place are skipped.
    """
    models = {root}
    for part in place:
        fields = [model.model_fields[str(part)] for model in models if part in model.model_fields]
        models = {model for field in fields for model in _models_in(field.annotation)} or models
    fields_here = [item for model in models for item in model.model_fields.items()]
    return sorted({field.alias or name for name, field in fields_here})


def _models_in(annotation: Any) -> set[type[BaseModel]]:
    """Returns the models that an annotation may hold, at any depth."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {annotation}
    return {model for inner in get_args(annotation) for model in _models_in(inner)}


def _tags_in(root: type[BaseModel]) -> set[str]:
    """Returns the tags of all unions in a model: they are parts of a place that no user wrote."""
    tags: set[str] = set()
    models, seen = {root}, set[type[BaseModel]]()
    while models:
        model = models.pop()
        seen.add(model)
        for field in model.model_fields.values():
            tags |= {part.tag for part in _metadata_in(field.annotation) if isinstance(part, Tag)}
            models |= _models_in(field.annotation) - seen
    return tags


def _metadata_in(annotation: Any) -> list[Any]:
    """Returns what `Annotated` adds to an annotation, at any depth."""
    own = list(getattr(annotation, "__metadata__", ()))
    return own + [part for inner in get_args(annotation) for part in _metadata_in(inner)]

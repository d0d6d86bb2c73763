"""Annotated sets in the forms that they come in, each read into records by one small reader. Torch-free.

The readers themselves are in `readers`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from model.errors import DataError
from model.tile import Modality
from model.training.record import Record

Format = Literal[
    "coco",
    "yolo",
    "voc",
    "dota",
    "masks",
    "sen1floods11",
    "scenes",
    "dior-rsvg",
    "rrsis-d",
    "vrsbench",
    "captions",
    "instructions",
]


class SetConfig(BaseModel):
    """One annotated set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    format: Format
    folder: Path
    split: str = ""
    """Name of a list in the folder, or of its JSON file, without suffix; empty for all images."""
    images: str = "images"
    """Folder of the images."""
    labels: str = "labels"
    """Folder of the labels, or of the masks."""
    modality: Modality
    metres_per_pixel: float | None = None
    names: dict[str, str | None] = {}
    """The set's own name or number of a class: our word, or null where its ground is not taught. Where none is given,
    the set's words are ours."""
    absent: tuple[str, ...] = ()
    """Words of which no image of the set has any."""
    parents: dict[str, str] = {}
    """Wider words: car, vehicle."""
    whole: bool = False
    """Whether a mask is ground of one kind and no single objects."""
    licence: str = ""
    evaluation_only: bool = False
    """Whether it must not be learned from."""

    @property
    def words(self) -> tuple[str, ...]:
        """What its objects are called."""
        return tuple(dict.fromkeys(word for word in self.names.values() if word is not None))


def read_set(config: SetConfig) -> list[Record]:
    """All images of a set.

    Raises:
        DataError: a file is missing or is not of its form.
    """
    from model.training.readers import READERS

    try:
        return list(READERS[config.format](config))
    except FileNotFoundError as error:
        raise DataError(f"{config.name}: {error.filename} is missing; check its folder and its split") from error
    except (KeyError, ValueError, IndexError, SyntaxError) as error:
        raise DataError(
            f"{config.name}: {config.folder} is not in the form '{config.format}' ({type(error).__name__}: {error})"
        ) from error

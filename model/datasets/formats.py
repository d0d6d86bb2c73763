"""Configuration of annotated datasets and the formats that can be read. Torch-free.

The readers are in `readers`, one per format.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from earthgptx.model.interface.tile import Modality

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
    """One annotated dataset."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    format: Format
    folder: Path
    split: str = ""
    """Split to read, empty for all images: name without suffix of a list or JSON file in the
    folder, or value of the format's split field. Required by `coco`, ignored by `vrsbench`."""
    images: str = "images"
    """Folder of the images, within `folder`."""
    labels: str = "labels"
    """Folder of the labels or masks, within `folder`."""
    modality: Modality
    metres_per_pixel: float | None = None
    """None where unknown."""
    names: dict[str, str | None] = {}
    """Maps the dataset's name or number of a class to our word, or to null to ignore its pixels. If
    empty, the dataset's own class names are used."""
    absent: tuple[str, ...] = ()
    """Words that have no object in any image of the dataset."""
    parents: dict[str, str] = {}
    """Maps a word to a more general one: car to vehicle."""
    stuff: bool = False
    """Whether each mask is ground of one kind and not single objects."""
    margin_px: float = 0
    """Width in pixels around each mask of which nothing is known, as around a road that is drawn as
    a line of constant width; of `masks` only."""
    licence: str = ""
    evaluation_only: bool = False
    """Whether training on it is forbidden."""

    @property
    def words(self) -> tuple[str, ...]:
        """Our words for the classes that are taught, without duplicates."""
        return tuple(dict.fromkeys(word for word in self.names.values() if word is not None))

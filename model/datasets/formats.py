"""Configuration of annotated datasets and the formats that can be read. Torch-free.

The readers are in `readers`, one per format.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict

from earthgptx.model.interface.tile import Modality

DEV_EVERY = 8
"""Images of a list of which one is in its part `dev`."""
PARTS = ("dev", "rest")
Image = TypeVar("Image")

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
    "refsegrs",
    "geobench-vlm",
]


class SetConfig(BaseModel):
    """One annotated dataset."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    format: Format
    folder: Path
    split: str = ""
    """Split to read, empty for all images: name without suffix of a list or JSON file in the
    folder, or value of the format's split field. Required by `coco`, ignored by `vrsbench`. With
    `:dev` or `:rest` behind the name of a list it is every eighth image of it, or the others: what
    runs are compared by, and what they learn from."""
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
    def listed(self) -> str:
        """Name of the list of the split."""
        return self.split.partition(":")[0]

    def picked(self, images: Sequence[Image]) -> list[Image]:
        """Returns the images of the split, of those that its list names.

        Raises:
            ValueError: the part of the split is neither `dev` nor `rest`.
        """
        part = self.split.partition(":")[2]
        if part not in ("", *PARTS):
            raise ValueError(f"split '{self.split}' is no list, and no part of one: {PARTS}")
        return [
            each
            for at, each in enumerate(images)
            if not part or (at % DEV_EVERY == DEV_EVERY - 1) == (part == "dev")
        ]

    @property
    def words(self) -> tuple[str, ...]:
        """Our words for the classes that are taught, without duplicates."""
        return tuple(dict.fromkeys(word for word in self.names.values() if word is not None))

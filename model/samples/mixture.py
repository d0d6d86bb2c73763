"""Weighted mixture of all sources, sensors and tasks, as numbered samples.

A number always gives the same sample, so any order works and resuming needs no state. Torch-free,
which keeps worker processes small.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from earthgptx.model.datasets.formats import SetConfig
from earthgptx.model.datasets.readers import read_set
from earthgptx.model.datasets.record import Record
from earthgptx.model.datasets.registry import REGISTRY
from earthgptx.model.interface.tile import Modality
from earthgptx.model.interface.zoom_sizes import CROP_PX, FEW_PX, LEAST_PX, TIMES
from earthgptx.model.samples.augment import augmented
from earthgptx.model.samples.copied import may_copy, may_donate, with_copies
from earthgptx.model.samples.questions import sample_from_record
from earthgptx.model.samples.sample import Answer, Describe, Find, Locate, Refer, Sample
from earthgptx.model.synthetic.landscapes import landscape
from earthgptx.model.synthetic.pasted import may_paste, pasted
from earthgptx.model.synthetic.rendered import HOT, WORDS, rendered


class RenderedConfig(BaseModel):
    """The made world, an endless source of rendered images."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rendered: Literal[True]
    weight: float = Field(gt=0)
    modality: Modality | None = None
    """Sensor of the images; None for all three."""


class ReadConfig(BaseModel):
    """An annotated dataset, randomly cropped: given by `set`, or by `known` and `folder`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    set: SetConfig | None = None
    known: str = ""
    """Name of a dataset in the registry; ignored if `set` is given."""
    folder: Path = Path()
    """Folder of the known dataset."""
    split: str = "train"
    """Split of the known dataset."""
    weight: float = Field(gt=0)
    crop: tuple[float, float]
    """Shortest and longest side of a crop for samples of 256 px, in pixels of the image. For other
    samples they grow with the side, so larger samples show more ground."""

    @property
    def sets(self) -> tuple[SetConfig, ...]:
        """Datasets to read."""
        if self.set is not None:
            return (self.set,)
        return tuple(
            each.model_copy(update={"folder": self.folder, "split": self.split})
            for each in REGISTRY[self.known]
        )

    @model_validator(mode="after")
    def _may_be_learned(self) -> ReadConfig:
        if self.set is None and self.known not in REGISTRY:
            raise ValueError(
                f"no set '{self.known}' is known; there are {', '.join(REGISTRY)}, "
                "or describe one under set"
            )
        if only := [each.name for each in self.sets if each.evaluation_only]:
            raise ValueError(f"{only[0]} is for evaluation only and is not learned from")
        return self


SCALELESS_PART = 0.35
"""Fraction of images whose metres per pixel are withheld."""
PASTED_PART = 0.5
"""Fraction of eligible images (`may_paste`) that get drawn aircraft, tanks or ships."""
LANDSCAPES_PART = 0.25
"""Fraction of made-world images of one kind of ground, in sources that include optical."""
COPIED_PART = 0.6
"""Fraction of the crops of a set with objects that may be copied (`may_copy`) that get copies."""
CROPS_PX = 256
"""Side in pixels of the samples that `ReadConfig.crop` refers to."""
SourceConfig = Annotated[
    Annotated[RenderedConfig, Tag("Rendered")] | Annotated[ReadConfig, Tag("Read")],
    Discriminator(lambda value: "Rendered" if "rendered" in dict(value) else "Read"),
]


@dataclass(frozen=True)
class Mixture:
    """Samples by number, drawn from weighted sources."""

    sources: tuple[tuple[SourceConfig, tuple[Record, ...]], ...]
    """Sources, each with its records; the made world has none."""
    seed: int

    @classmethod
    def read(cls, sources: Sequence[SourceConfig], seed: int) -> Mixture:
        """Reads all datasets into memory.

        Raises:
            DataError: a dataset cannot be read.
        """
        held = tuple(
            (source, () if isinstance(source, RenderedConfig) else _read(source))
            for source in sources
        )
        return cls(held, seed)

    @property
    def words(self) -> tuple[str, ...]:
        """Words of the made world and of all configured datasets, sorted."""
        found = {*WORDS, HOT}
        for source, _ in self.sources:
            if isinstance(source, ReadConfig):
                for each in source.sets:
                    found |= {*each.words, *each.parents.values()}
        return tuple(sorted(found))

    def record(self, number: int, px: int) -> Record:
        """Returns the augmented record of a sample, px x px pixels."""
        rng = np.random.default_rng([self.seed, number, 0])
        record = self._drawn(rng, px)
        # Otherwise the model learns that an image without a scale is from a dataset without scales,
        # and holds only objects of these datasets.
        return replace(record, metres_per_pixel=None) if rng.random() < SCALELESS_PART else record

    def _drawn(self, rng: np.random.Generator, px: int) -> Record:
        weights = np.array([source.weight for source, _ in self.sources])
        source, records = self.sources[int(rng.choice(len(weights), p=weights / weights.sum()))]
        if isinstance(source, RenderedConfig):
            photograph = source.modality in (None, "optical") and rng.random() < LANDSCAPES_PART
            seed = int(rng.integers(2**62))
            return augmented(
                landscape(seed, px) if photograph else rendered(seed, px, source.modality), rng
            )
        record = records[int(rng.integers(len(records)))]
        side = float(np.exp(rng.uniform(*np.log(source.crop)))) * px / CROPS_PX
        crop = _crop(record, side, px, rng, holding=0.6)  # most crops should hold an object
        if may_copy(record) and rng.random() < COPIED_PART:
            donors = [other for other in records if may_donate(other, record)]
            if donors:
                donor = donors[int(rng.integers(len(donors)))]
                crop = with_copies(crop, _crop(donor, side, px, rng, holding=1.0), rng)
        if not crop.north_up:
            crop = crop.turned(int(rng.integers(4)), flipped=bool(rng.integers(2)))
        if may_paste(crop) and rng.random() < PASTED_PART:
            crop = pasted(crop, rng)
        return augmented(crop, rng)

    def sample(self, number: int, px: int) -> Sample:
        """Returns the sample of a number, px x px pixels."""
        return sample_from_record(
            self.record(number, px), np.random.default_rng([self.seed, number, 1])
        )

    def zoomed_sample(self, number: int, px: int) -> Sample:
        """Returns an enlarged crop of a record, with the whole image as wider view.

        Inference treats small objects the same way (`model.inference.zoom`).

        Args:
            number: number of the sample.
            px: side of the whole image in pixels, before it is reduced.
        """
        rng = np.random.default_rng([self.seed, number, 2])
        record = self.record(number, px)
        masks = sorted((region.mask for region in record.regions), key=lambda mask: mask.area)
        few = [mask for mask in masks if max(mask.height, mask.width) < FEW_PX] or masks[:8]
        middle = (px / 2, px / 2)
        side = float(LEAST_PX)
        if few:
            mask = few[int(rng.integers(len(few)))]
            # Simulates the errors in size and position of a box predicted from the whole image.
            judged = max(mask.height, mask.width) * float(np.exp(rng.uniform(-0.3, 0.3)))
            y, x = (at + judged * rng.uniform(-0.2, 0.2) for at in (mask.centre.y, mask.centre.x))
            middle = (y, x)
            side = min(max(TIMES * judged, side), px)
        y0, x0 = (float(np.clip(at - side / 2, 0, px - side)) for at in middle)
        near = sample_from_record(record.cropped(y0, x0, side, CROP_PX), rng)
        factor = side / px  # pixels of the reduced image per pixel of the crop
        wide = tuple(
            prompt.zoomed(-y0 * CROP_PX / side, -x0 * CROP_PX / side, factor, CROP_PX, CROP_PX)
            for prompt in near.prompts
        )
        return replace(near, around=(record.cropped(0, 0, px, CROP_PX).pixels, wide))

    def texts(self, count: int) -> list[str]:
        """Returns all words and the texts of the first `count` samples, to train a vocabulary."""
        found: list[str] = list(self.words)
        for number in range(count):
            for lesson in self.sample(number, CROPS_PX).lessons:
                if isinstance(lesson, Find | Locate):
                    found.append(lesson.phrase)
                elif isinstance(lesson, Refer):
                    found += [lesson.label, lesson.caption]
                elif isinstance(lesson, Answer):
                    found += [lesson.question, lesson.answer]
                elif isinstance(lesson, Describe):
                    found += [text for text, _ in lesson.pieces]
        return found


def _read(source: ReadConfig) -> tuple[Record, ...]:
    return tuple(record for each in source.sets for record in read_set(each))


def _crop(
    record: Record, side: float, px: int, rng: np.random.Generator, *, holding: float
) -> Record:
    """Returns a random square crop.

    Args:
        record: image to crop.
        side: side of the square in pixels of the image.
        px: side of the result in pixels.
        rng: random generator.
        holding: probability that the crop is placed around an object, if there is any.
    """
    height, width = record.pixels.shape[1:]
    y0, x0 = (_start(rng, length, side) for length in (height, width))
    if record.regions and rng.random() < holding:
        middle = record.regions[int(rng.integers(len(record.regions)))].mask.centre
        y0, x0 = (
            float(np.clip(at - side * rng.uniform(0.15, 0.85), *sorted((0.0, length - side))))
            for at, length in ((middle.y, height), (middle.x, width))
        )
    return record.cropped(y0, x0, side, px)


def _start(rng: np.random.Generator, length: int, side: float) -> float:
    """Draws the start of a crop along one axis; a crop longer than the image contains all of it."""
    low, high = sorted((0.0, length - side))
    return float(rng.uniform(low, high))

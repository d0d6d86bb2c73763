"""One mixture of all sources, sensors and tasks. A number gives always the same sample: order and resuming are free.

Torch-free, so that workers that only make samples stay small.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from model.focal import CROP_PX, FEW_PX, LEAST_PX, TIMES
from model.tile import Modality
from model.training.augment import augmented
from model.training.datasets import SetConfig, read_set
from model.training.known import KNOWN
from model.training.landscapes import landscape
from model.training.lessons import taught
from model.training.pasted import may_paste, pasted
from model.training.record import Record
from model.training.rendered import HOT, WORDS, rendered
from model.training.samples import Answer, Describe, Find, Locate, Refer, Sample


class RenderedConfig(BaseModel):
    """The made world, without end."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rendered: Literal[True]
    weight: float = Field(gt=0)
    modality: Modality | None = None
    """The one sensor that it is seen by; None for all three."""


class ReadConfig(BaseModel):
    """An annotated set, cropped by chance: one that is described here, or a known one by its name and folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    set: SetConfig | None = None
    known: str = ""
    folder: Path = Path()
    """Of the known set."""
    weight: float = Field(gt=0)
    crop: tuple[float, float]
    """Shortest and longest side of a crop that becomes 256 px, in pixels of the image; larger images see more ground."""

    @property
    def sets(self) -> tuple[SetConfig, ...]:
        """What is read; of a known set its list `train`."""
        if self.set is not None:
            return (self.set,)
        return tuple(each.model_copy(update={"folder": self.folder, "split": "train"}) for each in KNOWN[self.known])

    @model_validator(mode="after")
    def _may_be_learned(self) -> ReadConfig:
        if self.set is None and self.known not in KNOWN:
            raise ValueError(f"no set '{self.known}' is known; there are {', '.join(KNOWN)}, or describe one under set")
        if only := [each.name for each in self.sets if each.evaluation_only]:
            raise ValueError(f"{only[0]} is for evaluation only and is not learned from")
        return self


SCALELESS_PART = 0.35
"""Of all images, of which it is not said how large a pixel is."""
PASTED_PART = 0.5
"""Of the images that may have aircraft, tanks or ships drawn on them."""
LANDSCAPES_PART = 0.25
"""Of the made images, that are of one kind of ground."""
CROPS_PX = 256
"""Side of the images that `ReadConfig.crop` speaks of."""
SourceConfig = Annotated[
    Annotated[RenderedConfig, Tag("Rendered")] | Annotated[ReadConfig, Tag("Read")],
    Discriminator(lambda value: "Rendered" if "rendered" in dict(value) else "Read"),
]


@dataclass(frozen=True)
class Mixture:
    """Samples by number."""

    sources: tuple[tuple[SourceConfig, tuple[Record, ...]], ...]
    """Each with its images; the made world has none."""
    seed: int

    @classmethod
    def read(cls, sources: Sequence[SourceConfig], seed: int) -> Mixture:
        """Read all sets.

        Raises:
            DataError: one cannot be read.
        """
        held = tuple((source, () if isinstance(source, RenderedConfig) else _read(source)) for source in sources)
        return cls(held, seed)

    @property
    def words(self) -> tuple[str, ...]:
        """All that the mixture's objects are called."""
        found = {*WORDS, HOT}
        for source, _ in self.sources:
            if isinstance(source, ReadConfig):
                for each in source.sets:
                    found |= {*each.words, *each.parents.values()}
        return tuple(sorted(found))

    def record(self, number: int, px: int) -> Record:
        """The image of a sample, as it is taught, px x px pixels."""
        rng = np.random.default_rng([self.seed, number, 0])
        record = self._drawn(rng, px)
        # Else what is told of no scale would be taken for the sets of which none is known, and their objects for all.
        return replace(record, metres_per_pixel=None) if rng.random() < SCALELESS_PART else record

    def _drawn(self, rng: np.random.Generator, px: int) -> Record:
        weights = np.array([source.weight for source, _ in self.sources])
        source, records = self.sources[int(rng.choice(len(weights), p=weights / weights.sum()))]
        if isinstance(source, RenderedConfig):
            photograph = source.modality in (None, "optical") and rng.random() < LANDSCAPES_PART
            seed = int(rng.integers(2**62))
            return augmented(landscape(seed, px) if photograph else rendered(seed, px, source.modality), rng)
        record = records[int(rng.integers(len(records)))]
        side = float(np.exp(rng.uniform(*np.log(source.crop)))) * px / CROPS_PX
        height, width = record.pixels.shape[1:]
        y0, x0 = (_start(rng, length, side) for length in (height, width))
        if record.regions and rng.random() < 0.6:  # see something more often than nothing
            middle = record.regions[int(rng.integers(len(record.regions)))].mask.centre
            y0, x0 = (
                float(np.clip(at - side * rng.uniform(0.15, 0.85), *sorted((0.0, length - side))))
                for at, length in ((middle.y, height), (middle.x, width))
            )
        crop = record.cropped(y0, x0, side, px)
        if not crop.north_up:
            crop = crop.turned(int(rng.integers(4)), flipped=bool(rng.integers(2)))
        if may_paste(crop) and rng.random() < PASTED_PART:
            crop = pasted(crop, rng)
        return augmented(crop, rng)

    def sample(self, number: int, px: int) -> Sample:
        """The sample of a number, px x px pixels."""
        return taught(self.record(number, px), np.random.default_rng([self.seed, number, 1]))

    def focal(self, number: int, px: int) -> Sample:
        """A crop of an image, enlarged, with the whole of it beside it: as small objects are asked (`model.focus`)."""
        rng = np.random.default_rng([self.seed, number, 2])
        record = self.record(number, px)
        masks = sorted((region.mask for region in record.regions), key=lambda mask: mask.area)
        few = [mask for mask in masks if max(mask.height, mask.width) < FEW_PX] or masks[:8]
        middle = (px / 2, px / 2)
        side = float(LEAST_PX)
        if few:
            mask = few[int(rng.integers(len(few)))]
            # As far from the truth as an object is that was judged in the whole image.
            judged = max(mask.height, mask.width) * float(np.exp(rng.uniform(-0.3, 0.3)))
            y, x = (at + judged * rng.uniform(-0.2, 0.2) for at in (mask.centre.y, mask.centre.x))
            middle = (y, x)
            side = min(max(TIMES * judged, side), px)
        y0, x0 = (float(np.clip(at - side / 2, 0, px - side)) for at in middle)
        near = taught(record.cropped(y0, x0, side, CROP_PX), rng)
        factor = side / px  # from a pixel of the crop to one of the reduced image
        wide = tuple(
            prompt.zoomed(-y0 * CROP_PX / side, -x0 * CROP_PX / side, factor, CROP_PX, CROP_PX)
            for prompt in near.prompts
        )
        return replace(near, around=(record.cropped(0, 0, px, CROP_PX).pixels, wide))

    def texts(self, count: int) -> list[str]:
        """What is said in the first samples, to learn a vocabulary from."""
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


def _start(rng: np.random.Generator, length: int, side: float) -> float:
    """Where a crop starts along one side; a crop longer than the image holds it somewhere."""
    low, high = sorted((0.0, length - side))
    return float(rng.uniform(low, high))

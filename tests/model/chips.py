"""Twenty made images of unseen seeds, kept as files, so that figures on them do not depend on the
renderer of the day.

`python -m tests.model.chips` writes them anew.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from earthgptx.model.datasets.record import Record, Region
from earthgptx.model.interface.prompt import VisualPrompt
from earthgptx.model.interface.region import Mask
from earthgptx.model.interface.tile import Modality
from earthgptx.model.synthetic.rendered import rendered

FOLDER = Path(__file__).parent / "chips"
SENSORS: tuple[Modality, ...] = ("optical", "sar", "infrared")
COUNT, SIDE, FIRST_SEED = 20, 256, 2**51
MOST_OBJECTS = 24
"""Of an image: a town takes a minute."""


def read_chips() -> list[Record]:
    return [_read(each) for each in json.loads((FOLDER / "chips.json").read_text())]


def _read(told: dict[str, Any]) -> Record:
    regions = []
    for each in told["regions"]:
        mask = VisualPrompt.from_json(each["mask"]).place
        assert isinstance(mask, Mask)
        regions.append(
            Region(
                labels=tuple(each["labels"]),
                mask=mask,
                stuff=each["whole"],
                caption=each["caption"],
            )
        )
    hidden = VisualPrompt.from_json(told["hidden"]).inside(SIDE, SIDE) if told["hidden"] else None
    with Image.open(FOLDER / told["image"]) as image:
        pixels = np.ascontiguousarray(np.moveaxis(np.asarray(image), -1, 0))
    return Record(
        pixels=pixels,
        modality=told["modality"],
        metres_per_pixel=told["metres_per_pixel"],
        regions=tuple(regions),
        complete=frozenset(told["complete"]),
        source="rendered",
        ignored=hidden,
    )


def write_chips() -> None:
    told: list[dict[str, object]] = []
    seed = FIRST_SEED
    while len(told) < COUNT:
        number = len(told)
        record, seed = rendered(seed, SIDE, SENSORS[number % 3]), seed + 1
        if not 2 <= len(record.regions) <= MOST_OBJECTS:
            continue
        name = f"{number:02d}-{record.modality}.png"
        Image.fromarray(np.moveaxis(record.pixels, 0, -1)).save(FOLDER / name, optimize=True)
        regions = [
            {
                "labels": region.labels,
                "whole": region.stuff,
                "caption": region.caption,
                "mask": VisualPrompt(id="", place=region.mask).to_json(),
            }
            for region in record.regions
        ]
        hidden = (
            None
            if record.ignored is None
            else VisualPrompt(id="", place=Mask.from_array(record.ignored)).to_json()
        )
        told.append(
            {
                "image": name,
                "modality": record.modality,
                "metres_per_pixel": round(record.metres_per_pixel or 0, 3),
                "complete": sorted(record.complete),
                "hidden": hidden,
                "regions": regions,
            }
        )
    lines = ",\n".join(json.dumps(each) for each in told)
    (FOLDER / "chips.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    write_chips()

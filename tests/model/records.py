"""Small records for the tests of samples and training."""

import numpy as np

from earthgptx.model.datasets.record import Record, Region
from earthgptx.model.interface.region import Mask
from earthgptx.model.samples.phrases import pictured
from earthgptx.model.samples.sample import Locate

SENSORS = ("optical", "sar", "infrared")


def square(y: int, x: int, side: int = 10) -> Mask:
    return Mask.from_array(np.ones((side, side), bool), y0=y, x0=x)


def a_record(*regions: Region, side: int = 100) -> Record:
    pixels = np.zeros((3, side, side), np.uint8)
    for region in regions:
        pixels[:, region.mask.window(0, 0, side, side)] = 200
    return Record(
        pixels=pixels,
        modality="sar",
        metres_per_pixel=2.0,
        regions=regions,
        complete=frozenset({"ship", "aircraft"}),
    )


def ship(y: int, x: int, side: int = 10) -> Region:
    return Region(labels=("ship", "vessel"), mask=square(y, x, side))


def located(record: Record) -> dict[str, Mask | None]:
    found = pictured(
        record, [each for each in record.regions if not each.stuff], np.random.default_rng(0), 99
    )
    return {each.phrase: each.mask for each in found if isinstance(each, Locate)}

"""Reads datasets into records, with one reader per format. Torch-free.

Boxes stay boxes, rotated boxes become outlines, and texts of a source are kept as they are.
"""

# H W pixels of an image

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from earthgptx.model.datasets.box_readers import (
    read_coco,
    read_dota,
    read_masks,
    read_scenes,
    read_sen1floods11,
    read_voc,
    read_yolo,
)
from earthgptx.model.datasets.formats import Format, SetConfig
from earthgptx.model.datasets.record import Record
from earthgptx.model.datasets.text_readers import (
    read_captions,
    read_geobench_vlm,
    read_instructions,
    read_refsegrs,
    read_rrsis_d,
    read_vrsbench,
)
from earthgptx.model.interface.errors import DataError

READERS: dict[Format, Callable[[SetConfig], Iterator[Record]]] = {
    "coco": read_coco,
    "yolo": read_yolo,
    "voc": read_voc,
    "dota": read_dota,
    "masks": read_masks,
    "sen1floods11": read_sen1floods11,
    "scenes": read_scenes,
    "dior-rsvg": partial(read_voc, described=True),
    "rrsis-d": read_rrsis_d,
    "vrsbench": read_vrsbench,
    "captions": read_captions,
    "instructions": read_instructions,
    "refsegrs": read_refsegrs,
    "geobench-vlm": read_geobench_vlm,
}

LISTED: tuple[Format, ...] = (
    "coco",
    "yolo",
    "voc",
    "dota",
    "masks",
    "sen1floods11",
    "scenes",
    "dior-rsvg",
)
"""Formats whose splits are lists, which may be read in part."""


def read_set(config: SetConfig) -> list[Record]:
    """Reads all records of a dataset.

    Raises:
        DataError: a file is missing or does not have the configured format.
    """
    if config.listed != config.split and config.format not in LISTED:
        raise DataError(
            f"{config.name}: a set in the form '{config.format}' has no parts; leave out "
            f"'{config.split.removeprefix(config.listed)}'"
        )
    try:
        found = list(READERS[config.format](config))
        if not found:
            raise ValueError("there is no image")
        return found
    except FileNotFoundError as error:
        raise DataError(
            f"{config.name}: {error.filename} is missing; check its folder and its split"
        ) from error
    except (
        KeyError,
        ValueError,
        IndexError,
        SyntaxError,
        AttributeError,
        TypeError,
        OSError,
    ) as error:
        raise DataError(
            f"{config.name}: {config.folder} is not in the form '{config.format}' "
            f"({type(error).__name__}: {error})"
        ) from error

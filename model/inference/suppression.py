"""Suppresses duplicates among the boxes that were found for one phrase."""

# N boxes

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from earthgptx.model.interface.region import Box

SAME_IOU = 0.5
"""IoU above which two boxes of a phrase belong to one object."""


def distinct(boxes: Sequence[Box]) -> list[int]:
    """Returns the positions of the boxes that remain after greedy non-maximum suppression.

    A box is dropped if its IoU with an earlier kept box exceeds `SAME_IOU`.

    Args:
        boxes: boxes, the highest-scoring first.
    """
    edges = np.array([(box.x0, box.y0, box.x1, box.y1) for box in boxes]).reshape(-1, 4)
    low = np.maximum(edges[:, None, :2], edges[None, :, :2])
    high = np.minimum(edges[:, None, 2:], edges[None, :, 2:])
    shared = (high - low).clip(min=0).prod(axis=-1)
    area = (edges[:, 2:] - edges[:, :2]).prod(axis=-1)
    same = shared / (area[:, None] + area[None] - shared) > SAME_IOU
    kept: list[int] = []
    for number in range(len(boxes)):
        if not same[number, kept].any():
            kept.append(number)
    return kept

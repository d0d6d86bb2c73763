"""Which few of many objects a picture shows close up: the surest of each label, far apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def chosen(
    labels: Sequence[str], scores: NDArray[np.float64], places: NDArray[np.float64], count: int
) -> list[int]:
    """Returns the positions of the chosen objects.

    Labels take turns, that of the surest object first. Each takes its surest object that is as far
    from those already chosen as the picture has room for, and if there is none, half as far.

    Args:
        labels: labels of the objects.
        scores: (N,) their scores.
        places: (N, 2) their middles, in any unit of length.
        count: largest number to choose.
    """
    if not len(labels):
        return []
    order = np.lexsort([np.arange(len(scores)), -scores])
    turns = list(dict.fromkeys(labels[at] for at in order))
    left = {label: [int(at) for at in order if labels[at] == label] for label in turns}
    room = float(np.ptp(places, axis=0).max()) / np.sqrt(count)
    taken: list[int] = []
    while len(taken) < count and any(left.values()):
        for label in turns:
            if left[label] and len(taken) < count:
                best = _far(left[label], places, taken, room)
                left[label].remove(best)
                taken.append(best)
    return taken


def _far(
    candidates: Sequence[int], places: NDArray[np.float64], taken: Sequence[int], room: float
) -> int:
    """Returns the first candidate with all the room around it, or half of it, and so on."""
    if not taken:
        return candidates[0]
    apart = places[list(candidates)][:, None] - places[list(taken)][None]
    nearest = np.linalg.norm(apart, axis=-1).min(axis=1)
    if nearest.max() <= 0:
        return candidates[0]
    while not (nearest >= room).any():
        room /= 2
    return candidates[int(np.argmax(nearest >= room))]

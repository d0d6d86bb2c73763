"""Models that misbehave on some tiles or on all. Replicas import this module, so it is small."""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from earthgptx.model.interface.tile import TileInput, TileOutput
from earthgptx.pipeline.analysis.cfar import Cfar


def _share(tile: TileInput, share: int) -> bool:
    """Whether a tile is one of about `share` in 1000, by its pixels."""
    return zlib.crc32(tile.pixels.tobytes()) % 1000 < share


class _Bad(Cfar):
    """Misbehaves on some tiles; the class says how and on how many in 1000."""

    how, share = "raise", 0

    def analyse(self, tiles: Sequence[TileInput]) -> list[TileOutput]:
        for tile in tiles:
            if _share(tile, self.share):
                self._misbehave(tile)
        answers = super().analyse(tiles)
        if self.how != "nonsense":
            return answers
        return [
            replace(answer, scores=answer.scores[:, :5]) if _share(tile, self.share) else answer
            for answer, tile in zip(answers, tiles, strict=True)
        ]

    def _misbehave(self, tile: TileInput) -> None:
        if self.how == "raise":
            raise RuntimeError("this tile is too much for me")
        if self.how == "memory":
            raise MemoryError
        if self.how == "kill":
            os._exit(1)
        if self.how == "leak":
            kept = np.ones(3 * 2**30, np.uint8)  # Ray's monitor ends the process meanwhile
            time.sleep(30)
            raise RuntimeError(f"nobody ended me with {kept.nbytes} bytes")
        if self.how == "hang":
            time.sleep(3600)


def _class(how: str, share: int) -> type[_Bad]:
    name = f"{how.title()}{share}"
    made = type(name, (_Bad,), {"how": how, "share": share, "__module__": __name__})
    globals()[name] = made
    return made


HOWS = ("raise", "memory", "kill", "hang", "nonsense")
CLASSES = {
    (how, share): _class(how, share) for how in (*HOWS, "leak") for share in (20, 60, 150, 1000)
}
CAUSES = {
    "raise": "model",
    "nonsense": "model",
    "memory": "memory",
    "leak": "memory",
    "kill": "died",
    "hang": "hung",
}


class SickAfterAWhile(Cfar):
    """One process fails on everything after its first tiles, as after a sticky CUDA error."""

    count = 0
    first = None

    def analyse(self, tiles: Sequence[TileInput]) -> list[TileOutput]:
        self.count += 1
        mark = Path(os.environ["EARTHGPTX_SICK"])
        if self.count == 6:
            try:
                mark.touch(exist_ok=False)
                self.first = True
            except FileExistsError:
                pass
        if self.first:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return super().analyse(tiles)

"""Holes: the quarantined tiles of a run, by block, and whether the job allows as many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from earthgptx.pipeline.engine.scratch import FailedTiles
from earthgptx.pipeline.errors import Outage, RunFailed
from earthgptx.pipeline.job.grid import BlockKey

REASONS = 10
"""Sentences that are kept for the report."""


class Holes:
    """Counts quarantined tiles, of this run and of earlier ones."""

    def __init__(self, share: float, tiles: int, counts: Mapping[BlockKey, FailedTiles]) -> None:
        """Starts with what the ledger says.

        Args:
            share: fraction of tiles that may fail, 0..1.
            tiles: number of all tiles.
            counts: quarantined tiles by block.
        """
        self._share, self._tiles = share, tiles
        self._counts: dict[BlockKey, FailedTiles] = {}
        self.reasons: list[str] = []
        """The last reasons of this run, one sentence each."""
        self.replace(counts)

    def __contains__(self, key: BlockKey) -> bool:
        return key in self._counts

    @property
    def total(self) -> FailedTiles:
        """Number of quarantined tiles, and of those whose cause may pass."""
        counts = self._counts.values()
        return FailedTiles(sum(n.failed for n in counts), sum(n.passing for n in counts))

    @property
    def passing(self) -> set[BlockKey]:
        """Blocks with tiles whose cause may pass."""
        return {key for key, count in self._counts.items() if count.passing}

    def replace(self, counts: Mapping[BlockKey, FailedTiles]) -> None:
        """Counts anew."""
        self._counts = {key: count for key, count in counts.items() if count.failed}

    def note(self, key: BlockKey, count: FailedTiles) -> None:
        """Notes the number of a block's quarantined tiles in place of what was known of it."""
        self.forget([key])
        if count.failed:
            self._counts[key] = count

    def forget(self, keys: Iterable[BlockKey]) -> None:
        """Counts the tiles of blocks as not tried yet."""
        for key in keys:
            self._counts.pop(key, None)

    def explain(self, sentences: Iterable[str]) -> None:
        """Keeps reasons for the report."""
        self.reasons = [*self.reasons, *sentences][-REASONS:]

    def check(self) -> None:
        """Ends the run if more tiles are quarantined than the job allows.

        Raises:
            Outage: for most of them the cause may pass.
            RunFailed: for most of them it does not.
        """
        share, total = self._share, self.total
        if total.failed <= share * max(self._tiles, 1):
            return
        reasons = Counter(sentence.split(": ", 1)[-1] for sentence in self.reasons)
        first = reasons.most_common(1)[0][0] if reasons else "see the group tiles of the result"
        sentence = (
            f"{total.failed} of {self._tiles} tiles failed, more than "
            f"engine.max_failed_fraction {share} allows; the commonest reason: "
            f"{first.rstrip('.')}. Finished blocks are kept"
        )
        if 2 * total.passing > total.failed:
            raise Outage(f"{sentence}; run the same command again to try these tiles again")
        raise RunFailed(sentence)

"""Decides what has to be done of a time slice: what is missing, stale, or borders on such blocks.

Pure: what a block should have seen, what the ledger says that it has, and what is left of its
answers are given as sets and dicts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass

from earthgptx.pipeline.engine.ledger import Entry
from earthgptx.pipeline.job.grid import BlockKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What is left of the answers of a slice's blocks, for what they should have seen."""

    frames: Set[BlockKey]
    """Blocks with the sums around their borders."""
    parts: Set[BlockKey]
    """Blocks with their parts of objects."""
    scores: Set[BlockKey]
    """Blocks with scores that are not committed yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceWork:
    """What has to be done of a slice."""

    infer: frozenset[BlockKey]
    commit: frozenset[BlockKey]
    border: frozenset[BlockKey]
    """Those to commit of which only the pixels near the border change."""
    reopen: frozenset[BlockKey]
    """Committed blocks that have to be committed again."""
    open: frozenset[BlockKey]
    """Blocks whose entry, if they have one, counts no longer: they are new, have seen something
    else, or are tried again."""
    erase: frozenset[BlockKey]
    """Blocks that no Item shows any more."""


def work_of(
    wanted: Mapping[BlockKey, str],
    entries: Mapping[BlockKey, Entry],
    left: Left,
    again: Set[BlockKey] = frozenset(),
) -> SliceWork:
    """Returns what has to be done of a slice.

    Args:
        wanted: content key of each block that Items show.
        entries: what the ledger says.
        left: what is left of answers for these content keys.
        again: blocks to infer again, though they have seen what there is.
    """
    erase = frozenset(entries.keys() - wanted.keys())
    stale = {key for key, content in wanted.items() if not _has_seen(entries.get(key), content)}
    changed = stale | again
    touched = {near for key in changed | erase for near in around(key) if near in wanted}
    # Whatever changes one that is only open is known: its neighbours were opened with it.
    waiting = {key for key in wanted if key not in stale and not entries[key].committed}
    commit = touched | waiting
    bordering = {near for key in commit for near in around(key) if near in wanted}
    infer = set(again)
    infer |= {key for key in stale if key not in left.scores}
    infer |= bordering - left.frames
    infer |= wanted.keys() - left.parts
    return SliceWork(
        infer=frozenset(infer),
        commit=frozenset(commit),
        border=frozenset(commit - changed - infer),
        reopen=frozenset(touched - changed),
        open=frozenset(changed),
        erase=erase,
    )


def around(key: BlockKey) -> Iterator[BlockKey]:
    """Yields a block and the eight around it, whether or not they exist."""
    yield key
    yield from key.neighbours()


def _has_seen(entry: Entry | None, content: str) -> bool:
    return entry is not None and entry.content == content

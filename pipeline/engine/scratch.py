"""Scratch and memory: folders beside the output for the answers about blocks.

Scratch keeps the scores of blocks until they are committed. Memory keeps, as long as the result
lives, what other blocks and a later run need of them: sums at block borders, and objects and their
parts, by time slice. A file carries in its name the content key of what its block has seen, is
written at once, and has a checksum; one that cannot be read counts as missing, and its block is
inferred again. Writes are idempotent, so that a repeated task leaves the same bytes. Uses no
pickles: anybody may have written the files.
"""

from __future__ import annotations

import io
import json
import re
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numcodecs
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from earthgptx.model.interface.answer import Reply
from earthgptx.model.interface.region import Mask
from earthgptx.pipeline.job.grid import BlockKey, Window
from earthgptx.pipeline.objects.blend import Sums
from earthgptx.pipeline.objects.finals import ANSWER, FINAL, REPLY, TILE_REPLY, reply_rows
from earthgptx.pipeline.objects.parts import Part
from earthgptx.pipeline.results.store import Cause, Status
from earthgptx.pipeline.storage.blobs import open_blobs
from earthgptx.pipeline.storage.fence import Fence, FencedBlobs, memory_of, parts_of

KINDS = ("scores", "failed")
"""Kinds of scratch files apart from the lease."""
KEPT = ("frames", "objects")
"""Kinds of files of the memory."""
_KEPT_NAME = re.compile(rf"t\d+/({'|'.join(KEPT)})/[^/]+")
_SEAL = struct.Struct("<4sIQ")
MAGIC = b"EGX1"


class ScratchLost(Exception):
    """Files of blocks in scratch are missing or damaged; the blocks have to be inferred again."""

    def __init__(self, keys: Iterable[BlockKey]) -> None:
        """Sets the blocks whose files are lost."""
        self.keys = tuple(sorted(set(keys)))
        super().__init__(self.keys)

    def __str__(self) -> str:
        return f"scratch of {', '.join(str(key) for key in self.keys[:3])} is missing or damaged"

    def __reduce__(self) -> tuple[object, ...]:
        return ScratchLost, (self.keys,)


@dataclass(frozen=True, slots=True, kw_only=True)
class TileRecord:
    """Outcome of one tile."""

    row: int
    col: int
    status: int
    """A `pipeline.results.store.Status`."""
    seconds: float = 0.0
    label: str = ""
    caption: str = ""
    error: str = ""
    cause: str = ""
    """A `pipeline.results.store.Cause` if the tile is quarantined."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockScores:
    """A block's answers before blending with those of its neighbours."""

    scores: NDArray[np.uint8]
    """(K, h, w) scores of K phrases, blended from the block's own tiles."""
    status: NDArray[np.uint8]
    """(h, w), a `pipeline.results.store.Status` per pixel."""
    tiles: tuple[TileRecord, ...]


@dataclass(frozen=True, slots=True)
class FailedTiles:
    """Number of a block's quarantined tiles, and of those whose cause may pass."""

    failed: int
    passing: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockObjects:
    """What a block has found."""

    finals: pa.Table
    """Rows of `finals.FINAL`: objects that nothing outside the block can change."""
    settled: list[Part]
    """Objects near the border of a zone, which the grid of another zone may show."""
    open: list[Part]
    """Parts of objects, which parts of other blocks may join."""
    answers: pa.Table
    """Rows of `finals.ANSWER`: the block's visual prompts."""
    replies: pa.Table
    """Rows of `finals.TILE_REPLY`: what was asked about the block's tiles in words."""


def count_failed(records: Iterable[TileRecord]) -> FailedTiles:
    """Counts the quarantined tiles among the records of a block."""
    causes = [Cause(each.cause) for each in records if each.status == Status.QUARANTINED]
    return FailedTiles(len(causes), sum(cause.passing for cause in causes))


class Scratch:
    """The folders `NAME.parts` and `NAME.memory` beside an output; writing needs the lease."""

    def __init__(self, output: str, fence: Fence, content_of: Callable[[BlockKey], str]) -> None:
        """Sets the folders, without creating them.

        Args:
            output: URL of the result; ends in .zarr.
            fence: checks the lease before each write.
            content_of: returns the content key of what a block sees.
        """
        self.url, self.memory_url = parts_of(output), memory_of(output)
        self._blobs = FencedBlobs(open_blobs(self.url), fence)
        self._memory = FencedBlobs(open_blobs(self.memory_url), fence)
        self._content_of = content_of

    def there(self, kind: str, keys: Sequence[BlockKey]) -> set[BlockKey]:
        """Returns those blocks of a time slice that have a file of a kind for what they see."""
        if not keys:
            return set()
        folder = f"t{keys[0].time}/{kind}" if kind in KEPT else kind
        names = set(self._folder(kind).names(folder))
        return {key for key in keys if self._name(kind, key) in names}

    def drop(self, kind: str, keys: Iterable[BlockKey]) -> None:
        """Removes files of blocks, for what they see; missing ones are ignored."""
        self._folder(kind).delete([self._name(kind, key) for key in keys])

    def forget_others(self, time: int, keys: Iterable[BlockKey]) -> None:
        """Removes from the memory of a time slice what is not of these blocks and what they see."""
        wanted = {self._name(kind, key) for key in keys for kind in KEPT}
        names = self._memory.names(f"t{time}")
        self._memory.delete([n for n in names if _KEPT_NAME.fullmatch(n) and n not in wanted])

    def clear(self) -> None:
        """Removes all files of a run from scratch; what else lies in the folder stays."""
        for kind in KINDS:
            self._blobs.delete(self._blobs.names(kind))
        self._blobs.tidy()

    def clear_memory(self) -> None:
        """Removes the memory; what else lies in the folder stays."""
        self._memory.delete([n for n in self._memory.names() if _KEPT_NAME.fullmatch(n)])
        self._memory.tidy()

    def _folder(self, kind: str) -> FencedBlobs:
        return self._memory if kind in KEPT else self._blobs

    def _name(self, kind: str, key: BlockKey) -> str:
        file = f"{key}-{self._content_of(key)}"
        return f"t{key.time}/{kind}/{file}" if kind in KEPT else f"{kind}/{file}"

    def put_scores(self, key: BlockKey, block: BlockScores, frame: Iterable[Sums]) -> None:
        """Writes a block's scores, and the sums around its border that its neighbours need."""
        arrays: dict[str, NDArray[Any]] = {}
        for number, piece in enumerate(frame):
            window = piece.window
            arrays[f"window{number}"] = np.array([window.y0, window.x0, window.y1, window.x1])
            arrays[f"sums{number}"], arrays[f"weights{number}"] = piece.scores, piece.weights
        self._put_arrays("frames", key, arrays)
        tiles = np.frombuffer(json.dumps([asdict(tile) for tile in block.tiles]).encode(), np.uint8)
        # Written last, as a block that has scores counts as inferred.
        self._put_arrays(
            "scores", key, {"scores": block.scores, "status": block.status, "tiles": tiles}
        )

    def get_scores(self, key: BlockKey) -> BlockScores:
        """Returns a block's scores.

        Raises:
            ScratchLost: they are missing or damaged.
        """
        with self._arrays("scores", key) as arrays:
            tiles = tuple(TileRecord(**record) for record in json.loads(arrays["tiles"].tobytes()))
            return BlockScores(scores=arrays["scores"], status=arrays["status"], tiles=tiles)

    def get_frame(self, key: BlockKey, own: Window) -> list[Sums]:
        """Returns those sums around a block's border that overlap the window `own`.

        Raises:
            ScratchLost: they are missing or damaged.
        """
        found = []
        with self._arrays("frames", key) as arrays:
            for number in range(sum(name.startswith("window") for name in arrays.files)):
                window = Window(*arrays[f"window{number}"].tolist())
                if not (window & own).empty:
                    sums, weights = arrays[f"sums{number}"], arrays[f"weights{number}"]
                    found.append(Sums(window=window, scores=sums, weights=weights))
        return found

    def drop_scores(self, keys: Iterable[BlockKey]) -> None:
        """Removes the scores of blocks, and the notes of their quarantined tiles."""
        self._blobs.delete([self._name(kind, key) for key in keys for kind in KINDS])

    def put_failed(self, key: BlockKey, failed: FailedTiles) -> None:
        """Notes how many of a block's tiles are quarantined; call this before `put_scores`."""
        if failed.failed:
            self._put("failed", key, json.dumps(asdict(failed)).encode())
        else:
            self.drop("failed", [key])

    def get_failed(self, key: BlockKey) -> FailedTiles:
        """Returns the number of a block's quarantined tiles.

        Raises:
            ScratchLost: the note is missing or damaged.
        """
        with _lost(key):
            return FailedTiles(**json.loads(self._get("failed", key)))

    def put_objects(self, key: BlockKey, found: BlockObjects) -> None:
        """Writes what a block has found."""
        parts = [(part, True) for part in found.settled] + [(part, False) for part in found.open]
        tables = {
            "finals": found.finals,
            "parts": pa.Table.from_pylist(
                [_to_row(part, settled=settled) for part, settled in parts], schema=_PARTS
            ),
            "answers": found.answers,
            "replies": found.replies,
        }
        packed = {name: np.frombuffer(_packed(table), np.uint8) for name, table in tables.items()}
        self._put_arrays("objects", key, packed)

    def get_objects(self, key: BlockKey) -> BlockObjects:
        """Returns what a block has found.

        Raises:
            ScratchLost: it is missing or damaged.
        """
        with self._arrays("objects", key) as arrays, _lost(key):
            rows = _unpacked(arrays["parts"], _PARTS).to_pylist()
            return BlockObjects(
                finals=_unpacked(arrays["finals"], FINAL),
                settled=[_from_row(row) for row in rows if row["settled"]],
                open=[_from_row(row) for row in rows if not row["settled"]],
                answers=_unpacked(arrays["answers"], ANSWER),
                replies=_unpacked(arrays["replies"], TILE_REPLY),
            )

    def get_finals(self, key: BlockKey) -> pa.Table:
        """Returns the final objects of a block, and reads nothing else of it; see `get_objects`."""
        with self._arrays("objects", key) as arrays, _lost(key):
            return _unpacked(arrays["finals"], FINAL)

    def get_answers(self, key: BlockKey) -> pa.Table:
        """Returns the answers to a block's prompts; see `get_objects`."""
        with self._arrays("objects", key) as arrays, _lost(key):
            return _unpacked(arrays["answers"], ANSWER)

    def get_replies(self, key: BlockKey) -> tuple[pa.Table, pa.Table]:
        """Returns the replies about a block's tiles, and its final objects; see `get_objects`."""
        with self._arrays("objects", key) as arrays, _lost(key):
            return _unpacked(arrays["replies"], TILE_REPLY), _unpacked(arrays["finals"], FINAL)

    def _put(self, kind: str, key: BlockKey, data: bytes) -> None:
        seal = _SEAL.pack(MAGIC, zlib.crc32(data), len(data))
        self._folder(kind).put(self._name(kind, key), seal + data)

    def _get(self, kind: str, key: BlockKey) -> bytes:
        """Reads a file.

        Raises:
            FileNotFoundError: the file does not exist.
            ValueError: its content is not what was written.
        """
        name = self._name(kind, key)
        data = self._folder(kind).get(name).data
        if len(data) < _SEAL.size:
            raise ValueError(f"{name} is cut off")
        magic, checksum, size = _SEAL.unpack_from(data)
        content = data[_SEAL.size :]
        if magic != MAGIC or len(content) != size or zlib.crc32(content) != checksum:
            raise ValueError(f"{name} is damaged")
        return content

    def _put_arrays(self, kind: str, key: BlockKey, arrays: dict[str, NDArray[Any]]) -> None:
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        squeezed = numcodecs.Blosc("lz4", clevel=1, shuffle=numcodecs.Blosc.NOSHUFFLE).encode(
            buffer.getbuffer()
        )
        self._put(kind, key, squeezed)

    @contextmanager
    def _arrays(self, kind: str, key: BlockKey) -> Iterator[Any]:
        with _lost(key):
            data = numcodecs.Blosc().decode(self._get(kind, key))
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            yield arrays


@contextmanager
def _lost(key: BlockKey) -> Iterator[None]:
    """Turns what comes of reading a missing or damaged file into `ScratchLost`."""
    try:
        yield
    except (FileNotFoundError, ValueError, KeyError, TypeError, RuntimeError, pa.ArrowException):
        raise ScratchLost([key]) from None


def _packed(table: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table.combine_chunks())
    return sink.getvalue()


def _unpacked(data: NDArray[np.uint8], schema: pa.Schema) -> pa.Table:
    """Returns a table.

    Raises:
        ValueError: it has other columns than the schema.
    """
    table = pa.ipc.open_stream(pa.py_buffer(data)).read_all()
    if table.schema != schema:
        raise ValueError("another schema")
    return table


_PARTS = pa.schema(
    [
        ("settled", pa.bool_()),
        ("label", pa.string()),
        ("score", pa.float64()),
        ("caption", pa.string()),
        ("prompt_ids", pa.list_(pa.string())),
        ("prompted", pa.bool_()),
        ("tile", pa.list_(pa.int64())),
        ("scope", pa.list_(pa.int64())),
        ("cut", pa.bool_()),
        ("at_home", pa.bool_()),
        ("item", pa.string()),
        ("prompt_kind", pa.string()),
        ("window", pa.list_(pa.int64())),
        ("runs", pa.list_(pa.int64())),
        ("replies", pa.list_(REPLY)),
    ]
)


def _to_row(part: Part, *, settled: bool) -> dict[str, object]:
    mask, window = part.mask, part.scope
    return {
        "settled": settled,
        "label": part.label,
        "score": part.score,
        "caption": part.caption,
        "prompt_ids": list(part.prompt_ids),
        "prompted": part.prompted,
        "tile": list(part.tile),
        "scope": [window.y0, window.x0, window.y1, window.x1],
        "cut": part.cut,
        "at_home": part.at_home,
        "item": part.item,
        "prompt_kind": part.prompt_kind,
        "window": [mask.y0, mask.x0, mask.height, mask.width],
        "runs": list(mask.runs),
        "replies": reply_rows(part.replies),
    }


def _from_row(row: dict[str, Any]) -> Part:
    names = ("label", "score", "caption", "prompted", "cut", "at_home", "item", "prompt_kind")
    fields = {name: row[name] for name in names}
    y0, x0, height, width = row["window"]
    row_number, col_number = row["tile"]
    return Part(
        **fields,
        prompt_ids=tuple(row["prompt_ids"]),
        tile=(row_number, col_number),
        scope=Window(*row["scope"]),
        mask=Mask(y0, x0, height, width, tuple(row["runs"])),
        replies=tuple(
            Reply(each["question"], each["reply"], each["likelihood"]) for each in row["replies"]
        ),
    )

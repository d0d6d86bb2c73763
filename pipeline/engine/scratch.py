"""Scratch: durable folder beside the output for the intermediate results of a run.

Keeps block scores, sums at block borders, and objects and their parts until the run is done. Writes
are durable, so that the death of a worker loses no result that it has handed over, and idempotent,
so that a repeated task leaves the same bytes. Uses no pickles: anybody may have written the files.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import fsspec
import numcodecs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from earthgptx.model.interface.region import Mask
from earthgptx.pipeline.job.grid import BlockKey, Window
from earthgptx.pipeline.objects.blend import Sums
from earthgptx.pipeline.objects.parts import Part


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


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockScores:
    """A block's answers before blending with those of its neighbours."""

    scores: NDArray[np.uint8]
    """(K, h, w) scores of K phrases, blended from the block's own tiles."""
    status: NDArray[np.uint8]
    """(h, w), a `pipeline.results.store.Status` per pixel."""
    tiles: tuple[TileRecord, ...]


KINDS = ("scores", "frames", "objects", "trying")
"""Kinds of scratch files apart from the lease; all are removed together with the output."""


class Scratch:
    """The folder `NAME.parts` beside an output."""

    def __init__(self, output: str) -> None:
        """Sets the path of the folder, without creating it.

        Args:
            output: URL of the result; ends in .zarr.
        """
        self.url = output.removesuffix(".zarr") + ".parts"
        self.fs, self.root = fsspec.core.url_to_fs(self.url)

    def path(self, kind: str, name: str) -> str:
        """Returns the path of a file."""
        return f"{self.root}/{kind}/{name}"

    def put(self, kind: str, name: str, data: bytes) -> None:
        """Writes a file atomically; replaces an existing one."""
        path = self.path(kind, name)
        if "file" in self.fs.protocol:
            self.fs.makedirs(f"{self.root}/{kind}", exist_ok=True)
            with self.fs.open(path, "wb", autocommit=False) as file:
                file.write(data)
            file.commit()
        else:
            self.fs.pipe_file(path, data)

    def get(self, kind: str, name: str) -> bytes:
        """Reads a file.

        Raises:
            FileNotFoundError: the file does not exist.
        """
        data: bytes = self.fs.cat_file(self.path(kind, name))
        return data

    def names(self, kind: str) -> set[str]:
        """Returns the names of all files of a kind."""
        self.fs.invalidate_cache()
        try:
            return {
                entry.rsplit("/", 1)[-1]
                for entry in self.fs.ls(f"{self.root}/{kind}", detail=False)
            }
        except FileNotFoundError:
            return set()

    def drop(self, kind: str, names: Iterable[str]) -> None:
        """Removes files; missing ones are ignored."""
        for name in names:
            try:
                self.fs.rm_file(self.path(kind, name))
            except FileNotFoundError:
                continue

    def clear(self) -> None:
        """Removes the folder."""
        self.fs.invalidate_cache()
        if self.fs.exists(self.root):
            self.fs.rm(self.root, recursive=True)

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
            FileNotFoundError: the block has none.
        """
        with self._arrays("scores", key) as arrays:
            tiles = tuple(TileRecord(**record) for record in json.loads(arrays["tiles"].tobytes()))
            return BlockScores(scores=arrays["scores"], status=arrays["status"], tiles=tiles)

    def get_frame(self, key: BlockKey, own: Window) -> list[Sums]:
        """Returns those sums around a block's border that overlap the window `own`.

        Raises:
            FileNotFoundError: the block has no sums.
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
        """Removes the scores of blocks, and the sums around their borders."""
        names = [str(key) for key in keys]
        self.drop("scores", names)
        self.drop("frames", names)

    def _put_arrays(self, kind: str, key: BlockKey, arrays: dict[str, NDArray[Any]]) -> None:
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        squeezed = numcodecs.Blosc("lz4", clevel=1, shuffle=numcodecs.Blosc.NOSHUFFLE).encode(
            buffer.getbuffer()
        )
        self.put(kind, str(key), squeezed)

    def _arrays(self, kind: str, key: BlockKey) -> Any:
        return np.load(
            io.BytesIO(numcodecs.Blosc().decode(self.get(kind, str(key)))), allow_pickle=False
        )

    def put_parts(self, key: BlockKey, settled: list[Part], open_parts: list[Part]) -> None:
        """Writes a block's final objects, and the parts that may extend into other blocks."""
        rows = [_to_row(part, settled=True) for part in settled] + [
            _to_row(part, settled=False) for part in open_parts
        ]
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows, schema=_PARTS), buffer, compression="zstd")
        self.put("objects", f"{key}.parquet", buffer.getvalue())

    def get_parts(self, key: BlockKey) -> tuple[list[Part], list[Part]]:
        """Returns a block's final objects, and the parts that may extend into other blocks.

        Raises:
            FileNotFoundError: the block has none.
        """
        rows = pq.read_table(io.BytesIO(self.get("objects", f"{key}.parquet"))).to_pylist()
        return [_from_row(row) for row in rows if row["settled"]], [
            _from_row(row) for row in rows if not row["settled"]
        ]


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
        ("window", pa.list_(pa.int64())),
        ("runs", pa.list_(pa.int64())),
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
        "window": [mask.y0, mask.x0, mask.height, mask.width],
        "runs": list(mask.runs),
    }


def _from_row(row: dict[str, Any]) -> Part:
    fields = {
        name: row[name] for name in ("label", "score", "caption", "prompted", "cut", "at_home")
    }
    y0, x0, height, width = row["window"]
    row_number, col_number = row["tile"]
    return Part(
        **fields,
        prompt_ids=tuple(row["prompt_ids"]),
        tile=(row_number, col_number),
        scope=Window(*row["scope"]),
        mask=Mask(y0, x0, height, width, tuple(row["runs"])),
    )

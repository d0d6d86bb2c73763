"""What a run keeps beside its output until it is done: scores at block borders, and parts of objects.

Durable, so that a worker's death loses nothing that it had handed over; idempotent, so that work
done twice leaves the same bytes. No pickles: what is read back may have been written by anybody.
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

from model.region import Mask
from pipeline.assemble import Part, Sums
from pipeline.grid import BlockKey, Window


@dataclass(frozen=True, slots=True, kw_only=True)
class TileRecord:
    """What became of one tile."""

    row: int
    col: int
    status: int
    """A `pipeline.store.Status`."""
    seconds: float = 0.0
    label: str = ""
    caption: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockScores:
    """A block's answers before its neighbours' are added."""

    scores: NDArray[np.uint8]
    """(K, h, w), blended from the block's own tiles."""
    status: NDArray[np.uint8]
    """(h, w), a `pipeline.store.Status` per pixel."""
    tiles: tuple[TileRecord, ...]


KINDS = ("scores", "frames", "objects", "trying")
"""What a run keeps; all of it goes when the output goes."""


class Scratch:
    """The folder `NAME.parts` beside an output."""

    def __init__(self, output: str) -> None:
        """Name the folder; nothing is created.

        Args:
            output: URL of the result, ends in .zarr.
        """
        self.url = output.removesuffix(".zarr") + ".parts"
        self.fs, self.root = fsspec.core.url_to_fs(self.url)

    def path(self, kind: str, name: str) -> str:
        """Where something is kept."""
        return f"{self.root}/{kind}/{name}"

    def put(self, kind: str, name: str, data: bytes) -> None:
        """Write whole or not at all; what was there is replaced."""
        path = self.path(kind, name)
        if "file" in self.fs.protocol:
            self.fs.makedirs(f"{self.root}/{kind}", exist_ok=True)
            with self.fs.open(path, "wb", autocommit=False) as file:
                file.write(data)
            file.commit()
        else:
            self.fs.pipe_file(path, data)

    def get(self, kind: str, name: str) -> bytes:
        """Read back.

        Raises:
            FileNotFoundError: it is not there.
        """
        data: bytes = self.fs.cat_file(self.path(kind, name))
        return data

    def names(self, kind: str) -> set[str]:
        """What is there of a kind."""
        self.fs.invalidate_cache()
        try:
            return {entry.rsplit("/", 1)[-1] for entry in self.fs.ls(f"{self.root}/{kind}", detail=False)}
        except FileNotFoundError:
            return set()

    def drop(self, kind: str, names: Iterable[str]) -> None:
        """Remove; what is not there is passed over."""
        for name in names:
            try:
                self.fs.rm_file(self.path(kind, name))
            except FileNotFoundError:
                continue

    def clear(self) -> None:
        """Remove the folder."""
        self.fs.invalidate_cache()
        if self.fs.exists(self.root):
            self.fs.rm(self.root, recursive=True)

    def put_scores(self, key: BlockKey, block: BlockScores, frame: Iterable[Sums]) -> None:
        """Keep a block's scores, and the sums around its border that its neighbours need."""
        arrays: dict[str, NDArray[Any]] = {}
        for number, piece in enumerate(frame):
            window = piece.window
            arrays[f"window{number}"] = np.array([window.y0, window.x0, window.y1, window.x1])
            arrays[f"sums{number}"], arrays[f"weights{number}"] = piece.scores, piece.weights
        self._put_arrays("frames", key, arrays)
        tiles = np.frombuffer(json.dumps([asdict(tile) for tile in block.tiles]).encode(), np.uint8)
        # Last: a block that has scores is inferred.
        self._put_arrays("scores", key, {"scores": block.scores, "status": block.status, "tiles": tiles})

    def get_scores(self, key: BlockKey) -> BlockScores:
        """A block's scores.

        Raises:
            FileNotFoundError: the block has none.
        """
        with self._arrays("scores", key) as arrays:
            tiles = tuple(TileRecord(**record) for record in json.loads(arrays["tiles"].tobytes()))
            return BlockScores(scores=arrays["scores"], status=arrays["status"], tiles=tiles)

    def get_frame(self, key: BlockKey, own: Window) -> list[Sums]:
        """The sums around a block's border, those pieces that meet a window.

        Raises:
            FileNotFoundError: the block has none.
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
        """Remove blocks' scores and frames."""
        names = [str(key) for key in keys]
        self.drop("scores", names)
        self.drop("frames", names)

    def _put_arrays(self, kind: str, key: BlockKey, arrays: dict[str, NDArray[Any]]) -> None:
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        squeezed = numcodecs.Blosc("lz4", clevel=1, shuffle=numcodecs.Blosc.NOSHUFFLE).encode(buffer.getbuffer())
        self.put(kind, str(key), squeezed)

    def _arrays(self, kind: str, key: BlockKey) -> Any:
        return np.load(io.BytesIO(numcodecs.Blosc().decode(self.get(kind, str(key)))), allow_pickle=False)

    def put_parts(self, key: BlockKey, settled: list[Part], open_parts: list[Part]) -> None:
        """Keep a block's objects: those that are final, and parts that other blocks may go on with."""
        rows = [_to_row(part, settled=True) for part in settled] + [_to_row(part, settled=False) for part in open_parts]
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows, schema=_PARTS), buffer, compression="zstd")
        self.put("objects", f"{key}.parquet", buffer.getvalue())

    def get_parts(self, key: BlockKey) -> tuple[list[Part], list[Part]]:
        """A block's settled objects and its open parts.

        Raises:
            FileNotFoundError: the block has none.
        """
        rows = pq.read_table(io.BytesIO(self.get("objects", f"{key}.parquet"))).to_pylist()
        return [_from_row(row) for row in rows if row["settled"]], [
            _from_row(row) for row in rows if not row["settled"]
        ]


_PARTS = pa.schema(
    [
        ("settled", pa.bool_()), ("label", pa.string()), ("score", pa.float64()), ("caption", pa.string()),
        ("prompt_ids", pa.list_(pa.string())), ("prompted", pa.bool_()), ("tile", pa.list_(pa.int64())),
        ("view", pa.list_(pa.int64())), ("cut", pa.bool_()), ("at_home", pa.bool_()),
        ("window", pa.list_(pa.int64())), ("runs", pa.list_(pa.int64())),
    ]
)  # fmt: skip


def _to_row(part: Part, *, settled: bool) -> dict[str, object]:
    mask, view = part.mask, part.view
    return {
        "settled": settled, "label": part.label, "score": part.score, "caption": part.caption,
        "prompt_ids": list(part.prompt_ids), "prompted": part.prompted, "tile": list(part.tile),
        "view": [view.y0, view.x0, view.y1, view.x1], "cut": part.cut, "at_home": part.at_home,
        "window": [mask.y0, mask.x0, mask.height, mask.width], "runs": list(mask.runs),
    }  # fmt: skip


def _from_row(row: dict[str, Any]) -> Part:
    fields = {name: row[name] for name in ("label", "score", "caption", "prompted", "cut", "at_home")}
    y0, x0, height, width = row["window"]
    row_number, col_number = row["tile"]
    return Part(
        **fields,
        prompt_ids=tuple(row["prompt_ids"]),
        tile=(row_number, col_number),
        view=Window(*row["view"]),
        mask=Mask(y0, x0, height, width, tuple(row["runs"])),
    )

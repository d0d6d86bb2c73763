"""What a GPU gives: nano in bf16 by size of the batch, answers to many prompts, and a whole job.

Made for a bare machine with torch and this package, in two minutes; without a GPU it runs on the
processor and says so. The peer of a job is the model alone: as many tiles of the same kind through
the analyst, one batch after the other, both without the start of Ray and the model.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.generation import batched, ours, prompts, tiles
from benchmarks.model import ask, wait
from benchmarks.report import arguments, report
from earthgptx import plan, run
from earthgptx.model.checkpoint.weights import untrained
from earthgptx.model.inference.analyst import source
from earthgptx.model.interface.tile import TileInput
from earthgptx.model.network.earthgptx import EarthGPTX
from earthgptx.pipeline.engine.pool import ReplicaPool
from tests.archive import Archive, targets

PHRASES = ("ship", "storage tank", "building")


def by_batch(model: EarthGPTX, side: int, sizes: tuple[int, ...]) -> dict[str, float | str]:
    """Milliseconds a tile of one pass over prompts, phrases and a caption, by size of the batch."""
    found: dict[str, float | str] = {}
    for size in sizes:
        images = tiles(size, side)
        ask(model, images, side)  # kernels are chosen and memory is taken once
        wait()
        began = time.perf_counter()
        ask(model, images, side)
        wait()
        found[f"ms_per_tile_batch_{size}"] = 1000 * (time.perf_counter() - began) / size
    return found


def generation(model: EarthGPTX, side: int, many: int) -> dict[str, float | str]:
    """Answers a second of our decoding, and of `generate` over a shared prefix."""
    images, prompted = tiles(4, side), [prompts(tile, many, side) for tile in range(4)]
    ours(model, images[:1], prompted[:1])
    rate, _ = ours(model, images, prompted)
    shared, _ = batched(model, images, prompted, apart=False)
    return {f"prompts_s_ours_{many}": rate, f"ratio_to_batched_shared_prefix_{many}": rate / shared}


def job(folder: Path, side: int) -> tuple[float, int]:
    """Seconds of a job over a made scene, on a replica that has done one before; its tiles."""
    archive = Archive(folder / "archive")
    archive.add("a", targets(1, (side, side), side * side // 6000), nodata=None)
    archive.save()
    spec = archive.job(
        folder / "out.zarr",
        model="nano",
        tasks={"find": list(PHRASES)},
        engine={"replicas": 1},
        grid={"tile_px": 512, "halo_px": 64, "block_px": 1536},
    )
    with ReplicaPool(spec.engine) as pool:
        run(plan(spec), pool=pool)  # Ray and the model start
        again = spec.model_copy(update={"output": f"{folder}/again.zarr"})
        began = time.perf_counter()
        done = run(plan(again), pool=pool)
        return time.perf_counter() - began, done.tiles


def bare(count: int) -> float:
    """Seconds that the model alone takes for as many tiles."""
    analyst = source("nano").load()
    whole = targets(1, (4096, 4096), 4096 * 4096 // 6000)
    rows = whole.shape[0] // 512
    valid = np.ones((512, 512), bool)
    asked = [
        TileInput(
            pixels=np.stack([_piece(whole, at % rows**2, rows)] * 3),
            valid=valid,
            wanted=valid,
            modality="sar",
            metres_per_pixel=10.0,
            phrases=PHRASES,
            prompts=(),
            names=(),
            describe=False,
            caption=True,
        )
        for at in range(count)
    ]
    analyst.analyse(asked[:4])
    wait()
    began = time.perf_counter()
    for start in range(0, count, 4):
        analyst.analyse(asked[start : start + 4])
    wait()
    return time.perf_counter() - began


def _piece(whole: np.ndarray, number: int, rows: int) -> np.ndarray:
    y, x = 512 * (number // rows), 512 * (number % rows)
    return np.ascontiguousarray(whole[y : y + 512, x : x + 512])


def main() -> None:
    args = arguments(__doc__)
    model = untrained("tiny" if args.quick else "nano").eval()
    if torch.cuda.is_available():
        model.to("cuda", torch.bfloat16)
    side, sizes = (128, (1, 2)) if args.quick else (512, (1, 4, 16, 64))
    figures: dict[str, float | str] = {"device": str(model.device)}
    figures |= by_batch(model, side, sizes)
    figures |= generation(model, side, 8 if args.quick else 64)
    if torch.cuda.is_available():
        figures["gpu"] = torch.cuda.get_device_name()
        figures["peak_gpu_memory_mb"] = torch.cuda.max_memory_allocated() / 2**20
    with tempfile.TemporaryDirectory() as name:
        seconds, count = job(Path(name), 700 if args.quick else 6144)
    alone = bare(count)
    figures |= {"job_s": seconds, "job_tiles": float(count), "model_alone_s": alone}
    figures["job_ratio_to_model_alone"] = seconds / alone
    report("nano on a GPU", figures, args.json)


if __name__ == "__main__":
    main()

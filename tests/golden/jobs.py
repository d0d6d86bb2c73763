"""Two small jobs and the digests of all that they leave; run as a module, it prints the digests as
JSON.

The environment of `PORTABLE` keeps every library to instructions that any x86-64 processor of the
last ten years has, so that the digests do not depend on the machine.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import shapely
import zarr

from earthgptx import JobSpec, open_result, plan, run
from earthgptx.pipeline.engine.pool import ReplicaPool
from earthgptx.workflows.sample import make_sample
from tests.archive import Archive, every_kind_of_prompt, targets

UNLIKE = (
    "tiles/seconds",
    "slices/key",
    "slices/track_key",
    "slices/object_digest",
    "blocks/record",
    "slices/bytes",
    "slices/answer_bytes",
    "slices/reply_bytes",
)
"""Clocks; content keys, which know where the imagery lies; sizes and hashes of compressed files."""
PORTABLE = {
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_CBWR": "COMPATIBLE",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "OPENBLAS_CORETYPE": "Haswell",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}


def main(folder: Path) -> None:
    jobs = {
        "cfar-over-the-sample": over_the_sample(folder),
        "tiny-with-prompts": with_prompts(folder),
    }
    with ReplicaPool(next(iter(jobs.values())).engine) as pool:
        for spec in jobs.values():
            report = run(plan(spec), pool=pool)
            assert not report.failed_tiles, report.failures
    print(json.dumps({name: digests(spec.output) for name, spec in jobs.items()}))


def over_the_sample(folder: Path) -> JobSpec:
    """CFAR in SAR over two UTM zones of the made coast, with prompts of its own."""
    catalog = make_sample(folder / "sample")
    return JobSpec.from_dict(
        {
            "name": "sample",
            "source": {
                "catalog": str(catalog),
                "collections": ["sample-sar"],
                "aoi": {"bbox": [5.96, 42.98, 6.03, 43.01]},
                "time": "2026-01-01/2026-02-28",
            },
            "slices": "month",
            "grid": {"block_px": 768},
            "prompts": {"from": "cfar"},
            "tasks": {"find": ["ship"], "refer": True, "describe": True, "keep_scores": True},
            "output": str(folder / "sample.zarr"),
        }
    )


def with_prompts(folder: Path) -> JobSpec:
    """The untrained tiny model over a noisy scene, asked about a prompt of every kind."""
    archive = Archive(folder / "archive")
    archive.add("a", targets(5, (400, 500), 20), nodata=None)
    archive.save()

    shapes = every_kind_of_prompt(archive)
    prompts = folder / "prompts.parquet"
    frame = gpd.GeoDataFrame({"id": list(shapes)}, geometry=list(shapes.values()), crs="EPSG:32631")
    frame.to_parquet(prompts)
    return archive.job(
        folder / "tiny.zarr",
        model="tiny",
        grid={"tile_px": 256, "halo_px": 64, "block_px": 256},
        prompts={"from": str(prompts)},
        tasks={
            "find": ["ship", "tank"],
            "refer": True,
            "describe": True,
            "ask": ["how many ships are there?", {"question": "what is this?", "of": "objects"}],
        },
    )


def digests(url: str) -> dict[str, str]:
    """SHA-256 of every array of a result, and of its table of objects; 16 digits each."""
    root = zarr.open_group(url, mode="r")
    arrays = {
        path: node for path, node in root.members(max_depth=None) if isinstance(node, zarr.Array)
    }
    found = {
        path: _digest(array[...]) for path, array in arrays.items() if not path.endswith(UNLIKE)
    }
    objects = open_result(url).objects
    table = objects.drop(columns="geometry").round(6).to_csv(index=False)
    outlines = [_digest(np.round(shapely.get_coordinates(shape), 9)) for shape in objects.geometry]
    found["objects.parquet"] = _hashed(table.encode(), "".join(outlines).encode())
    return dict(sorted(found.items()))


def _digest(values: Any) -> str:
    values = np.asarray(values)
    if values.dtype.kind == "T":
        data = "\0".join(_rounded(text) for text in values.ravel().tolist()).encode()
    else:
        # The last digits of sines and cosines are a library's own.
        data = (np.round(values, 6) + 0.0 if values.dtype.kind == "f" else values).tobytes()
    return _hashed(f"{values.shape} {values.dtype.kind}".encode(), data)


def _rounded(text: str) -> str:
    """An outline in WKB with its coordinates rounded; any other text as it is."""
    try:
        shape = shapely.from_wkb(text)
    except shapely.GEOSException:
        return text
    return "empty" if shape is None else repr(np.round(shapely.get_coordinates(shape), 9).tolist())


def _hashed(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


if __name__ == "__main__":
    main(Path(sys.argv[1]))

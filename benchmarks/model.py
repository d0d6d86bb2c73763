"""Milliseconds per tile by part, its share, and peak memory: tiles of mixed sensors with prompts,
phrases and captions.

Objects are kept from the score on from which a job keeps them. `ms_per_tile_all_scores` keeps those
that average precision counts too: of untrained weights some hundreds a tile.

The parts are timed in one pass through `Session`, by a clock around each of them; a GPU is waited
for. The share of the five heaviest operators is torch's profiler's, in a pass of its own.
"""

from __future__ import annotations

import resource
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.generation import SENSORS, prompts, tiles
from benchmarks.report import arguments, report
from earthgptx.model.checkpoint.weights import untrained
from earthgptx.model.inference.analyst import MIN_SCORE
from earthgptx.model.inference.session import LEAST_SCORE, Session
from earthgptx.model.interface.allocator import tune_allocator
from earthgptx.model.network.earthgptx import EarthGPTX

PHRASES = ("ship", "storage tank", "building")
PROMPTS = 16
COMPARED = ("ground", "heat", "judge", "masks_within")
"""Methods of the perception module besides `forward`."""


def wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def clocked(spent: dict[str, float], name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    def timed(*args: Any, **more: Any) -> Any:
        wait()
        started = time.perf_counter()
        answer = call(*args, **more)
        wait()
        spent[name] += time.perf_counter() - started
        return answer

    return timed


def ask(model: EarthGPTX, images: torch.Tensor, side: int, least: float = MIN_SCORE) -> None:
    sensors = [SENSORS[number % 3] for number in range(len(images))]
    session = Session(
        model, images, sensors, [prompts(tile, PROMPTS, side) for tile in range(len(images))]
    )
    session.find([PHRASES] * len(images), least)
    session.refer(PHRASES)
    session.describe()


def by_part(model: EarthGPTX, images: torch.Tensor, side: int) -> tuple[dict[str, float], float]:
    """Seconds of each part, and of all together."""
    spent: dict[str, float] = defaultdict(float)
    named: dict[str, nn.Module] = {
        "convolutional encoder": model.encoders.conv,
        "transformer encoder": model.encoders.vit,
        "prompt encoder": model.spatial,
        "hybrid block": model.hybrid,
        "language model": model.language,
        "perception": model.perception,
    }
    plain = {name: part.forward for name, part in named.items()}
    methods = {"pixels": "features for masks"} | dict.fromkeys(COMPARED, "perception")
    for name, part in named.items():
        part.forward = clocked(spent, name, plain[name])
    for method, name in methods.items():
        setattr(model.perception, method, clocked(spent, name, getattr(model.perception, method)))
    wait()
    started = time.perf_counter()
    ask(model, images, side)
    wait()
    total = time.perf_counter() - started
    for name, part in named.items():
        part.forward = plain[name]
    for method in methods:
        delattr(model.perception, method)
    spent["the rest"] = total - sum(spent.values())
    return dict(spent), total


def main() -> None:
    args = arguments(__doc__)
    tune_allocator()
    model = untrained("tiny" if args.quick else "nano")
    side, count = (128, 2) if args.quick else (512, 8)
    if torch.cuda.is_available():
        model.to("cuda", torch.bfloat16)
    images = tiles(count, side)
    ask(model, images, side)
    spent, total = by_part(model, images, side)
    started = time.perf_counter()
    ask(model, images, side, LEAST_SCORE)
    wait()
    all_scores = time.perf_counter() - started
    figures: dict[str, float | str] = {
        "device": str(model.device),
        "ms_per_tile": 1000 * total / count,
        "ms_per_tile_all_scores": 1000 * all_scores / count,
    }
    for name, seconds in sorted(spent.items(), key=lambda each: -each[1]):
        key = name.replace(" ", "_")
        figures |= {f"ms_per_tile_{key}": 1000 * seconds / count, f"share_{key}": seconds / total}
    figures["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    kinds = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])
    with profile(activities=kinds) as profiled:
        ask(model, images, side)
    operators = sorted(profiled.key_averages(), key=lambda each: -each.self_cpu_time_total)
    whole = sum(each.self_cpu_time_total for each in operators)
    figures |= {
        f"operator_share_{each.key}": each.self_cpu_time_total / whole for each in operators[:5]
    }
    if torch.cuda.is_available():
        figures["peak_gpu_memory_mb"] = torch.cuda.max_memory_allocated() / 2**20
    title = (
        f"{count} tiles of {side} px: {PROMPTS} prompts, {len(PHRASES)} phrases and a caption each"
    )
    report(title, figures, args.json)


if __name__ == "__main__":
    main()

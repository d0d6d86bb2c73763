"""Many prompts of a tile: one at a time as published models do, batched `generate`, and ours.

The same weights (nano, untrained), tiles and prompts. (a) encodes the image again for every prompt and calls
transformers' `generate`; (b) encodes it once and calls `generate` for all prompts of a tile; (c) is
`model.generate.decode`. Every answer is 24 tokens long, since untrained weights never end one. (a) is timed on some of
the prompts.
"""

from __future__ import annotations

import time

import numpy as np
import torch

from benchmarks.report import arguments, report
from model.earthgptx import EarthGPTX, Encoded
from model.generate import decode, remember
from model.memory import keep_memory
from model.prompt import VisualPrompt
from model.region import Box
from model.weights import untrained

TOKENS = 24
SENSORS = ("optical", "sar", "infrared")


def tiles(count: int, side: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 255, (count, 3, side, side)).astype(np.uint8))


def prompts(tile: int, count: int, side: int) -> list[VisualPrompt]:
    noise = np.random.default_rng([tile, count])
    made = []
    for number in range(count):
        x, y = noise.uniform(0, side - 40, 2)
        made.append(VisualPrompt(id=str(number), place=Box(x, y, x + noise.uniform(8, 40), y + noise.uniform(8, 40))))
    return made


def generated(model: EarthGPTX, encoded: Encoded, image: int, names: list[str]) -> list[list[int]]:
    branches = [model.refer(image, name) for name in names]
    embeds = torch.stack([torch.cat([encoded.prefix[image], model.embed(encoded, branch)]) for branch in branches])
    said = model.language.causal.generate(
        inputs_embeds=embeds, attention_mask=torch.ones(embeds.shape[:2], dtype=torch.long, device=embeds.device),
        max_new_tokens=TOKENS, min_new_tokens=TOKENS, do_sample=False, pad_token_id=0,
    )  # fmt: skip
    return [row.tolist() for row in said]


@torch.inference_mode()
def one_at_a_time(model: EarthGPTX, images: torch.Tensor, asked: list[list[VisualPrompt]], most: int) -> float:
    started, done = time.perf_counter(), 0
    for number, each in enumerate(asked):
        for prompt in each[: max(most // len(asked), 1)]:
            encoded = model.encode(images[number : number + 1], [SENSORS[number % 3]], [[prompt]])
            generated(model, encoded, 0, [prompt.id])
            done += 1
    return done / (time.perf_counter() - started)


@torch.inference_mode()
def batched(model: EarthGPTX, images: torch.Tensor, asked: list[list[VisualPrompt]]) -> tuple[float, list[list[int]]]:
    started, said = time.perf_counter(), []
    for number, each in enumerate(asked):
        encoded = model.encode(images[number : number + 1], [SENSORS[number % 3]], [each])
        said += generated(model, encoded, 0, [prompt.id for prompt in each])
    return len(said) / (time.perf_counter() - started), said


@torch.inference_mode()
def ours(model: EarthGPTX, images: torch.Tensor, asked: list[list[VisualPrompt]]) -> tuple[float, list[list[int]]]:
    started = time.perf_counter()
    encoded = model.encode(images, [SENSORS[number % 3] for number in range(len(images))], asked)
    branches = [model.refer(number, prompt.id) for number, each in enumerate(asked) for prompt in each]
    said = decode(model, encoded, remember(model, encoded), branches, TOKENS)
    return len(said) / (time.perf_counter() - started), [one.tokens for one in said]


def main() -> None:
    args = arguments(__doc__)
    keep_memory()
    model = untrained("tiny" if args.quick else "nano")
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    side, count = (128, 2) if args.quick else (512, 8)
    images = tiles(count, side)
    figures: dict[str, float | str] = {"device": str(model.device)}
    for many in (8, 64):
        asked = [prompts(tile, many, side) for tile in range(count)]
        ours(model, images[:1], asked[:1])
        rate_ours, words = ours(model, images, asked)
        rate_batched, expected = batched(model, images, asked)
        rate_alone = one_at_a_time(model, images, asked, 16)
        same = sum(one == other for one, other in zip(words, expected, strict=True))
        figures |= {
            f"prompts_s_one_at_a_time_{many}": rate_alone, f"prompts_s_batched_{many}": rate_batched,
            f"prompts_s_ours_{many}": rate_ours, f"ratio_to_one_at_a_time_{many}": rate_ours / rate_alone,
            f"ratio_to_batched_{many}": rate_ours / rate_batched, f"same_words_as_batched_{many}": f"{same} of {len(words)}",
        }  # fmt: skip
    report("prompts a second, 24 tokens each", figures, args.json)


if __name__ == "__main__":
    main()

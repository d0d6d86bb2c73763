"""Many prompts of a tile: one at a time and batched, as published models do, and ours.

The same weights (nano, untrained), tiles and prompts. (a) and (b) are the paper's form, in which
the image's tokens depend on the prompt: (a) encodes the image for every prompt and calls
transformers' `generate`; (b) encodes a tile once, makes a prefix of it for every prompt, and calls
`generate` for all of a tile together. (b') is harder to beat: it takes our prefix, which all
prompts of a tile share, and gives each row of `generate` a copy. (c) is
`model.inference.generate.decode`.
Every answer is 24 tokens long, since untrained weights never end one. (a) is timed on some of the
prompts.
"""

from __future__ import annotations

import time

import numpy as np
import torch

from benchmarks.report import arguments, report
from earthgptx.model.checkpoint.weights import untrained
from earthgptx.model.inference.generate import decode, read_prefix
from earthgptx.model.interface.allocator import tune_allocator
from earthgptx.model.interface.prompt import VisualPrompt
from earthgptx.model.interface.region import Box
from earthgptx.model.network.earthgptx import EarthGPTX
from earthgptx.model.network.encoded import Branch, Encoded

TOKENS = 24
SENSORS = ("optical", "sar", "infrared")


def tiles(count: int, side: int) -> torch.Tensor:
    return torch.from_numpy(
        np.random.default_rng(0).integers(0, 255, (count, 3, side, side)).astype(np.uint8)
    )


def prompts(tile: int, count: int, side: int) -> list[VisualPrompt]:
    noise = np.random.default_rng([tile, count])
    made = []
    for number in range(count):
        x, y = noise.uniform(0, side - 40, 2)
        made.append(
            VisualPrompt(
                id=str(number), place=Box(x, y, x + noise.uniform(8, 40), y + noise.uniform(8, 40))
            )
        )
    return made


def unsaid(model: EarthGPTX) -> list[int]:
    """Tokens that no answer has: marks, and numbers beyond the vocabulary."""
    words = model.vocabulary
    return [*words.unsayable(()), *range(len(words), model.config.language.vocabulary)]


def generated(model: EarthGPTX, encoded: Encoded, branches: list[Branch]) -> list[list[int]]:
    own = model.embed(encoded, branches)
    embeds = torch.stack(
        [torch.cat([encoded.prefix[b.image], each]) for b, each in zip(branches, own, strict=True)]
    )
    said = model.language.causal.generate(
        inputs_embeds=embeds,
        attention_mask=torch.ones(embeds.shape[:2], dtype=torch.long, device=embeds.device),
        max_new_tokens=TOKENS,
        do_sample=False,
        pad_token_id=0,
        suppress_tokens=unsaid(model),
    )
    return [row.tolist() for row in said]


@torch.inference_mode()
def one_at_a_time(
    model: EarthGPTX, images: torch.Tensor, prompted: list[list[VisualPrompt]], most: int
) -> float:
    started, done = time.perf_counter(), 0
    for number, each in enumerate(prompted):
        for prompt in each[: max(most // len(prompted), 1)]:
            encoded = model.encode(images[number : number + 1], [SENSORS[number % 3]], [[prompt]])
            generated(model, encoded, [model.refer(0, prompt.id)])
            done += 1
    return done / (time.perf_counter() - started)


@torch.inference_mode()
def batched(
    model: EarthGPTX, images: torch.Tensor, prompted: list[list[VisualPrompt]], *, apart: bool
) -> tuple[float, list[list[int]]]:
    started, said = time.perf_counter(), []
    for number, each in enumerate(prompted):
        tile, sensor = images[number : number + 1], [SENSORS[number % 3]]
        if apart:
            encoded = model.encode_apart(tile, sensor, [each])
            branches = [model.refer(row, prompt.id) for row, prompt in enumerate(each)]
        else:
            encoded = model.encode(tile, sensor, [each])
            branches = [model.refer(0, prompt.id) for prompt in each]
        said += generated(model, encoded, branches)
    return len(said) / (time.perf_counter() - started), said


@torch.inference_mode()
def ours(
    model: EarthGPTX, images: torch.Tensor, prompted: list[list[VisualPrompt]]
) -> tuple[float, list[list[int]]]:
    started = time.perf_counter()
    encoded = model.encode(images, [SENSORS[number % 3] for number in range(len(images))], prompted)
    branches = [
        model.refer(number, prompt.id) for number, each in enumerate(prompted) for prompt in each
    ]
    said = decode(model, encoded, read_prefix(model, encoded), branches, TOKENS)
    return len(said) / (time.perf_counter() - started), [one.tokens for one in said]


def main() -> None:
    args = arguments(__doc__)
    tune_allocator()
    model = untrained("tiny" if args.quick else "nano")
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    side, count = (128, 2) if args.quick else (512, 8)
    images = tiles(count, side)
    figures: dict[str, float | str] = {"device": str(model.device)}
    for many in (8, 64):
        prompted = [prompts(tile, many, side) for tile in range(count)]
        ours(model, images[:1], prompted[:1])
        rate_ours, words = ours(model, images, prompted)
        rate_shared, expected = batched(model, images, prompted, apart=False)
        rate_batched, _ = batched(model, images, prompted, apart=True)
        rate_alone = one_at_a_time(model, images, prompted, 16)
        same = sum(one == other for one, other in zip(words, expected, strict=True))
        figures |= {
            f"prompts_s_one_at_a_time_{many}": rate_alone,
            f"prompts_s_batched_{many}": rate_batched,
            f"prompts_s_batched_shared_prefix_{many}": rate_shared,
            f"prompts_s_ours_{many}": rate_ours,
            f"ratio_to_one_at_a_time_{many}": rate_ours / rate_alone,
            f"ratio_to_batched_{many}": rate_ours / rate_batched,
            f"ratio_to_batched_shared_prefix_{many}": rate_ours / rate_shared,
            f"same_words_as_batched_shared_prefix_{many}": f"{same} of {len(words)}",
        }
    report("prompts a second, 24 tokens each", figures, args.json)


if __name__ == "__main__":
    main()

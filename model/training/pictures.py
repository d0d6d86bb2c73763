"""What a model says of a few images, drawn: to look at while it learns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from model.earthgptx import EarthGPTX
from model.prompt import VisualPrompt
from model.region import Mask
from model.tasks import Asked
from model.training.record import Record
from model.vision import padded

COLOURS = ((230, 60, 60), (60, 160, 250), (250, 200, 40), (80, 210, 110), (220, 110, 230))


def draw_answers(model: EarthGPTX, records: Sequence[tuple[str, Record]], path: Path) -> None:
    """A row an image: the truth, what was found of its words, and what a box prompt and the scene were called.

    Args:
        model: to ask.
        records: of any size, each with its heading.
        path: a PNG; its folder is created.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    was_training = model.training
    model.eval()
    figure, axes = plt.subplots(len(records), 2, figsize=(9, 4.4 * len(records)), squeeze=False)
    for row, (heading, record) in zip(axes, records, strict=True):
        named = sorted({region.label for region in record.regions})[:5]
        prompts = [VisualPrompt(id=str(n), place=region.mask.box) for n, region in enumerate(record.regions[:2])]
        pixels = torch.from_numpy(padded(record.pixels, model.config.token_px))[None]
        asked = Asked(model, pixels, [record.modality], [prompts], metres=[record.metres_per_pixel])
        truth = [(named.index(r.label), r.mask) for r in record.regions if r.label in named]
        seen = [
            (number, instance.mask)
            for number, one in enumerate(asked.find([named])[0])
            for instance in one.instances
            if instance.mask is not None and instance.score >= 0.3
        ]
        left = f"{heading}\n{record.source} {record.image}: {', '.join(named)}"
        said = (f"{r.label} | {r.caption[:70]}" for r in asked.refer()[0])
        right = "\n".join([asked.describe(grounded=False)[0].caption[:90], *said])
        for axis, masks, title in zip(row, (truth, seen), (left, right), strict=True):
            axis.imshow(_painted(record, masks))
            axis.set_title(title, fontsize=7)
            axis.axis("off")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=70, bbox_inches="tight")
    plt.close(figure)
    model.train(was_training)


def _painted(record: Record, masks: Sequence[tuple[int, Mask]]) -> np.ndarray:
    canvas = np.moveaxis(record.pixels, 0, -1).copy()
    for number, mask in masks:
        inside = mask.window(0, 0, *canvas.shape[:2])
        canvas[inside] = canvas[inside] // 2 + np.array(COLOURS[number % len(COLOURS)], np.uint8) // 2
    return canvas

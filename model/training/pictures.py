"""Draws the answers of a model for a few images, to inspect a training run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from earthgptx.model.datasets.record import Record
from earthgptx.model.inference.session import Session
from earthgptx.model.interface.prompt import VisualPrompt
from earthgptx.model.interface.region import Mask
from earthgptx.model.network.earthgptx import EarthGPTX
from earthgptx.model.network.vision import padded

COLOURS = ((230, 60, 60), (60, 160, 250), (250, 200, 40), (80, 210, 110), (220, 110, 230))


def draw_answers(model: EarthGPTX, records: Sequence[tuple[str, Record]], path: Path) -> None:
    """Draws one row per image: left the true objects, right the objects found.

    Objects of up to five words are drawn. The right title holds the caption of the scene and the
    labels and captions of up to two box prompts.

    Args:
        model: model to query.
        records: headings and records of any size.
        path: PNG file; its folder is created.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    was_training = model.training
    model.eval()
    figure, axes = plt.subplots(len(records), 2, figsize=(9, 4.4 * len(records)), squeeze=False)
    for row, (heading, record) in zip(axes, records, strict=True):
        named = sorted({region.label for region in record.regions})[:5]
        prompts = [
            VisualPrompt(id=str(n), place=region.mask.box)
            for n, region in enumerate(record.regions[:2])
        ]
        pixels = torch.from_numpy(padded(record.pixels, model.config.token_px))[None]
        session = Session(
            model, pixels, [record.modality], [prompts], metres=[record.metres_per_pixel]
        )
        truth = [(named.index(r.label), r.mask) for r in record.regions if r.label in named]
        seen = [
            (number, instance.mask)
            for number, one in enumerate(session.find([named])[0])
            for instance in one.instances
            if instance.mask is not None and instance.score >= 0.3
        ]
        left = f"{heading}\n{record.source} {record.image}: {', '.join(named)}"
        said = (f"{r.label} | {r.caption[:70]}" for r in session.refer()[0])
        right = "\n".join([session.describe(grounded=False)[0].caption[:90], *said])
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
        canvas[inside] = (
            canvas[inside] // 2 + np.array(COLOURS[number % len(COLOURS)], np.uint8) // 2
        )
    return canvas

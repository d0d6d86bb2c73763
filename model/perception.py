"""The pixel perception module: hidden states of the language model become masks, centres and boxes.

A query from `<seg>`, from a phrase or from a prompt looks at the features twice and is then compared with every
pixel at stride 2. Referring (prompt in, mask out) and grounding (words in, masks out) are this one path. For a group
(`<segs>`) a heat map of centres tells its instances apart: each peak, joined with the query, makes a mask of its own.
The paper does not say what is inside its module; this follows LISA (query to mask) and CenterNet (peaks).
"""

# B images, M queries of all images, C channels, Y X cells at stride 2, N instances

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.choice import Choice
from model.config import ModelConfig
from model.hybrid import Attention, middles
from model.second_look import SecondLook
from model.spatial_encoder import WAVES, waves
from model.vision import FINE

STRIDE = 2
OUTSIDE = -20.0
"""Log-odds of what lies where an instance's mask may not reach."""
CANDIDATES = 12
"""Peaks of one phrase's heat map that it may speak of."""
LOW = 0.01
"""Height of a heat map under which nothing is there."""
LOOKS = 2
"""At each box after the first."""


@dataclass(frozen=True, slots=True)
class Perceived:
    """What M queries see, each on the image it asks about."""

    masks: Tensor
    """(M, Y, X) log-odds at stride 2."""
    presence: Tensor
    """(M) log-odds that there is anything."""
    quality: Tensor
    """(M) log-odds of the mask's own IoU."""
    centres: Tensor
    """(M, Y, X) log-odds that an instance has its middle there."""
    queries: Tensor
    """(M, C) for `Perception.judge`."""


@dataclass(frozen=True, slots=True)
class Judged:
    """Where N instances are, each asked from a place in it."""

    asked: Tensor
    """(N, C), compared with the features for the mask."""
    boxes: tuple[Tensor, ...]
    """(N, 4) xyxy in cells of stride 2: as judged from the place, and after each further look."""
    worth: Tensor
    """(N) log-odds that the last box holds an object of the phrase."""

    def of(self, rows: Tensor) -> Judged:
        """Some of them, by their numbers."""
        return Judged(self.asked[rows], tuple(boxes[rows] for boxes in self.boxes), self.worth[rows])


class Perception(nn.Module):
    """Multi-scale features from top to bottom, and the queries' heads."""

    def __init__(self, config: ModelConfig) -> None:
        """Build it with random weights."""
        super().__init__()
        width = config.mask_width
        self.sides = nn.ModuleList([nn.Conv2d(channels, width, 1) for channels in config.conv.widths])
        self.fused = nn.Conv2d(config.hybrid_width, width, 1)
        self.place = nn.Linear(4 * WAVES, width)
        self.smooth = nn.ModuleList([_refine(width) for _ in config.conv.widths[:-1]])
        self.fine = nn.Conv2d(FINE, width, 1)
        self.sharpen = nn.Sequential(_refine(width), nn.Conv2d(width, width, 1))
        self.ask = nn.Sequential(nn.Linear(config.language.width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(2)])
        self.looks = nn.ModuleList([Attention(width, config.mask_heads) for _ in range(2)])
        self.mask_query, self.centre_query = (_mlp(width, width) for _ in range(2))
        self.presence, self.quality = nn.Linear(width, 1), nn.Linear(width, 1)
        self.instance_query, self.instance_box = _mlp(2 * width, width), _mlp(2 * width, 4)
        self.again = SecondLook(width)
        self.choice = Choice(width, config.language.width, config.mask_heads)
        # Few pixels are an object's, fewer its middle: start from that, as focal loss wants it (Lin et al. 2017).
        self.mask_bias, self.centre_bias = (nn.Parameter(torch.tensor([most])) for most in (-2.0, -4.0))

    def pixels(self, conv: tuple[Tensor, ...], fine: Tensor, fused: Tensor) -> tuple[Tensor, Tensor]:
        """Features to compare queries with.

        Args:
            conv: of the convolutional encoder, at strides 4, 8, 16 and 32.
            fine: (B, FINE, Y, X) at stride 2.
            fused: (B, D, rows, cols) of the hybrid block.

        Returns:
            (B, C, Y, X) at stride 2, and (B, C, rows, cols) on the hybrid block's cells, to look at.
        """
        # Where a pixel is: else a query cannot tell one of several that look alike, as a prompt wants it.
        rows, cols = fine.shape[-2:]
        placed = self.place(waves(middles(rows, cols, fine))).transpose(1, 2).unflatten(2, (rows, cols))
        if self.training or fine.device.type != "cpu":
            top, looked = self._refined(conv, fine, fused)
            return top + placed, looked
        # As the encoders do: a batch falls out of a processor's caches.
        each = [
            self._refined(tuple(level[at : at + 1] for level in conv), fine[at : at + 1], fused[at : at + 1])
            for at in range(len(fine))
        ]
        return torch.cat([top + placed for top, _ in each]), torch.cat([looked for _, looked in each])

    def _refined(self, conv: tuple[Tensor, ...], fine: Tensor, fused: Tensor) -> tuple[Tensor, Tensor]:
        top = self.sides[-1](conv[-1])
        looked = self.fused(fused)
        for level in range(len(conv) - 2, -1, -1):
            top = functional.interpolate(top, conv[level].shape[-2:], mode="bilinear", align_corners=False)
            top = top + self.sides[level](conv[level])
            if level == 2:
                top = top + functional.interpolate(looked, top.shape[-2:], mode="bilinear", align_corners=False)
            top = self.smooth[level](top)
        top = functional.interpolate(top, fine.shape[-2:], mode="bilinear", align_corners=False)
        return top + self.sharpen(top + self.fine(fine)), looked

    def forward(self, hidden: Tensor, of_image: Sequence[int], pixels: Tensor, looked: Tensor) -> Perceived:
        """Look.

        Args:
            hidden: (M, W) of the language model.
            of_image: M numbers, which image each query asks about.
            pixels: (B, C, Y, X), see `pixels`.
            looked: (B, C, rows, cols), see `pixels`.
        """
        queries = self.ask(hidden)
        ground = looked.flatten(2).transpose(1, 2).split(1)
        for norm, look in zip(self.norms, self.looks, strict=True):
            seen = torch.zeros_like(queries)
            for image, mine in _rows(of_image).items():
                # Queries of one image share its keys; they do not see one another.
                seen[mine] = look(norm(queries[mine])[None], ground[image])[0].to(seen.dtype)
            queries = queries + seen
        return Perceived(
            masks=_compare(self.mask_query(queries), pixels, of_image) + self.mask_bias,
            presence=self.presence(queries)[:, 0].float(),
            quality=self.quality(queries)[:, 0].float(),
            centres=_compare(self.centre_query(queries), pixels, of_image) + self.centre_bias,
            queries=queries,
        )

    def judge(
        self, queries: Tensor, of_image: Sequence[int], peaks: Tensor, pixels: Tensor, under: Tensor | None = None
    ) -> Judged:
        """Where single instances are: peaks of a group, what a phrase speaks of, what prompts point at.

        Args:
            queries: (N, C) from `Perceived`.
            of_image: N numbers.
            peaks: (N, 2) long, row and column at stride 2 of a place in each instance's box.
            pixels: (B, C, Y, X).
            under: (N, C) of `pixels`, what is pointed at; None for what lies at the peaks.
        """
        if under is None:
            under = features_at(pixels, of_image, peaks)
        both = torch.cat([queries, under.to(queries.dtype)], dim=-1)
        asked = self.instance_query(both)
        boxes = [self._around(both, peaks)]
        for _ in range(LOOKS):
            # Each look learns from where the one before it ended, which is not its own to move (Cascade R-CNN).
            box, worth = self.again(boxes[-1].detach(), asked, of_image, pixels)
            boxes.append(box)
        return Judged(asked, tuple(boxes), worth)

    def choose(
        self, phrases: Sequence[Tensor], queries: Tensor, of_image: Sequence[int], places: Tensor, heights: Tensor,
        present: Tensor, pixels: Tensor,
    ) -> Tensor:  # fmt: skip
        """Which candidate each phrase speaks of.

        Args:
            phrases: Q of (P, W), the language model's states along each.
            queries: (Q, C) from `Perceived`.
            of_image: Q numbers.
            places: (Q, K, 2) long, row and column of each candidate.
            heights: (Q, K) of the heat map there, 0..1.
            present: (Q, K) bool, False where a query has fewer candidates.
            pixels: (B, C, Y, X).

        Returns:
            (Q, K) log-odds, float32; minus infinity where there is no candidate.
        """
        under = features_at(pixels, of_image, places)
        both = torch.cat([queries[:, None].expand(-1, places.shape[1], -1), under.to(queries.dtype)], dim=-1)
        rows, cols = pixels.shape[-2:]
        sides = torch.tensor([cols, rows, cols, rows], device=pixels.device)
        boxes = self._around(both, places).detach() / sides
        ends = torch.tensor([len(each) for each in phrases], device=pixels.device)
        padded = nn.utils.rnn.pad_sequence(list(phrases), batch_first=True)
        spoken = torch.arange(padded.shape[1], device=pixels.device) < ends[:, None]
        scored: Tensor = self.choice(padded, spoken, under.to(queries.dtype), boxes.clamp(0, 1), heights, present)
        return scored

    def _around(self, both: Tensor, places: Tensor) -> Tensor:
        """Boxes (..., 4), xyxy in cells, as first judged from queries beside what lies at their places (..., 2)."""
        reach = self.instance_box(both).float().clamp(max=8).exp()
        middle = places.flip(-1).float() + 0.5
        return torch.cat([middle - reach[..., :2], middle + reach[..., 2:]], dim=-1)

    def outline(self, judged: Judged, of_image: Sequence[int], pixels: Tensor, within: Tensor | None = None) -> Tensor:
        """Masks of single instances, (N, Y, X) log-odds.

        Args:
            judged: of N instances.
            of_image: N numbers.
            pixels: (B, C, Y, X).
            within: (N, 4) xyxy in cells, boxes that masks end at; None, or not a number, for those that are judged.
        """
        masks, boxes = _compare(judged.asked, pixels, of_image) + self.mask_bias, judged.boxes[-1]
        # An instance ends at its box: alike neighbours look alike to its query.
        rows, cols = masks.shape[-2:]
        y = torch.arange(rows, device=masks.device)[None, :, None] + 0.5
        x = torch.arange(cols, device=masks.device)[None, None, :] + 0.5
        ends = boxes if within is None else torch.where(within.isnan(), boxes, within)
        x0, y0, x1, y1 = (edge[:, None, None] for edge in ends.unbind(-1))
        inside = (x > x0 - 1) & (x < x1 + 1) & (y > y0 - 1) & (y < y1 + 1)
        return masks.masked_fill(~inside, OUTSIDE)


def top_peaks(heat: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """The highest local maxima of heat maps (M, Y, X): places (M, most, 2), row and column, and heights (M, most)."""
    heights, at = (heat * local_maxima(heat)).flatten(1).topk(most, dim=1)
    cols = heat.shape[2]
    return torch.stack([at // cols, at % cols], dim=-1), heights


def features_at(pixels: Tensor, of_image: Sequence[int], places: Tensor) -> Tensor:
    """Features (N, ..., C) of maps (B, C, Y, X) at places (N, ..., 2), row and column, of N images by number."""
    images = torch.tensor(of_image, device=pixels.device).reshape(-1, *[1] * (places.dim() - 2))
    return pixels[images, :, places[..., 0], places[..., 1]]


def local_maxima(heat: Tensor) -> Tensor:
    """Which cells of heat maps (M, Y, X) are no lower than their neighbours, bool."""
    return heat == functional.max_pool2d(heat[:, None], 3, stride=1, padding=1)[:, 0]


def _rows(of_image: Sequence[int]) -> dict[int, list[int]]:
    """Queries of each image."""
    rows: dict[int, list[int]] = {}
    for row, image in enumerate(of_image):
        rows.setdefault(image, []).append(row)
    return rows


def _compare(queries: Tensor, pixels: Tensor, of_image: Sequence[int]) -> Tensor:
    """Dot product of each query (M, C) with every pixel of its image, (M, Y, X) float32."""
    rows = _rows(of_image)
    each = pixels.unbind()  # not one by one: the gradient of a slice is as large as the whole
    compared = [torch.einsum("mc,cyx->myx", queries[mine], each[image]) for image, mine in rows.items()]
    order = torch.tensor([row for mine in rows.values() for row in mine], dtype=torch.long, device=queries.device)
    back = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
    return torch.cat(compared).float()[back]


def _refine(width: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(width, width, 3, padding=1, groups=width),
        nn.Conv2d(width, width, 1),
        nn.GroupNorm(4, width),
        nn.GELU(),
    )


def _mlp(before: int, after: int) -> nn.Module:
    return nn.Sequential(nn.Linear(before, before), nn.GELU(), nn.Linear(before, after))

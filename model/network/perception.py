"""The pixel perception module: decodes hidden states of the language model to masks and boxes.

A query from `<seg>`, from a phrase or from a prompt attends to the features twice and is then
compared with every pixel at stride 2. Referring (prompt in, mask out) and grounding (phrase in,
masks out) share this path. For a group (`<segs>`), a heat map of centres separates its instances:
each peak, combined with the query, gives one mask. The paper does not describe the inside of its
module; this one follows LISA (query to mask) and CenterNet (peaks).
"""

# B images, M queries of all images, C channels, Y X cells at stride 2, N instances

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from earthgptx.model.interface.config import ModelConfig
from earthgptx.model.network.box_refiner import BoxRefiner
from earthgptx.model.network.hybrid import Attention, middles
from earthgptx.model.network.object_selector import ObjectSelector
from earthgptx.model.network.spatial_encoder import WAVES, waves
from earthgptx.model.network.vision import FINE

STRIDE = 2
OUTSIDE = -20.0
"""Log-odds of mask pixels outside the box of an instance."""
CANDIDATES = 12
"""Maximum number of peaks of a phrase's heat map that become candidates."""
LOW = 0.01
"""Heat map value, 0..1, up to which a peak is ignored."""
REFINEMENTS = 2
"""Number of times that the box refiner corrects a box."""


@dataclass(frozen=True, slots=True)
class Perceived:
    """Outputs for M queries, each about its own image."""

    presence: Tensor
    """(M) log-odds that the image has any object of the query."""
    quality: Tensor
    """(M) log-odds of the predicted IoU of the mask."""
    queries: Tensor
    """(M, C) queries after attention, for the other methods of `Perception`."""


@dataclass(frozen=True, slots=True)
class Judged:
    """Boxes of N instances, each predicted from a position inside it."""

    mask_query: Tensor
    """(N, C) queries whose dot product with the features gives the masks."""
    boxes: tuple[Tensor, ...]
    """(N, 4) each, xyxy in cells of stride 2: first the initial boxes, then one per refinement."""
    worth: Tensor
    """(N) log-odds that the last box holds an object of the phrase."""

    def of(self, rows: Tensor) -> Judged:
        """Selects instances by index."""
        return Judged(
            self.mask_query[rows], tuple(boxes[rows] for boxes in self.boxes), self.worth[rows]
        )


class Perception(nn.Module):
    """Top-down fusion of multi-scale features, and the heads of the queries."""

    def __init__(self, config: ModelConfig) -> None:
        """Builds the module with random weights."""
        super().__init__()
        width = config.mask_width
        self.sides = nn.ModuleList(
            [nn.Conv2d(channels, width, 1) for channels in config.conv.widths]
        )
        self.fused = nn.Conv2d(config.hybrid_width, width, 1)
        self.place = nn.Linear(4 * WAVES, width)
        self.smooth = nn.ModuleList([_refine(width) for _ in config.conv.widths[:-1]])
        self.fine = nn.Conv2d(FINE, width, 1)
        self.sharpen = nn.Sequential(_refine(width), nn.Conv2d(width, width, 1))
        self.ask = nn.Sequential(
            nn.Linear(config.language.width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(2)])
        self.looks = nn.ModuleList([Attention(width, config.mask_heads) for _ in range(2)])
        self.mask_query, self.centre_query = (_mlp(width, width) for _ in range(2))
        self.presence, self.quality = nn.Linear(width, 1), nn.Linear(width, 1)
        self.instance_query, self.instance_box = _mlp(2 * width, width), _mlp(2 * width, 4)
        self.again = BoxRefiner(width)
        self.choice = ObjectSelector(width, config.language.width, config.mask_heads)
        # Few pixels belong to an object and fewer are its centre. The biases start from these low
        # probabilities, as focal loss requires (Lin et al. 2017).
        self.mask_bias, self.centre_bias = (
            nn.Parameter(torch.tensor([most])) for most in (-2.0, -4.0)
        )

    def pixels(
        self, conv: tuple[Tensor, ...], fine: Tensor, fused: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Computes the features that queries are compared with and attend to.

        Args:
            conv: features of the convolutional encoder at strides 4, 8, 16 and 32.
            fine: (B, FINE, Y, X) features at stride 2.
            fused: (B, D, rows, cols) features of the hybrid block.

        Returns:
            (B, C, Y, X) features at stride 2 to compare queries with, and (B, C, rows, cols)
            features on the cells of the hybrid block to attend to.
        """
        # Features carry positions: without them, a query cannot pick one of several objects that
        # look alike, as a prompt requires.
        rows, cols = fine.shape[-2:]
        placed = (
            self.place(waves(middles(rows, cols, fine))).transpose(1, 2).unflatten(2, (rows, cols))
        )
        if torch.is_grad_enabled() or fine.device.type != "cpu":
            top, looked = self._refined(conv, fine, fused)
            return top + placed, looked
        # One image at a time, as in the encoders: a batch does not fit into the caches of a CPU.
        # Channels last, like the features of each image: later steps are slower otherwise.
        together = torch.empty(
            (len(fine), placed.shape[1], rows, cols),
            dtype=fine.dtype,
            memory_format=torch.channels_last,
        )
        looks = []
        for at, into in enumerate(together):
            own = slice(at, at + 1)
            top, looked = self._refined(tuple(level[own] for level in conv), fine[own], fused[own])
            torch.add(top[0], placed[0], out=into)
            looks.append(looked)
        return together, torch.cat(looks)

    def _refined(
        self, conv: tuple[Tensor, ...], fine: Tensor, fused: Tensor
    ) -> tuple[Tensor, Tensor]:
        top = self.sides[-1](conv[-1])
        looked = self.fused(fused)
        for level in range(len(conv) - 2, -1, -1):
            top = functional.interpolate(
                top, conv[level].shape[-2:], mode="bilinear", align_corners=False
            )
            top = top + self.sides[level](conv[level])
            if level == 2:
                top = top + functional.interpolate(
                    looked, top.shape[-2:], mode="bilinear", align_corners=False
                )
            top = self.smooth[level](top)
        top = functional.interpolate(top, fine.shape[-2:], mode="bilinear", align_corners=False)
        return top + self.sharpen(top + self.fine(fine)), looked

    def forward(self, hidden: Tensor, of_image: Sequence[int], looked: Tensor) -> Perceived:
        """Decodes hidden states to queries and their scores.

        Args:
            hidden: (M, W) hidden states of the language model.
            of_image: M image indices, one per query.
            looked: (B, C, rows, cols) features to attend to, from `pixels`.
        """
        queries = self.ask(hidden)
        ground = looked.flatten(2).transpose(1, 2).split(1)
        for norm, look in zip(self.norms, self.looks, strict=True):
            seen = torch.zeros_like(queries)
            for image, mine in _rows(of_image).items():
                # Queries of one image share its keys but do not attend to one another.
                seen[mine] = look(norm(queries[mine])[None], ground[image])[0].to(seen.dtype)
            queries = queries + seen
        return Perceived(
            presence=self.presence(queries)[:, 0].float(),
            quality=self.quality(queries)[:, 0].float(),
            queries=queries,
        )

    def ground(self, queries: Tensor, of_image: Sequence[int], pixels: Tensor) -> Tensor:
        """Compares queries with every pixel: the masks of all that they cover.

        Args:
            queries: (M, C) queries from `Perceived`.
            of_image: M image indices, one per query.
            pixels: (B, C, Y, X) features.

        Returns:
            (M, Y, X) log-odds, float32.
        """
        return _compare(self.mask_query(queries), pixels, of_image) + self.mask_bias

    def heat(self, queries: Tensor, of_image: Sequence[int], pixels: Tensor) -> Tensor:
        """Compares queries with every pixel: the heat maps of the centres of instances.

        Takes the arguments of `ground`.

        Returns:
            (M, Y, X) log-odds that a pixel is the centre of an instance, float32.
        """
        return _compare(self.centre_query(queries), pixels, of_image) + self.centre_bias

    def judge(
        self,
        queries: Tensor,
        of_image: Sequence[int],
        peaks: Tensor,
        pixels: Tensor,
        under: Tensor | None = None,
    ) -> Judged:
        """Predicts mask queries, boxes and scores of single instances.

        An instance is a peak of a group, the object that a phrase refers to, or what a prompt
        points at.

        Args:
            queries: (N, C) queries from `Perceived`.
            of_image: N image indices, one per instance.
            peaks: (N, 2) long, row and column at stride 2 of a position in each instance's box.
            pixels: (B, C, Y, X) features.
            under: (N, C) mean of `pixels` under each prompt; None for the features at the peaks.
        """
        if under is None:
            under = features_at(pixels, of_image, peaks)
        both = torch.cat([queries, under.to(queries.dtype)], dim=-1)
        mask_query = self.instance_query(both)
        boxes = [self._around(both, peaks)]
        for _ in range(REFINEMENTS):
            # No gradient flows from a refinement to the box it starts from (Cascade R-CNN).
            box, worth = self.again(boxes[-1].detach(), mask_query, of_image, pixels)
            boxes.append(box)
        return Judged(mask_query, tuple(boxes), worth)

    def choose(
        self,
        phrases: Sequence[Tensor],
        queries: Tensor,
        of_image: Sequence[int],
        places: Tensor,
        heights: Tensor,
        present: Tensor,
        pixels: Tensor,
    ) -> Tensor:
        """Scores which candidate each phrase refers to.

        Args:
            phrases: Q tensors (P, W), hidden states of the language model along each phrase.
            queries: (Q, C) queries from `Perceived`.
            of_image: Q image indices, one per phrase.
            places: (Q, K, 2) long, row and column of each candidate at stride 2.
            heights: (Q, K) heat map values at the candidates, 0..1.
            present: (Q, K) bool, False for padding where a query has fewer candidates.
            pixels: (B, C, Y, X) features.

        Returns:
            (Q, K) log-odds, float32, minus infinity for padding.
        """
        under = features_at(pixels, of_image, places)
        both = torch.cat(
            [queries[:, None].expand(-1, places.shape[1], -1), under.to(queries.dtype)], dim=-1
        )
        rows, cols = pixels.shape[-2:]
        sides = torch.tensor([cols, rows, cols, rows], device=pixels.device)
        boxes = self._around(both, places).detach() / sides
        ends = torch.tensor([len(each) for each in phrases], device=pixels.device)
        padded = nn.utils.rnn.pad_sequence(list(phrases), batch_first=True)
        spoken = torch.arange(padded.shape[1], device=pixels.device) < ends[:, None]
        scored: Tensor = self.choice(
            padded, spoken, under.to(queries.dtype), boxes.clamp(0, 1), heights, present
        )
        return scored

    def _around(self, both: Tensor, places: Tensor) -> Tensor:
        """Predicts initial boxes (..., 4), xyxy in cells.

        Args:
            both: (..., 2 C) queries concatenated with the features at their positions.
            places: (..., 2) row and column of the positions.
        """
        reach = self.instance_box(both).float().clamp(max=8).exp()
        middle = places.flip(-1).float() + 0.5
        return torch.cat([middle - reach[..., :2], middle + reach[..., 2:]], dim=-1)

    def instance_masks(
        self, judged: Judged, of_image: Sequence[int], pixels: Tensor, within: Tensor | None = None
    ) -> Tensor:
        """Masks of single instances, (N, Y, X) log-odds.

        Args:
            judged: boxes and mask queries of N instances.
            of_image: N image indices, one per instance.
            pixels: (B, C, Y, X) features.
            within: (N, 4) boxes, xyxy in cells, that masks are clipped to with a margin of one
                cell. NaN for the predicted box; None for predicted boxes only.
        """
        masks, boxes = (
            _compare(judged.mask_query, pixels, of_image) + self.mask_bias,
            judged.boxes[-1],
        )
        # The mask is clipped to the box: the query also matches neighbours that look alike.
        rows, cols = masks.shape[-2:]
        y = torch.arange(rows, device=masks.device)[None, :, None] + 0.5
        x = torch.arange(cols, device=masks.device)[None, None, :] + 0.5
        ends = boxes if within is None else torch.where(within.isnan(), boxes, within)
        x0, y0, x1, y1 = (edge[:, None, None] for edge in ends.unbind(-1))
        inside = (x > x0 - 1) & (x < x1 + 1) & (y > y0 - 1) & (y < y1 + 1)
        return masks.masked_fill(~inside, OUTSIDE)

    def masks_within(
        self, judged: Judged, of_image: Sequence[int], pixels: Tensor, within: Tensor | None = None
    ) -> list[tuple[int, int, Tensor]]:
        """Masks of single instances on the cells that they may cover, see `instance_masks`.

        Compares queries with no other cells: most instances cover few of them.

        Returns:
            First row, first column and (Y, X) log-odds, float32, of each instance; it may have no
            cells.
        """
        boxes = judged.boxes[-1]
        ends = boxes if within is None else torch.where(within.isnan(), boxes, within)
        # The cells whose middle lies less than one cell outside the box.
        low, high = (ends[:, :2] - 1.5).floor() + 1, (ends[:, 2:] + 0.5).ceil()
        rows, cols = pixels.shape[-2:]
        sides = torch.tensor([cols, rows], device=ends.device)
        edges = torch.cat([low.clamp(min=0).minimum(sides), high.clamp(min=0).minimum(sides)], 1)
        edges = edges.nan_to_num()
        found = []
        for query, image, (x0, y0, x1, y1) in zip(
            judged.mask_query, of_image, edges.long().tolist(), strict=True
        ):
            window = pixels[image, :, y0 : max(y1, y0), x0 : max(x1, x0)]
            scored = (query.to(window.dtype) @ window.flatten(1)).unflatten(0, window.shape[1:])
            found.append((y0, x0, scored.float() + self.mask_bias))
        return found


def top_peaks(heat: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Finds the highest local maxima of heat maps.

    Args:
        heat: (M, Y, X) heat maps.
        most: number of peaks per heat map.

    Returns:
        (M, most, 2) long, row and column of the peaks, and (M, most) their heights, highest first.
    """
    heights, at = (heat * local_maxima(heat)).flatten(1).topk(most, dim=1)
    cols = heat.shape[2]
    return torch.stack([at // cols, at % cols], dim=-1), heights


def features_at(pixels: Tensor, of_image: Sequence[int], places: Tensor) -> Tensor:
    """Features at given positions.

    Args:
        pixels: (B, C, Y, X) features.
        of_image: N image indices.
        places: (N, ..., 2) long, row and column.

    Returns:
        (N, ..., C) features.
    """
    images = torch.tensor(of_image, device=pixels.device).reshape(-1, *[1] * (places.dim() - 2))
    return pixels[images, :, places[..., 0], places[..., 1]]


def local_maxima(heat: Tensor) -> Tensor:
    """Which cells of heat maps (M, Y, X) are no lower than their eight neighbours, bool."""
    return heat == functional.max_pool2d(heat[:, None], 3, stride=1, padding=1)[:, 0]


def _rows(of_image: Sequence[int]) -> dict[int, list[int]]:
    """Row indices of the queries of each image."""
    rows: dict[int, list[int]] = {}
    for row, image in enumerate(of_image):
        rows.setdefault(image, []).append(row)
    return rows


def _compare(queries: Tensor, pixels: Tensor, of_image: Sequence[int]) -> Tensor:
    """Dot product of each query (M, C) with every pixel of its image, (M, Y, X) float32."""
    rows = _rows(of_image)
    # One `unbind` instead of slices: the gradient of a slice is as large as the batch.
    each = pixels.unbind()
    compared = [
        torch.einsum("mc,cyx->myx", queries[mine], each[image]) for image, mine in rows.items()
    ]
    order = torch.tensor(
        [row for mine in rows.values() for row in mine], dtype=torch.long, device=queries.device
    )
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

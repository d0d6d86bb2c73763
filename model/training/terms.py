"""The terms that the objective sums: how far masks, heat maps and boxes are from the truth.

Heat maps by CornerNet's focal loss (Law and Deng 2018, eq. 1), boxes by the logarithm of their IoU (Yu et al. 2016), masks
of which only the box is known by their reach (BoxInst's projection, Tian et al. 2021).
"""

# N masks or boxes, Y X cells at stride 2

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def focal_mask(scored: Tensor, truth: Tensor, taught: Tensor) -> Tensor:
    """BCE of (M, Y, X) by its distance from the truth, squared (Li et al. 2020, quality focal loss).

    Over the object's own cells and not over the image's: three cells would be a thousandth of a loss, and not learned.
    """
    each = functional.binary_cross_entropy_with_logits(scored, truth, reduction="none")
    focal = each * (scored.detach().sigmoid() - truth) ** 2 * taught
    return (focal.sum((1, 2)) / ((truth * taught).sum((1, 2)) + 1)).mean()


def dice(sure: Tensor, truth: Tensor) -> Tensor:
    """Dice loss of masks (M, Y, X), 0..1, (M)."""
    return 1 - (2 * (sure * truth).sum((1, 2)) + 1) / (sure.sum((1, 2)) + truth.sum((1, 2)) + 1)


def box_loss(looks: Sequence[Tensor], true: Tensor, peaks: Tensor) -> Tensor:
    """Minus the logarithm of the IoU, of all looks; both boxes hold the peak, so that it is never of nothing."""
    return torch.stack([-alike(boxes, true, peaks).log().mean() for boxes in looks]).mean()


def alike(boxes: Tensor, true: Tensor, peaks: Tensor) -> Tensor:
    """IoU of boxes that hold their peaks, (N)."""
    middle = peaks.flip(-1).float() + 0.5
    ours, theirs = (
        torch.cat([middle - edges[:, :2], edges[:, 2:] - middle], dim=1).clamp(min=0.1) for edges in (boxes, true)
    )
    both = torch.minimum(ours, theirs)
    shared, one, other = ((r[:, 0] + r[:, 2]) * (r[:, 1] + r[:, 3]) for r in (both, ours, theirs))
    return shared / (one + other - shared)


def focal(scored: Tensor, heat: Tensor, known: Tensor) -> Tensor:
    """Log-odds (M, Y, X) against heat maps that are 1 at each peak; where nothing is known, only peaks count."""
    sure, peak = scored.sigmoid().clamp(1e-5, 1 - 1e-5), heat == 1
    hit = -((1 - sure) ** 2) * sure.log() * peak
    miss = -((1 - heat) ** 4) * sure**2 * (1 - sure).log() * ~peak * known
    return (hit.sum() + miss.sum()) / peak.sum().clamp(min=1)


def reach(shown: Tensor, boxes: Tensor) -> Tensor:
    """How far masks (N, Y, X) are from reaching all sides of their boxes and no farther, (N)."""
    found = []
    for dim, (start, end) in ((1, (0, 2)), (2, (1, 3))):
        most = shown.amax(dim=dim)
        at = torch.arange(most.shape[1], device=most.device) + 0.5
        wanted = ((at > boxes[:, start, None]) & (at < boxes[:, end, None])).to(most.dtype)
        found.append(dice(most[:, None], wanted[:, None]))
    return (found[0] + found[1]) / 2


@torch.no_grad()
def overlap(scored: Tensor, truth: Tensor, taught: Tensor) -> Tensor:
    """IoU of masks (M, Y, X) where something is taught, (M)."""
    sure, wanted = (scored > 0) & (taught > 0), (truth > 0.5) & (taught > 0)
    return (sure & wanted).sum((1, 2)) / (sure | wanted).sum((1, 2)).clamp(min=1)

"""Loss terms of masks, heat maps and boxes.

Heat maps use the focal loss of CornerNet (Law and Deng 2018, eq. 1), boxes the logarithm of their
IoU (Yu et al. 2016). Masks whose truth is only a box use the projection loss of BoxInst (Tian et
al. 2021).
"""

# M masks or heat maps, N instances, Y X cells at stride 2

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def focal_mask(scored: Tensor, truth: Tensor, taught: Tensor) -> Tensor:
    """Returns the BCE weighted by the squared error (quality focal loss, Li et al. 2020), a scalar.

    The sum is divided by the number of cells of the object, not of the image. Otherwise an object
    of three cells would be a thousandth of the loss and would not be learned.

    Args:
        scored: (M, Y, X) log-odds.
        truth: (M, Y, X), 0..1.
        taught: (M, Y, X), 1 where the truth is known, else 0.
    """
    each = functional.binary_cross_entropy_with_logits(scored, truth, reduction="none")
    focal = each * (scored.detach().sigmoid() - truth) ** 2 * taught
    return (focal.sum((1, 2)) / ((truth * taught).sum((1, 2)) + 1)).mean()


def dice(sure: Tensor, truth: Tensor) -> Tensor:
    """Returns the Dice loss (M) of masks (M, Y, X) with values 0..1."""
    return 1 - (2 * (sure * truth).sum((1, 2)) + 1) / (sure.sum((1, 2)) + truth.sum((1, 2)) + 1)


def box_loss(looks: Sequence[Tensor], true: Tensor, peaks: Tensor) -> Tensor:
    """Returns the mean negative logarithm of the IoU, averaged over all refinements.

    Predicted and true boxes hold the peak, so that the IoU is never 0.

    Args:
        looks: (N, 4) xyxy in cells, for the first prediction and for each refinement.
        true: (N, 4) xyxy in cells.
        peaks: (N, 2) row and column.
    """
    return torch.stack([-alike(boxes, true, peaks).log().mean() for boxes in looks]).mean()


def alike(boxes: Tensor, true: Tensor, peaks: Tensor) -> Tensor:
    """Returns the IoU (N) of boxes (N, 4) that hold their peaks (N, 2)."""
    middle = peaks.flip(-1).float() + 0.5
    ours, theirs = (
        torch.cat([middle - edges[:, :2], edges[:, 2:] - middle], dim=1).clamp(min=0.1)
        for edges in (boxes, true)
    )
    both = torch.minimum(ours, theirs)
    shared, one, other = ((r[:, 0] + r[:, 2]) * (r[:, 1] + r[:, 3]) for r in (both, ours, theirs))
    return shared / (one + other - shared)


def focal(scored: Tensor, heat: Tensor, known: Tensor) -> Tensor:
    """Returns the focal loss of heat maps, a scalar.

    Args:
        scored: (M, Y, X) log-odds.
        heat: (M, Y, X) true heat maps, 1 at each peak.
        known: (M, Y, X), 1 where annotations are known; elsewhere only peaks count.
    """
    sure, peak = scored.sigmoid().clamp(1e-5, 1 - 1e-5), heat == 1
    hit = -((1 - sure) ** 2) * sure.log() * peak
    miss = -((1 - heat) ** 4) * sure**2 * (1 - sure).log() * ~peak * known
    return (hit.sum() + miss.sum()) / peak.sum().clamp(min=1)


def reach(shown: Tensor, boxes: Tensor) -> Tensor:
    """Returns the projection loss (N) of masks against boxes.

    It is 0 if a mask reaches all four sides of its box and does not extend beyond them.

    Args:
        shown: (N, Y, X) mask values, 0..1.
        boxes: (N, 4) xyxy in cells.
    """
    found = []
    for dim, (start, end) in ((1, (0, 2)), (2, (1, 3))):
        most = shown.amax(dim=dim)
        at = torch.arange(most.shape[1], device=most.device) + 0.5
        wanted = ((at > boxes[:, start, None]) & (at < boxes[:, end, None])).to(most.dtype)
        found.append(dice(most[:, None], wanted[:, None]))
    return (found[0] + found[1]) / 2


@torch.no_grad()
def overlap(scored: Tensor, truth: Tensor, taught: Tensor) -> Tensor:
    """Returns the IoU (M) of masks (M, Y, X) over the cells where `taught` is positive."""
    sure, wanted = (scored > 0) & (taught > 0), (truth > 0.5) & (taught > 0)
    return (sure & wanted).sum((1, 2)) / (sure | wanted).sum((1, 2)).clamp(min=1)

"""Losses that attacks on segmentation maximise: pure functions of logits and labels, summed over the pixels of each
image to [B].

All take logits [B, H, W, C], labels int64 [B, H, W] with VOID for a pixel without label, and the progress of the
attack, steps done / steps, in [0, 1).
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ltsd.answers import VOID

DenseLoss = Callable[[Tensor, Tensor, float], Tensor]


def cross_entropy(logits: Tensor, labels: Tensor, progress: float) -> Tensor:
    """Return the sum of the pixels' cross-entropies."""
    return _cross_entropies(logits, labels).sum((1, 2))


def segpgd(logits: Tensor, labels: Tensor, progress: float) -> Tensor:
    """Return the sum of cross-entropies, with weight 1 - lambda where a pixel is classified correctly and lambda
    elsewhere; lambda = progress / 2 (Gu et al. 2022). So the attack starts on correct pixels and ends on all equally.
    """
    share = progress / 2
    weights = torch.where(_is_right(logits, labels), 1 - share, share)
    return (weights * _cross_entropies(logits, labels)).sum((1, 2))


def masked_cross_entropy(logits: Tensor, labels: Tensor, progress: float) -> Tensor:
    """Return the sum of the cross-entropies of pixels that are right (SEA; Croce et al. 2024)."""
    return (_is_right(logits, labels) * _cross_entropies(logits, labels)).sum((1, 2))


def balanced_masked_cross_entropy(logits: Tensor, labels: Tensor, progress: float) -> Tensor:
    """Return `masked_cross_entropy` with each pixel divided by the number of pixels of its class in the image, so that
    all classes have the same weight, as in the mean IoU (SEA).
    """
    known = labels != VOID
    members = F.one_hot(torch.where(known, labels, 0), logits.shape[-1]) * known[..., None]
    pixels = members.sum((1, 2)).clamp_min(1)
    share = (members / pixels[:, None, None]).sum(-1)
    return (share * _is_right(logits, labels) * _cross_entropies(logits, labels)).sum((1, 2))


def jensen_shannon(logits: Tensor, labels: Tensor, progress: float) -> Tensor:
    """Return the sum of the Jensen-Shannon divergences of softmax(logits) from the labels (SEA).

    With p the probability of the label, a pixel adds ((1 - p) log 2 + p log(2 p / (1 + p)) + log 2 - log(1 + p)) / 2.
    The divergence is bounded, so pixels that are already misclassified contribute little gradient.
    """
    log_p = -_cross_entropies(logits, labels)
    p = log_p.exp()
    entropy = (1 - p) * math.log(2) + p * (math.log(2) + log_p - p.log1p()) + math.log(2) - p.log1p()
    return 0.5 * (entropy * (labels != VOID)).sum((1, 2))


def _cross_entropies(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of every pixel, [B, H, W]; 0 for a pixel without label."""
    return F.cross_entropy(logits.movedim(-1, 1), labels, ignore_index=VOID, reduction="none")


def _is_right(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.argmax(-1) == labels

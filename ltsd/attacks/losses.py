"""Losses that attacks maximise: functions of logits [B, C] and labels int64 [B], summed over the batch to a 0-d tensor.

With a sum, the gradient of an example does not depend on the size of its batch.
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]

LOGIT_SCALE = 10.0


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return -log softmax(logits)[label], the loss of PGD (Madry et al. 2018)."""
    return F.cross_entropy(logits, labels, reduction="sum")


def cw_margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the highest other logit minus the true one, the loss of CW-k (Carlini & Wagner 2017, f6, in the L-infinity
    ball).

    It has no clamp. Other code clamps the margin at 50, which no model here reaches, or at 0, where the gradient
    vanishes and an attack stops close to the decision boundary, on either side of it.
    """
    return -margins(logits, labels).sum()


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the true logit minus the highest other one, [B]; a margin of 0 or less is a misclassification."""
    true = logits.gather(1, labels[:, None]).squeeze(1)
    others = logits.scatter(1, labels[:, None], float("-inf")).amax(1)
    return true - others


def scaled_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of ten times the logits (Hitaj et al. 2021, arXiv 2103.01914).

    The gradient for small logits is spread over all wrong classes, which hides the nearest one; scaled logits reveal
    it.
    """
    return cross_entropy(LOGIT_SCALE * logits, labels)

"""Which answers count as right: never one with NaN or infinity, whichever logit is the largest."""

from collections.abc import Mapping

import torch
from torch import Tensor

VOID = 255
"""The label of a pixel that belongs to no class."""


def is_finite(logits: Tensor) -> Tensor:
    """Return which answers of logits [B, ...] are finite throughout: bool [B]."""
    return logits.isfinite().flatten(1).all(1)


def is_right(logits: Tensor, labels: Tensor) -> Tensor:
    """Return which rows of logits [B, C] are finite and largest at their label, int64 [B]: bool [B]."""
    return (logits.argmax(1) == labels) & is_finite(logits)


def class_map(logits: Tensor) -> Tensor:
    """Return the most probable class of every pixel of logits [B, H, W, C]: uint8 [B, H, W], VOID where one is not
    finite.
    """
    return torch.where(logits.isfinite().all(-1), logits.argmax(-1), VOID).byte()


def first_not_finite(tensors: Mapping[str, Tensor]) -> str:
    """Return the name of the first tensor with NaN or infinity; "" for none. Waits for the device once."""
    finite = [tensor.isfinite().all() for tensor in tensors.values()]
    flags = torch.stack(finite).tolist() if finite else []
    return next((name for name, flag in zip(tensors, flags, strict=True) if not flag), "")

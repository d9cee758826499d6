"""How often each class occurs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ltsd.data.units import unit_of
from ltsd.locations import matched

CHUNK = 16
"""Images whose boxes are matched at a time."""
MAPS_AT_ONCE = 4096
"""Images whose other labels are counted at a time."""


def class_counts(
    labels: Tensor | NDArray[Any], num_classes: int, size: Sequence[int], rows: Tensor | NDArray[np.int64] | None = None
) -> Tensor:
    """Return how often each class occurs in labels, int64 [C]: in images or pixels; of boxes in locations of a detector
    that answer for them, since these are what it learns from.

    Args:
        labels: see `ltsd.data.units`; of pixels VOID where one has none.
        num_classes: C.
        size: height and width of the images.
        rows: int64 [N], those of the labels that count; None for all.
    """
    counted = torch.arange(len(labels)) if rows is None else torch.as_tensor(rows)
    at_once = CHUNK if unit_of(labels) == "box" else MAPS_AT_ONCE
    total = torch.zeros(num_classes, dtype=torch.int64, device=counted.device)
    for some in counted.split(at_once):  # type: ignore[no-untyped-call]
        part = torch.as_tensor(labels[some if isinstance(labels, Tensor) else some.numpy()])
        if unit_of(part) == "box":
            classes, _ = matched(part, *size)
            part = classes[classes >= 0]
        total += torch.bincount(part.flatten(), minlength=num_classes)[:num_classes]
    return total

"""How often each class occurs."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ltsd.data.units import unit_of
from ltsd.locations import matched

CHUNK = 16
"""Images whose boxes are matched at a time."""


def class_counts(labels: Tensor, num_classes: int, size: Sequence[int]) -> Tensor:
    """Return how often each class occurs in labels, int64 [C]: in images or pixels; of boxes in locations of a detector
    that answer for them, since these are what it learns from.

    Args:
        labels: see `ltsd.data.units`; of pixels VOID where one has none.
        num_classes: C.
        size: height and width of the images.
    """
    if unit_of(labels) == "box":
        # An empty first part: there may be no image.
        parts = [labels.new_zeros(0).long()]
        for chunk in labels.split(CHUNK):  # type: ignore[no-untyped-call]
            classes, _ = matched(chunk, *size)
            parts.append(classes[classes >= 0])
        labels = torch.cat(parts)
    return torch.bincount(labels.flatten(), minlength=num_classes)[:num_classes]

"""Boxes of images: read, checked, scaled and moved with their images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ltsd.errors import UserError
from ltsd.locations import NONE

SLACK = 2.0
"""Pixels by which a box may leave its image, since tools round: it is cut there."""
VISIBLE = 0.25
"""The least share of a box that a crop leaves of it; of a smaller one it leaves nothing to be learnt."""

BoxLabels = NDArray[np.float32]


@dataclass(frozen=True)
class Boxes:
    """The boxes of an image as they were read: `classes` int64 [K], `corners` float64 [K, 4], (x0, y0, x1, y1) in
    pixels of the image as it was read; `place` is their image in messages.
    """

    place: str
    classes: NDArray[np.int64]
    corners: NDArray[np.float64]

    def scaled(self, size: tuple[int, int], to: tuple[int, int]) -> BoxLabels:
        """Return the boxes of an image that was resized, float32 [K, 5], see `ltsd.locations`.

        Args:
            size: (width, height) before.
            to: (width, height) after.

        Raises:
            UserError: a box that is not inside the image, or has no area.
        """
        sides = np.array([*size, *size], dtype=np.float64)
        for number, box in enumerate(self.corners):
            _check(box, size, f"{self.place}, box {number}")
        corners = self.corners.clip(0, sides) * (np.array([*to, *to]) / sides)
        return np.concatenate([self.classes[:, None], corners], 1).astype(np.float32)


def of_widths(place: str, classes: Sequence[int], boxes: Sequence[Sequence[float]]) -> Boxes:
    """Return boxes that were written as [x, y, width, height], in pixels, as COCO does."""
    found = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    corners = np.concatenate([found[:, :2], found[:, :2] + found[:, 2:]], 1)
    return Boxes(place, np.asarray(classes, dtype=np.int64), corners)


def _check(box: NDArray[np.float64], size: tuple[int, int], place: str) -> None:
    x0, y0, x1, y1 = box.tolist()
    width, height = size
    shown = f"{place}: reaches from ({x0:g}, {y0:g}) to ({x1:g}, {y1:g})"
    if not np.isfinite(box).all() or x1 <= x0 or y1 <= y0:
        raise UserError(f"{shown}, which has no area; mend it, or take it away")
    if max(box) <= 1:
        raise UserError(f"{shown}, which looks like shares of the image; write x, y, width and height in pixels")
    if min(x0, y0) < -SLACK or x1 > width + SLACK or y1 > height + SLACK:
        as_corners = x1 - x0 <= width + SLACK and y1 - y0 <= height + SLACK and x1 - x0 > x0 and y1 - y0 > y0
        hint = "; it would fit as x0, y0, x1, y1: write x, y, width and height" if as_corners else "; mend it"
        raise UserError(f"{shown}, outside of its image of {width}x{height} pixels{hint}")


def padded(boxes: Sequence[BoxLabels]) -> BoxLabels:
    """Stack the boxes of several images, float32 [N, M, 5], padded with class NONE; M is at least 1."""
    most = max(1, *(len(one) for one in boxes))
    stacked = np.full((len(boxes), most, 5), NONE, dtype=np.float32)
    for place, one in zip(stacked, boxes, strict=True):
        place[: len(one)] = one
    return stacked


def joined(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Concatenate boxes [N, M, 5] of several M."""
    return padded([image for part in parts for image in part])


def moved_boxes(labels: Tensor, left: Tensor, top: Tensor, flip: Tensor, size: Sequence[int]) -> Tensor:
    """Move boxes as `ltsd.data.augment.crop_flip` moves images; cut them at the sides. Of a box of which less than
    VISIBLE is left nothing is.

    Args:
        labels: float32 [B, M, 5].
        left: pixels by which images move to the left, [B, 1].
        top: pixels by which they move up, [B, 1].
        flip: whether they are then mirrored, bool [B, 1].
        size: height and width of the images.
    """
    height, width = size
    classes, x0, y0, x1, y1 = labels.unbind(-1)
    x0, x1, y0, y1 = x0 - left, x1 - left, y0 - top, y1 - top
    x0, x1 = torch.where(flip, width - x1, x0), torch.where(flip, width - x0, x1)
    areas = (x1 - x0) * (y1 - y0)
    x0, x1, y0, y1 = x0.clamp(0, width), x1.clamp(0, width), y0.clamp(0, height), y1.clamp(0, height)
    is_kept = (classes >= 0) & ((x1 - x0) * (y1 - y0) >= VISIBLE * areas)
    moved = torch.stack([classes, x0, y0, x1, y1], -1)
    return torch.where(is_kept[..., None], moved, float(NONE))

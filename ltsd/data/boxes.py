"""Boxes of images: read, checked, scaled and moved with their images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

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


Written = Literal["x, y, width and height", "xmin, ymin, xmax and ymax"]
"""How the sides of boxes are written."""
WIDTHS: Written = "x, y, width and height"
CORNERS: Written = "xmin, ymin, xmax and ymax"


@dataclass(frozen=True)
class Boxes:
    """The boxes of an image as they were read: `classes` int64 [K], `corners` float64 [K, 4], (x0, y0, x1, y1) in
    pixels of the image as it was read.

    `place` is their image in messages and `names` the boxes there, `written` how they were written. `size` is the
    (width, height) that their image has by the annotation; None if that gives none.
    """

    place: str
    names: Sequence[str]
    classes: NDArray[np.int64]
    corners: NDArray[np.float64]
    written: Written = WIDTHS
    size: tuple[int, int] | None = None

    def scaled(self, size: tuple[int, int], to: tuple[int, int]) -> BoxLabels:
        """Return the boxes of an image that was resized, float32 [K, 5], see `ltsd.locations`.

        Args:
            size: (width, height) before.
            to: (width, height) after.

        Raises:
            UserError: a box that is not inside the image, or has no area; the annotation is of an image of another
                size.
        """
        if self.size not in (None, size):
            raise UserError(
                f"{self.place}: is of an image of {self.size[0]}x{self.size[1]} pixels, and its image, upright, has "
                f"{size[0]}x{size[1]}; bring the image that was annotated, or mend the annotation"
            )
        sides = np.array([*size, *size], dtype=np.float64)
        for name, box in zip(self.names, self.corners, strict=True):
            _check(box, size, f"{self.place}, {name}", self.written)
        corners = self.corners.clip(0, sides) * (np.array([*to, *to]) / sides)
        return np.concatenate([self.classes[:, None], corners], 1).astype(np.float32)


def of_widths(
    place: str,
    names: Sequence[str],
    classes: Sequence[int],
    boxes: Sequence[Sequence[float]],
    size: tuple[int, int] | None = None,
) -> Boxes:
    """Return boxes that were written as [x, y, width, height], in pixels, as COCO does; see `Boxes`."""
    found = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    corners = np.concatenate([found[:, :2], found[:, :2] + found[:, 2:]], 1)
    return Boxes(place, names, np.asarray(classes, dtype=np.int64), corners, size=size)


def of_corners(
    place: str,
    names: Sequence[str],
    classes: Sequence[int],
    boxes: Sequence[Sequence[float]],
    size: tuple[int, int] | None = None,
) -> Boxes:
    """Return boxes that were written as [xmin, ymin, xmax, ymax], the first and the last pixel that they hold, counted
    from 1, as PASCAL VOC does; see `Boxes`.
    """
    corners = np.asarray(boxes, dtype=np.float64).reshape(-1, 4) - [1, 1, 0, 0]
    return Boxes(place, names, np.asarray(classes, dtype=np.int64), corners, CORNERS, size)


def _check(box: NDArray[np.float64], size: tuple[int, int], place: str, written: Written) -> None:
    x0, y0, x1, y1 = box.tolist()
    width, height = size
    shown = f"{place}: reaches from ({x0:g}, {y0:g}) to ({x1:g}, {y1:g})"
    if not np.isfinite(box).all() or x1 <= x0 or y1 <= y0:
        fits = written == CORNERS and min(x0, y0) >= 0 < min(x1, y1) and x0 + x1 <= width and y0 + y1 <= height
        hint = f"it would fit as x, y, width, height: write {written}" if fits else "mend it, or take it away"
        raise UserError(f"{shown}, which has no area; {hint}")
    if max(box) <= 1:
        raise UserError(f"{shown}, which looks like shares of the image; write {written} in pixels")
    leaves = min(x0, y0) < -SLACK or x1 > width + SLACK or y1 > height + SLACK
    if leaves or x0 >= width or y0 >= height or min(x1, y1) <= 0:
        fits = written == WIDTHS and x0 < x1 - x0 <= width + SLACK and y0 < y1 - y0 <= height + SLACK
        hint = f"it would fit as x0, y0, x1, y1: write {written}" if fits else "mend it"
        raise UserError(f"{shown}, outside of its image of {width}x{height} pixels; {hint}")


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

"""Match the boxes of an exam with the true ones, compute average precision, and compare two detectors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ltsd.errors import UserError
from ltsd.evaluation.blocks import blocks_of, draw_images
from ltsd.evaluation.comparison import Difference
from ltsd.evaluation.detections import IOU, Detections

RESAMPLES = 1000
CHUNK = 100
"""Resamples in memory at a time."""
MOST = 100
"""The largest number of boxes per class and image that count; those with the highest scores do."""
RECALLS = torch.linspace(0, 1, 101).double()
"""The recalls at which precision is read (COCO), rounded as in torchmetrics."""


@dataclass(frozen=True)
class Hits:
    """Boxes that were found on N images, from the highest score on: `image` and `classes` int64 [K], and whether each
    is `right`, bool [K]. `true` is int64 [N, C], how many boxes of each class each image has; `blocks` int64 [N], equal
    for images that a bootstrap draws together, None if it draws each by itself.
    """

    image: Tensor
    classes: Tensor
    right: Tensor
    true: Tensor
    blocks: Tensor | None = None

    @classmethod
    def of(cls, found: Detections, truth: Detections, num_classes: int) -> Self:
        """Match boxes with the true ones, class by class and image by image, from the highest score on.

        A box is right if its IoU with a true box that is still free is at least IOU; it takes the one with the largest.
        """
        from torchvision.ops import box_iou  # takes a second to load

        images = len(truth.finite)
        true = torch.bincount(truth.image * num_classes + truth.classes, minlength=images * num_classes)
        key, true_key = (one.image * num_classes + one.classes for one in (found, truth))
        order = found.scores.argsort(descending=True, stable=True)
        right, counts = torch.zeros(len(key), dtype=torch.bool), torch.zeros(len(key), dtype=torch.bool)
        for one in torch.unique(key).tolist():
            own = order[key[order] == one][:MOST]
            counts[own] = True
            overlaps = box_iou(found.boxes[own], truth.boxes[true_key == one]).numpy()
            right[own] = torch.from_numpy(_matched(overlaps))
        order = order[counts[order]]
        return cls(found.image[order], found.classes[order], right[order], true.view(images, num_classes), found.blocks)

    def average_precision(self, of_class: int, drawn: Tensor) -> Tensor:
        """Return the average precision of a class, float64 [R]; NaN where none of its boxes was drawn.

        Args:
            of_class: number of the class.
            drawn: int64 [R, N], how often each image was drawn.
        """
        own = self.classes == of_class
        weights = drawn[:, self.image[own]].double()
        right = weights * self.right[own]
        hits, all_found = right.cumsum(1), weights.cumsum(1)
        true = (drawn.double() @ self.true[:, of_class].double())[:, None]
        precision = hits / all_found.clamp_min(1)
        best_after = torch.cat([precision.flip(1).cummax(1).values.flip(1), precision.new_zeros(len(drawn), 1)], 1)
        places = torch.searchsorted((hits / true).contiguous(), RECALLS.expand(len(drawn), -1).contiguous())
        found: Tensor = best_after.gather(1, places).mean(1)
        return torch.where(true[:, 0] > 0, found, torch.nan)

    def mean_precision(self) -> float:
        """Return the mean average precision over the classes that occur."""
        once = torch.ones(1, len(self.true), dtype=torch.int64)
        return float(_mean(self, once, range(self.true.shape[1])))


def _matched(overlaps: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return which of K boxes, in order, take one of G true boxes: bool [K]; `overlaps` are their IoU [K, G]."""
    taken, right = np.zeros(overlaps.shape[1], dtype=bool), np.zeros(len(overlaps), dtype=bool)
    for number, row in enumerate(overlaps):
        left = np.where(taken, -1.0, row)
        if left.size and left.max() >= IOU:
            right[number] = taken[left.argmax()] = True
    return right


def paired_precision(
    ours: Sequence[Hits], theirs: Sequence[Hits], *, classes: Sequence[int] | None, seed: int
) -> Difference:
    """Return the mean difference of the mean average precision, ours minus theirs, with its 95% percentile bootstrap
    interval.

    The bootstrap draws test images, with the same draw for both sides and for all training seeds, and ranks their boxes
    again. It also draws the training seeds, in pairs. Images of one block are drawn together (Künsch 1989).

    Args:
        ours: one per training seed, all of the same test images under one attack.
        theirs: the same seeds in the same order.
        classes: the classes that count, such as the tail's; None for all.
        seed: of the draws.

    Raises:
        UserError: the two sides are not of the same images and seeds, or have other blocks.
    """
    true = ours[0].true
    if len(ours) != len(theirs) or any(not torch.equal(one.true, true) for one in (*ours, *theirs)):
        raise UserError(
            f"the boxes of {len(ours)} seeds and of {len(theirs)} cannot be compared image by image; examine both "
            "models on as many seeds, and on the same test set"
        )
    rng, images, seeds = np.random.default_rng(seed), len(true), len(ours)
    blocks = blocks_of([*ours, *theirs])
    drawn = torch.from_numpy(draw_images(images, blocks, rng, resamples=RESAMPLES))
    drawn_seeds = rng.multinomial(seeds, [1 / seeds] * seeds, size=RESAMPLES) / seeds
    counted = list(range(true.shape[1])) if classes is None else list(classes)
    once = torch.ones(1, images, dtype=torch.int64)
    parts = torch.split(drawn, CHUNK)
    pairs = list(zip(ours, theirs, strict=True))
    whole = [float(_mean(one, once, counted) - _mean(other, once, counted)) for one, other in pairs]
    draws = np.stack(
        [
            torch.cat([_mean(one, part, counted) - _mean(other, part, counted) for part in parts]).numpy()
            for one, other in pairs
        ],
        axis=1,
    )
    low, high = np.nanquantile((draws * drawn_seeds).sum(1), [0.025, 0.975])
    return Difference(float(np.mean(whole)), float(low), float(high))


def _mean(hits: Hits, drawn: Tensor, classes: Sequence[int]) -> Tensor:
    """Return the mean average precision over the classes that occur, [R]; `drawn`, int64 [R, N], is how often each
    image was drawn.
    """
    return torch.stack([hits.average_precision(c, drawn) for c in classes]).nanmean(0)

"""Counts of correct pixels by image and class; IoU, recall and their means over classes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from ltsd.answers import VOID
from ltsd.data.longtail import Groups

PASSES = 5


@dataclass(frozen=True)
class PixelCounts:
    """Numbers of pixels of each image and class, int64 [N, C]: `predicted` as the class, `labelled` as the class, and
    `hits`, which are both. Pixels without label are ignored; an answer with NaN or infinity predicts no class.

    `finite` is bool [N]: whether all answers of an image are finite. `blocks` is int64 [N], equal for images that a
    bootstrap draws together, such as frames of one video; None if it draws each image by itself.
    """

    hits: Tensor
    predicted: Tensor
    labelled: Tensor
    finite: Tensor
    blocks: Tensor | None = None

    @classmethod
    def of(cls, logits: Tensor, labels: Tensor) -> Self:
        """Count the pixels of logits [B, H, W, C] and labels [B, H, W]."""
        num_classes, finite = logits.shape[-1], logits.isfinite().all(-1)
        known = labels != VOID
        answers = torch.where(known & finite, logits.argmax(-1), num_classes)
        truth = torch.where(known, labels.long(), num_classes)
        right = torch.where(answers == truth, truth, num_classes)
        hits, predicted, labelled = (_by_class(each, num_classes) for each in (right, answers, truth))
        return cls(hits, predicted, labelled, finite.flatten(1).all(1).cpu())

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Join the counts of several batches; the result has no blocks."""
        names = ("hits", "predicted", "labelled", "finite")
        return cls(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})

    def summed(self, blocks: Tensor) -> Self:
        """Return the counts with one row per block, in the order of block numbers; `blocks` are int64 [N]."""
        _, of_image = torch.unique(blocks, return_inverse=True)
        empty = torch.zeros(int(of_image.max()) + 1, self.hits.shape[1], dtype=self.hits.dtype)
        hits, predicted, labelled = (
            empty.index_add(0, of_image, part) for part in (self.hits, self.predicted, self.labelled)
        )
        finite = torch.ones(len(empty), dtype=torch.bool).scatter_reduce(0, of_image, self.finite, "amin")
        return replace(self, hits=hits, predicted=predicted, labelled=labelled, finite=finite, blocks=None)

    def image_miou(self) -> Tensor:
        """Return the mean IoU of each image over the classes that it has or that are predicted in it, float64 [N]."""
        return _mean_iou(self.hits, self.predicted, self.labelled)

    def iou(self) -> list[float]:
        """Return the IoU of every class over all images, hits / (predicted + labelled - hits); NaN for a class that
        occurs nowhere.
        """
        hits, predicted, labelled = (each.sum(0).double() for each in (self.hits, self.predicted, self.labelled))
        return (hits / (predicted + labelled - hits)).tolist()

    def recall(self) -> list[float]:
        """Return the share of each class's pixels that are right; NaN for a class without any."""
        return (self.hits.sum(0).double() / self.labelled.sum(0)).tolist()

    def accuracy(self) -> float:
        """Return the share of all pixels that are right (aACC)."""
        return float(self.hits.sum().double() / self.labelled.sum())


def worst_case(attacks: Sequence[PixelCounts]) -> PixelCounts:
    """Return the worst case of several attacks on the same images: for each image the counts under one of them, chosen
    for a low mean IoU over all images.

    The attack with the lowest mean IoU on a single image does not always lower the mean IoU over all images. So the
    search starts from the best of these choices: that attack for each image, or the same attack for all images. Then it
    changes the attack of single images while this lowers the mean IoU, in at most PASSES passes (as SEA does; Croce et
    al. 2024).
    """
    hits, predicted = (torch.stack([getattr(one, part) for one in attacks]) for part in ("hits", "predicted"))
    labelled, images = attacks[0].labelled.sum(0), torch.arange(len(attacks[0].hits))
    of_each = torch.stack([one.image_miou() for one in attacks])
    starts = torch.stack([of_each.argmin(0), *(torch.full_like(images, number) for number in range(len(attacks)))])
    summed_hits, summed_predicted = (
        torch.stack([part[start, images].sum(0) for start in starts]) for part in (hits, predicted)
    )
    first = int(_mean_iou(summed_hits, summed_predicted, labelled).argmin())
    chosen, all_hits, all_predicted = starts[first].clone(), summed_hits[first], summed_predicted[first]
    for _ in range(PASSES):
        before = chosen.clone()
        for image in images.tolist():
            now = chosen[image]
            tried_hits = all_hits - hits[now, image] + hits[:, image]
            tried_predicted = all_predicted - predicted[now, image] + predicted[:, image]
            mean_ious = _mean_iou(tried_hits, tried_predicted, labelled)
            lowest = mean_ious.argmin()
            if mean_ious[lowest] < mean_ious[now]:
                chosen[image], all_hits, all_predicted = lowest, tried_hits[lowest], tried_predicted[lowest]
        if torch.equal(chosen, before):
            break
    finite = torch.stack([one.finite for one in attacks]).all(0)
    return replace(attacks[0], hits=hits[chosen, images], predicted=predicted[chosen, images], finite=finite)


def _mean_iou(hits: Tensor, predicted: Tensor, labelled: Tensor) -> Tensor:
    """Return the mean IoU over the classes that occur or are predicted, float64 [...], from counts [..., C]."""
    union = predicted + labelled - hits
    return (hits / union.clamp_min(1)).double().sum(-1) / (union > 0).sum(-1).clamp_min(1)


def _by_class(classes: Tensor, num_classes: int) -> Tensor:
    """Count the pixels of `classes` [B, H, W] by image and by class below `num_classes`: int64 [B, num_classes]."""
    images, wide = len(classes), num_classes + 1
    places = classes.flatten(1) + wide * torch.arange(images, device=classes.device)[:, None]
    return torch.bincount(places.flatten(), minlength=images * wide).view(images, wide)[:, :-1].cpu()


@dataclass(frozen=True)
class Overlap:
    """The IoU of every class, or for boxes its average precision, and the classes by head, medium and tail. Means
    ignore classes that occur nowhere.
    """

    per_class: tuple[float, ...]
    groups: Groups

    @classmethod
    def of(cls, counts: PixelCounts, groups: Groups) -> Self:
        """Return the IoUs of what was counted."""
        return cls(tuple(counts.iou()), groups)

    @property
    def balanced(self) -> float:
        """Mean IoU over classes."""
        return _mean(self.per_class)

    @property
    def worst(self) -> float:
        """The lowest IoU of a class."""
        return min(value for value in self.per_class if value == value)

    def group(self, name: str) -> float:
        """Mean IoU over the classes of one of `groups`."""
        return _mean([self.per_class[c] for c in self.groups[name]])


def mean_overlap(overlaps: Sequence[Overlap]) -> Overlap:
    """Return the mean of several, class by class."""
    by_class = zip(*(overlap.per_class for overlap in overlaps), strict=True)
    return Overlap(tuple(_mean(of_class) for of_class in by_class), overlaps[0].groups)


def overlap_metrics(clean: Overlap, robust: Overlap, measure: str = "miou") -> dict[str, float]:
    """Return the metrics of a split, fractions in [0, 1]; with two classes there is no medium group."""
    return {
        f"clean_{measure}": clean.balanced,
        f"tail_clean_{measure}": clean.group("tail"),
        f"robust_{measure}": robust.balanced,
        **{f"{group}_robust_{measure}": robust.group(group) for group in robust.groups},
        f"worst_class_robust_{measure}": robust.worst,
    }


def _mean(values: Sequence[float]) -> float:
    return float(torch.tensor(values, dtype=torch.float64).nanmean())
